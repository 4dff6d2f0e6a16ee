"""Clicks on a topic, two views of them, and what their windows must hold, counted the slow way."""

from __future__ import annotations

import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from feature_store import FeatureStore
from feature_store.streaming.status import StreamStatus
from feature_store.streaming.subscription import Subscription
from feature_store.streaming.worker import Worker
from feature_store.streaming.workers import prepare_topics

SECOND_US = 1_000_000
DEFINITIONS = """
from datetime import timedelta
from feature_store import *
hour, week = timedelta(hours=1), timedelta(days=7)
user = Entity("user", join_key="user_id", dtype=Int64)
shop = Entity("shop", join_key="shop", dtype=String)
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="ts",
    schema=[Field("user_id", Int64), Field("shop", String), Field("price", Float64)], history=HISTORY)
by_user = StreamFeatureView("by_user", entities=[user], source=clicks, aggregations=[
    Aggregation("price", "count", windows=[hour, week]), Aggregation("price", "sum", windows=[hour, week])])
by_shop = StreamFeatureView("by_shop", entities=[shop], source=clicks, aggregations=[
    Aggregation("price", "count", windows=[week]), Aggregation("price", "max", windows=[week])])
"""
HISTORY = 'ParquetSource("history.parquet", event_timestamp="ts")'
# The group soon gives up a killed worker, and a worker that waits for a broker soon finds it when it is back.
FAST = {"session.timeout.ms": 1500, "heartbeat.interval.ms": 200, "reconnect.backoff.max.ms": 300}
KEYS = {"by_user": "user_id", "by_shop": "shop"}

Click = dict[str, Any]


def project(
    folder: Path, redis_url: str, bootstrap: str = "", *, history: bool = False, buckets: int = 1, definitions: str = ""
) -> FeatureStore:
    """A project with these views, already applied."""
    kafka = {"bootstrap.servers": bootstrap, **FAST} if bootstrap else {}
    online = f"{{url: '{redis_url}', buckets: {buckets}, timeout_ms: 5000}}"
    (folder / "feature_store.yaml").write_text(f"project: shop\nonline_store: {online}\nkafka: {json.dumps(kafka)}\n")
    text = (definitions or DEFINITIONS).replace("HISTORY", HISTORY if history else "None")
    (folder / "features.py").write_text(text)
    store = FeatureStore(folder)
    store.apply()
    return store


def some_clicks(count: int, *, users: int, seed: int, start_us: int, seconds: int = 3600) -> list[Click]:
    """Clicks in the order of sending: nearly the order of time, at most half an hour out of it."""
    chance = random.Random(seed)
    return [
        {
            "user_id": int(users * chance.random() ** 3),  # some users click much more than others
            "shop": f"shop {chance.randrange(50)}",
            "price": chance.randrange(10_000) / 7,
            "ts": (start_us + seconds * SECOND_US * i // count) // 1000 - int(chance.expovariate(0.001)) % 1_800_000,
        }
        for i in range(count)
    ]


def value_of(click: Click) -> bytes:
    return json.dumps(click).encode()


# -- what must be served --------------------------------------------------------------------------------------------


def windows_of(clicks: Iterable[Click], now_us: int) -> dict[str, dict[Any, dict[str, Any]]]:
    """The expected features, per view and entity."""
    held: dict[tuple[str, Any, str], list[float]] = defaultdict(list)
    for name, hours in (("1h", 1), ("7d", 7 * 24)):
        window_us = hours * 3600 * SECOND_US
        hop_us = window_us // 48
        start_us = (now_us - window_us) // hop_us * hop_us
        for click in clicks:
            if start_us <= click["ts"] * 1000 <= now_us:
                held["by_user", click["user_id"], name].append(click["price"])
                held["by_shop", click["shop"], name].append(click["price"])
    found: dict[str, dict[Any, dict[str, Any]]] = {view: defaultdict(dict) for view in KEYS}
    for (view, entity, name), prices in held.items():
        features = found[view][entity]
        features[f"price_count_{name}"] = len(prices)
        if view == "by_user":
            features[f"price_sum_{name}"] = math.fsum(prices)
        elif name == "7d":
            features["price_max_7d"] = max(prices)
        else:
            del features[f"price_count_{name}"]
    return found


def differences(store: FeatureStore, clicks: Iterable[Click], now_us: int) -> list[str]:
    """Served values that are wrong, and entities that should not be served.

    Counts and extremes are compared exactly, sums to 1e-9.
    """
    wrong = []
    for view, wanted in windows_of(clicks, now_us).items():
        entities = list(wanted)
        names = sorted({name for features in wanted.values() for name in features})
        response = store.get_online_features([f"{view}:{name}" for name in names], {KEYS[view]: entities}, now=now_us)
        for name, column in response.to_dict().items():
            for entity, got in zip(entities, column, strict=True):
                right = wanted[entity].get(name, 0)
                if not (got == right or ("sum" in name and math.isclose(got, right, rel_tol=1e-9))):
                    wrong.append(f"{view}:{name} of {entity}: expected {right}, got {got}")
        stored = {key for (key,) in store.online.sample_keys(view, 1_000_000)}
        wrong += [f"{view} of {entity}: expected nothing" for entity in stored - wanted.keys()]
    return wrong


# -- Kafka ----------------------------------------------------------------------------------------------------------


def make_topic(bootstrap: str, topic: str, partitions: int, **settings: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})  # bound: if freed, it ends the request
    admin.create_topics([NewTopic(topic, partitions, config=settings)])[topic].result(10)


def send(
    bootstrap: str,
    topic: str,
    values: Iterable[bytes | None],
    partitions: int,
    *,
    pause: Callable[[int], None] = lambda _: None,
    timestamp_ms: int = 0,
    **settings: Any,
) -> None:
    """Send messages to the partitions in turn, and wait until all have arrived. `pause` is called before each message.
    `timestamp_ms` is the time of every message, now unless given."""
    failed: list[KafkaError] = []

    def told(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error)

    # Idempotent: else messages would be stored twice when a broker goes down.
    known: dict[str, Any] = {"enable.idempotence": True, "linger.ms": 5, "log_level": 2}
    producer = Producer({"bootstrap.servers": bootstrap, **known, **settings})
    for i, value in enumerate(values):
        pause(i)
        producer.produce(topic, value, partition=i % partitions, on_delivery=told, timestamp=timestamp_ms)
        producer.poll(0)
    assert producer.flush(60) == 0
    assert not failed


def received(bootstrap: str, topic: str) -> list[Message]:
    """All messages of a topic."""
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests", "enable.partition.eof": True})
    partitions = [TopicPartition(topic, number, 0) for number in client.list_topics(topic).topics[topic].partitions]
    client.assign(partitions)
    found: list[Message] = []
    ended = 0
    while ended < len(partitions):
        message = client.poll(10)
        assert message is not None
        error = message.error()
        if error is None:
            found.append(message)
        else:
            assert error.code() == KafkaError._PARTITION_EOF
            ended += 1
    client.close()
    return found


# -- a worker in this process ---------------------------------------------------------------------------------------


def subscription_of(store: FeatureStore, *views: str) -> Subscription:
    """The subscription that a worker of the project gets."""
    return Subscription(store.context.ref, views or None)


def work(store: FeatureStore, done: Callable[[StreamStatus], bool], *views: str, timeout_s: float = 60) -> StreamStatus:
    """Run a worker until `done(status)` is true. Returns the last status."""
    subscription = subscription_of(store, *views)
    prepare_topics(subscription)
    told = [StreamStatus()]
    deadline = time.monotonic() + timeout_s

    def stopped() -> bool:
        assert time.monotonic() < deadline, told[0].to_document()
        return done(told[0])

    def tell(status: StreamStatus) -> None:
        told[0] = status

    Worker(subscription, stopped, tell).run()
    return told[0]


def has_read(messages: int) -> Callable[[StreamStatus], bool]:
    """Whether a worker has read at least `messages` messages, and has no lag."""
    return lambda status: status.topic("clicks").messages >= messages and bool(status.positions) and status.lag == 0
