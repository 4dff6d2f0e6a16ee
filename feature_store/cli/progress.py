"""A job's Report as progress bars: rows, rows per second, time left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from typing import Self

    from rich.console import Console
    from rich.progress import Task


class RowsPerSecond(ProgressColumn):
    """How far a phase is, and how fast."""

    def render(self, task: Task) -> Text:
        """See ProgressColumn."""
        # Over the whole phase: rich's own estimate needs several steps, and a small view is done in one.
        speed = task.completed / task.elapsed if task.elapsed else 0.0
        return Text(f"{task.completed:>11,.0f} rows {speed:>11,.0f} rows/s")


class ProgressReport:
    """See engines.report.Report. One bar per phase; a context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<24}", markup=False),
            BarColumn(bar_width=16),
            RowsPerSecond(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
        )

    def started(self, view: str, total_rows: int | None) -> None:
        """See Report."""
        if not self._progress.live.is_started:  # not before: an error that comes first stands alone
            self._progress.start()
        self._task = self._progress.add_task(view, total=total_rows)
        self._rows = 0

    def advanced(self, rows: int) -> None:
        """See Report."""
        self._rows += rows
        self._progress.advance(self._task, rows)

    def finished(self) -> None:
        """See Report."""
        # Files are skipped by their statistics, so a phase may end before all the rows there are went by.
        self._progress.update(self._task, total=self._rows, completed=self._rows, visible=self._rows > 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.live.is_started:
            self._progress.stop()
