"""How far jobs are: what is recorded of them."""

from __future__ import annotations

from typing import Protocol

Interval = tuple[int, int]
# Before and after every time that a datetime can hold.
BEGINNING = -(1 << 62)


class Progress(Protocol):
    """What is recorded of materialization, so that jobs go on where others ended. The registry keeps it."""

    def finished_intervals(self, view: str, generation: int) -> list[Interval]:
        """The intervals `[start, end)` that are materialized, in microseconds, sorted, none touching another."""
        ...

    def record_interval(self, view: str, generation: int, start_us: int, end_us: int) -> None:
        """Note that an interval is materialized."""
        ...

    def chunks_done(self, job: str) -> int:
        """How many chunks of a job are written; 0 for a job that is not known."""
        ...

    def record_chunk(self, job: str, done: int, total: int) -> None:
        """Note how many chunks of a job are written."""
        ...

    def forget_job(self, job: str) -> None:
        """Drop the record of a job."""
        ...


def missing(wanted: Interval, finished: list[Interval]) -> list[Interval]:
    """The parts of `wanted` that no interval of `finished` (sorted, none touching another) holds."""
    gaps = []
    start, end = wanted
    for done_start, done_end in finished:
        if done_start > start and start < end:
            gaps.append((start, min(done_start, end)))
        start = max(start, done_end)
    if start < end:
        gaps.append((start, end))
    return gaps
