"""What a caller pushes → rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_store.arrow.csv_text import csv_batches
from feature_store.arrow.file_versions import file_versions, unchanged
from feature_store.arrow.frames import TABLES, arrow_stream
from feature_store.arrow.sources import Rows, file_rows, reading
from feature_store.errors import DataError

if TYPE_CHECKING:
    from feature_store.definitions.feature_view import FeatureView

_COUNTED = ("Table", "RecordBatch", "DataFrame")  # a relation of DuckDB would be computed to be counted


def pushed_rows(table: Any, view: FeatureView) -> Rows:
    """The rows of a table, as `arrow_stream` takes it, or of the path of a CSV or Parquet file.

    Raises:
        DataError: it is none of them, or cannot be read.
    """
    where = f"push to {view.name}"
    if isinstance(table, (str, Path)):
        return _of_file(Path(table), where)
    stream = arrow_stream(table, where, f"{TABLES}, or the path of a .csv or .parquet file")
    total = len(table) if type(table).__name__ in _COUNTED else None
    return Rows(where, stream.schema, total, stream=stream, pushed=True)


def _of_file(path: Path, where: str) -> Rows:
    if path.suffix not in (".csv", ".parquet"):
        raise DataError(where, expected="a .csv or .parquet file", got=str(path))
    if not os.path.isfile(path):  # noqa: PTH113 - of a name that is too long, Path.is_file raises an OSError
        raise DataError(where, problem=f"there is no file {path}")
    if path.suffix == ".parquet":
        return file_rows(where, [path])._replace(pushed=True)
    with reading(where):
        files = file_versions([path])
        with unchanged(where, files):
            schema, batches = csv_batches(path)
            return Rows(where, schema, None, stream=batches, text=True, files=files, pushed=True)
