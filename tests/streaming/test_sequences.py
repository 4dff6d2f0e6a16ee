"""Sequences of a stream: what workers and Spark merge is what a slow count of the events gives."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.streaming.streaming_worlds import SECOND_US, Click, has_read, make_topic, project, send, value_of, work

NOW_US = time.time_ns() // 1000
WEEK_MS, MOST = 7 * 24 * 3_600_000, 20
SHOPS = ["shop 1", "shop 2", "shop 3"]
DEFINITIONS = f"""
from datetime import timedelta
from feature_store import *
user = Entity("user", join_key="user_id", dtype=Int64)
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="ts",
    schema=[Field("user_id", Int64), Field("shop", String), Field("price", Float64)])
by_user = StreamFeatureView("by_user", entities=[user], source=clicks, aggregations=[
    Sequence("latest", columns=["shop", "price", "event_timestamp"], n={MOST}, categories={{"shop": {SHOPS}}}),
    Sequence("dear", columns=["price"], n=5, window=timedelta(days=7), filter="price > 500", distinct="price")])
"""
NAMES = ["latest_shop", "latest_price", "latest_event_timestamp", "dear_price_7d"]


def random_clicks(count: int) -> list[Click]:
    """Clicks of ten users within ten days, each at a time of its own, in any order."""
    choose = random.Random(4)
    times = choose.sample(range(10 * 24 * 3600), count)
    return [
        {
            "user_id": choose.randrange(10),
            "shop": choose.choice([*SHOPS, "another"]),
            "price": choose.choice([None, float(choose.randrange(450, 550, 10))]),
            "ts": NOW_US // 1000 - seconds * 1000,
        }
        for seconds in times
    ]


def expected(clicks: list[Click], user: int) -> list[list[Any]]:
    """The features of a user, counted the slow way."""
    mine = sorted(
        (one for one in clicks if one["user_id"] == user and one["price"] is not None), key=lambda one: -one["ts"]
    )
    latest = mine[:MOST]
    dear: dict[float, None] = {}
    for one in mine:
        if one["price"] > 500 and one["ts"] > NOW_US // 1000 - WEEK_MS:
            dear.setdefault(one["price"])
    places = [SHOPS.index(one["shop"]) + 1 if one["shop"] in SHOPS else 0 for one in latest]
    times = [one["ts"] * 1000 for one in latest]
    return [places, [one["price"] for one in latest], times, list(dear)[:5]]


@pytest.mark.parametrize("engine", ["workers", "spark"])
def test_every_reader_keeps_the_latest_events(
    tmp_path: Path, redis_url: str, kafka: str, engine: str, request: pytest.FixtureRequest
) -> None:
    if engine == "spark":
        request.getfixturevalue("spark_engine")
    make_topic(kafka, "clicks", 2)
    clicks = random_clicks(900)
    with project(tmp_path, redis_url, kafka, definitions=DEFINITIONS) as store:
        for part in (clicks[:500], clicks[500:]):
            send(kafka, "clicks", map(value_of, part), 2)
            if engine == "spark":
                store.stream(engine="spark", until_caught_up=True)
            else:
                work(store, has_read(len(part)))
        asked = [f"by_user:{name}" for name in NAMES]
        found = store.get_online_features(asked, {"user_id": list(range(10))}, now=NOW_US).to_dict()
    columns = [found[name] for name in NAMES]
    columns[2] = [[round(at.timestamp() * SECOND_US) for at in times] for times in columns[2]]
    assert [[list(column[user]) for column in columns] for user in range(10)] == [
        expected(clicks, user) for user in range(10)
    ]
