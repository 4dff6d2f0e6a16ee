"""Tables as wide as the terminal, which never split a number or a name; tab-separated lines in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

MISSING = "–"
# Between the names and the values of a record.
_GAP = 2


class FittingTable:
    """A table that is laid out when it is printed.

    On a terminal, texts wrap between words. If that is not enough, empty columns are left out. If that is not enough,
    each row becomes a record: a line for each column, or two if name and value do not fit side by side. In a pipe, each
    row is a line with tabs between cells, at any width.

    Args:
        columns: `{header: justify}`.
        rows: cells as rich's markup.
        title: above the table; may be empty.
    """

    def __init__(self, columns: dict[str, str], rows: Iterable[Iterable[str]], title: str = "") -> None:
        self._columns, self._title = columns, title
        self._rows = [[Text.from_markup(cell) for cell in row] for row in rows]

    def fits(self, console: Console) -> bool:
        """Whether the table fits without wrapping a text."""
        return not console.is_terminal or self._width(console, self._widths(longest_line)) <= console.width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType | Segment]:
        """See rich's protocol."""
        if console.is_terminal:
            yield self._laid_out(console, options.max_width)
            return
        lines = [[*self._columns], *([cell.plain for cell in row] for row in self._rows)]
        if self._title:
            yield Segment(f"{self._title}\n")
        for line in lines:
            yield Segment("\t".join(cell.replace("\n", " ").replace("\t", " ") for cell in line) + "\n")

    def _laid_out(self, console: Console, width: int) -> RenderableType:
        for made in (self, self._without_empty_columns()):
            longest, least = made._widths(longest_line), made._widths(longest_word)
            if made._width(console, longest) <= width:
                return made._table(longest)
            spare = width - made._width(console, least)
            if spare >= 0:
                return made._table(_shared(longest, least, spare))
        return self._records(width)

    def _width(self, console: Console, widths: list[int]) -> int:
        return console.measure(self._table(widths), options=console.options.update(max_width=100_000)).maximum

    def _widths(self, of_text: Callable[[Text], int]) -> list[int]:
        cells = zip(*([Text(name) for name in self._columns], *self._rows), strict=True)
        return [max(of_text(cell) for cell in column) for column in cells]

    def _table(self, widths: list[int]) -> Table:
        made = Table(
            title=self._title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
        )
        for (name, justify), width in zip(self._columns.items(), widths, strict=True):
            made.add_column(Text(name), justify=justify, width=width, overflow="fold")  # type: ignore[arg-type]
        for row in self._rows:
            made.add_row(*row)
        return made

    def _without_empty_columns(self) -> FittingTable:
        kept = [i for i, _ in enumerate(self._columns) if any(row[i].plain not in ("", MISSING) for row in self._rows)]
        names = list(self._columns.items())
        made = FittingTable(dict(names[i] for i in kept), [], self._title)
        made._rows = [[row[i] for i in kept] for row in self._rows]
        return made

    def _records(self, width: int) -> Table:
        made = Table.grid(padding=(0, _GAP), pad_edge=False)
        made.title, made.title_justify, made.title_style = self._title or None, "left", "bold"
        names = max(Text(name).cell_len for name in self._columns)
        words = max((longest_word(cell) for row in self._rows for cell in row), default=0)
        is_wide = names + _GAP + words <= width
        if is_wide:
            made.add_column(no_wrap=True)
        made.add_column(overflow="fold")
        for row in self._rows:
            for i, (name, cell) in enumerate(zip(self._columns, row, strict=True)):
                if not i or cell.plain not in ("", MISSING):
                    parts = [Text(name, style="dim"), Text.assemble(cell, style="" if i else "bold")]
                    for line in [parts] if is_wide else [[part] for part in parts]:
                        made.add_row(*line)
            made.add_row()
        return made


def longest_line(text: Text) -> int:
    """Width of the longest line of a text, in terminal cells."""
    return max((line.cell_len for line in text.split()), default=0)


def longest_word(text: Text) -> int:
    """Width of the longest word of a text, in terminal cells. A narrower column splits the word."""
    return max((Text(word).cell_len for word in text.plain.split()), default=0)


def _shared(longest: list[int], least: list[int], spare: int) -> list[int]:
    """Column widths between `least` and `longest`. Columns that need little get all that they need."""
    widths = list(least)
    for left, i in enumerate(sorted(range(len(widths)), key=lambda i: longest[i] - least[i])):
        given = min(longest[i] - least[i], spare // (len(widths) - left))
        widths[i] += given
        spare -= given
    return widths
