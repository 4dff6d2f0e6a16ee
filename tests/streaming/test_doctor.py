"""What the doctor reports about Kafka, and about stream views that lag behind it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from feature_store import FeatureStore
from feature_store.monitoring.checks import Finding
from tests.streaming.streaming_worlds import SECOND_US, make_topic, project, send, some_clicks, value_of, work

NOW_US = time.time_ns() // 1_000


def findings(store: FeatureStore, check: str) -> list[Finding]:
    return [finding for finding in store.monitoring.diagnose() if finding.check == check]


def test_how_far_views_are_behind(tmp_path: Path, redis_url: str, kafka: str) -> None:
    make_topic(kafka, "clicks", 2)
    with project(tmp_path, redis_url, kafka) as store:
        answers, topic = findings(store, "kafka")
        assert (answers.state, topic.about) == ("ok", "topic clicks: 2 partitions, read by by_shop, by_user")
        clicks = some_clicks(300, users=20, seed=1, start_us=NOW_US - 7200 * SECOND_US)
        send(kafka, "clicks", map(value_of, clicks[:200]), 2)
        assert [one.about for one in findings(store, "stream")] == [
            "by_shop: 200 messages behind",
            "by_user: 200 messages behind",
        ]
        work(store, lambda status: status.topic("clicks").messages >= 200 and status.lag == 0 and status.positions)
        assert {one.about.partition(": ")[2] for one in findings(store, "stream")} == {"0 messages behind"}
        send(kafka, "clicks", map(value_of, clicks[200:]), 2)
        admin = AdminClient({"bootstrap.servers": kafka})
        for deleted in admin.delete_records([TopicPartition("clicks", 0, 120)]).values():
            deleted.result(10)
        behind = findings(store, "stream")
        assert {(one.state, one.about.partition(": ")[2]) for one in behind} == {
            ("failed", "80 messages behind, 20 were deleted before they were merged")
        }
        assert "feature-store backfill by_user" in behind[1].hint


def test_a_topic_that_is_not_there(tmp_path: Path, redis_url: str, kafka: str) -> None:
    with project(tmp_path, redis_url, kafka) as store:
        missing = findings(store, "kafka")[-1]
        assert (missing.state, missing.about) == ("failed", "topic clicks does not exist; by_shop, by_user needs it")
        assert findings(store, "stream") == []


def test_nobody_says_where_kafka_is(tmp_path: Path, redis_url: str) -> None:
    with project(tmp_path, redis_url) as store:
        (missing,) = findings(store, "kafka")
    assert missing.state == "failed"
    assert "bootstrap.servers" in missing.hint


def test_a_broker_that_is_away_keeps_no_other_check_from_being_made(tmp_path: Path, redis_url: str) -> None:
    with project(tmp_path, redis_url, "localhost:1") as store:
        found: dict[str, Any] = {finding.check: finding for finding in store.monitoring.diagnose()}
    assert found["kafka"].state == "failed"
    assert "Kafka at localhost:1" in found["kafka"].about
    assert found["serving plan"].state == "ok"
    assert "stream" not in found
