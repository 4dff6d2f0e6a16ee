"""Streams: broker → decode → merge in Redis with one worker, each part of it alone, freshness, and reads of windows.

The broker is Apache Kafka, as the tests run it. Events are JSON: Zipf(1.1) over 100,000 users, 2 columns × 3 windows.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.kafka import kafka_server
from benchmarks.measure import Samples
from benchmarks.projects import project
from benchmarks.report import Reach, Result
from feature_store.aggregates.deltas import deltas
from feature_store.online import keys
from feature_store.online.tile_writer import Merge
from feature_store.streaming.formats.json_messages import JsonDecoder
from feature_store.streaming.kafka import MessageSpan
from feature_store.streaming.merging import ViewMerger
from feature_store.streaming.pipeline import Pipeline, Route
from feature_store.streaming.status import StreamStatus
from feature_store.testing.formats import messages_of

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.server import Server
    from feature_store import FeatureStore
    from feature_store.definitions import KafkaSource

    Messages = list[bytes]

EVENTS, USERS, ZIPF = 400_000, 100_000, 1.1
RATE, PROBES = 5_000, 300
# Between two looks at a probe: a prober that never sleeps takes one core of two.
_LOOK_S = 0.001
BATCH = 5_000
READ_ENTITIES = 200
TOPIC, PARTITIONS = "clicks", 2
DEFINITIONS = """
from datetime import timedelta
from feature_store import *
windows = [timedelta(hours=1), timedelta(days=1), timedelta(days=7)]
user = Entity("user", join_key="user_id")
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="ts",
    schema=[Field("user_id", Int64), Field("price", Float64), Field("seconds", Float64)])
activity = StreamFeatureView("activity", entities=[user], source=clicks, aggregations=[
    Aggregation("price", "mean", windows=windows), Aggregation("seconds", "mean", windows=windows)])
live = FeatureService("live", features=[activity])
"""


def streaming(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """End to end, each part alone, and freshness. Feast has no such path of its own."""
    del with_peer
    chance = np.random.default_rng(7)
    messages = _messages(_users(chance, EVENTS), chance)
    with kafka_server() as kafka, project(folder / "stream", "streaming", DEFINITIONS, server.url) as store:
        _configure(store, kafka.bootstrap)
        _send(kafka.bootstrap, messages)
        source = store.definitions.stream_feature_views["activity"].source
        parts = [
            _part("end to end, 1 worker", _end_to_end(store), [Reach.rate(EVENTS, 50_000)]),
            _part("consume only", _consume(kafka.bootstrap), []),
            _part("decode only", _decode(source, messages), []),
            _part("decode, deltas and merges, without Kafka", _without_kafka(store, source, messages), []),
            _part("merges in Redis only", *_merges(store, source, messages)),
        ]
        return [*parts, _freshness(store, kafka.bootstrap)]


# -- the parts ------------------------------------------------------------------------------------------------------


def _end_to_end(store: FeatureStore) -> float:
    """From the first to the last event that the worker reports, without the worker's start."""
    told: list[tuple[float, int]] = []
    store.stream(until_caught_up=True, report=lambda status: told.append((time.perf_counter(), status.merged)))
    begun = [(at, merged) for at, merged in told if merged]
    ended = next((at, merged) for at, merged in begun if merged == begun[-1][1])
    assert begun[-1][1] == EVENTS, begun[-1]
    return (ended[0] - begun[0][0]) * EVENTS / (ended[1] - begun[0][1])


def _consume(bootstrap: str) -> float:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench", "fetch.queue.backoff.ms": 2})
    consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
    start, count = time.perf_counter(), 0
    while count < EVENTS:
        count += len([message.value() for message in consumer.consume(BATCH, 1.0)])
    seconds = time.perf_counter() - start
    consumer.close()
    return seconds


def _decode(source: KafkaSource, messages: Messages) -> float:
    decoder = JsonDecoder(source)
    start = time.perf_counter()
    for first in range(0, EVENTS, BATCH):
        assert not decoder.decode(messages_of(messages[first : first + BATCH])).rejected
    return time.perf_counter() - start


def _without_kafka(store: FeatureStore, source: KafkaSource, messages: Messages) -> float:
    from confluent_kafka import Message

    partition = ("replayed", 0)
    pipeline = Pipeline(
        [Route("replayed", JsonDecoder(source), [ViewMerger(store.online.tile_writer("activity"), start_us=None)])],
        None,
        StreamStatus(),
    )
    pipeline.load({"activity": [partition]})
    batches = [
        MessageSpan(
            first or -1, first + BATCH, [Message(*partition, i, value=messages[i]) for i in range(first, first + BATCH)]
        )
        for first in range(0, EVENTS, BATCH)
    ]
    start = time.perf_counter()
    for batch in batches:
        pipeline.process({partition: batch})
    pipeline.settle()
    seconds = time.perf_counter() - start
    pipeline.close()
    return seconds


def _merges(store: FeatureStore, source: KafkaSource, messages: Messages) -> tuple[float, list[Reach], str]:
    """The calls of the same batches, prepared beforehand; into entities that are there."""
    decoder, entities = JsonDecoder(source), 0
    with store.online.tile_writer("activity") as writer:
        calls = []
        for first in range(0, EVENTS, BATCH):
            events = decoder.decode(messages_of(messages[first : first + BATCH]))
            users, codes = np.unique(events.columns["user_id"][0], return_inverse=True)
            made = deltas(writer.layout.tiles, codes, events.event_us, events.columns)
            counts = np.bincount(made.entities, minlength=len(users))
            advances: dict[str, tuple[int | None, int]] = {"merged:0": (first or None, first + BATCH)}
            calls.append(Merge(0, keys.encode(writer.dtypes, [users]), counts, made.records, advances))
            entities += len(users)
        start = time.perf_counter()
        for call in calls:
            writer.merge(call)
        seconds = time.perf_counter() - start
    return seconds, [], f"{entities / seconds:,.0f} entities/s of 3 rings"


def _freshness(store: FeatureStore, bootstrap: str) -> Result:
    """From produce to the client: events of users who have no other events, among 5,000 events a second."""
    end, started = threading.Event(), threading.Event()
    worker = threading.Thread(target=lambda: store.stream(stopped=end.is_set, report=lambda _: started.set()))
    worker.start()
    started.wait(30)
    chance = np.random.default_rng(8)
    crowd = iter(_messages(_users(chance, RATE * 60), chance))
    # With the client's own linger, 5 ms, as producers have it: without, a request for nearly every event keeps this
    # broker so busy that events wait 2 s to get into it (the worker was 50 events behind, the producer 15,000).
    producer = Producer({"bootstrap.servers": bootstrap})
    delays: list[float] = []
    waiting: dict[int, float] = {}
    begun, sent = time.perf_counter(), 0
    while len(delays) < PROBES + 20:
        assert worker.is_alive() and time.perf_counter() - begun < 50, f"{len(delays)} probes came, {waiting} did not"
        while sent < (time.perf_counter() - begun) * RATE:
            producer.produce(TOPIC, next(crowd), partition=sent % PARTITIONS)
            sent += 1
        producer.poll(0)
        if not waiting:
            user = USERS + sent
            waiting[user] = time.perf_counter()
            producer.produce(TOPIC, _message(user, 1.0, 1.0), partition=sent % PARTITIONS)
        user, since = next(iter(waiting.items()))
        if store.get_online_features(["activity:price_mean_1h"], {"user_id": user}).to_dict()["price_mean_1h"][0]:
            delays.append(time.perf_counter() - since)
            del waiting[user]
        time.sleep(_LOOK_S)
    producer.flush(10)
    end.set()
    worker.join()
    found = {"ours": Samples(delays[20:])}  # the first wait for the worker's partitions
    most = Reach("p99 ≤ 150 ms", lambda r: r.p99s["ours"] * 1e3, lambda ms: ms <= 150, "{:.0f} ms")
    return Result.of_samples(f"freshness at {RATE:,} events/s: produce → visible to the client", found, [most])


# -- small parts ----------------------------------------------------------------------------------------------------


def _part(work: str, seconds: float, reaches: list[Reach], about: str = "") -> Result:
    work = f"stream {EVENTS:,} events, 2 columns × 3 windows: {work}"
    return Result(f"{work} ({about})" if about else work, "seconds", {"ours": seconds}, {}, reaches, EVENTS)


def _users(chance: np.random.Generator, count: int) -> Any:
    weights = 1 / np.arange(1, USERS + 1) ** ZIPF
    return chance.choice(USERS, count, p=weights / weights.sum())


def _messages(users: Any, chance: np.random.Generator) -> Messages:
    prices, seconds = chance.random(len(users)) * 100, chance.random(len(users)) * 60
    return [_message(*event) for event in zip(users.tolist(), prices.tolist(), seconds.tolist(), strict=True)]


def _message(user: int, price: float, seconds: float) -> bytes:
    return orjson.dumps({"user_id": user, "price": price, "seconds": seconds, "ts": time.time_ns() // 1_000_000})


def _configure(store: FeatureStore, bootstrap: str) -> None:
    store.config.kafka["bootstrap.servers"] = bootstrap


def _send(bootstrap: str, messages: Messages) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(TOPIC, PARTITIONS)])[TOPIC].result(10)
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": EVENTS + 1})
    for i, message in enumerate(messages):
        producer.produce(TOPIC, message, partition=i % PARTITIONS)
    assert producer.flush(60) == 0
