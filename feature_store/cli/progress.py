"""Progress bars: of the rows of a job, and of steps."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# How often a bar is drawn that no thread draws.
_REFRESHES = 20


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


class CountReport:
    """A bar over things that are counted, whose number may be known better as they go on; a context manager.

    Args:
        name: what is done.
        things: what is counted.
        console: where it is shown.
        auto_refresh: False: shown anew at every twentieth, by who counts, so that no thread is timed along.
    """

    def __init__(self, name: str, things: str, console: Console, *, auto_refresh: bool = True) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn(things, markup=False),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            auto_refresh=auto_refresh,
        )
        self._task = self._progress.add_task(name, total=None)
        self._by_hand = not auto_refresh

    def __call__(self, done: int, total: int) -> None:
        """Set how many steps are done, and how many are expected."""
        self._progress.update(self._task, completed=done, total=total)
        if self._by_hand and (done % max(1, total // _REFRESHES) == 0 or done == total):
            self._progress.refresh()

    def __enter__(self) -> CountReport:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
