"""What every engine must join to each label: the row that the label sees. The oracle looks at every row."""

from __future__ import annotations

import random
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from feature_store.definitions import (
    Aggregation,
    Array,
    Bool,
    FeatureView,
    Field,
    Float32,
    Float64,
    Int32,
    Int64,
    ParquetSource,
    String,
    Timestamp,
)
from feature_store.definitions.dtypes import MICROSECOND
from feature_store.engines.join import JoinEngine, LabelQuery
from feature_store.engines.local import join as local_join
from feature_store.engines.local.engine import LocalEngine
from feature_store.engines.spark import join as spark_join
from feature_store.engines.spark.engine import SparkEngine
from feature_store.engines.spark.join_inputs import EntityKind
from feature_store.engines.spark.join_tasks import Shuffle
from feature_store.errors import DataError
from tests.engines.join_worlds import World
from tests.engines.offline_worlds import (
    ARROW,
    NOW_US,
    Row,
    in_microseconds,
    shop,
    slot,
    table_of,
    user,
    view_of,
    write_files,
)

VIEWS = {"int": view_of(user), "text": view_of(shop), "composite": view_of(shop, slot)}


class Label(NamedTuple):
    key: tuple[Any, ...]
    at: int


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Spark cut little data into several parts, blocks and chunks, and spread its hot keys."""
    monkeypatch.setattr(spark_join, "TASK_BYTES", 512)
    monkeypatch.setattr(spark_join, "FEWEST_LABELS", 7)
    monkeypatch.setattr(spark_join, "MOST_LABELS", 7)
    monkeypatch.setattr(spark_join, "GROUP_ROWS", 10)
    monkeypatch.setattr(spark_join, "CHUNK_ROWS", 4)


@pytest.fixture
def world(engine: JoinEngine, tmp_path: Path) -> World:
    return World(engine, tmp_path)


def oracle(rows: list[Row], label: Label, ttl_us: int | None, unit: str, label_unit: str) -> tuple[Any, ...]:
    at_us = in_microseconds(label.at, label_unit)
    best: tuple[tuple[int, int, int], Row] | None = None
    for place, row in enumerate(rows):
        event_us = in_microseconds(row.at, unit)
        created_us = event_us if row.made is None else in_microseconds(row.made, unit)
        if row.key != label.key or event_us > at_us or created_us > at_us:
            continue
        if best is None or (event_us, created_us, place) > best[0]:
            best = (event_us, created_us, place), row
    if best is None or (ttl_us is not None and best[0][0] < at_us - ttl_us):
        return (None, None)
    return best[1].values


NOW = {"s": NOW_US // 10**6, "ms": NOW_US // 10**3, "us": NOW_US, "ns": NOW_US * 1000}
VALUES = st.tuples(st.none() | st.sampled_from([-0.0, 1.5, float("inf")]), st.none() | st.sampled_from(["", "x", "ü"]))
UNITS = st.sampled_from(["s", "ms", "us", "ns"])
ZONES = st.sampled_from([None, "UTC", "Asia/Kathmandu"])


def _keys(view: FeatureView, *, nulls: bool = False) -> st.SearchStrategy[tuple[Any, ...]]:
    parts = {
        Int64: st.sampled_from([-(2**63), -1, 0, 1, 2**53 + 1, 2**63 - 1]),
        Int32: st.integers(-1, 1),
        String: st.sampled_from(["", " ", "a", "A", "ä", "a\u0308", "'"]),
    }
    chosen = [parts[entity.dtype] | st.none() if nulls else parts[entity.dtype] for entity in view.entities]
    return st.tuples(*chosen)


def _times(unit: str) -> st.SearchStrategy[int]:
    near = st.integers(-3, 6) | (st.integers(-3000, 6000) if unit == "ns" else st.nothing())
    return near.map(lambda offset: NOW[unit] + offset) | st.sampled_from([-1, 0, 1])


def _labels_table(view: FeatureView, labels: list[Label], kind: pa.DataType) -> pa.Table:
    columns: dict[str, Any] = {"number": pa.array(range(len(labels)), pa.int64())}
    for i, entity in enumerate(view.entities):
        columns[entity.join_key] = pa.array([label.key[i] for label in labels], ARROW[entity.dtype])
    columns["at"] = pa.array([label.at for label in labels], pa.int64()).cast(kind)
    return pa.table(columns)


class _Case(NamedTuple):
    view: Any
    rows: list[Row]
    labels: list[Label]
    units: tuple[str, str]
    zones: tuple[str | None, str | None]
    ttl: int | None
    files: tuple[int, int]  # the number of files, and rows of a row group


@st.composite
def _cases(draw: st.DrawFn, kind: str, most: int) -> _Case:
    unit, label_unit = draw(UNITS), draw(UNITS)
    ttl = draw(st.none() | st.integers(1, 5).map(lambda n: n * (in_microseconds(1, unit) or 1)) | st.just(10**19))
    made = draw(st.booleans())
    source = ParquetSource("rows", event_timestamp="at", created_timestamp="made" if made else None)
    view = view_of(*VIEWS[kind].entities, source=source).model_copy(
        update={"ttl": None if ttl is None else ttl * MICROSECOND}
    )
    row = st.builds(Row, _keys(view), _times(unit), st.none() | _times(unit) if made else st.none(), VALUES)
    label = st.builds(Label, _keys(view, nulls=True), _times(label_unit))
    return _Case(
        view,
        draw(st.lists(row, max_size=2 * most)),
        draw(st.lists(label, max_size=most)),
        (unit, label_unit),
        (draw(ZONES), draw(ZONES)),
        ttl,
        (draw(st.integers(1, 3)), draw(st.integers(1, 20))),
    )


def check_what_labels_see(engine: JoinEngine, case: _Case) -> None:
    view, (unit, label_unit), (zone, label_zone) = case.view, case.units, case.zones
    files, group_rows = case.files
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder / "rows", table_of(view, case.rows, pa.timestamp(unit, zone)), files, group_rows)
        given_labels = _labels_table(view, case.labels, pa.timestamp(label_unit, label_zone))
        found = World(engine, folder).table(given_labels, view)
    assert found.select(given_labels.schema.names).equals(given_labels)
    seen = list(zip(found["stats score"].to_pylist(), found["stats title"].to_pylist(), strict=True))
    assert seen == [oracle(case.rows, label, case.ttl, unit, label_unit) for label in case.labels]


@pytest.mark.parametrize("kind", VIEWS)
@settings(max_examples=100)
@given(data=st.data())
def test_each_label_gets_what_it_could_see(kind: str, data: st.DataObject) -> None:
    check_what_labels_see(LocalEngine(), data.draw(_cases(kind, 15)))


@pytest.mark.parametrize("kind", VIEWS)
# An example takes seconds, so a failing one is shown as it is, not made smaller.
@settings(max_examples=8, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_each_label_gets_on_spark_what_it_could_see(
    spark_engine: SparkEngine, small_tasks: None, kind: str, data: st.DataObject
) -> None:
    check_what_labels_see(spark_engine, data.draw(_cases(kind, 40).filter(lambda case: len(case.labels) > 5)))


def _many_rows(count: int, keys: int) -> list[Row]:
    chance = random.Random(5)
    return [
        Row(
            (chance.randrange(keys),),
            NOW_US + chance.randrange(50),
            chance.choice([None, NOW_US + chance.randrange(90)]),
            (None if i % 7 == 0 else float(i), None if i % 3 else f"t{i}"),
        )
        for i in range(count)
    ]


def _many_labels(count: int, keys: int) -> list[Label]:
    chance = random.Random(6)
    return [Label((chance.randrange(keys),), NOW_US + chance.randrange(-5, 100)) for _ in range(count)]


@pytest.mark.parametrize("kind", ["rows", "events"])
def test_a_hot_key_is_spread(spark_engine: SparkEngine, tmp_path: Path, kind: str, monkeypatch: Any) -> None:
    """One entity has most labels and rows. No part gets many more labels than the others, and all see its rows."""
    monkeypatch.setattr(spark_join, "FEWEST_LABELS", 50)
    monkeypatch.setattr(spark_join, "MOST_LABELS", 50)
    monkeypatch.setattr(spark_join, "GROUP_ROWS", 50)
    monkeypatch.setattr(spark_join, "CHUNK_ROWS", 100)
    kinds: list[EntityKind] = []
    monkeypatch.setattr(spark_join, "Shuffle", lambda *sent: kinds.extend(sent[2]) or Shuffle(*sent))
    rows = [row._replace(key=(7,)) if i % 10 else row for i, row in enumerate(_many_rows(2_000, 40))]
    labels = [label._replace(key=(7,)) if i % 10 else label for i, label in enumerate(_many_labels(1_000, 42))]
    view = VIEWS["int"]
    if kind == "events":
        counted = Aggregation("score", "count", windows=[timedelta(hours=1)])
        events = ParquetSource(
            "rows",
            event_timestamp="at",
            created_timestamp="made",
            schema=[Field("user_id", Int64), Field("score", Float64)],
        )
        view = FeatureView("stats", entities=[user], source=events, aggregations=[counted])
    write_files(tmp_path / "rows", table_of(VIEWS["int"], rows, pa.timestamp("us")), files=4, row_group_size=100)
    given_labels = _labels_table(view, labels, pa.timestamp("us"))
    found = World(spark_engine, tmp_path).table(given_labels, view)
    assert found.select(given_labels.schema.names).equals(given_labels)
    local = World(LocalEngine(), tmp_path).table(given_labels, view)
    assert found.equals(local)
    if kind == "rows":
        seen = list(zip(found["stats score"].to_pylist(), found["stats title"].to_pylist(), strict=True))
        assert seen == [oracle(rows, label, None, "us", "us") for label in labels]
    (of_users,) = kinds
    (over,) = of_users.spread.values()
    hot = sum(label.key == (7,) for label in labels)
    assert over == -(-hot // 50) > 10
    keyed = given_labels.rename_columns(["label number", "user_id", "at"]).to_batches()[0]
    sizes = np.bincount(of_users.of_labels(keyed))
    assert (sizes >= hot // over).sum() >= over
    assert sizes.max() < hot / 5


@pytest.mark.parametrize("most", [None, 700, 1])
def test_more_rows_than_are_sorted_at_once(world: World, most: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several passes, batches of labels, chunks and files give the same as one of each."""
    if most is not None:
        monkeypatch.setattr(local_join, "MOST_SORTED", most)
        monkeypatch.setattr(local_join, "CHUNK_ROWS", 500)
        monkeypatch.setattr(local_join, "BATCH_ROWS", 100)
        monkeypatch.setattr(local_join, "MOST_BYTES", 10_000)
    keys = 40 if most != 1 else 5
    rows, labels, view = _many_rows(5_000, keys), _many_labels(1_000, keys + 2), VIEWS["int"]
    write_files(world.folder / "rows", table_of(view, rows, pa.timestamp("us")), files=3, row_group_size=400)
    found = world.table(_labels_table(view, labels, pa.timestamp("us")), view)
    by_key: dict[Any, list[Row]] = {}
    for row in rows:
        by_key.setdefault(row.key, []).append(row)
    expected = [oracle(by_key.get(label.key, []), label, None, "us", "us") for label in labels]
    assert list(zip(found["stats score"].to_pylist(), found["stats title"].to_pylist(), strict=True)) == expected


def test_several_views_of_several_entities(world: World) -> None:
    of_user = FeatureView(
        "of_user",
        entities=[user],
        ttl=timedelta(microseconds=5),
        source=ParquetSource("of_user.parquet", event_timestamp="at"),
        schema=[Field("a", Float64), Field("b", Int64)],
    )
    of_both = FeatureView(
        "of_both",
        entities=[user, shop],
        source=ParquetSource("of_both.parquet", event_timestamp="at"),
        schema=[Field("a", String)],
    )
    at = pa.array([0, 10], pa.timestamp("us"))
    pq.write_table(
        pa.table({"user_id": [1, 1], "at": at, "a": [0.5, 1.5], "b": [1, 2]}), world.folder / "of_user.parquet"
    )
    both = {"user_id": [1, 2], "shop_id": ["x", "x"], "at": at, "a": ["1x", "2x"]}
    pq.write_table(pa.table(both), world.folder / "of_both.parquet")
    labels = pa.table(
        {"shop_id": ["x", "y", "x", "x"], "user_id": [1, 1, 2, 1], "at": pa.array([4, 12, 9, 20], pa.timestamp("us"))}
    )
    found = world.table(labels, of_user, of_both, wanted={"of_user": ["b"]})
    assert found.schema.names == ["shop_id", "user_id", "at", "of_user b", "of_both a"]
    assert found["of_user b"].to_pylist() == [1, 2, None, None]
    assert found["of_both a"].to_pylist() == ["1x", None, None, "1x"]


EVERY_TYPE = {
    "flag": (Bool, pa.array([True, None, False])),
    "small": (Int32, pa.array([-(2**31), None, 2**31 - 1], pa.int32())),
    "large": (Int64, pa.array([-(2**63), None, 2**63 - 1], pa.int64())),
    "single": (Float32, pa.array([0.5, None, float("-inf")], pa.float32())),
    "double": (Float64, pa.array([0.1, None, -0.0], pa.float64())),
    "when": (Timestamp, pa.array([-1, None, NOW_US], pa.timestamp("us", "UTC"))),
    "title": (String, pa.array(["", None, "ü" * 300])),
    "dictionary": (String, pa.array(["", None, "ü"]).dictionary_encode()),
    "vector": (Array(Float32, 2), pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))),
    "ragged": (Array(Int64), pa.array([[], None, [1, 2**63 - 1]], pa.list_(pa.int64()))),
    "words": (Array(String), pa.array([["a", ""], None, []], pa.large_list(pa.string()))),
    "days": (Array(Timestamp, 1), pa.array([[0], None, [NOW_US]], pa.list_(pa.timestamp("us")))),
    "widened": (Float64, pa.array([1, None, 2**53], pa.int64())),
    "narrowed": (Int32, pa.array([1.0, None, -7.0], pa.float64())),
}


def test_every_type_comes_through(world: World) -> None:
    view = view_of(user, fields={name: dtype for name, (dtype, _) in EVERY_TYPE.items()})
    at = pa.array([NOW_US] * 3, pa.timestamp("us"))
    data = {"user_id": [1, 2, 3], "at": at, "made": at} | {name: array for name, (_, array) in EVERY_TYPE.items()}
    write_files(world.folder / "rows", pa.table(data))
    labels = pa.table({"user_id": [3, 9, 2, 1, 3], "at": pa.array([NOW_US] * 5, pa.timestamp("us"))})
    found = world.table(labels, view)
    for name, (dtype, array) in EVERY_TYPE.items():
        values = array.to_pylist() if name not in ("when", "days") else {"when": [-1, None, NOW_US]}.get(name)
        values = values or [[0], None, [NOW_US]]
        column = found[f"stats {name}"]
        assert column.to_pylist() == [values[2], None, values[1], values[0], values[2]], name
        assert column.type == local_join.storage_type(dtype), name


def test_nan_is_a_value(world: World) -> None:
    view = view_of(user, fields={"score": Float64})
    write_files(world.folder / "rows", table_of(view, [Row((1,), 0, None, (float("nan"),))], pa.timestamp("us")))
    found = world.join(pa.table({"user_id": [1], "at": pa.array([5], pa.timestamp("us"))}), view)
    assert found.missing == {"stats score": 0}
    assert pc.is_nan(next(found.batches())["stats score"]).to_pylist() == [True]


def test_rows_that_do_not_fit_are_seen_by_no_label(world: World) -> None:
    """As in materialize, a row with one bad value is quarantined whole, whichever fields are wanted."""
    view = view_of(slot, fields={"score": Float64, "small": Int32})
    at = pa.array([0, 1, 2, 3, None, 99], pa.timestamp("us"))
    data = {"slot_id": [1, 1, 2**31, None, 1, 1], "at": at, "made": at}
    values = {"score": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5], "small": [1, 2**31, 1, 1, 1, 2**40]}
    write_files(world.folder / "rows", pa.table(data | values))
    labels = pa.table({"slot_id": pa.array([1, 2]), "at": pa.array([10, 10], pa.timestamp("us"))})
    found = world.table(labels, view, wanted={"stats": ["score"]})
    assert found["stats score"].to_pylist() == [0.5, None]
    assert world.quarantines["stats"].rows == 4  # the row after all labels is not checked


def test_a_label_without_a_key_sees_nothing(world: World) -> None:
    view = VIEWS["composite"]
    write_files(world.folder / "rows", table_of(view, [Row(("a", 1), 0, None, (1.0, "x"))], pa.timestamp("us")))
    labels = {"shop_id": ["a", None, "a"], "slot_id": pa.array([1, 1, None], pa.int32())}
    found = world.table(pa.table(labels | {"at": pa.array([5] * 3, pa.timestamp("us"))}), view)
    assert found["stats title"].to_pylist() == ["x", None, None]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"user_id": [1, 2], "at": pa.array([0, None], pa.timestamp("us"))}, "column at, row 1: expected a time"),
        (
            {"user_id": pa.array([1.0, 1.5]), "at": pa.array([0, 0], pa.timestamp("us"))},
            "column user_id, row 1: expected",
        ),
        ({"user_id": [1, 2], "at": pa.array([0, 2**62], pa.timestamp("us"))}, "column at, row 1: expected Timestamp"),
    ],
)
def test_a_label_that_is_wrong_is_named(world: World, labels: Any, message: str) -> None:
    write_files(world.folder / "rows", table_of(VIEWS["int"], [Row((1,), 0, None, (1.0, "x"))], pa.timestamp("us")))
    with pytest.raises(DataError, match=message):
        world.join(pa.table(labels), VIEWS["int"])


def test_labels_may_be_few_kinds_of_things(world: World) -> None:
    view = VIEWS["int"]
    write_files(world.folder / "rows", table_of(view, [Row((1,), 0, None, (1.0, "x"))], pa.timestamp("us")))
    labels = pa.table({"user_id": [1, 2], "at": pa.array([5, 6], pa.timestamp("us")), "extra": ["p", "q"]})
    pq.write_table(labels, world.folder / "labels.parquet")
    by_path = world.table(world.folder / "labels.parquet", view)
    by_query = world.table(
        LabelQuery("SELECT user_id, \"at\", extra FROM 'labels.parquet' ORDER BY ALL", world.folder), view
    )
    assert world.table(labels, view).to_pylist() == by_path.to_pylist() == by_query.to_pylist()
    assert by_path["extra"].to_pylist() == ["p", "q"]
    assert by_path["stats title"].to_pylist() == ["x", None]


def test_times_in_a_query_are_utc(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    view = VIEWS["int"]
    write_files(world.folder / "rows", table_of(view, [Row((1,), NOW_US, None, (1.0, "x"))], pa.timestamp("us")))
    text = "2023-11-14 22:13:20"
    for kind in ("TIMESTAMP", "TIMESTAMPTZ"):
        found = world.table(LabelQuery(f"SELECT 1 AS user_id, {kind} '{text}' AS \"at\"", world.folder), view)
        assert found["stats title"].to_pylist() == ["x"]


def test_what_cannot_be_read_is_told(world: World) -> None:
    write_files(world.folder / "rows", table_of(VIEWS["int"], [], pa.timestamp("us")))
    (world.folder / "broken.parquet").write_bytes(b"no Parquet")
    for labels in (world.folder / "none.parquet", world.folder / "broken.parquet"):
        with pytest.raises(DataError, match=labels.name):
            world.join(labels, VIEWS["int"])
    with pytest.raises(DataError, match="query"):
        world.join(LabelQuery("SELECT nothing FROM nowhere", world.folder), VIEWS["int"])


def test_a_training_set_takes_the_place_of_another_and_of_nothing_else(world: World) -> None:
    view = VIEWS["int"]
    write_files(world.folder / "rows", table_of(view, _many_rows(20, 5), pa.timestamp("us")))
    for count in (5, 0):
        joined = world.join(_labels_table(view, _many_labels(count, 5), pa.timestamp("us")), view)
        joined.write(world.folder / "train.parquet")
        written = pq.read_table(world.folder / "train.parquet")
        assert written.equals(pa.Table.from_batches(joined.batches(), joined.schema))
    (world.folder / "mine").mkdir()
    (world.folder / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match="mine"):
        joined.write(world.folder / "mine")
    assert (world.folder / "mine" / "notes.txt").read_text() == "keep"


def test_a_training_set_is_written_whole(world: World) -> None:
    view = VIEWS["int"]
    write_files(world.folder / "rows", table_of(view, _many_rows(100, 5), pa.timestamp("us")))
    joined = world.join(_labels_table(view, _many_labels(50, 5), pa.timestamp("us")), view)
    joined.write(world.folder / "out" / "train.parquet")
    assert pq.read_table(world.folder / "out" / "train.parquet").equals(pa.Table.from_batches(joined.batches()))
    assert [path.name for path in (world.folder / "out").iterdir()] == ["train.parquet"]
    (world.folder / "file").write_text("no folder")
    with pytest.raises(DataError, match="file"):
        joined.write(world.folder / "file" / "below.parquet")


def test_no_label_changes_with_what_came_after_it(world: World) -> None:
    """No leakage, with real files: other rows later than a label, by either time, change nothing for the label."""
    view, chance = VIEWS["int"], random.Random(8)
    rows, labels = _many_rows(400, 6), _many_labels(60, 6)
    given_labels = _labels_table(view, labels, pa.timestamp("us"))
    write_files(world.folder / "rows", table_of(view, rows, pa.timestamp("us")), files=2, row_group_size=50)
    before = world.table(given_labels, view)
    for i in chance.sample(range(len(labels)), 12):
        at = labels[i].at
        changed = [
            row if max(row.at, row.made or row.at) <= at else row._replace(values=(-1.0, "leaked"), made=at + 1)
            for row in rows
        ]
        write_files(world.folder / "rows", table_of(view, changed, pa.timestamp("us")), files=2, row_group_size=50)
        assert world.table(given_labels, view).slice(i, 1).equals(before.slice(i, 1))


def test_arrays_of_numbers_keep_their_bits(world: World) -> None:
    view = view_of(user, fields={"vector": Array(Float32, 3)})
    vectors = np.random.default_rng(1).random((50, 3), np.float32)
    at = pa.array([0] * 50, pa.timestamp("us"))
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 3)
    write_files(world.folder / "rows", pa.table({"user_id": list(range(50)), "at": at, "made": at, "vector": column}))
    labels = pa.table({"user_id": list(range(49, -1, -1)), "at": at})
    found = world.table(labels, view)["stats vector"].combine_chunks()
    assert found.values.to_numpy().reshape(-1, 3).tobytes() == vectors[::-1].tobytes()
