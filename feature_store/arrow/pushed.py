"""Reads rows that a caller pushes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from feature_store.arrow.batch_sizes import plain_pieces
from feature_store.arrow.csv_files import CsvFormat
from feature_store.arrow.encoded import CSV
from feature_store.arrow.file_versions import FileVersion, file_versions, unchanged
from feature_store.arrow.frames import TABLES, arrow_stream
from feature_store.arrow.reading import reading
from feature_store.arrow.rows import SourceColumns, source_columns
from feature_store.arrow.sources.parquet.rows import ParquetRows
from feature_store.arrow.sources.source import OfflineSource
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.feature_view import FeatureView
from feature_store.errors import DataError

_COUNTED = ("Table", "RecordBatch", "DataFrame")  # counting a relation of DuckDB would run its query


class PushedRows(NamedTuple):
    """Rows that a caller pushes. They can be read once. If the view has a source, they have its columns.

    Attributes:
        where, schema, total: see OfflineSource.
        read: returns batches of the named columns, in this order.
        files: the version of the file with the rows when it was opened. Empty: the rows are in memory.
    """

    where: str
    schema: pa.Schema
    total: int | None
    read: Callable[[list[str]], Iterable[pa.RecordBatch]]
    files: tuple[FileVersion, ...] = ()

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See OfflineSource. Returns all rows and ignores `times`.

        Raises:
            DataError: the rows cannot be read, or their file changed meanwhile.
        """
        del times
        names = list(dict.fromkeys(columns))
        with unchanged(self.where, self.files), reading(self.where):
            for batch in self.read(names):
                yield from plain_pieces(batch)


def pushed_rows(table: Any, view: FeatureView) -> PushedRows:
    """The rows of a table that `arrow_stream` accepts, or of the CSV or Parquet file at a path.

    Raises:
        DataError: `table` is none of these, or cannot be read.
    """
    where = f"push to {view.name}"
    if isinstance(table, (str, Path)):
        return _of_file(Path(table), where)
    stream = arrow_stream(table, where, f"{TABLES}, or the path of a .csv or .parquet file")
    total = len(table) if type(table).__name__ in _COUNTED else None
    return PushedRows(where, stream.schema, total, _selecting(stream))


def taken_columns(view: FeatureView, rows: OfflineSource | PushedRows) -> SourceColumns:
    """The columns that a view takes from rows; see `rows.source_columns`.

    Raises:
        DataError: a column is missing, or its type cannot fit.
    """
    if isinstance(rows, PushedRows):
        return source_columns(view, rows.schema, rows.where, pushed=True)
    return source_columns(view, rows.schema, rows.where)


def _of_file(path: Path, where: str) -> PushedRows:
    if path.suffix not in (".csv", ".parquet"):
        raise DataError(where, expected="a .csv or .parquet file", got=str(path))
    if not os.path.isfile(path):  # noqa: PTH113 - of a name that is too long, Path.is_file raises an OSError
        raise DataError(where, problem=f"there is no file {path}")
    if path.suffix == ".parquet":
        rows = ParquetRows(where, [path])
        return PushedRows(where, rows.schema, rows.total, rows.batches, files=rows.files)
    with reading(where):
        files = file_versions([path])
        with unchanged(where, files):
            kind = CsvFormat()
            schema = pa.schema([pa.field(name, CSV) for name in kind.names(where, str(path))])
            return PushedRows(where, schema, None, lambda names: kind.batches(where, str(path), names), files=files)


def _selecting(batches: Iterable[pa.RecordBatch]) -> Callable[[list[str]], Iterator[pa.RecordBatch]]:
    return lambda names: (batch.select(names) for batch in batches)
