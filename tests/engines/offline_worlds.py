"""Views with offline rows for the tests of materialization, destinations for them, and a slow oracle."""

from __future__ import annotations

import contextlib
import pickle
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store._intervals import BEGINNING, merged
from feature_store.definitions import Entity, FeatureView, Field, Float64, Int32, Int64, ParquetSource, String
from feature_store.definitions.dtypes import DType
from feature_store.online.batch import RowBatch
from feature_store.online.writer import WriteCounts

NOW_US = 1_700_000_000_000_000
SECOND_US = 1_000_000
ARROW = {Int32: pa.int32(), Int64: pa.int64(), Float64: pa.float64(), String: pa.string()}

SOURCE = ParquetSource("rows", event_timestamp="at", created_timestamp="made")
user = Entity("user", join_key="user_id")
shop = Entity("shop", join_key="shop_id", dtype=String)
slot = Entity("slot", join_key="slot_id", dtype=Int32)


def view_of(*entities: Entity, source: ParquetSource | None = SOURCE, fields: dict[str, DType] | None = None) -> Any:
    schema = [Field(name, dtype) for name, dtype in (fields or {"score": Float64, "title": String}).items()]
    return FeatureView("stats", entities=list(entities), source=source, schema=schema)


class Row(NamedTuple):
    """A row of a source: keys, times in some unit (a created time of None is null), values."""

    key: tuple[Any, ...]
    at: int
    made: int | None
    values: tuple[Any, ...]


class Latest(NamedTuple):
    """A row of the result: times in microseconds, values."""

    at_us: int
    made_us: int
    values: tuple[Any, ...]


Served = dict[tuple[Any, ...], Latest]


def table_of(view: FeatureView, rows: list[Row], times: pa.DataType) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for i, entity in enumerate(view.entities):
        columns[entity.join_key] = pa.array([row.key[i] for row in rows], ARROW[entity.dtype])
    columns["at"] = pa.array([row.at for row in rows], pa.int64()).cast(times)
    columns["made"] = pa.array([row.made for row in rows], pa.int64()).cast(times)
    for i, field in enumerate(view.fields):
        columns[field.name] = pa.array([row.values[i] for row in rows], ARROW[field.dtype])
    return pa.table(columns)


def write_files(folder: Path, table: pa.Table, files: int = 1, row_group_size: int | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(table) // files)
    for i in range(files):
        pq.write_table(table.slice(i * size, size), folder / f"part-{i}.parquet", row_group_size=row_group_size)


def oracle(rows: list[Row], start_us: int, end_us: int, unit: str = "us") -> tuple[Served, int]:
    """The latest row of each key, and how many rows are in the interval."""
    latest: Served = {}
    count = 0
    for row in rows:
        at_us = in_microseconds(row.at, unit)
        made_us = at_us if row.made is None else in_microseconds(row.made, unit)
        if not start_us <= at_us < end_us:
            continue
        count += 1
        known = latest.get(row.key)
        if known is None or (at_us, made_us) >= (known.at_us, known.made_us):
            latest[row.key] = Latest(at_us, made_us, row.values)
    return latest, count


def in_microseconds(time: int, unit: str) -> int:
    return time // 1000 if unit == "ns" else time * {"s": 1_000_000, "ms": 1_000, "us": 1}[unit]


def rows_of(batch: RowBatch, view: FeatureView) -> list[tuple[tuple[Any, ...], Latest]]:
    """A batch as Python values."""
    keys = zip(*(batch.keys[key].tolist() for key in view.join_keys), strict=True)
    listed = [_listed(batch, field.name) for field in view.fields]
    times = zip(batch.event_ts.tolist(), batch.created_ts.tolist(), strict=True)
    return [
        (key, Latest(at, made, values))
        for key, (at, made), values in zip(keys, times, zip(*listed, strict=True), strict=True)
    ]


def _listed(batch: RowBatch, field: str) -> list[Any]:
    values, nulls = batch.columns[field]
    absent = [False] * len(batch) if nulls is None else nulls.tolist()
    return [None if gone else value for value, gone in zip(values.tolist(), absent, strict=True)]


class MemorySink:
    """A destination and its sink. It takes rows as the online store does: the newest wins.

    In place of the `fails_at`-th write, counted over all its uses, it raises."""

    def __init__(self, view: FeatureView, fails_at: int | None = None) -> None:
        self.view, self.fails_at = view, fails_at
        self.rows: Served = {}
        self.writes: list[int] = []

    @contextlib.contextmanager
    def open(self) -> Iterator[MemorySink]:
        yield self

    def fail(self) -> None:
        raise ConnectionError("the sink is gone")

    def write(self, batch: RowBatch) -> WriteCounts:
        if len(self.writes) == self.fails_at:
            self.fail()
        self.writes.append(len(batch))
        older = 0
        for key, row in rows_of(batch, self.view):
            known = self.rows.get(key)
            if known is None or (row.at_us, row.made_us) >= (known.at_us, known.made_us):
                self.rows[key] = row
            else:
                older += 1
        return WriteCounts(len(batch) - older, older)


class FolderSink:
    """A destination and its sink that all processes of this machine share. It takes every row."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    @contextlib.contextmanager
    def open(self) -> Iterator[FolderSink]:
        yield self

    def write(self, batch: RowBatch) -> WriteCounts:
        path = self._folder / secrets.token_hex(8)
        path.with_suffix(".unfinished").write_bytes(pickle.dumps(batch))
        path.with_suffix(".unfinished").rename(path.with_suffix(".batch"))
        return WriteCounts(len(batch), 0)

    def taken(self) -> list[RowBatch]:
        """The batches that were written since the last call."""
        paths = list(self._folder.glob("*.batch"))
        batches = [pickle.loads(path.read_bytes()) for path in paths]
        for path in paths:
            path.unlink()
        return batches


class MemoryProgress:
    """How far a view is materialized, kept in a dict. Its clock is later than all rows of the tests."""

    def __init__(self) -> None:
        self.intervals: list[tuple[int, int]] = []
        self.jobs: dict[str, int] = {}
        self.files = b""
        self.now = -BEGINNING

    def now_us(self) -> int:
        return self.now

    def finished_intervals(self) -> list[tuple[int, int]]:
        return merged(self.intervals)

    def files_read(self) -> bytes:
        return self.files

    def chunks_done(self, job: str) -> int:
        return self.jobs.get(job, 0)

    def record_chunk(self, job: str, done: int) -> None:
        assert done == self.jobs.get(job, 0) + 1
        self.jobs[job] = done

    def record_interval(self, job: str, chunks: int, interval: tuple[int, int], files_read: bytes = b"") -> None:
        assert self.jobs.pop(job, 0) == chunks
        self.intervals.append(interval)
        self.files = files_read or self.files

    def forget_job(self, job: str) -> None:
        self.jobs.pop(job, None)
