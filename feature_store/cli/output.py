"""What commands print: tables and lines for people on a terminal, JSON for programs."""

from __future__ import annotations

import sys
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from feature_store.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

# A pipe has no width; 80 columns would cut tables that a program or a log reads later.
_WIDE = 200
MISSING = "–"
# Categories of characters that are not shown but do something: control, format (direction marks), lone surrogates.
_STEERING = ("Cc", "Cf", "Cs")


def console(*, stderr: bool = False) -> Console:
    """A console on what stdout (or stderr) is now."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _WIDE, highlight=False)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    import orjson

    typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str).decode())


def table(title: str, columns: dict[str, str], rows: Iterable[Iterable[Any]]) -> Table:
    """A table; `columns` are `{header: justify}`."""
    return marked_table(columns, ([cell(value) for value in row] for row in rows), title=title)


def marked_table(
    columns: dict[str, str], rows: Iterable[Iterable[str]], *, title: str = "", show_header: bool = True
) -> Table:
    """As `table`, of cells that are rich's markup."""
    made = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD if show_header else box.SIMPLE,
        pad_edge=False,
        show_header=show_header,
    )
    for name, justify in columns.items():
        made.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        made.add_row(*row)
    return made


def cell(value: Any) -> str:
    """A value as a table shows it; what users wrote is never read as markup."""
    if value is None:
        return f"[dim]{MISSING}[/]"
    return escape(visible(_plain(value)))


def visible(text: str) -> str:
    """A text in which nothing steers the terminal: control and direction marks are shown as escapes."""
    return "".join(
        f"\\u{ord(one):04x}" if unicodedata.category(one) in _STEERING and one != "\n" else one for one in text
    )


def shown_time(time: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_plain, value))}]"
    return shown_time(value) if isinstance(value, datetime) else str(value)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; where nobody can answer, `--yes` is demanded."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise RequestError(question, expected="an answer", got="no terminal to ask on", hint="say --yes")
    typer.confirm(question, abort=True)
