"""The near-cache: one user and 200 of a million items by a Zipf distribution, beside the same client without it.

Both clients take turns in one process and ask for the same items. While a writer changes items at a given rate, by the
same distribution, the age of what the cache gave too late is measured: how long before the request the newer value was
acknowledged.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import redis

from benchmarks.measure import Samples
from benchmarks.projects import project
from benchmarks.report import Reach, Result
from benchmarks.usual import cpu_s
from feature_store.online import OnlineClient, OnlineStore
from feature_store.online.batch import RowBatch, Values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.server import Server

ITEMS, USERS, ASKED, FLOATS = 1_000_000, 1_000, 200, 25
SIZE = "64MB"
NOW_US = 1_700_000_000_000_000
WARM_UP_S, CALLS, BLOCK = 15.0, 1_500, 50
RATES = (0, 1_000, 10_000)
DEFINITIONS = f"""from feature_store import *
item, user = Entity("item", join_key="item_id"), Entity("user", join_key="user_id")
items = FeatureView("items", entities=[item], schema=[Field(f"item_{{i}}", Float32) for i in range({FLOATS})])
users = FeatureView("users", entities=[user], schema=[Field(f"user_{{i}}", Float32) for i in range({FLOATS})])
both = FeatureService("both", features=[users, items])
"""


def near_cache(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """One result per rate of writes, and one of requests that the cache answers but for the user."""
    del with_peer
    with project(folder / "near", "near", DEFINITIONS, server.url):
        _fill(server.url)
        with (
            OnlineClient(server.url, "near") as plain,
            OnlineClient(server.url, "near", cache={"item": SIZE}) as near,
        ):
            requests = _requests(np.random.default_rng(1))
            _warm_up(near, requests)
            results = [_all_hits(plain, near, next(requests))]
            return results + [_at_rate(plain, near, requests, server.url, rate) for rate in RATES]


def _all_hits(plain: OnlineClient, near: OnlineClient, request: dict[str, Any]) -> Result:
    for _ in range(3):
        _read(near, request)
        time.sleep(0.1)
    found = {"ours": Samples(), "without": Samples()}
    for _ in range(CALLS // BLOCK):
        for name, client in (("ours", near), ("without", plain)):
            found[name].seconds += [_seconds(client, request) for _ in range(BLOCK)]
    return Result.of_samples("1 user + 200 items, all in the near-cache", found, [Reach.at_most("without", 0.35)])


def _at_rate(plain: OnlineClient, near: OnlineClient, requests: Iterator[Any], url: str, rate: int) -> Result:
    found, cpu = {"ours": Samples(), "without": Samples()}, {"ours": 0.0, "without": 0.0}
    before = _movies(near)
    ages: list[float] = []
    with _Writer(url, rate) as writer, redis.Redis.from_url(url) as info:
        for _ in range(CALLS // BLOCK):
            block = [next(requests) for _ in range(BLOCK)]
            for name, client in (("ours", near), ("without", plain)):
                started = cpu_s(info)
                found[name].seconds += [_seconds(client, request) for request in block]
                cpu[name] += cpu_s(info) - started
            for request in block[:10] if rate else ():
                ages += writer.ages(near, request)
    hits, misses = (getattr(_movies(near), name) - getattr(before, name) for name in ("hits", "misses"))
    reaches = [
        Reach.at_most("without", 0.5),
        Reach("hits ≥ 90 %", lambda _: 100 * hits / (hits + misses), lambda percent: percent >= 90, "{:.1f} %"),
    ]
    if not rate:
        share = cpu["ours"] / cpu["without"]
        reaches.append(Reach("CPU of Redis ≤ 0.2 ×", lambda _: share, lambda x: x <= 0.2))
    elif ages:
        p99_ms = 1000 * float(np.percentile(ages, 99))
        reaches.append(Reach("age of what is late, p99 ≤ 5 ms", lambda _: p99_ms, lambda x: x <= 5, "{:.2f} ms"))
    work = f"1 user + 200 of 1M items, Zipf(1.1), {rate:,} writes/s"
    result = Result.of_samples(work, found, reaches)
    per_call = {f"CPU of Redis, {name}": seconds / CALLS for name, seconds in cpu.items()}
    return dataclasses.replace(result, figures={**result.figures, **({} if rate else per_call)})


class _Writer:
    """A process that writes items: the first float of each is a version that only grows."""

    def __init__(self, url: str, rate: int) -> None:
        self._url, self._rate = url, rate
        context = multiprocessing.get_context("fork")
        self._versions, self._times = context.RawArray("d", ITEMS), context.RawArray("d", ITEMS)
        self._process = context.Process(target=self._write, daemon=True)

    def __enter__(self) -> _Writer:
        if self._rate:
            self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rate:
            os.kill(self._process.pid or 0, signal.SIGKILL)
            self._process.join()

    def ages(self, client: OnlineClient, request: dict[str, Any]) -> list[float]:
        """Seconds since a newer value was acknowledged, of each value that is late."""
        asked, started = request["item_id"], time.monotonic()
        known = [(self._versions[i], self._times[i]) for i in asked]
        found = client.get_online_features("both", request, now=NOW_US).to_dict()["item_0"]
        return [started - at for value, (version, at) in zip(found, known, strict=True) if value < version]

    def _write(self) -> None:
        chosen_by, version, written, began = np.random.default_rng(2), 1.0, 0, time.monotonic()
        store = OnlineStore(self._url, "near")
        with store.writer("items") as writer:
            while True:
                version += 1
                ids = np.unique(_zipf(chosen_by, 10))
                writer.write(_batch("item", ids, np.full((FLOATS, len(ids)), version, np.float32), int(version)))
                now = time.monotonic()
                for i in ids.tolist():
                    self._times[i], self._versions[i] = now, version
                written += len(ids)
                time.sleep(max(0.0, began + written / self._rate - time.monotonic()))


def _requests(chosen_by: np.random.Generator) -> Iterator[dict[str, Any]]:
    while True:
        ids = np.unique(_zipf(chosen_by, 2 * ASKED))
        chosen_by.shuffle(ids)
        yield {"user_id": int(chosen_by.integers(USERS)), "item_id": ids[:ASKED].tolist()}


def _zipf(chosen_by: np.random.Generator, count: int) -> np.ndarray[Any, Any]:
    return _ORDER[np.searchsorted(_CUMULATED, chosen_by.random(count))]


_CUMULATED = np.cumsum(1 / np.arange(1, ITEMS + 1) ** 1.1)
_CUMULATED /= _CUMULATED[-1]
_ORDER = np.random.default_rng(0).permutation(ITEMS)


def _warm_up(near: OnlineClient, requests: Iterator[Any]) -> None:
    ends = time.monotonic() + WARM_UP_S
    while time.monotonic() < ends:
        _read(near, next(requests))


def _read(client: OnlineClient, request: dict[str, Any]) -> Any:
    return client.get_online_features("both", request, now=NOW_US).to_numpy()


def _seconds(client: OnlineClient, request: dict[str, Any]) -> float:
    started = time.perf_counter()
    _read(client, request)
    return time.perf_counter() - started


def _movies(near: OnlineClient) -> Any:
    assert near.cache is not None
    return near.cache.groups["item"]


def _fill(url: str) -> None:
    store, random = OnlineStore(url, "near"), np.random.default_rng(3)
    for name, count in (("user", USERS), ("item", ITEMS)):
        with store.writer(f"{name}s") as writer:
            for start in range(0, count, 50_000):
                ids = np.arange(start, min(count, start + 50_000))
                writer.write(_batch(name, ids, random.random((FLOATS, len(ids)), np.float32), 0))
    store.close()


def _batch(name: str, ids: np.ndarray[Any, Any], values: np.ndarray[Any, Any], version: int) -> RowBatch:
    times, no_nulls = np.full(len(ids), NOW_US + version), np.zeros(len(ids), bool)
    columns = {f"{name}_{i}": Values(column, no_nulls) for i, column in enumerate(values)}
    return RowBatch({f"{name}_id": ids}, times, times, columns)
