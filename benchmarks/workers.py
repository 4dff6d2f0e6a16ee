"""Workers join and leave while events arrive steadily: how long an event waits, and that none is lost or counted twice.

Each worker is a `feature-store stream` of its own, as if machines were added and removed. Waits are measured from
outside: the age of the oldest event that no fence in Redis has passed yet, in the partition where it is oldest.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import orjson
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.kafka import kafka_server
from benchmarks.measure import Samples
from benchmarks.projects import project
from benchmarks.report import Result

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.server import Server
    from feature_store import FeatureStore

TOPIC, PARTITIONS, RATE, USERS, ROUNDS = "clicks", 6, 5_000, 10_000, 4
DEFINITIONS = """
from datetime import timedelta
from feature_store import *
user = Entity("user", join_key="user_id")
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="ts",
    schema=[Field("user_id", Int64), Field("price", Float64)])
activity = StreamFeatureView("activity", entities=[user], source=clicks, aggregations=[
    Aggregation("price", "count", windows=[timedelta(days=7)])])
"""
COUNT = "activity:price_count_7d"
# Between two looks at the fences; the waits that are told are not finer.
_LOOK_S = 0.01
# For how long after a change waits are looked at: all is as before well within it.
_CALM_S, _SESSION_S = 5.0, 10.0
_START_S, _END_S = 30.0, 60.0


def workers(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """The longest wait of an event while a worker joins, leaves, is killed, and is lost with its parent."""
    del with_peer
    waits: dict[str, Samples] = {}
    with kafka_server() as kafka, project(folder / "workers", "workers", DEFINITIONS, server.url) as store:
        _configure(folder / "workers", kafka.bootstrap)
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})  # by a name: its end would end the request
        admin.create_topics([NewTopic(TOPIC, PARTITIONS)])[TOPIC].result(10)
        with _Events(kafka.bootstrap) as events, _Members(folder / "workers") as members:
            watch = _Watch(store, events)
            members.add()
            watch.until_merged(events.sent() + RATE, _START_S)
            for _ in range(ROUNDS):
                for about, change, calm_s in (
                    ("a worker is added", members.add, _CALM_S),
                    ("a worker is added", members.add, _CALM_S),
                    ("a worker is stopped", members.stop, _CALM_S),
                    ("a worker is added", members.add, _CALM_S),
                    ("a worker is killed, and started again by its parent", members.kill_worker, _SESSION_S),
                    ("a worker is killed with its parent", members.kill, _SESSION_S),
                    ("a worker is stopped", members.stop, _CALM_S),
                ):
                    change()
                    waits.setdefault(about, Samples()).seconds.append(watch.longest_wait(calm_s))
            waits["nothing happens"] = Samples([watch.longest_wait(_CALM_S)])
            events.end()
            watch.until_merged(events.sent(), _END_S)
            counted = _counted(store)
            assert counted == events.sent(), f"{events.sent():,} events were sent, {counted:,} are counted"
    work = f"stream {RATE:,} events/s on {PARTITIONS} partitions: longest wait of an event when"
    return [Result.of_samples(f"{work} {about}", {"ours": found}, []) for about, found in waits.items()]


class _Events:
    """Sends events at a steady rate while the block runs, and knows when each was sent."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
        # By partition, when the event of each offset was sent: this producer is the only one.
        self.times: list[list[float]] = [[] for _ in range(PARTITIONS)]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def sent(self) -> int:
        return sum(map(len, self.times))

    def end(self) -> None:
        self._end.set()
        self._thread.join()

    def _send(self) -> None:
        begun, count = time.perf_counter(), 0
        while not self._end.is_set():
            while count < (time.perf_counter() - begun) * RATE:
                at_ms = time.time_ns() // 1_000_000
                message = orjson.dumps({"user_id": count * 7919 % USERS, "price": 1.0, "ts": at_ms})
                self.times[count % PARTITIONS].append(time.perf_counter())
                self._producer.produce(TOPIC, message, partition=count % PARTITIONS)
                count += 1
            self._producer.poll(0)
            time.sleep(0.002)
        assert self._producer.flush(30) == 0

    def __enter__(self) -> _Events:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class _Members:
    """Commands that stream, each with a worker; the first one stays."""

    def __init__(self, folder: Path) -> None:
        self._command = [sys.executable, "-c", "from feature_store.cli import main; main()"]
        self._command += ["stream", "--repo", str(folder), "--json"]
        self._log = folder / "stream.log"
        self._running: list[subprocess.Popen[bytes]] = []

    def add(self) -> None:
        with self._log.open("ab") as log:
            self._running.append(subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=log))

    def stop(self) -> None:
        self._running.pop().terminate()

    def kill_worker(self) -> None:
        os.kill(self._worker(self._running[-1]), signal.SIGKILL)

    def kill(self) -> None:
        parent = self._running.pop()
        worker = self._worker(parent)
        parent.kill()
        os.kill(worker, signal.SIGKILL)
        parent.wait()

    def _worker(self, parent: subprocess.Popen[bytes]) -> int:
        listed = subprocess.run(["pgrep", "-P", str(parent.pid), "-f", "spawn_main"], capture_output=True, check=True)
        return int(listed.stdout.split()[0])

    def __enter__(self) -> _Members:
        return self

    def __exit__(self, *_: object) -> None:
        for running in self._running:
            running.terminate()
            running.wait()


class _Watch:
    """Looks at the fences."""

    def __init__(self, store: FeatureStore, events: _Events) -> None:
        self._store, self._events = store, events

    def longest_wait(self, during_s: float) -> float:
        """The longest that an event of any partition waits within a time, seconds."""
        longest, end = 0.0, time.perf_counter() + during_s
        with self._store.online.tile_writer("activity") as reader:
            while time.perf_counter() < end:
                fronts = _fronts(reader.fences())
                now = time.perf_counter()
                for times, front in zip(self._events.times, fronts, strict=True):
                    if front < len(times):
                        longest = max(longest, now - times[front])
                time.sleep(_LOOK_S)
        return longest

    def until_merged(self, count: int, within_s: float) -> None:
        """Wait until so many events are merged."""
        give_up = time.perf_counter() + within_s
        with self._store.online.tile_writer("activity") as reader:
            while sum(_fronts(reader.fences())) < count:
                assert time.perf_counter() < give_up, f"{sum(_fronts(reader.fences())):,} of {count:,} are merged"
                time.sleep(_LOOK_S)


def _fronts(fences: list[dict[str, int]]) -> list[int]:
    """Per partition, up to where some lane is merged."""
    fronts = [0] * PARTITIONS
    for of_bucket in fences:
        for name, at in of_bucket.items():
            partition = int(name.partition("/")[0].rpartition(":")[2])
            fronts[partition] = max(fronts[partition], at)
    return fronts


def _counted(store: FeatureStore) -> int:
    found = store.get_online_features([COUNT], {"user_id": np.arange(USERS)}).to_numpy()
    return int(found.sum(dtype=np.float64))


def _configure(folder: Path, bootstrap: str) -> None:
    with (folder / "feature_store.yaml").open("a") as config:
        config.write(f"kafka: {{bootstrap.servers: '{bootstrap}'}}\n")
