"""`python -m benchmarks.soak --minutes 10`: everything at once, with kills; ends with 0 when nothing was wrong."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
import redis
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.kafka import RedisServer, kafka_server, redis_server
from benchmarks.soak.actors import Actor, Clicks, Jobs, Pushes, Streams
from benchmarks.soak.world import PARTITIONS, PROJECT, TOPIC, USERS, Shared, price, write_project
from feature_store import FeatureStore
from feature_store.online import OnlineClient

KINDS = ("blocking", "asyncio")
# Memory of a reader may grow by so many bytes a minute: what a heap's fragments make in ten, not what a leak does.
_MOST_SLOPE = 0.5e6
_WARM_UP = 0.4
# Of readers (4 threads, 16 tasks), workers, jobs and pushes.
_MOST_CONNECTIONS = 100
_CATCH_UP_S, _END_S = 120.0, 60.0
_BATCH = 200  # users of a request at the end
_LONG_S = 240.0  # from which on the slope of memory says something


class ReaderProcess:
    """A reader, and what it told last."""

    def __init__(self, folder: Path, url: str, kind: str) -> None:
        self.code = 0
        self.kind, self.told, self.memory = kind, {"counts": {}, "problems": []}, list[tuple[float, int]]()
        command = [sys.executable, "-m", "benchmarks.soak.reader", str(folder), url, kind]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told = json.loads(line)
            self.memory.append((time.monotonic(), self.told["rss"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self.code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.code = self._process.wait()
        self._listener.join()

    def slope(self) -> float:
        """Bytes a minute, by least squares, after the time in which caches fill."""
        times, sizes = np.array(self.memory[int(len(self.memory) * _WARM_UP) :], np.float64).T
        return float(np.polyfit((times - times[0]) / 60, sizes, 1)[0])


class Connections(threading.Thread):
    """Counts the connections of Redis, each second."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self.counts, self.over = url, list[int](), threading.Event()

    def run(self) -> None:
        """Count."""
        with redis.Redis.from_url(self._url) as client:
            while not self.over.wait(1.0):
                with contextlib.suppress(redis.RedisError):
                    found: dict[str, Any] = client.info("clients")
                    self.counts.append(int(found["connected_clients"]))


def soak(seconds: float) -> list[str]:
    """Run it, tell what happened, and return what was wrong."""
    # What Redis has written to its file survives its death; only a machine's death would need a sync, whose time on a
    # busy disk is not what is measured here.
    options = ["--appendonly", "yes", "--appendfsync", "no"]
    with redis_server(*options) as server, kafka_server() as kafka, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "soak"
        write_project(folder, server.url, kafka.bootstrap)
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        admin.create_topics([NewTopic(TOPIC, PARTITIONS)])[TOPIC].result(10)
        with FeatureStore(folder) as store:
            store.apply()
        jobs, streams = Jobs(folder, 1), Streams(folder, 2)
        jobs.step()  # so that every user has a row
        actors: list[Actor] = [jobs, streams, Pushes(folder, 3), Clicks(folder, 4, kafka.bootstrap)]
        connections = Connections(server.url)
        with contextlib.ExitStack() as ends:
            ends.callback(streams.stop)
            readers = [ends.enter_context(ReaderProcess(folder, server.url, kind)) for kind in KINDS]
            for thread in (*actors, connections):
                thread.start()
            _wait(seconds / 2, actors)
            _restart(server, Shared(folder))
            _wait(seconds / 2, actors)
            problems = _ended(actors) + _account(folder, server.url, jobs.version)
        connections.over.set()
        return problems + _told(readers, connections.counts, actors, seconds)


def _wait(seconds: float, actors: list[Actor]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not any(actor.problem for actor in actors):
        time.sleep(0.2)


def _restart(server: RedisServer, shared: Shared) -> None:
    shared.begin_outage()
    server.stop()
    time.sleep(0.5)
    server.start()
    shared.begin_outage()


def _ended(actors: list[Actor]) -> list[str]:
    for actor in actors:
        actor.over.set()
    for actor in actors:
        actor.join(180)
    still = [f"{type(actor).__name__} does not end" for actor in actors if actor.is_alive()]
    return [actor.problem for actor in actors if actor.problem] + still


def _everybody(client: OnlineClient) -> dict[str, list[Any]]:
    """What is served of all users, some at a time, so that no other request waits for long."""
    found: dict[str, list[Any]] = {}
    for first in range(0, USERS, _BATCH):
        users = list(range(first, min(first + _BATCH, USERS)))
        for name, values in client.get_online_features("ranking", {"user_id": users}).to_dict().items():
            found.setdefault(name, []).extend(values)
    return found


def _account(folder: Path, url: str, version: int) -> list[str]:
    """What is stored in the end against what was sent."""
    clicks = Shared(folder).clicks
    best, end = -1, 0.0
    with OnlineClient(url, PROJECT, timeout_s=_END_S) as client:
        while True:
            found = _everybody(client)
            counted = np.array([count or 0 for count in found["price_count_7d"]])
            if counted.sum() > best:
                best, end = int(counted.sum()), time.monotonic() + _CATCH_UP_S  # it goes on
            if best >= clicks.sum() or time.monotonic() > end:
                break
            time.sleep(1.0)
    wrong = np.flatnonzero(counted != clicks)
    problems = [f"user {i}: {counted[i]} clicks counted, {clicks[i]} sent; {len(wrong)} users" for i in wrong[:3]]
    sums = np.array([total or 0 for total in found["price_sum_7d"]])
    if not np.array_equal(sums, clicks * np.array([price(user) for user in range(USERS)])):
        problems.append("the sums of prices are not those of the clicks")
    if set(found["version"]) != {version}:
        problems.append(f"versions {sorted(set(map(str, found['version'])))[:5]} are served, not {version} alone")
    print(f"counted {counted.sum():,} of {clicks.sum():,} clicks; {USERS:,} users at version {version}")
    return problems


def _told(readers: list[ReaderProcess], connections: list[int], actors: list[Actor], seconds: float) -> list[str]:
    problems = []
    for actor in actors:
        print(
            f"{type(actor).__name__.lower():10}", ", ".join(f"{what} {n:,}" for what, n in sorted(actor.done.items()))
        )
    for reader in readers:
        code = reader.code
        problems += [f"{reader.kind}: {problem}" for problem in reader.told["problems"]]
        problems += [f"{reader.kind}: ended with {code}"] * (code != 0)
        counts = ", ".join(f"{what} {n:,}" for what, n in sorted(reader.told["counts"].items()))
        slope, last = reader.slope(), reader.memory[-1][1]
        print(f"{reader.kind:10} {counts}; memory {last / 1e6:.0f} MB, {slope / 1e6:+.2f} MB a minute")
        if seconds >= _LONG_S and slope > _MOST_SLOPE:
            problems.append(f"{reader.kind}: memory grows by {slope / 1e6:.2f} MB a minute")
        if not reader.told["counts"].get("requests"):
            problems.append(f"{reader.kind}: no request")
    print(f"connections of Redis: {min(connections)} to {max(connections)}, {connections[-1]} at the end")
    if max(connections) > _MOST_CONNECTIONS:
        problems.append(f"{max(connections)} connections")
    return problems


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all that was started is ended
    problems = soak(parser.parse_args().minutes * 60)
    for problem in problems:
        print("WRONG:", problem)
    print("nothing was wrong" if not problems else f"{len(problems)} things were wrong")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
