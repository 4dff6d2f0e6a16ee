"""An event with an unexpected value is left out everywhere: by streams, backfills and training sets."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.definitions.dtypes import from_microseconds
from tests.streaming.streaming_worlds import (
    DEFINITIONS,
    SECOND_US,
    Click,
    differences,
    has_read,
    make_topic,
    project,
    received,
    send,
    some_clicks,
    value_of,
    work,
)

NOW_US = time.time_ns() // 1_000
EXPECTING = DEFINITIONS.replace('Field("price", Float64)', 'Field("price", Float64, min=0, max=1000)')
MORE = '\nlast = FeatureService("last", features=[by_user])\n'


def _is_expected(click: Click) -> bool:
    return click["price"] is None or 0 <= click["price"] <= 1000


def _history(folder: Path, clicks: list[Click]) -> None:
    columns: dict[str, Any] = {key: [click[key] for click in clicks] for key in ("user_id", "shop", "price")}
    columns["ts"] = pa.array([click["ts"] * 1000 for click in clicks], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table(columns), folder / "history.parquet")


def test_streams_backfills_and_training_sets_leave_the_same_events_out(
    tmp_path: Path, redis_url: str, kafka: str
) -> None:
    clicks = some_clicks(600, users=20, seed=4, start_us=NOW_US - 7200 * SECOND_US)
    clicks = [click | {"price": click["price"] - 200.0} for click in clicks]
    kept = [click for click in clicks if _is_expected(click)]
    assert 100 < len(kept) < 500
    make_topic(kafka, "clicks", 2)
    _history(tmp_path, clicks)
    with project(tmp_path, redis_url, kafka, history=True, definitions=EXPECTING + MORE) as store:
        send(kafka, "clicks", map(value_of, clicks), 2)
        status = work(store, has_read(len(clicks)))
        assert status.topic("clicks").malformed == len(clicks) - len(kept)
        assert differences(store, kept, NOW_US) == []
        letters = received(kafka, "clicks.dead-letter")
        assert len(letters) == len(clicks) - len(kept)
        reasons = {name: (value or b"").decode() for name, value in letters[0].headers() or []}
        assert any("expected at least 0; at most 1000, got " in text for text in reasons.values()), reasons

        users = sorted({click["user_id"] for click in clicks})
        labels = pa.table(
            {"user_id": users, "event_timestamp": pa.array([NOW_US] * len(users), pa.timestamp("us", "UTC"))}
        )
        trained = store.get_historical_features(labels, "last").to_arrow().to_pydict()
        served = store.get_online_features("last", {"user_id": users}, now=NOW_US).to_dict()
        counts = [name for name in served if "count" in name]
        assert {name: trained[name] for name in counts} == {name: served[name] for name in counts}

        filled = store.backfill("by_user", from_microseconds(NOW_US - 1800 * SECOND_US))
        assert filled.quarantined == sum(
            click["ts"] * 1000 < NOW_US - 1800 * SECOND_US and not _is_expected(click) for click in clicks
        )
        assert filled.quarantine_file is not None
        reason = pq.read_table(filled.quarantine_file)["reason"][0].as_py()
        assert reason.startswith("price: expected at least 0; at most 1000, got ")
        assert differences(store, kept, NOW_US) == []
        json.dumps(filled.to_document())
