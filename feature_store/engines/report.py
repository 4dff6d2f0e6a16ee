"""Progress reports of jobs."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    """Receives the progress of a job, and shows it."""

    def started(self, view: str, total_rows: int | None) -> None:
        """A phase begins: reading the source's rows (`view` alone), then `view: write`. None: total unknown."""
        ...

    def advanced(self, rows: int) -> None:
        """That many more rows are done."""
        ...

    def finished(self) -> None:
        """The phase is over."""
        ...


class Silent:
    """A report that shows nothing."""

    def started(self, view: str, total_rows: int | None) -> None:
        """See Report."""

    def advanced(self, rows: int) -> None:
        """See Report."""

    def finished(self) -> None:
        """See Report."""
