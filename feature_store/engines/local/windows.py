"""Windows of all entities at the end of an interval, on the local engine. DuckDB sorts the events by entity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.arrow.rows import (
    EVENT_TS,
    SEQUENCE,
    check_events,
    checked_schema,
    one_array,
    source_columns,
    within,
)
from feature_store.arrow.time_range import TimeRange
from feature_store.engines.engine import StageRequest
from feature_store.engines.local.latest import CHUNK_ROWS
from feature_store.engines.sql.duck import connected, memory_hint
from feature_store.engines.windows import reached_us, windows_of_entities, windows_schema
from feature_store.errors import DataError

# Events per batch, about 100 MB. A batch is extended so that it holds all events of its entities.
EVENTS = 1 << 20


def stage_windows(request: StageRequest, target: Path, spill: Path, memory_limit: str) -> int:
    """Write the windows at the interval's end of every entity that has events in its windows at the end or the start.

    Args:
        request: see StageRequest.
        target: the file to write.
        spill: a folder for events that do not fit in memory while they are sorted.
        memory_limit: DuckDB's memory limit, such as "512MB".

    Returns:
        The number of events in the interval.

    Raises:
        DataError: DuckDB fails, for example because its memory is full, or a source file cannot be read.
    """
    view = request.view
    reader = _EventReader(request)
    with pq.ParquetWriter(target, windows_schema(view), compression="lz4") as writer:
        for rows in _by_entity(reader, spill, memory_limit):
            entities, firsts = _numbered(rows, view.join_keys)
            writer.write_table(windows_of_entities(view, rows, entities, firsts, request.end_us), CHUNK_ROWS)
    return reader.in_interval


class _EventReader:
    """Events that windows at the interval's start or end can contain. Counts the events in the interval."""

    def __init__(self, request: StageRequest) -> None:
        self._request, self.name, self.join_keys = request, request.view.name, request.view.join_keys
        self.columns = source_columns(request.view, request.rows.schema, request.rows.where)
        self.in_interval = 0
        self.error: BaseException | None = None
        self._first_us = reached_us(request.view, request.start_us, request.end_us)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The valid events. Invalid events in the interval go to quarantine."""
        try:
            yield from self._batches()
        except (Exception, KeyboardInterrupt) as error:  # DuckDB would keep only its text
            self.error = error
            raise

    def _batches(self) -> Iterator[pa.RecordBatch]:
        request, columns = self._request, self.columns
        first = 0
        request.report.started(request.view.name, request.rows.total)
        times = TimeRange(columns.event_timestamp, self._first_us, request.end_us)
        for batch in request.rows.batches(columns.names, times):
            self.in_interval += len(within(batch, columns, request.start_us, request.end_us))
            reached = within(batch, columns, self._first_us, request.end_us)
            good, bad = check_events(reached, columns, request.view.join_keys, first)
            request.quarantine.add(within(bad, columns, request.start_us, request.end_us))
            first += len(reached)
            request.report.advanced(len(batch))
            yield good
        request.report.finished()


def _by_entity(reader: _EventReader, spill: Path, memory_limit: str) -> Iterator[pa.Table]:
    """Events sorted by entity, in large tables. All events of an entity are in the same table."""
    schema = checked_schema(reader.columns)
    names = [f"c{i}" for i, _ in enumerate(schema)]  # DuckDB takes `likes` and `Likes` for one name
    events = pa.RecordBatchReader.from_batches(
        pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)]),
        (batch.rename_columns(names) for batch in reader.batches()),
    )
    keys = [name for name, field in zip(names, schema, strict=True) if field.name in reader.join_keys]
    order = ", ".join([*keys, names[schema.get_field_index(EVENT_TS)], names[schema.get_field_index(SEQUENCE)]])
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "temp_directory": str(spill),
    }

    def failure(message: str) -> BaseException:
        problem = f"DuckDB cannot compute them: {message}"
        return reader.error or DataError(f"windows of {reader.name}", problem=problem, hint=memory_hint(message))

    with connected(failure, settings) as connection:
        connection.register("events", events)
        waiting = schema.empty_table()
        for batch in connection.sql(f"SELECT * FROM events ORDER BY {order}").to_arrow_reader(EVENTS):
            sorted_events = pa.Table.from_batches([batch]).rename_columns(schema.names).cast(schema)
            waiting = pa.concat_tables([waiting, sorted_events])
            _, firsts = _numbered(waiting, reader.join_keys)
            if len(firsts) > 1:
                yield waiting.slice(0, int(firsts[-1])).combine_chunks()
                waiting = waiting.slice(int(firsts[-1]))
        if len(waiting):
            yield waiting.combine_chunks()


def _numbered(rows: pa.Table, keys: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """For rows sorted by keys: (n,) int32 entity number of each row, from 0; (e,) int64 first row of each entity."""
    begins = np.zeros(len(rows), bool)
    begins[:1] = True
    for key in keys:
        column = one_array(rows[key])
        begins[1:] |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return (np.cumsum(begins) - 1).astype(np.int32), np.flatnonzero(begins)
