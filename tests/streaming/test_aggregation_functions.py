"""Functions with parameters: values served from messages in Kafka equal the point-in-time join of the same events."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.streaming.streaming_worlds import make_topic, project, send, some_clicks, value_of, work

LIFETIMES = ("price_count_lifetime", "price_last3_lifetime")
NOW_US = time.time_ns() // 1_000
SHOPS = [f"shop {i}" for i in range(5)]
DEFINITIONS = f"""
from datetime import timedelta
from feature_store import *
week, SHOPS = timedelta(days=7), {SHOPS}
user = Entity("user", join_key="user_id", dtype=Int64)
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="ts",
    schema=[Field("user_id", Int64), Field("shop", String), Field("price", Float64)], history=HISTORY)
by_user = StreamFeatureView("by_user", entities=[user], source=clicks, aggregations=[
    Aggregation("price", "quantile", q=0.5, buckets=128, windows=[week]),
    Aggregation("shop", "count_per_category", categories=SHOPS, windows=[week]),
    Aggregation("price", "sum_per_category", by="shop", categories=SHOPS, windows=[week]),
    Aggregation("shop", "top_k", n=2, categories=SHOPS, windows=[week]),
    Aggregation("price", "count", windows=["lifetime"]),
    Aggregation("price", "last_n", n=3, windows=["lifetime"]),
    *(Aggregation("price", function, half_life=timedelta(minutes=20))
      for function in ("decayed_sum", "decayed_count", "decayed_mean"))])
served = FeatureService("served", features=[by_user])
"""


def test_what_kafka_brings_is_served_as_it_is_joined(tmp_path: Path, redis_url: str, kafka: str) -> None:
    clicks = some_clicks(600, users=6, seed=5, start_us=NOW_US - 3600 * 1_000_000)
    times = pa.array([click["ts"] * 1000 for click in clicks], pa.timestamp("us", "UTC"))
    columns: dict[str, Any] = {name: [click[name] for click in clicks] for name in ("user_id", "shop", "price")}
    pq.write_table(pa.table(columns | {"ts": times}), tmp_path / "history.parquet")
    make_topic(kafka, "clicks", 2)
    now = datetime.fromtimestamp(NOW_US // 1_000_000, UTC)
    users = sorted({click["user_id"] for click in clicks})
    with project(tmp_path, redis_url, kafka, history=True, definitions=DEFINITIONS) as store:
        send(kafka, "clicks", map(value_of, clicks), 2)
        work(store, lambda status: status.topic("clicks").messages >= 600 and status.lag == 0 and status.positions)
        online = store.get_online_features("served", {"user_id": [*users, 99]}, now=now).to_dict()
        labels = pa.table({"user_id": [*users, 99], "event_timestamp": pa.array([now] * (len(users) + 1))})
        joined = store.get_historical_features(labels, "served").to_arrow()
    for name in ("price_p50_7d", "shop_count_per_category_7d", "shop_top2_7d", *LIFETIMES):
        assert joined[name].to_pylist() == online[name]
    sums = "price_sum_per_category_7d"
    np.testing.assert_allclose(joined[sums].to_pylist(), online[sums], rtol=1e-9)
    for name in ("price_decayed_sum_20m", "price_decayed_count_20m", "price_decayed_mean_20m"):
        np.testing.assert_allclose(joined[name].to_pylist()[:-1], online[name][:-1], rtol=1e-9)
    for i, user in enumerate(users):
        own = [click for click in clicks if click["user_id"] == user]
        assert online["price_count_lifetime"][i] == len(own)
        weights = [0.5 ** ((NOW_US // 1_000_000 * 1_000_000 - click["ts"] * 1000) / 1.2e9) for click in own]
        assert online["price_decayed_count_20m"][i] == pytest.approx(sum(weights), rel=1e-9)
        counts = [sum(click["shop"] == shop for click in own) for shop in SHOPS]
        assert online["shop_count_per_category_7d"][i] == counts
        most = sorted(
            (shop for shop in SHOPS if counts[SHOPS.index(shop)]), key=lambda shop: -counts[SHOPS.index(shop)]
        )
        assert online["shop_top2_7d"][i] == most[:2]
        totals = [sum(click["price"] for click in own if click["shop"] == shop) for shop in SHOPS]
        np.testing.assert_allclose(online[sums][i], totals, rtol=1e-9)
        median = np.quantile([click["price"] for click in own], 0.5, method="inverted_cdf")
        assert abs(online["price_p50_7d"][i] / median - 1) < 14 / 126  # prices span less than 14 powers of two
    assert [online[name][-1] for name in online] == [None, [0] * 5, [0.0] * 5, [], 0, [], 0.0, 0.0, None]
