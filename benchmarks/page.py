"""docs/benchmarks.md: the tables that runs measured, between texts that people wrote.

A run replaces the rows that it measured and leaves the others, and all text, as they are. Each row names its run, and
the page ends with what each run ran on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.report import SIDES, notes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.report import Result

RUNS = "Runs"
_HEADER = ["| work | " + " | ".join(SIDES) + " | reach | run |", "|---" * (len(SIDES) + 3) + "|"]


@dataclass
class _Section:
    """A heading, the text before its table, the rows of the table by their work, and the text after it."""

    title: str
    before: list[str] = field(default_factory=list)
    rows: dict[str, str] = field(default_factory=dict)
    after: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The section as it stands on the page."""
        table = ["", *_HEADER, *self.rows.values()] if self.rows else []
        after = ["", *self.after] if self.after else []
        return [self.title, *(["", *self.before] if self.before else []), *table, *after, ""]


def updated(
    text: str, sections: Mapping[str, Sequence[Result]], run: str, machine: Sequence[str], *, is_whole: bool
) -> str:
    """The page after a run.

    Args:
        text: the page before.
        sections: what the run measured, by the titles of the sections. A section that the page lacks is added.
        run: the name of the run, such as its date.
        machine: what it ran on.
        is_whole: whether the run measured all works, so that a row that it did not measure is of a work that is gone.
    """
    parts = _parsed(text)
    runs = next((part for part in parts if part.title == f"## {RUNS}"), None)
    if runs is None:
        runs = _Section(f"## {RUNS}")
        parts.append(runs)
    for title, results in sections.items():
        _replace(_section(parts, f"## {title}"), results, run, is_whole=is_whole)
    named = {row.rsplit("|", 2)[1].strip() for part in parts for row in part.rows.values()}
    told = [line for line in runs.before if line and _run_of(line) in named - {run}]
    runs.before = [*told, f"- {run}: {'; '.join(machine)}"]
    return "\n".join(line for part in parts for line in part.lines()).rstrip() + "\n"


def _section(parts: list[_Section], title: str) -> _Section:
    for part in parts:
        if part.title == title:
            return part
    added = _Section(title)
    parts.insert(len(parts) - 1, added)  # before the runs
    return added


def _replace(section: _Section, results: Sequence[Result], run: str, *, is_whole: bool) -> None:
    measured = {result.work: _row(result, run) for result in results}
    section.rows = measured if is_whole else {**section.rows, **measured}


def _row(result: Result, run: str) -> str:
    cells = [result.work, *(result.shown(side) for side in SIDES), "<br>".join(notes(result)), run]
    return "| " + " | ".join(cells) + " |"


def _run_of(line: str) -> str:
    return line.removeprefix("- ").split(":", 1)[0]


def _parsed(text: str) -> list[_Section]:
    """The sections of the page; the first is that of the page's own heading. Tables of other forms are text."""
    parts: list[_Section] = []
    is_in_table = False
    for line in text.splitlines():
        if line.startswith(("# ", "## ")) or not parts:
            parts.append(_Section(line))
            continue
        part = parts[-1]
        is_head = line == _HEADER[0]
        is_in_table = is_head or (is_in_table and line.startswith("|"))
        if not is_in_table:
            (part.after if part.rows else part.before).append(line)
        elif not is_head and line != _HEADER[1]:
            part.rows[line.split(" | ", 1)[0].removeprefix("| ")] = line
    for part in parts:
        part.before, part.after = _trimmed(part.before), _trimmed(part.after)
    return parts


def _trimmed(lines: list[str]) -> list[str]:
    """Without the empty lines around them."""
    return "\n".join(lines).strip("\n").splitlines()
