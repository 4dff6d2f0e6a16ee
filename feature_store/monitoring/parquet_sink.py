"""A sink of the served log: a folder of Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from feature_store.arrow.served_log_files import write_files

if TYPE_CHECKING:
    import pyarrow as pa


class ParquetSink:
    """Writes `<folder>/service=<name>/date=<YYYY-MM-DD>/<first time>-<8 hex digits>.parquet`.

    A file appears when it is complete, and never changes. Any number of processes may write to one folder.

    Args:
        folder: where to write; created when it does not exist.
        rows: write a file when this many rows wait.
        seconds: write a file when the first row has waited this long. A process that is killed loses the waiting rows.

    Example:
        >>> from feature_store.monitoring import ParquetSink, ServedLog
        >>> log = ServedLog(ParquetSink("served"), rate=0.1)
        >>> log.close()
    """

    def __init__(self, folder: str | Path, *, rows: int = 100_000, seconds: float = 30.0) -> None:
        self._folder, self.most_rows, self.most_seconds = Path(folder), rows, seconds

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        """See served_log.RecordSink.

        Raises:
            DataError: a file cannot be written.
        """
        write_files(self._folder, batches)

    def close(self, wait_s: float) -> None:
        """See served_log.RecordSink."""
