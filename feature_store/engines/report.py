"""What a job tells while it runs."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """Is told how a job goes, to show it to people."""

    def started(self, view: str, total_rows: int | None) -> None:
        """A phase begins: reading the source's rows (the name alone), then `view: write`. None: not known how many."""
        ...

    def advanced(self, rows: int) -> None:
        """That many more rows are done."""
        ...

    def finished(self) -> None:
        """The phase is over."""
        ...


class Silent:
    """A report that nobody reads."""

    def started(self, view: str, total_rows: int | None) -> None:
        """See Report."""

    def advanced(self, rows: int) -> None:
        """See Report."""

    def finished(self) -> None:
        """See Report."""
