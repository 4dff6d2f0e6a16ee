"""Rows that do not fit are lost to nobody: they go to a Parquet file with the reason."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from feature_store.engines.sources import reading

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


class Quarantine:
    """A file for one job's bad rows: their columns as they were, and why. Made with the first of them.

    Args:
        folder: where it goes when it is whole.
        work: where it is written, so that a killed job leaves no half file among the whole ones.
        view: whose rows.
    """

    def __init__(self, folder: Path, work: Path, view: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + f"-{time.time_ns() % 1_000_000_000:09d}"
        self._path = folder / f"{view}-{stamp}.parquet"
        self._unfinished = work / "quarantine.unfinished"
        self._writer: Any = None
        self.rows = 0

    @property
    def path(self) -> Path | None:
        """The file, or None when no row was bad."""
        return self._path if self.rows else None

    def add(self, bad: pa.RecordBatch) -> None:
        """Set rows aside.

        Raises:
            DataError: the file cannot be written.
        """
        if not len(bad):
            return
        with reading(f"quarantine file {self._unfinished}"):
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._unfinished, bad.schema)
            self._writer.write_batch(bad)
        self.rows += len(bad)

    def close(self) -> None:
        """Finish the file and put it into its place.

        Raises:
            DataError: it cannot be written.
        """
        if self._writer is None:
            return
        with reading(f"quarantine file {self._path}"):
            self._writer.close()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self._unfinished, self._path)
