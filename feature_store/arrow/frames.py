"""Converts tables and DataFrames of any library with an Arrow interface to Arrow batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa

from feature_store.errors import DataError

TABLES = "a table of Arrow, pandas, polars or DuckDB"


def arrow_stream(table: Any, where: str, wanted: str) -> pa.RecordBatchReader:
    """The rows of a table as a stream of Arrow batches.

    Args:
        table: an Arrow table, batch or reader; a DataFrame of pandas, whose index is ignored; or an object with
            `__arrow_c_stream__` or `__arrow_c_array__`, such as a DataFrame of polars or a relation of DuckDB.
        where: names the table in an error.
        wanted: the expected kinds of tables, for an error.

    Raises:
        DataError: `table` is none of these, or Arrow has no type for a column.
    """
    if isinstance(table, pa.RecordBatchReader):
        return table
    if type(table).__name__ == "DataFrame" and hasattr(table, "iloc"):
        return _made(lambda: pa.Table.from_pandas(table, preserve_index=False).to_reader(), table, where, wanted)
    if hasattr(table, "__arrow_c_stream__"):
        return _made(lambda: pa.RecordBatchReader.from_stream(table), table, where, wanted)
    if hasattr(table, "__arrow_c_array__"):
        return _made(lambda: pa.Table.from_batches([pa.record_batch(table)]).to_reader(), table, where, wanted)
    hint = "call its collect() first" if hasattr(table, "collect") else ""
    raise DataError(where, expected=wanted, got=type(table).__name__, hint=hint)


def table_of(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Record batches as one table. Without batches, the table is empty."""
    return pa.Table.from_batches(batches, schema)


def table_of_columns(columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    """Columns of equal length as a table."""
    return pa.table(dict(columns))


def _made(make: Callable[[], pa.RecordBatchReader], table: Any, where: str, wanted: str) -> pa.RecordBatchReader:
    try:
        return make()
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:  # repeated names, sparse columns, …
        # Some errors of pyarrow have two messages, which str() would show as a tuple.
        reason = "; ".join(map(str, error.args)) if all(isinstance(part, str) for part in error.args) else str(error)
        got = f"a {type(table).__name__} that Arrow does not take: {reason}"
        raise DataError(where, expected=wanted, got=got) from error
