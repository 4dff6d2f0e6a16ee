"""What every engine must do, against an oracle that is slow and obviously right."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from feature_store._intervals import BEGINNING
from feature_store.arrow.pushed import PushedRows, pushed_rows
from feature_store.arrow.quarantine import Quarantine
from feature_store.arrow.sources.opening import open_view
from feature_store.arrow.sources.source import OfflineSource
from feature_store.definitions import (
    Array,
    Bool,
    FeatureView,
    Float32,
    Float64,
    Int32,
    Int64,
    ParquetSource,
    String,
    Timestamp,
)
from feature_store.engines.engine import Engine, StageRequest
from feature_store.engines.local import latest as local_latest, windows as local_windows
from feature_store.engines.local.engine import LocalEngine
from feature_store.engines.report import Silent
from feature_store.engines.spark import engine as spark
from feature_store.engines.spark.engine import SparkEngine
from feature_store.errors import DataError
from feature_store.online.batch import RowBatch
from tests.engines.offline_worlds import (
    NOW_US,
    SECOND_US,
    FolderSink,
    Latest,
    Row,
    in_microseconds,
    oracle,
    rows_of,
    shop,
    slot,
    table_of,
    user,
    view_of,
    write_files,
)

ALWAYS = (BEGINNING, -BEGINNING)
VIEWS = {"int": view_of(user), "text": view_of(shop), "composite": view_of(shop, slot)}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_latest, "CHUNK_ROWS", 2048)
    monkeypatch.setattr(local_windows, "CHUNK_ROWS", 2048)
    monkeypatch.setattr(spark, "TASK_BYTES", 512 << 10)  # 8,000 rows of VIEWS["int"]
    monkeypatch.setattr(spark, "FILES_PER_CHUNK", 1)


class Staged:
    """What an engine made of rows."""

    def __init__(
        self,
        engine: Engine,
        view: FeatureView,
        rows: OfflineSource | PushedRows,
        folder: Path,
        interval: tuple[int, int] = ALWAYS,
    ) -> None:
        quarantine = Quarantine(folder / "quarantine", folder, view.name)
        self.engine, self.view, self.target = engine, view, folder / "staged.parquet"
        self.in_interval = engine.stage(StageRequest(view, rows, *interval, self.target, quarantine, Silent()))
        quarantine.close()
        self.quarantined = quarantine.rows

    def batches(self, first: int = 0) -> Iterator[list[RowBatch]]:
        """The batches that are written of each chunk."""
        with tempfile.TemporaryDirectory() as name:
            sink = FolderSink(Path(name) / "sink")
            for written in self.engine.write(self.target, self.view, first, sink):
                batches = sink.taken()
                assert written == (sum(map(len, batches)), (written.rows, 0))
                yield batches

    def chunks(self, first: int = 0) -> list[list[tuple[tuple[Any, ...], Latest]]]:
        """The rows of each chunk, in the order of their keys."""
        return [
            sorted((row for batch in batches for row in rows_of(batch, self.view)), key=itemgetter(0))
            for batches in self.batches(first)
        ]

    def rows(self) -> dict[tuple[Any, ...], Latest]:
        listed = [row for chunk in self.chunks() for row in chunk]
        assert len({key for key, _ in listed}) == len(listed), "a key comes twice"
        return dict(listed)


def given_rows(engine: Engine, table: pa.Table, view: FeatureView, folder: Path) -> OfflineSource | PushedRows:
    """Rows as they are pushed; for Spark, which reads only files, rows of a file."""
    return pushed_rows(table, view) if engine.name == "local" else _on_disk(table, view, folder)


def _keys(view: FeatureView) -> st.SearchStrategy[tuple[Any, ...]]:
    texts = st.sampled_from(["", " ", "a", "A", "ä", "a\u0308", "a\x00", "'", '"', "NULL"])
    parts = {
        Int64: st.sampled_from([-(2**63), -1, 0, 1, 2**53, 2**53 + 1, 2**63 - 1]),
        Int32: st.integers(-1, 1),
        String: texts,
    }
    return st.tuples(*(parts[entity.dtype] for entity in view.entities))


NOW = {"s": NOW_US // 10**6, "ms": NOW_US // 10**3, "us": NOW_US, "ns": NOW_US * 1000}
VALUES = st.tuples(
    st.none() | st.sampled_from([-0.0, 1.5, math.inf, 1e308, 5e-324]), st.none() | st.sampled_from(["", "x", "ü\x00"])
)


def _rows(view: FeatureView, unit: str) -> st.SearchStrategy[list[Row]]:
    offsets = st.integers(-3, 3) | (st.integers(-3000, 3000) if unit == "ns" else st.nothing())
    times = st.builds(lambda offset: NOW[unit] + offset, offsets) | st.sampled_from([-1, 0, 1])
    return st.lists(st.builds(Row, _keys(view), times, st.none() | times, VALUES), max_size=40)


UNITS = st.sampled_from(["s", "ms", "us", "ns"])
ZONES = st.sampled_from([None, "UTC", "Asia/Kathmandu"])


@st.composite
def _worlds(draw: st.DrawFn, kind: str) -> tuple[list[Row], str, tuple[int, int]]:
    """Rows, the unit of their times, and an interval in microseconds."""
    unit = draw(UNITS)
    step = in_microseconds(1, unit) or 1
    bounds = sorted(draw(st.tuples(st.integers(-4, 4), st.integers(-4, 4))))
    start_us, end_us = (NOW_US + bound * step for bound in bounds)
    return draw(_rows(VIEWS[kind], unit)), unit, (start_us, end_us)


def check_latest(engine: Engine, kind: str, world: Any, zone: str | None, files: int, group_rows: int) -> None:
    """Check the latest rows of an engine; with `files` 0 the rows are pushed."""
    view, (rows, unit, interval) = VIEWS[kind], world
    expected, count = oracle(rows, *interval, unit)
    table = table_of(view, rows, pa.timestamp(unit, zone))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if files:
            write_files(folder / "rows", table, files, row_group_size=group_rows)
        source_rows = open_view(view.source, view, folder) if files else pushed_rows(table, view)
        staged = Staged(engine, view, source_rows, folder, interval)
        assert staged.rows() == expected
        assert (staged.in_interval, staged.quarantined) == (count, 0)


@pytest.mark.parametrize("kind", VIEWS)
@given(st.data(), ZONES, st.integers(0, 4), st.booleans())
def test_the_latest_row_of_each_key_is_staged(
    kind: str, data: st.DataObject, zone: str | None, files: int, narrow: bool
) -> None:
    """Both ways to sort: whole rows, and keys and times alone."""
    with mock.patch.object(local_latest, "_is_narrow", lambda _: narrow):
        check_latest(LocalEngine(), kind, data.draw(_worlds(kind)), zone, files, 3)


@pytest.mark.parametrize("kind", VIEWS)
@settings(max_examples=8, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), ZONES, st.integers(1, 3))
def test_spark_stages_the_latest_row_of_each_key(
    spark_engine: SparkEngine,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    data: st.DataObject,
    zone: str | None,
    files: int,
) -> None:
    monkeypatch.setattr(spark, "TASK_BYTES", 256)  # a few rows
    world = data.draw(_worlds(kind).filter(lambda world: len(world[0]) > 9))
    check_latest(spark_engine, kind, world, zone, files, 5)


def test_all_times_count_when_the_interval_has_no_ends(engine: Engine, tmp_path: Path) -> None:
    first, last = -62_135_596_800_000_000, 253_402_300_799_999_999
    rows = [Row((1,), first, None, (1.0, "a")), Row((2,), last, None, (2.0, "b"))]
    table = table_of(VIEWS["int"], rows, pa.timestamp("us"))
    write_files(tmp_path / "rows", table)
    staged = Staged(engine, VIEWS["int"], open_view(VIEWS["int"].source, VIEWS["int"], tmp_path), tmp_path)
    assert staged.rows() == {(1,): Latest(first, first, (1.0, "a")), (2,): Latest(last, last, (2.0, "b"))}


@pytest.mark.parametrize("files", [0, 1, 2])
def test_a_source_without_rows_has_no_chunks(engine: Engine, tmp_path: Path, files: int) -> None:
    view = VIEWS["composite"]
    table = table_of(view, [], pa.timestamp("us"))
    if files:
        write_files(tmp_path / "rows", table, files)
    rows = open_view(view.source, view, tmp_path) if files else given_rows(engine, table, view, tmp_path)
    staged = Staged(engine, view, rows, tmp_path)
    assert (staged.in_interval, staged.rows()) == (0, {})
    assert engine.chunk_count(staged.target) == len(staged.chunks())


def _many(count: int, keys: int) -> list[Row]:
    chance = random.Random(7)
    return [
        Row(
            (chance.randrange(keys),),
            NOW_US + chance.randrange(5),
            chance.choice([None, NOW_US + chance.randrange(5)]),
            (float(i), None if i % 3 else f"t{i}"),
        )
        for i in range(count)
    ]


@pytest.mark.usefixtures("small_chunks")
def test_each_key_comes_once_over_all_chunks(engine: Engine, tmp_path: Path) -> None:
    view, rows = VIEWS["int"], _many(60_000, 12_000)
    write_files(tmp_path / "rows", table_of(view, rows, pa.timestamp("us")), files=3, row_group_size=1000)
    staged = Staged(engine, view, open_view(view.source, view, tmp_path), tmp_path)
    expected, count = oracle(rows, *ALWAYS)
    assert staged.rows() == expected
    assert staged.in_interval == count
    assert engine.chunk_count(staged.target) == len(staged.chunks()) >= 5
    assert all(chunk for chunk in staged.chunks())


@pytest.mark.usefixtures("small_chunks")
def test_chunks_are_the_same_at_each_reading_from_wherever_it_begins(engine: Engine, tmp_path: Path) -> None:
    view = VIEWS["int"]
    table = table_of(view, _many(20_000, 9_000), pa.timestamp("us"))
    staged = Staged(engine, view, given_rows(engine, table, view, tmp_path), tmp_path)
    every = staged.chunks()
    for first in range(len(every) + 1):
        assert staged.chunks(first) == every[first:]


def test_every_type_comes_through(engine: Engine, tmp_path: Path) -> None:
    columns = {
        "flag": (Bool, pa.array([True, None, False])),
        "small": (Int32, pa.array([-(2**31), None, 2**31 - 1], pa.int32())),
        "large": (Int64, pa.array([-(2**63), None, 2**63 - 1], pa.int64())),
        "single": (Float32, pa.array([0.5, None, -math.inf], pa.float32())),
        "double": (Float64, pa.array([0.1, None, -0.0], pa.float64())),
        "when": (Timestamp, pa.array([-1, None, NOW_US], pa.timestamp("us", "UTC"))),
        "title": (String, pa.array(["", None, "ü" * 300])),
        "vector": (Array(Float32, 2), pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))),
        "ragged": (Array(Int64), pa.array([[], None, [1, 2**63 - 1]], pa.list_(pa.int64()))),
        "words": (Array(String), pa.array([["a", ""], None, []], pa.large_list(pa.string()))),
        "days": (Array(Timestamp, 1), pa.array([[0], None, [NOW_US]], pa.list_(pa.timestamp("us")))),
    }
    view = view_of(user, fields={name: dtype for name, (dtype, _) in columns.items()})
    at = pa.array([NOW_US] * 3, pa.timestamp("us"))
    data = {"user_id": [1, 2, 3], "at": at, "made": at} | {name: array for name, (_, array) in columns.items()}
    staged = Staged(engine, view, given_rows(engine, pa.table(data), view, tmp_path), tmp_path)
    ((batch,),) = staged.batches()
    place = {key: i for i, key in enumerate(batch.keys["user_id"].tolist())}
    found = {
        name: [
            None if nulls is not None and nulls[place[key]] else np.asarray(values[place[key]]).tolist()
            for key in (1, 2, 3)
        ]
        for name, (values, nulls) in batch.columns.items()
    }
    expected = {name: array.to_pylist() for name, (_, array) in columns.items()}
    expected["when"], expected["days"] = [-1, None, NOW_US], [[0], None, [NOW_US]]
    assert found == expected
    for name, (dtype, _) in columns.items():
        values = batch.columns[name].values
        assert values.dtype == (dtype.numpy if dtype.width is not None else np.dtype(object)), name


def test_nan_is_kept_and_is_not_null(engine: Engine, tmp_path: Path) -> None:
    view = view_of(user, fields={"score": Float64})
    table = table_of(view, [Row((1,), NOW_US, None, (math.nan,)), Row((2,), NOW_US, None, (None,))], pa.timestamp("us"))
    rows = Staged(engine, view, given_rows(engine, table, view, tmp_path), tmp_path).rows()
    assert math.isnan(rows[1,].values[0])
    assert rows[2,].values == (None,)


def test_a_null_in_the_latest_row_hides_an_older_value(engine: Engine, tmp_path: Path) -> None:
    view = VIEWS["int"]
    rows = [Row((1,), NOW_US + 1, None, (None, None)), Row((1,), NOW_US, None, (1.0, "a"))]
    table = table_of(view, rows, pa.timestamp("us"))
    staged = Staged(engine, view, given_rows(engine, table, view, tmp_path), tmp_path)
    assert staged.rows()[1,].values == (None, None)


@pytest.mark.parametrize(
    "fields",
    [["sequence"], ["Sequence"], ["event_ts", "created_ts"], ["likes", "Likes"], ["select", "rowid"], ["USER_ID"]],
    ids="+".join,
)
def test_any_name_that_a_field_may_have_is_a_field(engine: Engine, tmp_path: Path, fields: list[str]) -> None:
    view = view_of(user, fields=dict.fromkeys(fields, Float64))
    rows = [
        Row((key,), NOW_US + time, None, tuple(key * 100.0 + time * 10 + i for i, _ in enumerate(fields)))
        for key in (1, 2)
        for time in (1, 0)
    ]
    table = table_of(view, rows, pa.timestamp("us"))
    staged = Staged(engine, view, given_rows(engine, table, view, tmp_path), tmp_path)
    assert staged.rows() == oracle(rows, *ALWAYS)[0]


def test_one_column_may_be_both_times(engine: Engine, tmp_path: Path) -> None:
    source = ParquetSource("rows", event_timestamp="at", created_timestamp="at")
    view = view_of(user, source=source, fields={"score": Float64})
    rows = [Row((1,), NOW_US, NOW_US + 9, (0.5,)), Row((1,), NOW_US, None, (1.5,))]
    staged = Staged(engine, view, _on_disk(table_of(view, rows, pa.timestamp("us")), view, tmp_path), tmp_path)
    assert staged.rows() == {(1,): Latest(NOW_US, NOW_US, (1.5,))}


def test_a_field_may_be_named_reason(engine: Engine, tmp_path: Path) -> None:
    view = view_of(slot, fields={"reason": String})
    at = pa.array([NOW_US, NOW_US], pa.timestamp("us"))
    table = pa.table({"slot_id": [1, 2**31], "at": at, "made": at, "reason": ["a", "b"]})
    staged = Staged(engine, view, given_rows(engine, table, view, tmp_path), tmp_path)
    assert (staged.rows(), staged.quarantined) == ({(1,): Latest(NOW_US, NOW_US, ("a",))}, 1)


def test_bad_rows_are_counted_set_aside_and_never_the_latest(engine: Engine, tmp_path: Path) -> None:
    view = view_of(slot, fields={"score": Float64})
    at = pa.array([NOW_US, NOW_US + SECOND_US, None], pa.timestamp("us"))
    table = pa.table({"slot_id": [1, 2**31, 1], "at": at, "made": at, "score": [0.5, 1.5, 2.5]})
    write_files(tmp_path / "rows", table)
    staged = Staged(engine, view, open_view(view.source, view, tmp_path), tmp_path)
    assert staged.rows() == {(1,): Latest(NOW_US, NOW_US, (0.5,))}
    assert (staged.in_interval, staged.quarantined) == (3, 2)


@pytest.mark.parametrize("times", [pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns"), pa.date32()], ids=str)
def test_bad_rows_outside_the_interval_are_not_counted(engine: Engine, tmp_path: Path, times: pa.DataType) -> None:
    view = view_of(slot, fields={"score": Float64})
    day = 86_400 * SECOND_US
    noon = NOW_US // day * day + day // 2 + 1
    at = pa.array([noon - day, noon - 1, noon - 1001, noon + day], pa.timestamp("us")).cast(times, safe=False)
    table = pa.table({"slot_id": [2**31] * 4, "at": at, "made": at, "score": [0.5] * 4})
    rows = _on_disk(table, view, tmp_path)
    staged = Staged(engine, view, rows, tmp_path, (noon, noon + 2 * day))
    assert (staged.in_interval, staged.quarantined) == (1, 1)


def _on_disk(table: pa.Table, view: FeatureView, folder: Path) -> OfflineSource | PushedRows:
    write_files(folder / "rows", table)
    return open_view(view.source, view, folder)


def test_an_error_of_the_source_leaves_nothing_staged(engine: Engine, tmp_path: Path) -> None:
    view = VIEWS["int"]
    write_files(tmp_path / "rows", table_of(view, _many(30_000, 10), pa.timestamp("us")))
    rows = open_view(view.source, view, tmp_path)
    path = tmp_path / "rows" / "part-0.parquet"
    content = bytearray(path.read_bytes())
    content[100 : len(content) // 2] = b"\xff" * (len(content) // 2 - 100)
    path.write_bytes(content)
    with pytest.raises(DataError, match="source rows"):
        Staged(engine, view, rows, tmp_path)
    assert not (tmp_path / "staged.parquet").exists()


def test_an_error_of_a_pushed_reader_is_told_in_its_own_words(tmp_path: Path) -> None:
    view, engine = VIEWS["int"], LocalEngine()
    table = table_of(view, [Row((1,), NOW_US, None, (1.0, "a"))], pa.timestamp("us"))

    def batches() -> Iterator[pa.RecordBatch]:
        yield from table.to_batches()
        raise RuntimeError("the reader broke")

    reader = pa.RecordBatchReader.from_batches(table.schema, batches())
    with pytest.raises((RuntimeError, DataError), match="the reader broke") as raised:
        Staged(engine, view, pushed_rows(reader, view), tmp_path)
    assert "Traceback" not in str(raised.value)
    assert not (tmp_path / "staged.parquet").exists()


def test_folders_may_have_any_name(engine: Engine, tmp_path: Path) -> None:
    view, folder = VIEWS["int"], tmp_path / 'it\'s a "folder" {x} [y] ü'
    folder.mkdir()
    table = table_of(view, [Row((1,), NOW_US, None, (1.0, "a"))], pa.timestamp("us"))
    assert Staged(engine, view, _on_disk(table, view, folder), folder).rows() == {
        (1,): Latest(NOW_US, NOW_US, (1.0, "a"))
    }


def test_bad_rows_of_files_with_other_types_are_in_one_file(engine: Engine, tmp_path: Path) -> None:
    view = view_of(slot, fields={"score": Float64})
    at = pa.array([NOW_US, NOW_US], pa.timestamp("us"))
    for name, score in (("a", [0.5, 1.5]), ("b", pa.array([1, 2], pa.int8())), ("c", pa.array([None, 3.5]))):
        table = pa.table({"slot_id": [1, 2**31], "at": at, "made": at, "score": score})
        write_files(tmp_path / "rows" / name, table)
    staged = Staged(engine, view, open_view(view.source, view, tmp_path), tmp_path)
    assert staged.rows() == {(1,): Latest(NOW_US, NOW_US, (None,))}
    (file,) = (tmp_path / "quarantine").iterdir()
    bad = pq.read_table(file)
    assert sorted(bad["score"].to_pylist()) == ["1.5", "2", "3.5"]
    assert bad["slot_id"].to_pylist() == [2**31] * 3
    assert set(bad["reason"].to_pylist()) == {"slot_id: expected Int32, got 2147483648"}
