"""The SQL of views on the local engine: DuckDB selects from the source's files, and the result is Parquet again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, from_microseconds
from feature_store.engines.duck import connected, first_line
from feature_store.engines.rows import source_columns
from feature_store.engines.sources import Rows
from feature_store.engines.transformation import SOURCE, sql_of
from feature_store.errors import DataError
from feature_store.private import private_file

if TYPE_CHECKING:
    from pathlib import Path

    from feature_store.definitions.feature_view import FeatureView

_MEMORY_LIMIT = "1GB"
_BATCH_ROWS = 128 * 1024


def selected(view: FeatureView, rows: Rows, folder: Path, start_us: int, end_us: int) -> Rows:
    """What a view's SQL makes of its source.

    Args:
        view: one with SQL.
        rows: its source.
        folder: where the result is written, and what does not fit in memory meanwhile.
        start_us, end_us: rows with event times outside of `[start_us, end_us)` may be left out.

    Raises:
        DataError: the SQL is not allowed or fails, or its result has not the columns that the view takes.
    """
    where = f"{view.name}.sql"
    query = sql_of(view, "duckdb")
    target = folder / f"{view.name}.selected.parquet"
    settings: dict[str, Any] = {"memory_limit": _MEMORY_LIMIT, "temp_directory": str(folder)}

    def failure(message: str) -> DataError:
        return DataError(where, expected="SQL that runs on the source", got=first_line(message))

    with connected(failure, settings) as connection:
        connection.read_parquet(rows.dataset.files, union_by_name=True, hive_partitioning=False).create_view(SOURCE)
        found = connection.sql(query)
        schema = found.limit(0).to_arrow_table().schema
        columns = source_columns(view, schema, where)
        inside = _within(schema.field(columns.event_timestamp), start_us, end_us)
        reader = (found.filter(inside) if inside else found).to_arrow_reader(_BATCH_ROWS)
        with pq.ParquetWriter(private_file(target), schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
    return Rows(where, schema, pq.read_metadata(target).num_rows, dataset=ds.dataset(str(target), format="parquet"))


def _within(field: pa.Field, start_us: int, end_us: int) -> str:
    """A condition for rows in the interval, and those without a time, which are to be set aside rather than passed
    over; empty when there is none to set."""
    if not pa.types.is_timestamp(field.type):
        return ""
    name = '"' + field.name.replace('"', '""') + '"'
    kind = "TIMESTAMP" if field.type.tz is None else "TIMESTAMPTZ"
    bounds = []
    if start_us > MIN_TIMESTAMP_US:
        bounds.append(f"{name} >= {kind} '{from_microseconds(start_us).isoformat()}'")
    if end_us <= MAX_TIMESTAMP_US:
        bounds.append(f"{name} < {kind} '{from_microseconds(end_us).isoformat()}'")
    return f"{name} IS NULL OR ({' AND '.join(bounds)})" if bounds else ""
