"""Reads whole Parquet files as tables."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.arrow.reading import reading


def read_parquet(path: Path, where: str) -> pa.Table:
    """The rows of a Parquet file or of a folder of Parquet files.

    Args:
        path: the file or folder.
        where: names it in an error.

    Raises:
        DataError: the file cannot be read.
    """
    with reading(where):
        return pq.read_table(path)
