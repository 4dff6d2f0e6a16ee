"""Stream views on Spark Structured Streaming: the same tiles as from workers, whatever is killed or lost meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from feature_store import FeatureStore
from feature_store.engines.spark.engine import SparkEngine
from feature_store.errors import NotFoundError, OnlineStoreError, RequestError
from feature_store.streaming.spark import stream as spark_stream
from feature_store.streaming.status import StreamStatus
from tests.kafka_server import kafka_server
from tests.raw_redis import raw_client
from tests.servers import redis_server
from tests.spark_settings import SPARK, with_kafka
from tests.streaming.running import command_line, descendants, merged_up_to, streaming, until
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
PARTITIONS = 3


@pytest.fixture
def store(tmp_path: Path, redis_url: str, kafka: str, spark_engine: SparkEngine) -> Iterator[FeatureStore]:
    make_topic(kafka, "clicks", PARTITIONS)
    with project(tmp_path, redis_url, kafka) as store:
        yield store


def on_spark(store: FeatureStore, done: Callable[[StreamStatus], bool], timeout_s: float = 90) -> StreamStatus:
    """Let Spark stream until `done(status)` is true. Returns the last status."""
    told = [StreamStatus()]
    deadline = time.monotonic() + timeout_s

    def stopped() -> bool:
        assert time.monotonic() < deadline, (told[0].to_document(), told[0].trouble)
        return done(told[0])

    return store.stream(engine="spark", stopped=stopped, report=lambda status: told.__setitem__(0, status))


def is_merged(count: int) -> Callable[[StreamStatus], bool]:
    """Whether at least so many messages were merged, and none is left."""
    return lambda status: bool(status.positions) and sum(at for at, _ in status.positions.values()) >= count


def clicks_of(count: int, seed: int) -> list[Click]:
    return some_clicks(count, users=300, seed=seed, start_us=NOW_US - 7200 * SECOND_US)


def fences_at(store: FeatureStore, count: int) -> bool:
    """Whether the fences of all views say that so many messages are merged; False while Redis cannot tell."""
    with contextlib.suppress(OnlineStoreError):
        return min(merged_up_to(store).values()) >= count
    return False


# -- what is merged -------------------------------------------------------------------------------------------------


def test_all_that_there_is_is_merged_and_the_rest_goes_to_the_dead_letters(store: FeatureStore, kafka: str) -> None:
    text = DEFINITIONS + (
        'dear = StreamFeatureView("dear", entities=[user], source=clicks, aggregations=['
        'Aggregation("price", "count", windows=[week], filter="price > 700", name="dear")])\n'
    )
    clicks = clicks_of(6_000, 1)
    odd: list[tuple[bytes | None, str, str]] = [
        (b"{", "malformed", "message"),
        (None, "malformed", "message"),
        (value_of(clicks[0] | {"price": "much"}), "malformed", "price"),
        (value_of(clicks[0] | {"ts": NOW_US // 1000 + 3_600_000}), "future", "event time"),
    ]
    null = value_of(clicks[0] | {"user_id": None, "shop": None})
    late = value_of(clicks[0] | {"user_id": 0, "shop": clicks[0]["shop"], "ts": NOW_US // 1000 - 9 * 86_400_000})
    with project(store.config.folder, store.online_url, kafka, definitions=text) as store:
        send(kafka, "clicks", [*map(value_of, clicks[:4000]), *(value for value, _, _ in odd), null], PARTITIONS)
        store.stream(engine="spark", until_caught_up=True)
        # An event is late when it comes after newer events of the same entity.
        send(kafka, "clicks", [*map(value_of, clicks[4000:]), late], PARTITIONS)
        status = on_spark(store, is_merged(6_000 + len(odd) + 2))
        assert status.lag == 0
        counts, read = status.view("by_user"), status.topic("clicks").messages
        assert (counts.merged, counts.late, read) == (2000, 1, 2001)
        assert differences(store, clicks, NOW_US) == []
        users = sorted({click["user_id"] for click in clicks})
        dear = [sum(click["price"] > 700 and click["user_id"] == user for click in clicks) for user in users]
        found = store.get_online_features(["dear:dear_7d"], {"user_id": users}, now=NOW_US).to_dict()
        assert found["dear_7d"] == dear
    wanted = [*odd, *((null, "null key", view) for view in ("by_user", "by_shop", "dear"))]
    # The third view's filter leaves it out.
    wanted += [(late, "late", view) for view in ("by_user", "by_shop")]
    assert Counter(map(_kind_and_where, received(kafka, "clicks.dead-letter"))) == Counter(wanted)


def _kind_and_where(letter: Message) -> tuple[bytes | None, str, str]:
    about = {name: value for name, value in letter.headers() or [] if isinstance(value, bytes)}
    return letter.value(), about["kind"].decode(), about["where"].decode()


def test_a_letter_is_the_message_as_it_was(store: FeatureStore, kafka: str) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce("clicks", b"no event", b"a key", partition=1, headers=[("trace", b"7"), ("none", None)])
    assert producer.flush(30) == 0
    store.stream(engine="spark", until_caught_up=True)
    (letter,) = received(kafka, "clicks.dead-letter")
    headers = letter.headers() or []
    assert (letter.key(), letter.value(), headers[:2]) == (b"a key", b"no event", [("trace", b"7"), ("none", None)])
    about = {name: value for name, value in headers if isinstance(value, bytes)}
    assert (about["topic"], about["partition"], about["offset"]) == (b"clicks", b"1", b"0")


def test_what_a_transaction_has_not_committed_is_no_event(store: FeatureStore, kafka: str) -> None:
    clicks = clicks_of(90, 2)
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": "clicks"})
    producer.init_transactions()
    for i in range(0, len(clicks), 30):
        producer.begin_transaction()
        for click in clicks[i : i + 30]:
            # The second third is aborted: of it, partition 2 holds nothing but the marker of the abort.
            producer.produce("clicks", value_of(click), partition=2 if i == 30 else 0)
        if i == 30:
            producer.flush()
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    status = store.stream(engine="spark", until_caught_up=True)
    assert status.view("by_user").merged == 60
    assert status.positions["clicks", 2] == (31, 31)
    assert differences(store, clicks[:30] + clicks[60:], NOW_US) == []


def test_another_plan_is_taken_up_and_a_new_view_begins_at_the_start(store: FeatureStore, kafka: str) -> None:
    text = DEFINITIONS + (
        'by_both = StreamFeatureView("by_both", entities=[user, shop], source=clicks, aggregations=['
        'Aggregation("price", "count", windows=[week])])\n'
    )
    clicks = clicks_of(2_000, 3)
    send(kafka, "clicks", map(value_of, clicks[:1000]), PARTITIONS)
    rest = [value_of(click) for click in clicks[1000:]]

    def done(status: StreamStatus) -> bool:
        if status.view("by_user").merged == 1000 and rest:
            with project(store.config.folder, store.online_url, kafka, definitions=text):
                send(kafka, "clicks", rest, PARTITIONS)
            rest.clear()
        return status.view("by_both").merged == 2000 and status.view("by_user").merged == 2000

    assert on_spark(store, done).reloads == 1
    assert differences(store, clicks, NOW_US) == []


def test_what_kafka_has_deleted_is_told_and_the_rest_is_merged(store: FeatureStore, kafka: str) -> None:
    clicks = clicks_of(600, 4)
    send(kafka, "clicks", map(value_of, clicks[:300]), PARTITIONS)
    work(store, has_read(300))
    send(kafka, "clicks", map(value_of, clicks[300:]), PARTITIONS)
    admin = AdminClient({"bootstrap.servers": kafka})
    for deleted in admin.delete_records([TopicPartition("clicks", 0, 150)]).values():
        deleted.result(10)
    status = on_spark(store, is_merged(600))
    assert status.topic("clicks").lost == 50
    assert (
        differences(store, [click for i, click in enumerate(clicks) if i < 300 or i % 3 or i // 3 >= 150], NOW_US) == []
    )


def test_what_kafka_has_deleted_to_its_end_is_passed_over(store: FeatureStore, kafka: str) -> None:
    clicks = clicks_of(600, 5)
    send(kafka, "clicks", map(value_of, clicks[:300]), PARTITIONS)
    work(store, has_read(300))
    send(kafka, "clicks", map(value_of, clicks[300:]), PARTITIONS)
    admin = AdminClient({"bootstrap.servers": kafka})
    ends = [TopicPartition("clicks", partition, 200) for partition in range(PARTITIONS)]
    for deleted in admin.delete_records(ends).values():
        deleted.result(10)
    assert on_spark(store, lambda _: fences_at(store, 600)).topic("clicks").lost == 300
    assert differences(store, clicks[:300], NOW_US) == []


def test_a_view_that_is_far_behind_does_not_keep_the_others_waiting(
    store: FeatureStore, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_stream, "MAX_MESSAGES", 900)
    clicks = clicks_of(12_000, 10)
    send(kafka, "clicks", [b"no event", *map(value_of, clicks[:9_000])], PARTITIONS)
    work(store, is_merged(9_001), "by_user")
    send(kafka, "clicks", map(value_of, clicks[9_000:11_000]), PARTITIONS)
    rest = [value_of(click) for click in clicks[11_000:]]

    def done(status: StreamStatus) -> bool:
        if fences_at(store, 11_001) and rest:
            send(kafka, "clicks", rest, PARTITIONS)
            rest.clear()
        if status.view("by_user").merged < 2_000:
            assert status.view("by_shop").merged < 11_000, "the other is not waited for"
        return fences_at(store, 12_001)

    status = on_spark(store, done)
    # With one reader, the view that was far ahead would have gone through all messages, too.
    assert (status.view("by_user").merged, status.view("by_shop").merged) == (3_000, 12_000)
    assert differences(store, clicks, NOW_US) == []
    assert len(received(kafka, "clicks.dead-letter")) == 1


# -- losses and kills -------------------------------------------------------------------------------------------------


def with_spark(folder: Path) -> None:
    """Make the processes of a project start Spark as the tests do."""
    with (folder / "feature_store.yaml").open("a") as file:
        file.write(f"spark: {json.dumps(with_kafka())}\n")


# Each kill takes a further start of Spark, of about 40 s.
@pytest.mark.parametrize("kills", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_driver_that_is_killed_is_gone_on_with(tmp_path: Path, redis_url: str, kafka: str, kills: int) -> None:
    clicks = clicks_of(60_000, 5)
    make_topic(kafka, "clicks", PARTITIONS)
    with project(tmp_path, redis_url, kafka) as store:
        with_spark(tmp_path)
        send(kafka, "clicks", map(value_of, clicks), PARTITIONS)
        before = 0
        for _ in range(kills):
            with streaming(tmp_path, "--engine", "spark") as running:
                until(partial(fences_at, store, before + 5_000), 60, running.log)
                running.signal(running.process.pid, signal.SIGKILL)
            before = min(merged_up_to(store).values())
            assert before < len(clicks), "it was killed in the middle"
        with streaming(tmp_path, "--engine", "spark") as running:
            until(lambda: fences_at(store, len(clicks)), 60, running.log)
            document = running.stop()
    assert document["topics"]["clicks"]["messages"] < len(clicks)
    assert differences(store, clicks, NOW_US) == []


def test_a_task_that_dies_is_run_again(store: FeatureStore, kafka: str) -> None:
    clicks = clicks_of(40_000, 9)
    send(kafka, "clicks", map(value_of, clicks), PARTITIONS)
    killed: list[int] = []

    def kill() -> None:
        # The Python processes that run tasks are children of a daemon of Spark.
        until(lambda: fences_at(store, 10_000))
        for pid in [pid for pid in descendants(os.getpid()) if b"pyspark.daemon" in command_line(pid)][1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    on_spark(store, lambda _: fences_at(store, len(clicks)))
    killer.join()
    assert killed
    assert differences(store, clicks, NOW_US) == []


@pytest.mark.parametrize("idle", [False, True])
def test_redis_goes_back_behind_the_query(store: FeatureStore, redis_url: str, kafka: str, idle: bool) -> None:
    clicks = clicks_of(6_000, 6)
    steps = iter(_losses(store, redis_url, kafka, clicks, idle))
    on_spark(store, lambda _: next(steps))
    assert differences(store, clicks, NOW_US) == []


def _losses(store: FeatureStore, redis_url: str, kafka: str, clicks: list[Click], idle: bool) -> Iterator[bool]:
    """Lose merged data while a query runs: first a third, then everything. Yields whether the query may end.
    If `idle`, no new message comes by which the query would notice the loss."""

    def sent(first: int, last: int) -> None:
        send(kafka, "clicks", map(value_of, clicks[first:last]), PARTITIONS)

    with raw_client(redis_url) as client:
        sent(0, 2000)
        while not fences_at(store, 2000):
            yield False
        kept = {key: client.dump(key) for key in client.scan_iter()}
        sent(2000, 4000)
        while not fences_at(store, 4000):
            yield False
        with client.pipeline(transaction=True) as pipe:
            pipe.flushall()
            for key, value in kept.items():
                pipe.restore(key, 0, value)
            pipe.execute()
        if not idle:
            sent(4000, 5000)
        while not fences_at(store, 4000 if idle else 5000):
            yield False
        client.flushall()
        store.apply()  # the plan was in Redis, too, and is lost
        sent(4000 if idle else 5000, 6000)
        while not fences_at(store, 6000):
            yield False
    yield True


def test_redis_and_kafka_go_away_and_come_back(tmp_path: Path, spark_engine: SparkEngine) -> None:
    clicks = clicks_of(4_000, 11)
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(kafka_server())
        server = stack.enter_context(redis_server("--appendonly", "yes", "--appendfsync", "always"))
        make_topic(broker.bootstrap, "clicks", PARTITIONS)
        store = stack.enter_context(project(tmp_path, server.url, broker.bootstrap))
        seen: set[str] = set()

        def steps() -> Iterator[bool]:
            send(broker.bootstrap, "clicks", map(value_of, clicks[:1000]), PARTITIONS)
            while not fences_at(store, 1000):
                yield False
            server.stop()
            send(broker.bootstrap, "clicks", map(value_of, clicks[1000:2000]), PARTITIONS)
            while not seen:
                yield False
            server.start()
            while not fences_at(store, 2000):
                yield False
            broker.kill()
            yield False
            broker.start()
            send(broker.bootstrap, "clicks", map(value_of, clicks[2000:]), PARTITIONS)
            while not fences_at(store, 4000):
                yield False
            yield True

        step = steps()
        store.stream(
            engine="spark",
            stopped=lambda: next(step),
            report=lambda status: seen.update([status.trouble] if status.trouble else []),
        )
        assert any("redis.sock" in trouble for trouble in seen)
        assert differences(store, clicks, NOW_US) == []


def test_workers_and_spark_take_over_from_each_other(store: FeatureStore, kafka: str) -> None:
    clicks = clicks_of(6_000, 7)
    for i, stream in enumerate([work, on_spark, work, on_spark]):
        send(kafka, "clicks", map(value_of, clicks[1500 * i : 1500 * (i + 1)]), PARTITIONS)
        status = stream(store, is_merged(1500 * (i + 1)))
        assert (status.refused, status.view("by_user").merged) == (0, 1500)
    assert differences(store, clicks, NOW_US) == []


def test_workers_and_spark_at_once(store: FeatureStore, kafka: str) -> None:
    clicks = clicks_of(40_000, 8)
    with streaming(store.config.folder) as running:
        send(kafka, "clicks", map(value_of, clicks[:100]), PARTITIONS)
        until(lambda: fences_at(store, 100), 60, running.log)
        sender = threading.Thread(
            target=send,
            args=(kafka, "clicks", map(value_of, clicks[100:]), PARTITIONS),
            kwargs={"pause": lambda i: time.sleep(0.05 if i % 400 == 0 else 0)},
        )
        sender.start()
        try:
            on_spark(store, lambda _: not sender.is_alive() and fences_at(store, len(clicks)))
        finally:
            sender.join()
        running.stop()
    assert differences(store, clicks, NOW_US) == []


# -- errors ---------------------------------------------------------------------------------------------------------


def test_what_spark_cannot_do_is_refused(store: FeatureStore) -> None:
    with pytest.raises(RequestError, match="workers: expected none with engine spark, got 2"):
        store.stream(engine="spark", workers=2)
    with pytest.raises(NotFoundError, match="engine: expected local or spark, got 'flink'"):
        store.stream(engine="flink")
    with pytest.raises(NotFoundError, match="by_nobody: expected a stream view: by_shop, by_user"):
        store.stream(["by_nobody"], engine="spark", until_caught_up=True)


def test_a_spark_without_the_connector_says_where_to_get_it(tmp_path: Path, redis_url: str, kafka: str) -> None:
    make_topic(kafka, "clicks", 1)
    with project(tmp_path, redis_url, kafka):
        with (tmp_path / "feature_store.yaml").open("a") as file:
            file.write(f"spark: {json.dumps(SPARK | {'spark.jars.packages': ''})}\n")
        with streaming(tmp_path, "--engine", "spark") as running:
            assert running.process.wait(60) != 0
            told = running.log()
    assert '"expected": "its Kafka connector"' in told and '"got": "none among its jars"' in told
    assert "spark.jars.packages: org.apache.spark:spark-sql-kafka-0-10_2.13:" in told
