"""Windows in training sets of whole projects are the served ones, whether streamed or materialized."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.definitions.dtypes import to_microseconds
from feature_store.errors import DataError, RequestError
from feature_store.monitoring.skew import is_equal
from tests.online.stream_worlds import merge_events

AT = datetime(2026, 1, 10, 12, 34, 56, tzinfo=UTC)
AT_US = to_microseconds(AT)
SECOND_US = 1_000_000
USERS = 12
FEATURES = """
from datetime import timedelta
from feature_store import *

HOURS = [timedelta(hours=1), timedelta(hours=6)]
user, shop = Entity("user", join_key="user_id"), Entity("shop", join_key="shop_id", dtype=String)
COLUMNS = [Field("user_id", Int64), Field("shop_id", String), Field("price", Float64), Field("action", String)]
AGGREGATIONS = [
    *(Aggregation("price", function, windows=HOURS)
      for function in ("count", "sum", "mean", "min", "max", "stddev", "first", "last", "distinct")),
    Aggregation("price", "last_n", windows=HOURS, n=3),
    Aggregation("price", "quantile", windows=HOURS, q=0.9, buckets=16),
    Aggregation("action", "count_per_category", windows=HOURS, categories=["view", "buy"]),
    Aggregation("price", "sum_per_category", windows=HOURS, by="action", categories=["view", "buy"]),
    Aggregation("action", "top_k", windows=HOURS, n=1, categories=["view", "buy"]),
    Aggregation("price", "mean", windows=HOURS, filter="action == 'buy'", name="bought"),
    *(Aggregation("price", function, windows=["lifetime"]) for function in ("sum", "min", "last")),
    *(Aggregation("price", function, half_life=HOURS[0]) for function in ("decayed_sum", "decayed_mean")),
    Sequence("recent", columns=["price", "action", "event_timestamp"], n=20, categories={"action": ["view", "buy"]}),
    Sequence("bought", columns=["price", "event_timestamp"], n=4, window=HOURS[0], filter="action == 'buy'", distinct="price")]
history = ParquetSource("events.parquet", event_timestamp="ts", schema=COLUMNS)
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="ts", schema=COLUMNS,
                     history=ParquetSource("events.parquet", event_timestamp="ts"))
activity = StreamFeatureView("activity", entities=[user], source=clicks, aggregations=AGGREGATIONS)
by_shop = StreamFeatureView("by_shop", entities=[shop, user], source=clicks, aggregations=AGGREGATIONS[:3])
forgotten = StreamFeatureView("forgotten", entities=[user], aggregations=AGGREGATIONS[:1],
    source=KafkaSource("unkept", topic="clicks", event_timestamp="ts", schema=COLUMNS))
daily = FeatureView("daily", entities=[user], source=history, aggregations=AGGREGATIONS, ttl=timedelta(days=1))
closing = FeatureView("closing", entities=[shop], source=ParquetSource("events.parquet", event_timestamp="hour"),
    sql="SELECT shop_id, date_trunc('hour', ts) + INTERVAL 1 HOUR AS hour, max_by(price, ts) AS closing_price "
        "FROM source GROUP BY ALL", schema=[Field("closing_price", Float32)])

@on_demand_feature_view(sources=[activity[["price_mean_1h", "price_count_6h"]]], schema=[Field("busy", Float64)])
def pace(inputs):
    return {"busy": inputs["price_mean_1h"] * inputs["price_count_6h"]}

def all_of(view, prefix):
    names = [field.name for field in view.fields]
    return view[names].rename({name: f"{prefix}_{name}" for name in names})

live = FeatureService("live", features=[activity, all_of(by_shop, "pair"), pace])
batch = FeatureService("batch", features=[daily, closing])
unkept = FeatureService("unkept", features=[forgotten])
"""


def make_events() -> list[dict[str, Any]]:
    chance = random.Random(11)
    return [
        {
            "user_id": chance.randrange(USERS),
            "shop_id": f"s{chance.randrange(3)}",
            "ts": AT_US - chance.randrange(1, 9 * 3600 * SECOND_US),
            "price": chance.choice([None, float("nan"), *(chance.randrange(-99, 99) / 4 for _ in range(8))]),
            "action": chance.choice(["buy", "view", None]),
        }
        for _ in range(600)
    ]


@pytest.fixture
def store(tmp_path: Path, redis_url: str) -> Any:
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    (tmp_path / "features.py").write_text(FEATURES)
    events = make_events()
    types = [pa.int64(), pa.string(), pa.timestamp("us", "UTC"), pa.float64(), pa.string()]
    columns = {name: pa.array([e[name] for e in events], kind) for name, kind in zip(events[0], types, strict=True)}
    pq.write_table(pa.table(columns), tmp_path / "events.parquet", row_group_size=100)
    with FeatureStore(tmp_path) as opened:
        opened.apply()
        yield opened


def labels_at(at: datetime) -> pa.Table:
    keys = [(user, f"s{shop}") for user in range(USERS + 2) for shop in range(4)]
    return pa.table(
        {
            "user_id": [user for user, _ in keys],
            "shop_id": [shop for _, shop in keys],
            "event_timestamp": pa.array([at] * len(keys), pa.timestamp("us", "UTC")),
        }
    )


def assert_no_skew(store: FeatureStore, service: str, at: datetime) -> dict[str, list[Any]]:
    labels = labels_at(at)
    offline = store.get_historical_features(labels, service)
    online = store.get_online_features(service, labels.drop(["event_timestamp"]).to_pydict(), now=at)
    table, served = offline.to_arrow(), online.to_dict()
    for name in online.names:
        pairs = zip(table[name].to_pylist(), served[name], strict=True)
        assert all(is_equal(one, other) for one, other in pairs), name
    assert table.select(online.names).schema == online.to_arrow().schema
    return served


def test_streamed_windows_are_the_same_in_training(store: FeatureStore) -> None:
    """At the time of the newest event, and later as the windows slide: offline, each hop begins at the same second."""
    for view in ("activity", "by_shop"):
        with store.online.tile_writer(view) as writer:
            merge_events(writer, make_events(), {"clicks:0": (None, 600)})
    found = [assert_no_skew(store, "live", AT + timedelta(seconds=s)) for s in (0, 1, 74, 75, 1800, 5 * 3600, 9 * 3600)]
    assert found[0]["price_count_6h"] != found[-2]["price_count_6h"]
    assert set(found[-1]["price_count_6h"]) == {0}
    assert any(value is None for value in found[0]["busy"])
    assert any(value is not None for value in found[0]["busy"])


def test_sequences_are_padded_alike_in_serving_and_training(store: FeatureStore) -> None:
    """Aligned lists of the newest events, by the obvious computation; also for several rows of one entity."""
    events = make_events()
    with store.online.tile_writer("activity") as writer:
        merge_events(writer, events, {"clicks:0": (None, 600)})
    names = [f"recent_{name}" for name in ("price", "action", "event_timestamp")]
    users = [*range(USERS + 2), 3, 3]
    online = store.get_online_features("live", {"user_id": users, "shop_id": "s0"}, now=AT)
    labels = pa.table({"user_id": users, "shop_id": ["s0"] * len(users), "event_timestamp": [AT] * len(users)})
    offline = store.get_historical_features(labels, "live")
    assert online.padded(names, 30).values["recent_price"].shape == (len(users), 30)
    for n in (None, 3):
        served, trained = online.padded(names, n), offline.padded(names, n)
        for row, user in enumerate(users):
            own = [one for one in events if one["user_id"] == user and one["action"] and is_number(one["price"])]
            own = sorted(own, key=lambda one: -one["ts"])[: 20 if n is None else n]
            assert served.lengths[row] == len(own) == served.mask[row].sum()
            expected = [(one["price"], 1 + ["view", "buy"].index(one["action"]), one["ts"]) for one in own]
            assert (
                list(zip(*(served.values[name][row][: len(own)].tolist() for name in names), strict=True)) == expected
            )
            assert not any(served.values[name][row][len(own) :].any() for name in names)
        for name in names:
            assert served.values[name].dtype == trained.values[name].dtype
            np.testing.assert_array_equal(served.values[name], trained.values[name])
        np.testing.assert_array_equal(served.mask, trained.mask)
    ragged = online.ragged(names)
    np.testing.assert_array_equal(np.diff(ragged.offsets), online.padded(names).lengths)
    bought = online.padded(["bought_price_1h", "bought_event_timestamp_1h"])
    for prices, count in zip(bought.values["bought_price_1h"], bought.lengths.tolist(), strict=True):
        assert len(set(prices[:count].tolist())) == count <= 4
    times = bought.values["bought_event_timestamp_1h"]
    assert (times[bought.mask] >= AT_US - 3600 * SECOND_US).all()
    with pytest.raises(RequestError, match="ask for the columns of one Sequence"):
        online.ragged(["recent_price", "bought_price_1h"])
    with pytest.raises(RequestError, match="a list of numbers"):
        online.padded(["price_sum_1h"])
    with pytest.raises(RequestError, match="names among"):
        offline.padded(["nothing"])


def is_number(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def test_materialized_windows_are_the_same_in_training(store: FeatureStore) -> None:
    """As of the end of each interval, also for entities whose events have all left the windows since the last."""
    for hours in (-7, -3, 0, 1, 4, 12):
        end = AT + timedelta(hours=hours)
        store.materialize(end=end)
        served = assert_no_skew(store, "batch", end)
        assert (max(served["price_count_6h"]) > 0) == (hours < 6)
    with_ttl = store.get_online_features("batch", {"user_id": 1, "shop_id": "s0"}, now=end + timedelta(days=2))
    assert with_ttl.status["price_mean_1h"][0].name == "EXPIRED"


def test_a_repeated_materialize_takes_events_that_came_late(store: FeatureStore) -> None:
    store.materialize(end=AT)
    events = pq.read_table(store.config.folder / "events.parquet")
    late = events.slice(0, 1).set_column(2, "ts", pa.array([AT - timedelta(minutes=1)], events.schema.field("ts").type))
    pq.write_table(pa.concat_tables([events, late]), store.config.folder / "events.parquet")
    store.materialize(end=AT, start=AT - timedelta(hours=1))
    assert_no_skew(store, "batch", AT)


def test_the_manifest_names_the_history(store: FeatureStore) -> None:
    manifest = store.get_historical_features(labels_at(AT), "live").manifest
    assert {source.view: source.rows for source in manifest.sources} == {"activity": 600, "by_shop": 600}
    assert manifest.sources[0].files[0].path.endswith("events.parquet")
    assert manifest.missing["price_count_1h"] == 0
    assert manifest.missing["price_mean_1h"] > 0


def test_what_has_no_history_or_is_computed_is_refused(store: FeatureStore) -> None:
    with pytest.raises(RequestError, match=r"view forgotten: expected a history of its events.*unkept"):
        store.get_historical_features(labels_at(AT), "unkept")
    with pytest.raises(DataError, match=r"push to daily: the view aggregates events"):
        store.push("daily", labels_at(AT))


def test_changed_aggregations_make_a_new_generation_that_is_filled_as_of_the_last_end(store: FeatureStore) -> None:
    store.materialize(end=AT)
    file = store.config.folder / "features.py"
    counted = 'source=history, aggregations=[Aggregation("price", "count", windows=[timedelta(hours=2)])]'
    file.write_text(FEATURES.replace("source=history, aggregations=AGGREGATIONS", counted))
    with FeatureStore(store.config.folder) as changed:
        changed.apply(allow_destructive=True)
        served = assert_no_skew(changed, "batch", AT)
        assert max(served["price_count_2h"]) > 0
