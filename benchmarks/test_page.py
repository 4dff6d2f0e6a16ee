"""A run changes the rows that it measured and its own line, and nothing else of the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.page import updated
from benchmarks.report import Result

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
TEXT = """# Benchmarks

A word before.

## Reads

Of one kind.

| work | ours | python floor | c floor | feast | reach | run |
|---|---|---|---|---|---|---|
| read 1 | 1.0 µs | – | – | – |  | Monday |
| read 2 | 2.0 µs | – | – | – |  | Tuesday |

A word after.

| another | table |
|---|---|
| of | a person |

## Runs

- Monday: 1 core
- Tuesday: 2 cores
"""


def _result(work: str, seconds: float) -> Result:
    return Result(work, "seconds", {"ours": seconds}, {})


def _updated(results: dict[str, list[Result]], *, is_whole: bool = False) -> str:
    return updated(TEXT, results, "Friday", ["8 cores", "valkey"], is_whole=is_whole)


def test_a_measured_row_is_replaced_and_the_rest_stays() -> None:
    expected = TEXT.replace("2.0 µs | – | – | – |  | Tuesday", "3.0 µs | – | – | – |  | Friday")
    expected = expected.replace("- Tuesday: 2 cores", "- Friday: 8 cores; valkey")
    assert _updated({"Reads": [_result("read 2", 3e-6)]}) == expected


def test_a_new_row_and_a_new_section_are_added_before_the_runs() -> None:
    page = _updated({"Reads": [_result("read 3", 3e-6)], "Writes": [_result("write", 4e-6)]})
    assert page.index("| read 2 |") < page.index("| read 3 | 3.0 µs |") < page.index("A word after.")
    assert page.index("| of | a person |") < page.index("## Writes") < page.index("| write | 4.0 µs |")
    assert page.index("| write |") < page.index("## Runs") < page.index("- Friday: 8 cores; valkey")
    assert "- Monday: 1 core" in page
    assert "- Tuesday: 2 cores" in page


def test_a_whole_run_leaves_no_row_of_a_work_that_is_gone() -> None:
    page = _updated({"Reads": [_result("read 2", 3e-6)]}, is_whole=True)
    assert "| read 1 |" not in page
    assert "- Monday" not in page
    assert "| of | a person |" in page


@pytest.mark.parametrize("text", [TEXT, PAGE.read_text()], ids=["example", "docs/benchmarks.md"])
def test_a_run_that_measured_nothing_adds_its_line_only(text: str) -> None:
    assert updated(text, {}, "Friday", ["8 cores"], is_whole=False) == text + "- Friday: 8 cores\n"


def test_each_row_of_the_page_names_a_run_that_is_told() -> None:
    text = PAGE.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and line.count(" | ") == 6]
    named = {row.rsplit("|", 2)[1].strip() for row in rows} - {"run"}
    assert named
    assert all(f"\n- {run}: " in text for run in named)
