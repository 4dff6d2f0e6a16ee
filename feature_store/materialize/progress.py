"""The progress of jobs: the seam between jobs and the records in the online store."""

from __future__ import annotations

from typing import Protocol

from feature_store._intervals import Interval


class Progress(Protocol):
    """How far one view is materialized. The online store keeps it beside the rows: `online/progress.py`."""

    def now_us(self) -> int:
        """The time now, in microseconds since 1970, by the clock of the store. No later time is recorded."""
        ...

    def finished_intervals(self) -> list[Interval]:
        """The intervals `[start, end)` that are materialized, in microseconds, sorted, none touching another."""
        ...

    def files_read(self) -> bytes:
        """The `files_read` of the last `record_interval`; empty: there is none."""
        ...

    def chunks_done(self, job: str) -> int:
        """How many chunks of a job are written; 0 for a job that is not known.

        A job asks this before it writes: a record made after this call is of rows that are written after it.
        """
        ...

    def record_chunk(self, job: str, done: int) -> None:
        """Note how many chunks of a job are written, after the ones that were noted before.

        Raises:
            LostWriteError: some of them may be lost. Call `chunks_done`, and write the chunks after these again.
        """
        ...

    def record_interval(self, job: str, chunks: int, interval: Interval, files_read: bytes = b"") -> None:
        """Note that a job of `chunks` chunks materialized an interval, and forget the job.

        Raises:
            LostWriteError: see `record_chunk`.
        """
        ...

    def forget_job(self, job: str) -> None:
        """Drop the record of a job."""
        ...
