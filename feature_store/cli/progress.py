"""Progress bars: for the rows of a job, and for counted steps."""

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

# Number of times that a bar without a thread of its own is drawn.
_REFRESHES = 20


class RowsPerSecond(ProgressColumn):
    """The rows of a phase, and rows per second."""

    def render(self, task: Task) -> Text:
        """See ProgressColumn."""
        # The mean over the whole phase: rich's estimate needs several steps, and a small view takes one.
        speed = task.completed / task.elapsed if task.elapsed else 0.0
        return Text(f"{task.completed:>11,.0f} rows {speed:>11,.0f} rows/s")


class ProgressReport:
    """A bar per phase: see engines.report.Report. A context manager."""

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
        if not self._progress.live.is_started:  # only now, so that an earlier error is printed without a bar
            self._progress.start()
        self._task = self._progress.add_task(view, total=total_rows)
        self._rows = 0

    def advanced(self, rows: int) -> None:
        """See Report."""
        self._rows += rows
        self._progress.advance(self._task, rows)

    def finished(self) -> None:
        """See Report."""
        # Row groups are skipped by their statistics, so a phase may end with fewer rows than its total.
        self._progress.update(self._task, total=self._rows, completed=self._rows, visible=self._rows > 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.live.is_started:
            self._progress.stop()


class CountReport:
    """A bar for counted steps. The total may change while it runs. A context manager.

    Args:
        name: the work that is done.
        things: the steps that are counted.
        console: where to draw it.
        auto_refresh: False: the caller's thread redraws it every twentieth of the total, so that no other thread
            disturbs what is timed.
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
        """Set the number of steps that are done and that are expected."""
        self._progress.update(self._task, completed=done, total=total)
        if self._by_hand and (done % max(1, total // _REFRESHES) == 0 or done == total):
            self._progress.refresh()

    def __enter__(self) -> CountReport:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
