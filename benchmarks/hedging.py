"""Slow calls with and without hedged reads: `python -m benchmarks.hedging`.

Starts a primary with 2 replicas and 3 Sentinels, and reads one request after the other. Before one request of 50, one
replica stops for STALL_MS (CLIENT PAUSE); half of these requests choose it. So 1 % of the calls are slow. Prints the
times of requests, and the added load, as the client tells it and as the servers counted the calls.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from feature_store.definitions import DefinitionSet, Entity, FeatureService, FeatureView, Field, Float32
from feature_store.online import OnlineClient, OnlineStore
from feature_store.online.batch import RowBatch, Values
from feature_store.online.observer import Observer
from feature_store.registry.compile import compile_plan
from tests.redis_nodes import RedisSentinels, redis_sentinels

if TYPE_CHECKING:
    from tests.redis_nodes import RedisNode

USERS, KEYS_PER_REQUEST, FEATURES = 2_000, 100, 25
REQUESTS, WARM_UP, STALLS_EVERY, STALL_MS = 4_000, 400, 50, 50


class _Outcomes(Observer):
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.load = 0.0

    def hedged(self, outcome: str, load: float) -> None:
        self.counts[outcome] += 1
        self.load = load


def _fill(sentinels: RedisSentinels) -> None:
    user = Entity("user", join_key="user_id")
    names = [f"f{i}" for i in range(FEATURES)]
    view = FeatureView("profile", entities=[user], schema=[Field(name, Float32) for name in names])
    definitions = DefinitionSet([view, FeatureService("s", features=[view])])
    with_values = Values(np.ones(USERS, np.float32), np.zeros(USERS, bool))
    times = np.full(USERS, 1_700_000_000_000_000)
    store = OnlineStore(sentinels.url, "hedging", timeout_s=5.0)
    store.publish(compile_plan(definitions, project="hedging", version=1), over=None)
    with store.writer("profile") as writer:
        writer.write(RowBatch({"user_id": np.arange(USERS)}, times, times, dict.fromkeys(names, with_values)))
    store.close()
    sentinels.wait_for_replicas()


def _calls(servers: list[RedisNode]) -> int:
    """The reads that the servers have answered."""
    found = [server.info("commandstats").get("cmdstat_mget", "calls=0") for server in servers]
    return sum(int(text.partition("calls=")[2].partition(",")[0]) for text in found)


def measure(sentinels: RedisSentinels, *options: str) -> None:
    """Read, and print the times."""
    outcomes, draw, seconds = _Outcomes(), random.Random(1), []
    url = sentinels.url_with("read_from=replica", *options)
    replicas = sentinels.replicas
    with OnlineClient(url, "hedging", timeout_s=2.0, observers=[outcomes]) as client:
        for i in range(WARM_UP + REQUESTS):
            if i == WARM_UP:
                before = _calls(sentinels.servers)
            users = draw.sample(range(USERS), KEYS_PER_REQUEST)
            stalls = i >= WARM_UP and i % STALLS_EVERY == 0
            if stalls:
                draw.choice(replicas)("CLIENT", "PAUSE", STALL_MS, "ALL")
            began = time.perf_counter()
            client.get_online_features("s", {"user_id": users}).to_numpy()
            if i >= WARM_UP:
                seconds.append(time.perf_counter() - began)
            if stalls:
                time.sleep(STALL_MS / 1000)
    added = (_calls(sentinels.servers) - before) / REQUESTS - 1
    quantiles = (f"{ms:.2f}" for ms in np.quantile(seconds, [0.5, 0.95, 0.99, 0.995]) * 1e3)
    print(f"{' '.join(options) or 'hedge=false'}: p50, p95, p99, p99.5 in ms: {', '.join(quantiles)}")
    print(f"  hedges {dict(outcomes.counts)}; added load {outcomes.load:.1%} by the metric, {added:.1%} by the servers")


def main() -> None:
    """See the module."""
    with redis_sentinels() as sentinels:
        _fill(sentinels)
        for _ in range(2):
            measure(sentinels)
            measure(sentinels, "hedge=true")


if __name__ == "__main__":
    main()
