"""Windows of events on every engine: at the times of labels, and of all entities as of an interval's end."""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from feature_store._intervals import BEGINNING
from feature_store.arrow.sources.opening import open_view
from feature_store.definitions import (
    Aggregation,
    Entity,
    FeatureView,
    Field,
    Float32,
    Int32,
    Int64,
    KafkaSource,
    ParquetSource,
    StreamFeatureView,
    String,
    Timestamp,
)
from feature_store.engines.join import JoinEngine
from feature_store.engines.local import join as local_join, windows as local_windows
from feature_store.engines.local.engine import LocalEngine
from feature_store.engines.spark import engine as spark
from feature_store.engines.spark.engine import SparkEngine
from feature_store.engines.windows import windows_of
from feature_store.errors import DataError
from tests.engines.offline_worlds import NOW_US, SECOND_US, write_files
from tests.engines.test_engine import Staged
from tests.engines.test_join import World
from tests.online.stream_worlds import SHORT, activity, by_shop, expected, shop, source, user

Event = dict[str, Any]
TYPES = {
    "user_id": pa.int64(),
    "shop_id": pa.string(),
    "price": pa.float64(),
    "action": pa.string(),
    "ts": pa.timestamp("us", "UTC"),
    "made": pa.timestamp("us", "UTC"),
}
HISTORY = ParquetSource("events", event_timestamp="ts", created_timestamp="made")


def _kept(view: StreamFeatureView) -> StreamFeatureView:
    kept = KafkaSource(
        source.name, topic=source.topic, event_timestamp="ts", schema=list(source.fields), history=HISTORY
    )
    return StreamFeatureView(view.name, entities=view.entities, source=kept, aggregations=view.aggregations)


def _batch(view: StreamFeatureView) -> FeatureView:
    events = ParquetSource("events", event_timestamp="ts", created_timestamp="made", schema=list(source.fields))
    return FeatureView(view.name, entities=view.entities, source=events, aggregations=view.aggregations)


STREAMED, BATCH, PAIRS = _kept(activity), _batch(activity), _batch(by_shop)


def write_events(folder: Path, events: list[Event], files: int = 2) -> None:
    columns = {name: pa.array([event[name] for event in events], kind) for name, kind in TYPES.items()}
    write_files(folder / "events", pa.table(columns), files, row_group_size=17)


def table_of_labels(keys: list[tuple[Any, ...]], times: list[int], view: Any = BATCH) -> pa.Table:
    names = {"user_id": pa.int64(), "shop_id": pa.string()}
    columns = {name: pa.array([key[i] for key in keys], names[name]) for i, name in enumerate(view.join_keys)}
    return pa.table({"at": pa.array(times, TYPES["ts"])} | columns)


def assert_values(
    view: Any, found: pa.Table, events: list[Event], keys: list[tuple[Any, ...]], times: list[int]
) -> None:
    for i, (key, at) in enumerate(zip(keys, times, strict=True)):
        known = [event for event in events if (event["ts"] if event["made"] is None else event["made"]) <= at]
        for name, value in expected(view, known, key, at).items():
            assert_equal(found[f"{view.name} {name}"][i].as_py(), value, name)


def assert_equal(got: Any, value: Any, name: str) -> None:
    if isinstance(value, float):
        assert got == pytest.approx(value, rel=1e-9, abs=1e-9), name
    elif "distinct" in name:
        assert abs(got - value) <= 1 + 0.3 * value, name
    else:
        assert got == value, name


def event(user_id: int = 1, ago_s: float = 0, late_s: float | None = None, **values: Any) -> Event:
    ts = NOW_US - int(ago_s * SECOND_US)
    made = None if late_s is None else ts + int(late_s * SECOND_US)
    return {
        "user_id": user_id,
        "shop_id": f"s{user_id % 2}",
        "ts": ts,
        "made": made,
        "price": 1.0,
        "action": "buy",
    } | values


EVENTS = st.lists(
    st.builds(
        event,
        st.integers(1, 3),
        st.integers(0, 9000).map(lambda tenths: tenths / 10) | st.integers(0, 7200),
        st.none() | st.integers(-5, 4000),
        price=st.none() | st.just(float("nan")) | st.integers(-999, 999).map(lambda n: n / 8),
        action=st.sampled_from(["buy", "view", None]),
    ),
    max_size=40,
)
LABELS = st.lists(
    st.tuples(st.none() | st.integers(1, 4), st.integers(-4000, 7300).map(lambda s: NOW_US - s * SECOND_US)),
    max_size=12,
)


def check_windows_of_labels(
    engine: JoinEngine, view: Any, events: list[Event], labels: list[tuple[int | None, int]]
) -> None:
    keys, times = [(user_id,) for user_id, _ in labels], [at for _, at in labels]
    with tempfile.TemporaryDirectory() as name:
        write_events(Path(name), events)
        found = World(engine, Path(name)).table(table_of_labels(keys, times), view)
    assert_values(view, found, events, keys, times)


@pytest.mark.parametrize("view", [STREAMED, BATCH], ids=["streamed", "batch"])
@settings(max_examples=60)
@given(events=EVENTS, labels=LABELS)
def test_labels_get_the_windows_of_their_time(
    view: Any, events: list[Event], labels: list[tuple[int | None, int]]
) -> None:
    check_windows_of_labels(LocalEngine(), view, events, labels)


# An example takes seconds, so a failing one is shown as it is, not made smaller.
ON_SPARK = settings(
    max_examples=5, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("view", [STREAMED, BATCH], ids=["streamed", "batch"])
@ON_SPARK
@given(events=EVENTS, labels=LABELS)
def test_labels_get_on_spark_the_windows_of_their_time(
    spark_engine: SparkEngine, view: Any, events: list[Event], labels: list[tuple[int | None, int]]
) -> None:
    check_windows_of_labels(spark_engine, view, events, labels)


def _many(count: int, users: int) -> list[Event]:
    chance = random.Random(3)
    return [
        event(
            chance.randrange(users),
            chance.randrange(7200),
            chance.choice([None, chance.randrange(600)]),
            price=float(i % 101),
            action=chance.choice(["buy", "view"]),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("most", [None, 300, 1])
def test_events_are_done_in_parts_when_they_are_many(
    engine: JoinEngine, tmp_path: Path, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if most is not None:
        monkeypatch.setattr(local_join, "MOST_SORTED", most)
        monkeypatch.setattr(local_join, "CHUNK_ROWS", 200)
        monkeypatch.setattr(local_join, "BATCH_ROWS", 13)
    users = 12 if most != 1 else 3
    events = _many(1000, users)
    write_events(tmp_path, events)
    chance = random.Random(4)
    keys = [(chance.randrange(users + 2),) for _ in range(60)]
    times = [NOW_US - chance.randrange(-600, 7200) * SECOND_US for _ in keys]
    found = World(engine, tmp_path).table(table_of_labels(keys, times), BATCH)
    assert_values(BATCH, found, events, keys, times)


def test_windows_beside_rows_of_composite_keys(engine: JoinEngine, tmp_path: Path) -> None:
    write_events(tmp_path, [event(1, 10, price=2.0), event(1, 20, price=4.0), event(2, 5, price=9.0)])
    keys = [("s1", 1), ("s0", 1), ("s0", 2), (None, 2)]
    found = World(engine, tmp_path).table(table_of_labels(keys, [NOW_US] * 4, PAIRS), PAIRS)
    assert found["by_shop price_mean_1h"].to_pylist() == [3.0, None, 9.0, None]


def staged(engine: Any, view: FeatureView, folder: Path, interval: tuple[int, int]) -> Staged:
    return Staged(engine, view, open_view(view.source, view, folder), folder, interval)


def assert_staged(view: FeatureView, found: Any, events: list[Event], end_us: int, users: set[int]) -> None:
    assert set(found) == {(user_id,) for user_id in users}
    known: dict[tuple[int], list[Event]] = defaultdict(list)
    for one in events:
        if one["ts"] < end_us and (one["made"] or one["ts"]) <= end_us:
            known[(one["user_id"],)].append(one)
    for key, row in found.items():
        assert (row.at_us, row.made_us) == (end_us, end_us)
        for name, value in expected(view, known[key], key, end_us).items():
            got = row.values[[field.name for field in view.fields].index(name)]
            assert_equal(list(got) if isinstance(value, list) else got, value, name)


def check_windows_at_the_end(engine: Any, events: list[Event], end_s: int, span: int | None) -> None:
    end_us = NOW_US - end_s * SECOND_US
    start_us = BEGINNING if span is None else end_us - span * SECOND_US
    since = (end_us if span is None else start_us) - windows_of(BATCH).longest_us
    with tempfile.TemporaryDirectory() as name:
        write_events(Path(name), events)
        found = staged(engine, BATCH, Path(name), (start_us, end_us))
        users = {one["user_id"] for one in events if since <= one["ts"] < end_us}
        assert_staged(BATCH, found.rows(), events, end_us, users)
        assert found.in_interval == sum(max(start_us, since) <= one["ts"] < end_us for one in events)


ENDS, SPANS = st.integers(-100, 7300), st.none() | st.integers(1, 4000)


@settings(max_examples=40)
@given(events=EVENTS, end_s=ENDS, span=SPANS)
def test_windows_are_computed_as_of_the_end_of_the_interval(events: list[Event], end_s: int, span: int | None) -> None:
    check_windows_at_the_end(LocalEngine(), events, end_s, span)


@ON_SPARK
@given(events=EVENTS, end_s=ENDS, span=SPANS)
def test_windows_are_computed_on_spark_as_of_the_end(
    spark_engine: SparkEngine, events: list[Event], end_s: int, span: int | None
) -> None:
    check_windows_at_the_end(spark_engine, events, end_s, span)


def test_an_entity_whose_events_have_left_the_windows_is_told_so(engine: Any, tmp_path: Path) -> None:
    """Otherwise the value of the interval's start would be served as if it were the value of its end."""
    write_events(tmp_path, [event(1, 3700), event(2, 3600 * 3), event(3, 10)])
    early = staged(engine, BATCH, tmp_path, (BEGINNING, NOW_US - 3600 * SECOND_US)).rows()
    count = [field.name for field in BATCH.fields].index("price_count_1h")
    assert {key[0]: row.values[count] for key, row in early.items()} == {1: 1}
    later = staged(engine, BATCH, tmp_path, (NOW_US - 3600 * SECOND_US, NOW_US)).rows()
    assert {key[0]: row.values[count] for key, row in later.items()} == {1: 0, 3: 1}


def test_a_lifetime_has_all_events_until_the_end(engine: Any, tmp_path: Path) -> None:
    """Also those that no other window reaches, and those recorded later than they happened."""
    functions = [Aggregation("price", function, windows=["lifetime"]) for function in ("count", "sum", "last")]
    functions.append(Aggregation("price", "decayed_sum", half_life=timedelta(days=365)))
    days = FeatureView("daily", entities=BATCH.entities, source=BATCH.source, aggregations=functions)
    year_s = 365 * 86_400
    events = [event(1, 40 * year_s), event(1, year_s, price=2.5), event(2, year_s, late_s=year_s + 10), event(3, -5)]
    write_events(tmp_path, events)
    rows = staged(engine, days, tmp_path, (NOW_US - 60 * SECOND_US, NOW_US)).rows()
    assert {key[0]: list(row.values) for key, row in rows.items() if key[0] != 2} == {
        1: [2, 3.5, 2.5, pytest.approx(1.25, rel=1e-9)]
    }
    later = staged(engine, days, tmp_path, (NOW_US, NOW_US + 60 * SECOND_US)).rows()
    assert {key[0]: list(row.values) for key, row in later.items()} == {
        1: [2, 3.5, 2.5, pytest.approx(1.25, rel=1e-5)],
        2: [1, 1, 1, pytest.approx(0.5, rel=1e-5)],
        3: [1, 1, 1, pytest.approx(1, rel=1e-5)],
    }


def test_many_entities_make_many_chunks(engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_windows, "CHUNK_ROWS", 100)
    monkeypatch.setattr(local_windows, "EVENTS", 500)
    monkeypatch.setattr(spark, "TASK_BYTES", 1000 * 60)
    monkeypatch.setattr(spark, "FILES_PER_CHUNK", 1)
    events = _many(5000, 700)
    write_events(tmp_path, events)
    found = staged(engine, BATCH, tmp_path, (BEGINNING, NOW_US + 1))
    since = NOW_US + 1 - windows_of(BATCH).longest_us
    assert_staged(BATCH, found.rows(), events, NOW_US + 1, {one["user_id"] for one in events if one["ts"] >= since})
    assert engine.chunk_count(found.target) == len(found.chunks()) >= 5


def test_events_that_do_not_fit_are_set_aside(engine: Any, tmp_path: Path) -> None:
    bad = [event(1, 1, ts=0), event(1, 1) | {"user_id": None}, event(1, 1, ts=None), event(1, 1, ts=2**55)]
    write_events(tmp_path, [*bad, event(1, 5, price=3.0)])
    world = World(engine, tmp_path)
    found = world.table(table_of_labels([(1,)], [NOW_US]), BATCH)
    assert found["activity price_sum_1h"].to_pylist() == [3.0]
    assert world.quarantines["activity"].rows == 2  # only bad events that a label could see are counted
    found = world.table(table_of_labels([(1,)], [SECOND_US]), BATCH)  # no window holds the first day of 1970
    assert found["activity price_count_1h"].to_pylist() == [0]
    assert world.quarantines["activity"].rows == 2
    rows = staged(engine, BATCH, tmp_path, (BEGINNING, NOW_US + 1))
    assert rows.quarantined == 2
    assert rows.rows()[(1,)].values[2] == 3.0


def test_columns_of_all_types_are_aggregated(engine: Any, tmp_path: Path) -> None:
    entity = Entity("thing", join_key="thing_id", dtype=Int32)
    events = ParquetSource(
        "typed",
        event_timestamp="ts",
        schema=[Field("thing_id", Int32), Field("small", Int32), Field("single", Float32), Field("when", Timestamp),
                Field("word", String)],
    )  # fmt: skip
    view = FeatureView(
        "typed",
        entities=[entity],
        source=events,
        aggregations=[
            Aggregation("small", "sum", windows=[SHORT]),
            Aggregation("small", "last_n", windows=[SHORT], n=2),
            Aggregation("single", "last", windows=[SHORT]),
            Aggregation("when", "first", windows=[SHORT]),
            Aggregation("when", "last_n", windows=[SHORT], n=2),
            Aggregation("word", "count", windows=[SHORT]),
            Aggregation("word", "distinct", windows=[SHORT]),
            Aggregation("small", "max", windows=[SHORT], filter="word == 'a'", name="of_a"),
        ],
    )
    table = {
        "thing_id": pa.array([1, 1, 1], pa.int64()),
        "ts": pa.array([NOW_US - 3, NOW_US - 2, NOW_US - 1], pa.timestamp("us")),
        "small": pa.array([5, 6, None], pa.int32()),
        "single": pa.array([0.5, 0.25, 0.125], pa.float32()),
        "when": pa.array([NOW_US, None, 1], pa.timestamp("us", "UTC")),
        "word": ["a", "b", "a"],
    }
    write_files(tmp_path / "typed", pa.table(table))
    labels = pa.table({"thing_id": pa.array([1, 2], pa.int32()), "at": pa.array([NOW_US] * 2, pa.timestamp("us"))})
    found = World(engine, tmp_path).table(labels, view)
    assert {name.split()[1]: found[name].to_pylist() for name in found.schema.names[2:]} == {
        "small_sum_1m": [11.0, 0.0],
        "small_last2_1m": [[6, 5], []],
        "single_last_1m": [0.125, None],
        "when_first_1m": [NOW_US, None],
        "when_last2_1m": [[1, NOW_US], []],
        "word_count_1m": [3, 0],
        "word_distinct_1m": [2, 0],
        "of_a_1m": [5.0, None],
    }
    rows = staged(engine, view, tmp_path, (BEGINNING, NOW_US)).rows()
    assert [list(value) if hasattr(value, "__len__") else value for value in rows[(1,)].values] == [
        11.0, [6, 5], 0.125, NOW_US, [1, NOW_US], 3, 2, 5.0
    ]  # fmt: skip


SQL_SOURCE = ParquetSource("events", event_timestamp="hour", created_timestamp="known")
SQL = """
-- the last price of each hour
SELECT user_id, date_trunc('hour', ts) + INTERVAL 1 HOUR AS hour, max(ts) AS known,
       max_by(price, ts) AS closing, count(*) AS orders, sum(CAST(price AS BIGINT)) AS total
FROM source WHERE action = 'buy' GROUP BY user_id, date_trunc('hour', ts)
"""


def test_sql_makes_rows_of_a_source(engine: Any, tmp_path: Path) -> None:
    view = FeatureView(
        "hourly",
        entities=[user],
        source=SQL_SOURCE,
        sql=SQL,
        schema=[Field("closing", Float32), Field("orders", Int64), Field("total", Int64)],
    )
    hour = NOW_US // (3600 * SECOND_US) * 3600 * SECOND_US
    events = [
        event(1, ts=hour - 10, price=2.0),
        event(1, ts=hour - 20, price=7.0),
        event(1, ts=hour - 30, action="view"),
        event(1, ts=hour + 5, price=11.0),
        event(2, ts=hour + 6, price=5.0),
    ]
    write_events(tmp_path, events)
    times = [hour - 1, hour, hour + 3600 * SECOND_US, hour + 3600 * SECOND_US]
    labels = table_of_labels([(1,), (1,), (1,), (2,)], times)
    found = World(engine, tmp_path).table(labels, view)
    assert found["hourly closing"].to_pylist() == [None, 2.0, 11.0, 5.0]
    assert found["hourly orders"].to_pylist() == [None, 2, 1, 1]
    rows = staged(engine, view, tmp_path, (BEGINNING, hour + 1)).rows()
    assert {key: row.values for key, row in rows.items()} == {(1,): (2.0, 2, 9)}
    assert rows[(1,)].at_us == hour


def test_sql_makes_events_that_are_aggregated(engine: Any, tmp_path: Path) -> None:
    events = ParquetSource("events", event_timestamp="ts", schema=[Field("user_id", Int64), Field("doubled", Float32)])
    view = FeatureView(
        "doubled",
        entities=[user],
        source=events,
        sql="WITH bought AS (FROM source WHERE action = 'buy') SELECT user_id, ts, price * 2 AS doubled FROM bought;",
        aggregations=[Aggregation("doubled", "sum", windows=[timedelta(hours=1)])],
    )
    write_events(tmp_path, [event(1, 5, price=1.5), event(1, 6, price=2.0), event(1, 7, action="view"), event(1, 9000)])
    found = World(engine, tmp_path).table(table_of_labels([(1,)], [NOW_US]), view)
    assert found["doubled doubled_sum_1h"].to_pylist() == [7.0]
    rows = staged(engine, view, tmp_path, (NOW_US - 60 * SECOND_US, NOW_US + 1)).rows()
    assert rows[(1,)].values == (7.0,)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM other", "no other table than `source`, got other"),
        ("SELECT * FROM read_parquet('events/*.parquet')", "table function read_parquet"),
        ("SELECT * FROM 'events/part-0.parquet'", "no other table"),
        ("SELECT * FROM source; DROP TABLE source", "one SELECT"),
        ("DELETE FROM source", "one SELECT"),
        ("SELECT FROM WHERE", "hourly.sql: expected"),
        (
            "SELECT user_id, ts AS hour, ts AS known FROM source",
            "hourly.sql: column closing: expected a column of Float32",
        ),
        ("SELECT nothing FROM source", "hourly.sql: expected SQL that runs on the source"),
    ],
)
def test_sql_that_is_wrong_is_told(engine: Any, tmp_path: Path, sql: str, message: str) -> None:
    view = FeatureView("hourly", entities=[user], source=SQL_SOURCE, sql=sql, schema=[Field("closing", Float32)])
    write_events(tmp_path, [event(1)])
    with pytest.raises(DataError, match=message):
        World(engine, tmp_path).table(table_of_labels([(1,)], [NOW_US]), view)
    with pytest.raises(DataError, match=message):
        staged(engine, view, tmp_path, (BEGINNING, NOW_US))


def test_shops_are_entities_too(engine: Any, tmp_path: Path) -> None:
    view = FeatureView("of_shop", entities=[shop], source=BATCH.source, aggregations=BATCH.aggregations[:1])
    write_events(tmp_path, [event(1, 1), event(3, 2), event(2, 3)])
    rows = staged(engine, view, tmp_path, (BEGINNING, NOW_US + 1)).rows()
    assert {key: row.values for key, row in rows.items()} == {("s1",): (2, 2), ("s0",): (1, 1)}
