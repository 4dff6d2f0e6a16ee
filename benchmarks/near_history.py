"""Checks what a near-cache says, value by value, while everything changes: `python -m benchmarks.near_history`.

A process writes rows whose value is a version that only grows, and notes when Redis acknowledged each. Threads of one
client read them by a Zipf distribution. Of each value they check that

- it is not smaller than a value of the same key in an answer that the client had given before this request began,
- no newer one was acknowledged more than the bound before this request began,
- all values of an answer are of one plan: each plan serves the field under a name of its own.

Meanwhile Redis is killed and started again, the connections on which the client hears of changes are closed, all rows
are written at once, and plans are published.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import redis

from feature_store.definitions import DefinitionSet, Entity, FeatureService, FeatureView, Field, Int64
from feature_store.errors import OnlineStoreError
from feature_store.online import OnlineClient, OnlineStore
from feature_store.online.batch import RowBatch, Values
from feature_store.online.redis.embedded_process import find_server
from feature_store.registry.compile import compile_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS, ASKED, READERS = 20_000, 200, 3
BOUND_MS = 250.0
PROJECT, NOW_US = "history", 1_700_000_000_000_000
movie = Entity("movie", join_key="movie_id")
view = FeatureView("numbers", entities=[movie], schema=[Field("version", Int64)])
# The kinds of disturbance, in turn.
ACTS = ("deafen", "plan", "load", "kill", "deafen", "plan")


class Shared:
    """Numbers that processes share: of each key the newest version that was acknowledged, and when."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, 16 * KEYS + 8)
        self.versions = np.frombuffer(memory, np.int64, KEYS)
        self.times = np.frombuffer(memory, np.float64, KEYS, 8 * KEYS)
        self.load = np.frombuffer(memory, np.int64, 1, 16 * KEYS)


def publish(store: OnlineStore, version: int) -> None:
    """A plan that serves the version under a name of its own."""
    service = FeatureService("all", features=[view[["version"]].rename({"version": f"version_{version % 4}"})])
    before = store.published()
    plan = compile_plan(
        DefinitionSet([view, service]), project=PROJECT, version=version, previous=before.plan if before else None
    )
    store.publish(plan, over=before)


def write(url: str, shared: Shared, rate: int, seed: int) -> None:
    """Write versions until killed: batches of a few keys, or all when asked."""
    chosen_by, version, loads = np.random.default_rng(seed), 0, 0
    store = OnlineStore(url, PROJECT)
    wanted, began = 0, time.monotonic()
    while True:
        version += 1
        if shared.load[0] > loads:
            loads, keys = int(shared.load[0]), np.arange(KEYS)
        else:
            keys = np.unique(zipf(chosen_by, 10))
        times = np.full(len(keys), NOW_US + version)
        batch = RowBatch(
            {"movie_id": keys},
            times,
            times,
            {"version": Values(np.full(len(keys), version), np.zeros(len(keys), bool))},
        )
        try:
            with store.writer("numbers") as writer:
                writer.write(batch)
        except OnlineStoreError:
            time.sleep(0.05)
            continue
        shared.times[keys] = time.monotonic()
        shared.versions[keys] = version
        wanted += len(keys)
        time.sleep(max(0.0, began + wanted / rate - time.monotonic()))


def zipf(chosen_by: np.random.Generator, count: int) -> np.ndarray[Any, Any]:
    """Keys by a Zipf distribution, s = 1.1."""
    return np.searchsorted(_CUMULATED, chosen_by.random(count))


_CUMULATED = np.cumsum(1 / np.arange(1, KEYS + 1) ** 1.1)
_CUMULATED /= _CUMULATED[-1]


class Checker:
    """What the threads of one client have seen."""

    def __init__(self, client: OnlineClient, shared: Shared) -> None:
        self.client, self.shared = client, shared
        self.seen = np.zeros(KEYS, np.int64)
        self.lock = threading.Lock()
        self.values = self.requests = self.failed = 0
        self.wrong: list[str] = []
        self.stale: list[float] = []
        self.over = threading.Event()

    def read(self, seed: int) -> None:
        """Read and check until it is over."""
        chosen_by = np.random.default_rng(seed)
        while not self.over.is_set():
            keys = np.unique(zipf(chosen_by, 2 * ASKED))[:ASKED]
            started = time.monotonic()
            seen, acknowledged, times = self.seen[keys], self.shared.versions[keys], self.shared.times[keys]
            try:
                answer = self.client.get_online_features("all", {"movie_id": keys.tolist()}, now=NOW_US)
            except OnlineStoreError:
                self.failed += 1
                time.sleep(0.01)
                continue
            ((name, found),) = [item for item in answer.to_dict().items() if item[0] != "movie_id"]
            self.check(keys, np.array([value or 0 for value in found]), seen, acknowledged, started - times)
            if name != f"version_{answer.plan_version % 4}":
                self.wrong.append(f"{name} under plan {answer.plan_version}")

    def check(self, keys: Any, found: Any, seen: Any, acknowledged: Any, ages: Any) -> None:
        """Compare the values of an answer with what was known when its request began."""
        behind = found < acknowledged
        for i in np.flatnonzero((found < seen) | (behind & (ages > BOUND_MS / 1000))).tolist():
            self.wrong.append(
                f"key {keys[i]}: {found[i]}, seen {seen[i]}, {acknowledged[i]} acknowledged {ages[i]:.4f} s before"
            )
        with self.lock:
            self.seen[keys] = np.maximum(self.seen[keys], found)
            self.values += len(keys)
            self.requests += 1
            self.stale += ages[behind].tolist()


@contextlib.contextmanager
def server(port: int, folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A server that keeps what it acknowledged when its process is killed. The list holds its process."""
    processes = [_start(port, folder)]
    try:
        yield processes
    finally:
        processes[0].kill()
        processes[0].wait()


def _start(port: int, folder: Path) -> subprocess.Popen[bytes]:
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes", "--save", ""]
    return subprocess.Popen([find_server(), *options], stdout=subprocess.DEVNULL)


def _await(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        for _ in range(500):
            with contextlib.suppress(redis.ConnectionError):
                if client.ping():
                    return
            time.sleep(0.02)
    raise RuntimeError("no answer from the server")


def disturb(act: str, url: str, port: int, folder: Path, processes: list[Any], shared: Shared, version: int) -> None:
    """Do one thing that a near-cache must survive."""
    if act == "kill":
        processes[0].kill()
        processes[0].wait()
        processes[0] = _start(port, folder)
        _await(url)
    elif act == "load":
        shared.load[0] += 1
    elif act == "plan":
        store = OnlineStore(url, PROJECT)
        publish(store, version)
        store.close()
    else:
        with redis.Redis.from_url(url) as client:
            for one in client.client_list():
                if "t" in one["flags"]:
                    client.client_kill_filter(_id=one["id"])


def main() -> None:
    """Read until so many values were checked; exits with 1 when one was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=float, default=1e7)
    parser.add_argument("--rate", type=int, default=1000, help="keys written in a second")
    parser.add_argument("--size", default="400KB", help="of the near-cache")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url, shared = f"redis://127.0.0.1:{port}", Shared()
    with tempfile.TemporaryDirectory(prefix="fs-history-") as folder, server(port, Path(folder)) as processes:
        _await(url)
        store = OnlineStore(url, PROJECT)
        publish(store, 1)
        store.close()
        writer = multiprocessing.get_context("fork").Process(
            target=write, args=(url, shared, arguments.rate, arguments.seed), daemon=True
        )
        writer.start()
        with OnlineClient(
            url, PROJECT, cache={"movie": arguments.size}, cache_bound_ms=BOUND_MS, timeout_s=5.0
        ) as client:
            checker = Checker(client, shared)
            threads = [threading.Thread(target=checker.read, args=(arguments.seed + i,)) for i in range(READERS)]
            for thread in threads:
                thread.start()
            version, began = 1, time.monotonic()
            while checker.values < arguments.values and not checker.wrong:
                time.sleep(1.0)
                act = ACTS[version % len(ACTS)]
                version += 1
                disturb(act, url, port, Path(folder), processes, shared, version)
                print(f"{time.monotonic() - began:5.0f} s {checker.values:12,} values, {act}", flush=True)
            checker.over.set()
            for thread in threads:
                thread.join()
            _report(checker, arguments.seed)
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
    sys.exit(bool(checker.wrong))


def _report(checker: Checker, seed: int) -> None:
    state = checker.client.cache
    assert state is not None
    movies = state.groups["movie"]
    stale = np.array(checker.stale or [0.0]) * 1000
    print(f"seed {seed}: {checker.values:,} values in {checker.requests:,} requests, {checker.failed:,} failed")
    print(f"wrong: {len(checker.wrong)}", *checker.wrong[:10], sep="\n  ")
    print(f"hits {movies.hits / max(1, movies.hits + movies.misses):.1%}, {movies.invalidated:,} invalidated")
    print(
        f"{len(checker.stale):,} values older than an acknowledged write, their age p50 {np.median(stale):.2f} ms, "
        f"p99 {np.percentile(stale, 99):.2f} ms, most {stale.max():.2f} ms; connection lost {state.losses} times"
    )


if __name__ == "__main__":
    main()
