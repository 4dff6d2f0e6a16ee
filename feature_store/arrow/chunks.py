"""Writes Parquet files whose row groups are bounded in rows and in bytes."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store._private_files import private_file

_MOST_BYTES = 32 << 20


class ChunkWriter:
    """Writes batches to a Parquet file. A row group has at most `rows` rows and about 32 MB.

    Args:
        path: the file.
        schema: the schema of the batches.
        rows: the most rows per row group.
    """

    def __init__(self, path: Path, schema: pa.Schema, rows: int) -> None:
        self._rows = rows
        self._writer = pq.ParquetWriter(private_file(path), schema, compression="lz4")
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self._waiting.append(batch)
        self._waiting_rows += len(batch)
        self._waiting_bytes += batch.nbytes
        if self._waiting_rows >= self._rows or self._waiting_bytes >= _MOST_BYTES:
            self._write()

    def __enter__(self) -> ChunkWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._waiting and error is None:
            self._write()
        self._writer.close()

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._waiting), row_group_size=self._rows)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0


def dictionary_columns(schema: pa.Schema) -> list[str]:
    """The columns of a training set to store with dictionaries in a Parquet file.

    Numbers are excluded: they hardly repeat, and dictionaries for them would take four times as long as all other
    writing.
    """
    return [field.name for field in schema if not pa.types.is_primitive(field.type)]
