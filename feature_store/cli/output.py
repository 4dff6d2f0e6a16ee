"""What commands print: tables and lines for people on a terminal, JSON for programs.

Everything that a command prints goes through this module: it alone writes to stdout while a command runs.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape

from feature_store._formatting import shown_time
from feature_store.cli.tables import MISSING, FittingTable
from feature_store.cli.text import visible
from feature_store.definitions.scalars import json_form
from feature_store.errors import RequestError

# A pipe has no width. Programs and logs read whole lines.
_WIDE = 100_000
# Where commands print while a command runs. None: sys.stdout.
_stdout: TextIO | None = None


@contextlib.contextmanager
def stdout_for_output_alone() -> Iterator[None]:
    """Reserve stdout for this module: `print` in definitions and models goes to stderr meanwhile."""
    global _stdout
    before, _stdout = _stdout, sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _stdout = before


def stdout() -> TextIO:
    """The stdout that programs read."""
    return _stdout if _stdout is not None else sys.stdout


def console(*, stderr: bool = False) -> Console:
    """A console on the current stdout (or stderr)."""
    stream = sys.stderr if stderr else stdout()
    made = Console(file=stream, highlight=False)
    if not made.is_terminal:  # FORCE_COLOR makes a pipe one
        made.width = _WIDE
    return made


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    import orjson

    text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str)
    typer.echo(text, file=stdout())  # as bytes: JSON is UTF-8 on a terminal of any encoding


def table(title: str, columns: dict[str, str], rows: Iterable[Iterable[Any]]) -> FittingTable:
    """A table; `columns` are `{header: justify}`."""
    return FittingTable(columns, ([cell(value) for value in row] for row in rows), title)


def cell(value: Any) -> str:
    """A value as a table shows it. Users' text is never interpreted as markup."""
    if value is None:
        return f"[dim]{MISSING}[/]"
    return escape(visible(_plain(value)))


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, bytes):
        return json_form(value)
    return shown_time(value) if isinstance(value, datetime) else str(value)


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation before an action that cannot be undone.

    Raises:
        RequestError: stdin is not a terminal and `yes` is not set.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        problem = "confirmation needed, but stdin is not a terminal"
        raise RequestError(question, problem=problem, hint="pass --yes")
    if not typer.confirm(visible(question), err=True):
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(1)
