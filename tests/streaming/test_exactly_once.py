"""Whatever is killed, and whenever: the windows count every event exactly once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from feature_store import FeatureStore
from feature_store.errors import OnlineStoreError
from tests.kafka_server import kafka_server
from tests.raw_redis import raw_client
from tests.servers import RedisServer, redis_server
from tests.streaming.running import Streaming, merged_messages, merged_up_to, streaming, until
from tests.streaming.streaming_worlds import (
    SECOND_US,
    Click,
    differences,
    make_topic,
    project,
    send,
    some_clicks,
    value_of,
)

EVENTS, PARTITIONS, WORKERS, KILLS = 200_000, 6, 3, 30
NOW_US = 1_700_000_000 * SECOND_US
END_US = NOW_US + 3600 * SECOND_US
# The session timeout of a worker, in seconds. After it, other workers get its partitions.
SESSION_S = 1.5
# How many messages the sender is ahead of the workers at most.
AHEAD = 4_000
# So many commands of idle workers are enough for each to read its fences several times.
IDLE_COMMANDS = 20
# Messages merged between two kills, at most.
MOST_BETWEEN = 5_000


def kill_workers(running: Streaming, store: FeatureStore, chance: random.Random) -> None:
    """Kill workers while they or the others merge, each time after some more events are merged. One worker is only
    paused for longer than its session, and then continued."""
    before, zombie = 0, 0
    for kill in range(KILLS + 1):
        wait_until_merged(store, running, before + chance.randint(1, MOST_BETWEEN))
        before = merged(store)
        victim = chance.choice([pid for pid in running.workers() if pid != zombie])
        if kill == KILLS // 2:
            zombie = victim
            running.signal(zombie, signal.SIGSTOP)
            threading.Timer(2.5 * SESSION_S, running.signal, (zombie, signal.SIGCONT)).start()
        else:
            running.signal(victim, signal.SIGKILL)


def merged(store: FeatureStore) -> int:
    """How many messages every view has merged; 0 while Redis cannot tell."""
    with contextlib.suppress(OnlineStoreError):
        return min(merged_up_to(store).values())
    return 0


def wait_until_merged(store: FeatureStore, running: Streaming, count: int) -> None:
    until(lambda: merged(store) >= count, 60, running.log)


@contextlib.contextmanager
def sending(kafka: str, store: FeatureStore, clicks: list[Click], per_s: int) -> Iterator[None]:
    """Send clicks to Kafka while the block runs, `per_s` a second. The sender stays ahead of the workers, so that they
    always have work, but at most AHEAD messages, so that the block ends before all is sent."""
    begun, may_end = time.monotonic(), threading.Event()

    def pause(i: int) -> None:
        if i % 250 == 0:
            time.sleep(max(0.0, begun + i / per_s - time.monotonic()))
            while i > merged(store) + AHEAD:
                time.sleep(0.05)
        if i == len(clicks) - 1:
            may_end.wait()

    arguments = (kafka, "clicks", map(value_of, clicks), PARTITIONS)
    thread = threading.Thread(target=send, args=arguments, kwargs={"pause": pause})
    thread.start()
    try:
        yield
    finally:
        may_end.set()
        thread.join()


def assert_all_is_merged(store: FeatureStore, running: Streaming, clicks: list[Click]) -> None:
    wait_until_merged(store, running, len(clicks))
    assert differences(store, clicks, END_US) == []


@pytest.mark.timeout(300)
def test_workers_killed_and_paused(tmp_path: Path, redis_url: str, kafka: str) -> None:
    clicks = some_clicks(EVENTS, users=5_000, seed=4, start_us=NOW_US)
    make_topic(kafka, "clicks", PARTITIONS)
    with project(tmp_path, redis_url, kafka) as store, streaming(tmp_path, "--workers", str(WORKERS)) as running:
        with sending(kafka, store, clicks, 5_000):
            kill_workers(running, store, random.Random(4))
        assert_all_is_merged(store, running, clicks)
        assert running.stop()["restarts"] >= KILLS


def lose_the_end_of(server: RedisServer, chance: random.Random) -> None:
    """Cut the end of the log, as when a machine goes down between two fsyncs. A killed process alone loses nothing."""
    (file,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    size = file.stat().st_size
    os.truncate(file, size - chance.randrange(size // 10, size // 4))


def test_redis_killed_and_what_it_had_not_on_disk_lost(tmp_path: Path, kafka: str) -> None:
    chance = random.Random(5)
    clicks = some_clicks(60_000, users=3_000, seed=5, start_us=NOW_US)
    make_topic(kafka, "clicks", PARTITIONS)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(redis_server("--appendonly", "yes", "--appendfsync", "everysec"))
        store = stack.enter_context(project(tmp_path, server.url, kafka))
        running = stack.enter_context(streaming(tmp_path, "--workers", "2"))
        with sending(kafka, store, clicks, 5_000):
            for kill in range(1, 4):
                wait_until_merged(store, running, kill * 12_000)
                before = merged_up_to(store)
                server.stop()
                lose_the_end_of(server, chance)
                time.sleep(chance.uniform(0.1, 0.8))
                server.start()
                assert sum(merged_up_to(store).values()) < sum(before.values())
        assert_all_is_merged(store, running, clicks)
        assert running.stop()["restarts"] == 0


def wait_until_nothing_is_written(server: RedisServer, running: Streaming) -> None:
    """Wait until idle workers have read their fences again while Redis's log did not grow."""
    with redis.Redis.from_url(server.url) as client:

        def state() -> tuple[int, int]:
            stats = client.info("commandstats")
            others = sum(each["calls"] for name, each in stats.items() if name not in ("cmdstat_info", "cmdstat_ping"))
            return client.info("persistence")["aof_current_size"], others

        size, commands = state()

        def is_quiet() -> bool:
            nonlocal size, commands
            now, others = state()
            if now != size:
                size, commands = now, others
            return others - commands >= IDLE_COMMANDS

        until(is_quiet, 60, running.log)


def test_redis_goes_back_in_time_while_no_event_comes(tmp_path: Path, kafka: str) -> None:
    clicks = some_clicks(8_000, users=500, seed=8, start_us=NOW_US)
    make_topic(kafka, "clicks", PARTITIONS)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(redis_server("--appendonly", "yes", "--appendfsync", "everysec"))
        store = stack.enter_context(project(tmp_path, server.url, kafka))
        running = stack.enter_context(streaming(tmp_path, "--workers", "2"))
        send(kafka, "clicks", map(value_of, clicks), PARTITIONS)
        wait_until_merged(store, running, len(clicks))
        wait_until_nothing_is_written(server, running)
        server.stop()
        lose_the_end_of(server, random.Random(8))
        server.start()
        assert_all_is_merged(store, running, clicks)
        running.stop()


def test_redis_emptied_and_rebuilt_from_what_kafka_retains(tmp_path: Path, redis_url: str, kafka: str) -> None:
    clicks = some_clicks(30_000, users=3_000, seed=6, start_us=NOW_US)
    make_topic(kafka, "clicks", PARTITIONS)
    with project(tmp_path, redis_url, kafka) as store, streaming(tmp_path, "--workers", "2") as running:
        with sending(kafka, store, clicks, 5_000):
            wait_until_merged(store, running, 10_000)
            with raw_client(redis_url) as client:
                client.flushall()
            time.sleep(1)
            store.apply()  # the plan was in Redis, too, and is lost
        assert_all_is_merged(store, running, clicks)
        assert running.stop()["restarts"] == 0


@pytest.mark.parametrize("lost", ["f", "m"])
def test_fences_lost_alone_stop_their_view_until_it_is_filled_anew(
    tmp_path: Path, redis_url: str, kafka: str, lost: str
) -> None:
    clicks = some_clicks(20_000, users=2_000, seed=9, start_us=NOW_US)
    make_topic(kafka, "clicks", PARTITIONS)
    first, second, third = clicks[:8_000], clicks[8_000:16_000], clicks[16_000:]
    with project(tmp_path, redis_url, kafka) as store, streaming(tmp_path, "--workers", "2") as running:
        send(kafka, "clicks", map(value_of, first), PARTITIONS)
        wait_until_merged(store, running, len(first))
        with raw_client(redis_url) as client:
            client.delete(f"{{shop:0}}{lost}:by_user:1")
        send(kafka, "clicks", map(value_of, second), PARTITIONS)
        until(lambda: merged_of_shops(store) == len(first) + len(second), 60, running.log)
        by_user = store.online.require_published().plan.tiles_of("by_user")
        assert by_user is not None
        assert store.online.lost_fences(by_user) is not None
        store.backfill("by_user")
        send(kafka, "clicks", map(value_of, third), PARTITIONS)
        assert_all_is_merged(store, running, clicks)
        assert running.stop()["stopped"] == {}


def merged_of_shops(store: FeatureStore) -> int:
    """How many messages `by_shop`, the view that still has its fences, has merged."""
    with store.online.tile_writer("by_shop") as writer:
        return sum(merged_messages(writer.fences()).values())


def test_the_broker_killed_and_started_again(tmp_path: Path, redis_url: str) -> None:
    clicks = some_clicks(30_000, users=3_000, seed=7, start_us=NOW_US)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(kafka_server())
        make_topic(server.bootstrap, "clicks", PARTITIONS)
        store = stack.enter_context(project(tmp_path, redis_url, server.bootstrap))
        running = stack.enter_context(streaming(tmp_path, "--workers", "2"))
        with sending(server.bootstrap, store, clicks, 5_000):
            for end, count in ((server.kill, 3_000), (server.stop, 12_000)):
                wait_until_merged(store, running, count)
                end()
                time.sleep(1)
                server.start()
        assert_all_is_merged(store, running, clicks)
        assert running.stop()["restarts"] == 0
