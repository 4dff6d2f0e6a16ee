"""Kafka as it is run in production: topics made anew, added partitions, wrong message times, logins and permissions."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewPartitions,
    ResourcePatternType,
    ResourceType,
)

from feature_store import FeatureStore
from feature_store.errors import StreamError, TopicReplacedError
from feature_store.streaming.status import StreamStatus
from feature_store.streaming.worker import Worker
from tests.kafka_server import KafkaServer, kafka_server
from tests.streaming.running import until
from tests.streaming.streaming_worlds import (
    DEFINITIONS,
    SECOND_US,
    make_topic,
    project,
    received,
    send,
    some_clicks,
    subscription_of,
    value_of,
    work,
)

NOW_US = time.time_ns() // 1000
HOUR_US = 3600 * SECOND_US


def clicks_of(user: int, count: int) -> list[dict[str, object]]:
    return [{"user_id": user, "shop": "a", "price": 1.0, "ts": NOW_US // 1000 - 60_000} for _ in range(count)]


def counted(store: FeatureStore, *users: int) -> list[int]:
    found = store.get_online_features(["by_user:price_count_1h"], {"user_id": list(users)}, now=NOW_US)
    return [int(count or 0) for count in found.to_dict()["price_count_1h"]]


def test_a_topic_made_anew_is_refused_until_its_views_are_filled_anew(
    tmp_path: Path, redis_url: str, kafka: str
) -> None:
    make_topic(kafka, "clicks", 1)
    with project(tmp_path, redis_url, kafka) as store:
        send(kafka, "clicks", map(value_of, clicks_of(1, 100)), 1)
        store.stream(until_caught_up=True)
        assert counted(store, 1) == [100]
        admin = AdminClient({"bootstrap.servers": kafka})
        admin.delete_topics(["clicks"])["clicks"].result(20)
        until(lambda: "clicks" not in admin.list_topics(timeout=5).topics)
        make_topic(kafka, "clicks", 1)
        # More messages than the first topic had: no offset shows that this is another topic.
        send(kafka, "clicks", map(value_of, clicks_of(2, 140)), 1)
        with pytest.raises(TopicReplacedError, match="backfill by_"):
            store.stream(until_caught_up=True)
        assert counted(store, 1, 2) == [100, 0]
        assert any(found.state == "failed" and "created again" in found.about for found in store.monitoring.diagnose())
        for view in ("by_user", "by_shop"):
            store.backfill(view)
        send(kafka, "clicks", map(value_of, clicks_of(2, 10)), 1)
        store.stream(until_caught_up=True)
        assert counted(store, 1, 2) == [0, 150]


def test_partitions_that_are_added_are_read_within_seconds(tmp_path: Path, redis_url: str, kafka: str) -> None:
    make_topic(kafka, "clicks", 1)
    with project(tmp_path, redis_url, kafka) as store:
        send(kafka, "clicks", map(value_of, clicks_of(1, 100)), 1)
        seen: list[StreamStatus] = []

        def add() -> None:
            until(lambda: bool(seen) and seen[-1].merged >= 200)
            admin = AdminClient({"bootstrap.servers": kafka})
            admin.create_partitions([NewPartitions("clicks", 4)])["clicks"].result(10)
            send(kafka, "clicks", map(value_of, clicks_of(2, 400)), 4)

        adding = threading.Thread(target=add)
        adding.start()

        def done(status: StreamStatus) -> bool:
            seen.append(status)
            return status.merged == 2 * 500

        # By itself, the client refreshes its metadata every 5 minutes.
        status = work(store, done, timeout_s=60)
        adding.join()
        assert (status.lag, len(status.positions)) == (0, 4)
        assert counted(store, 1, 2) == [100, 400]


@pytest.mark.parametrize("brokers_set_times", [False, True])
def test_a_backfill_leaves_nothing_out_whatever_times_messages_have(
    tmp_path: Path, redis_url: str, kafka: str, brokers_set_times: bool
) -> None:
    settings = {"message.timestamp.type": "LogAppendTime"} if brokers_set_times else {"retention.ms": "-1"}
    make_topic(kafka, "clicks", 2, **settings)
    clicks = some_clicks(600, users=20, seed=3, start_us=NOW_US - 4 * HOUR_US, seconds=4 * 3600)
    end_us = NOW_US - HOUR_US
    history = [click for click in clicks if click["ts"] * 1000 < end_us]
    columns = {name: [click[name] for click in history] for name in ("user_id", "shop", "price")}
    times = pa.array([click["ts"] * 1000 for click in history], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table(columns | {"ts": times}), tmp_path / "history.parquet")
    with project(tmp_path, redis_url, kafka, history=True) as store:
        # A producer that gives times in seconds: taken as milliseconds, they are in 1970.
        send(kafka, "clicks", map(value_of, clicks), 2, timestamp_ms=NOW_US // SECOND_US)
        filled = store.backfill("by_user", datetime.fromtimestamp(end_us / 1e6, UTC))
        assert (filled.history_rows, filled.stream_events) == (len(history), len(clicks) - len(history))


# -- logins and permissions -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[KafkaServer]:
    with kafka_server(sasl=True) as server:
        yield server


def as_alice(
    folder: Path, redis_url: str, server: KafkaServer, password: str = "secret", topic: str = "clicks", **settings: str
) -> FeatureStore:
    store = project(folder, redis_url, definitions=DEFINITIONS.replace('topic="clicks"', f'topic="{topic}"'))
    login = {
        "bootstrap.servers": server.sasl_bootstrap,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "alice",
        "sasl.password": password,
    }
    text = (folder / "feature_store.yaml").read_text().replace("kafka: {}", f"kafka: {json.dumps(login | settings)}")
    (folder / "feature_store.yaml").write_text(text)
    store.close()
    return FeatureStore(folder)


def allow(server: KafkaServer, kind: ResourceType, name: str, *operations: AclOperation) -> None:
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    literal, allowed = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
    bindings = [AclBinding(kind, name, literal, "User:alice", "*", operation, allowed) for operation in operations]
    for done in admin.create_acls(bindings).values():
        done.result(10)


def test_a_wrong_password_and_a_wrong_protocol_are_called_that(
    tmp_path: Path, redis_url: str, guarded: KafkaServer
) -> None:
    with as_alice(tmp_path, redis_url, guarded, "wrong") as store, pytest.raises(StreamError) as refused:
        store.stream(until_caught_up=True)
    assert "refuses the login" in str(refused.value)
    assert "sasl.password" in refused.value.hint
    with (
        as_alice(tmp_path, redis_url, guarded, **{"security.protocol": "SASL_SSL"}) as store,
        pytest.raises(StreamError, match="no TLS connection"),
    ):
        store.stream(until_caught_up=True)


def test_permissions_are_looked_at_before_anything_is_read(
    tmp_path: Path, redis_url: str, guarded: KafkaServer
) -> None:
    make_topic(guarded.bootstrap, "clicks", 1)
    make_topic(guarded.bootstrap, "clicks.dead-letter", 1)
    with as_alice(tmp_path, redis_url, guarded) as store:

        def refusal() -> str:
            with pytest.raises(StreamError) as refused:
                store.stream(until_caught_up=True)
            return str(refused.value)

        topic, group = ResourceType.TOPIC, ResourceType.GROUP
        assert "topic clicks: the user has no permission for the topic" in refusal()
        allow(guarded, topic, "clicks", AclOperation.DESCRIBE)
        allow(guarded, topic, "clicks.dead-letter", AclOperation.DESCRIBE)
        until(lambda: "READ" in refusal())
        allow(guarded, topic, "clicks", AclOperation.READ)
        until(lambda: "WRITE" in refusal() and "clicks.dead-letter" in refusal())
        allow(guarded, topic, "clicks.dead-letter", AclOperation.WRITE)
        until(lambda: "consumer group feature-store-shop" in refusal())
        allow(guarded, group, "feature-store-shop", AclOperation.READ)
        send(guarded.bootstrap, "clicks", [b"malformed", value_of(clicks_of(1, 1)[0])], 1)

        def is_streamed() -> bool:
            try:
                return store.stream(until_caught_up=True).merged == 2
            except StreamError:  # the broker has not heard of the grant yet
                return False

        until(is_streamed)
        assert len(received(guarded.bootstrap, "clicks.dead-letter")) == 1


PAGE = Path(__file__).parents[2] / "docs" / "kafka.md"
GRANT = re.compile(
    r"^kafka-acls --add --allow-principal User:features --operation (\w+) --(topic|group) (\S+)$", re.MULTILINE
)


def test_the_permissions_of_the_page_are_enough(tmp_path: Path, redis_url: str, guarded: KafkaServer) -> None:
    """`docs/kafka.md` lists the permissions. This test has topics of its own names."""
    grants = GRANT.findall(PAGE.read_text())
    assert len(grants) == 4
    make_topic(guarded.bootstrap, "paged", 1)
    make_topic(guarded.bootstrap, "paged.dead-letter", 1)
    for operation, kind, name in grants:
        allow(guarded, ResourceType[kind.upper()], name.replace("clicks", "paged"), AclOperation[operation.upper()])
    send(guarded.bootstrap, "paged", [b"malformed", *map(value_of, clicks_of(1, 3))], 1)
    with as_alice(tmp_path, redis_url, guarded, topic="paged") as store:

        def is_streamed() -> bool:
            try:
                return store.stream(until_caught_up=True).merged == 2 * 3
            except StreamError:  # the broker has not heard of the grants yet
                return False

        until(is_streamed)
        assert len(received(guarded.bootstrap, "paged.dead-letter")) == 1
        assert store.backfill("by_user").stream_events == 3
        assert counted(store, 1) == [3]
        assert not [
            found for found in store.monitoring.diagnose() if found.check == "kafka" and found.state == "failed"
        ]


def test_dead_letters_that_are_refused_are_withheld_and_told(
    tmp_path: Path, redis_url: str, guarded: KafkaServer
) -> None:
    """The permission is revoked while workers run. Until it is back, nothing is dropped and nothing later is merged."""
    topic = "views"
    make_topic(guarded.bootstrap, topic, 1)
    make_topic(guarded.bootstrap, f"{topic}.dead-letter", 1)
    allow(guarded, ResourceType.TOPIC, topic, AclOperation.READ)
    allow(guarded, ResourceType.TOPIC, f"{topic}.dead-letter", AclOperation.DESCRIBE)
    allow(guarded, ResourceType.GROUP, "feature-store-shop", AclOperation.READ)
    send(guarded.bootstrap, topic, [b"malformed", value_of(clicks_of(1, 1)[0])], 1)
    with as_alice(tmp_path, redis_url, guarded, topic=topic) as store:
        told: list[str] = []

        def done(status: StreamStatus) -> bool:
            if "dead letters" in status.trouble and not told:
                told.append(status.trouble)
                assert status.merged == 0
                allow(guarded, ResourceType.TOPIC, f"{topic}.dead-letter", AclOperation.WRITE)
            return status.merged == 2

        last = [StreamStatus()]
        deadline = time.monotonic() + 60

        def stopped() -> bool:
            assert time.monotonic() < deadline, last[0].to_document()
            return done(last[0])

        Worker(subscription_of(store), stopped, lambda status: last.__setitem__(0, status)).run()
        assert "no topic" in told[0] or "no permission" in told[0]
        assert counted(store, 1) == [1]
        assert len(received(guarded.bootstrap, f"{topic}.dead-letter")) == 1
