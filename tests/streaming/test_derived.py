"""Derived columns from end to end: backfilled and streamed windows equal those of training and a count by hand."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pyarrow as pa
import pytest

from feature_store.definitions.dtypes import from_microseconds
from feature_store.errors import DefinitionError
from tests.streaming.streaming_worlds import (
    DEFINITIONS,
    SECOND_US,
    has_read,
    make_topic,
    project,
    received,
    send,
    some_clicks,
    value_of,
    work,
)
from tests.streaming.test_backfill import history_of

NOW_US = time.time_ns() // 1_000
DERIVED = DEFINITIONS.replace(
    "history=HISTORY)",
    """history=HISTORY, derive={
        "cents": "cast(round(price * 100) as Int64)",
        "is_odd": "cast(substring(shop, 6) as Int32) % 2 = 1"})""",
) + (
    'by_user_derived = StreamFeatureView("derived", entities=[user], source=clicks, aggregations=[\n'
    '    Aggregation("cents", "sum", windows=[week], filter="is_odd == True", name="odd")])\n'
    'served = FeatureService("served", features=[by_user_derived])\n'
)


def test_windows_of_derived_columns(tmp_path: Path, redis_url: str, kafka: str) -> None:
    clicks = some_clicks(600, users=40, seed=3, start_us=NOW_US - 3_600 * SECOND_US * 5, seconds=3_600 * 4)
    old, new = clicks[:300], clicks[300:]
    make_topic(kafka, "clicks", 2)
    history_of(tmp_path, clicks)
    bad = value_of(new[0] | {"shop": "shop of X"})
    end_us = max(click["ts"] for click in old) * 1000 + 1
    with project(tmp_path, redis_url, kafka, history=True, definitions=DERIVED) as store:
        send(kafka, "clicks", map(value_of, old), 2)
        filled = store.backfill("derived", until=from_microseconds(end_us))
        assert filled.history_rows == sum(click["ts"] * 1000 < end_us for click in clicks)
        send(kafka, "clicks", [*map(value_of, new), bad], 2)
        work(store, has_read(len(new) + 1), "derived")
        wanted: dict[int, int] = {}
        for click in clicks:
            is_odd = int(click["shop"].removeprefix("shop ")) % 2 == 1
            wanted[click["user_id"]] = wanted.get(click["user_id"], 0) + is_odd * math.floor(click["price"] * 100 + 0.5)
        users = sorted(wanted)
        now = from_microseconds(NOW_US)
        served = store.get_online_features("served", {"user_id": users}, now=now).to_dict()["odd_7d"]
        assert served == [wanted[user] for user in users]
        times = pa.array([NOW_US] * len(users), pa.timestamp("us", "UTC"))
        labels = pa.table({"user_id": users, "event_timestamp": times})
        trained = store.get_historical_features(labels, "served")
        assert trained.to_arrow()["odd_7d"].to_pylist() == served
        letters = received(kafka, "clicks.dead-letter")
        assert [json.loads(letter.value())["shop"] for letter in letters] == ["shop of X"]
        headers = {key: value.decode() for key, value in letters[0].headers()}
        assert "is_odd" in str(headers) and "Int32 can hold" in str(headers)


def test_another_expression_makes_a_new_generation(tmp_path: Path, redis_url: str) -> None:
    with project(tmp_path, redis_url, definitions=DERIVED) as store:
        generation = {tiles.view: tiles.generation for tiles in store.online.require_published().plan.tiles}
        features = tmp_path / "features.py"
        features.write_text(features.read_text().replace("* 100", "* 1000"))
        plan = store.plan()
        effects = {change.name: change.effect for change in plan.changes}
        assert effects["derived"] == "rewrites"
        assert "rewrites" not in (effects.get("by_user"), effects.get("by_shop"))
        store.apply()
        now = {tiles.view: tiles.generation for tiles in store.online.require_published().plan.tiles}
        assert now["derived"] != generation["derived"]
        assert now["by_user"] == generation["by_user"]
        features.write_text(features.read_text().replace("round(price", "rond(price"))
        with pytest.raises(DefinitionError, match=r"derive\['cents'\].*no function 'rond'.*did you mean 'round'"):
            store.plan()
