"""The progress of jobs: the interface between jobs and the records in the online store."""

from __future__ import annotations

from typing import Protocol

from feature_store._intervals import Interval


class Progress(Protocol):
    """How far one view is materialized. The online store keeps it beside the rows: `online/progress.py`."""

    def now_us(self) -> int:
        """The present time by the store's clock, microseconds since 1970. No later time is recorded as finished."""
        ...

    def finished_intervals(self) -> list[Interval]:
        """The materialized intervals `[start, end)`, microseconds since 1970, sorted, with gaps between them."""
        ...

    def files_read(self) -> bytes:
        """The last `files_read` that `record_interval` recorded. Empty: none."""
        ...

    def chunks_done(self, job: str) -> int:
        """The number of recorded chunks of a job; 0 for an unknown job.

        A job calls this before it writes. A later `record_chunk` or `record_interval` counts as a record of rows
        written after this call.
        """
        ...

    def record_chunk(self, job: str, done: int) -> None:
        """Record that the first `done` chunks of a job are written.

        Raises:
            LostWriteError: Redis may have lost some of them. Call `chunks_done`, and write the chunks after that again.
        """
        ...

    def record_interval(self, job: str, chunks: int, interval: Interval, files_read: bytes = b"") -> None:
        """Record that a job of `chunks` chunks materialized an interval, and delete the job's record.

        Raises:
            LostWriteError: see `record_chunk`.
        """
        ...

    def forget_job(self, job: str) -> None:
        """Delete the record of a job."""
        ...
