"""A primary is killed while clients read and a writer writes: `python -m benchmarks.failover [cluster|sentinel] …`.

Starts a Cluster of 3 primaries and 3 replicas, or a primary with 2 replicas and 3 Sentinels, and waits until the
servers fail over by themselves. Prints how many requests failed, the longest time without an answer, how many values
were wrong, and how many acknowledged writes were lost until they were written again.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.definitions import DefinitionSet, Entity, FeatureService, FeatureView, Field, Int32
from feature_store.errors import FeatureStoreError
from feature_store.online import OnlineClient, OnlineStore
from feature_store.online.batch import RowBatch, Values
from feature_store.registry.compile import compile_plan
from tests.redis_nodes import RedisCluster, redis_cluster, redis_sentinels

if TYPE_CHECKING:
    from collections.abc import Callable

USERS, KEYS_PER_REQUEST, ROWS_PER_WRITE = 2_000, 50, 200
READERS = 4
BEFORE_S, AFTER_S = 5.0, 10.0
TIMEOUT_S = 1.0
_user = Entity("user", join_key="user_id")
_profile = FeatureView("profile", entities=[_user], schema=[Field("round", Int32), Field("negative", Int32)])


@dataclass
class Measured:
    """What the clients saw.

    Attributes:
        rounds: of each user, the newest round whose write was acknowledged.
        answers: when each answer came, seconds.
        errors: by class, of readers and of the writer.
        wrong: values that were never written.
        lost: users of whom a value was read that is older than the one acknowledged before.
    """

    rounds: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(USERS, np.int64))
    answers: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    write_errors: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    lost: set[int] = field(default_factory=set)


def _rows(users: np.ndarray[Any, Any], number: int) -> RowBatch:
    none, rounds = np.zeros(len(users), bool), np.full(len(users), number, np.int32)
    times = np.full(len(users), 1_700_000_000_000_000 + number)
    return RowBatch(
        {"user_id": users}, times, times, {"round": Values(rounds, none), "negative": Values(-rounds, none)}
    )


def _write(url: str, measured: Measured, ended: threading.Event) -> None:
    """Write all users, round after round."""
    store, number = OnlineStore(url, "failover", timeout_s=TIMEOUT_S), 0
    while not ended.is_set():
        number += 1
        for start in range(0, USERS, ROWS_PER_WRITE):
            users = np.arange(start, start + ROWS_PER_WRITE)
            while not ended.is_set():
                try:
                    with store.writer("profile") as writer:
                        writer.write(_rows(users, number))
                except FeatureStoreError as error:
                    measured.write_errors[type(error).__name__] += 1
                else:
                    measured.rounds[users] = number
                    break
    store.close()


def _read(client: OnlineClient, seed: int, measured: Measured, ended: threading.Event) -> None:
    chance = np.random.default_rng(seed)
    while not ended.is_set():
        users = chance.choice(USERS, KEYS_PER_REQUEST, replace=False)
        acknowledged = measured.rounds[users]
        try:
            found = client.get_online_features("s", {"user_id": users}).to_numpy()
        except FeatureStoreError as error:
            measured.errors[type(error).__name__] += 1
            continue
        measured.answers.append(time.monotonic())
        # Both values of a row are of one write: else a row was torn.
        measured.wrong += int((found[:, 0] != -found[:, 1]).sum())
        measured.lost |= set(users[found[:, 0] < acknowledged].tolist())


def measure(url: str, kill: Callable[[], None], buckets: int) -> None:
    """Run readers and a writer, kill a primary, and print what was seen."""
    store = OnlineStore(url, "failover", timeout_s=5.0)
    definitions = DefinitionSet([_profile, FeatureService("s", features=[_profile])])
    store.publish(compile_plan(definitions, project="failover", version=1, buckets=buckets), over=None)
    with store.writer("profile") as writer:
        writer.write(_rows(np.arange(USERS), 0))
    measured, ended = Measured(), threading.Event()
    client = OnlineClient(url, "failover", timeout_s=TIMEOUT_S)
    threads = [threading.Thread(target=_write, args=(url, measured, ended))]
    threads += [threading.Thread(target=_read, args=(client, seed, measured, ended)) for seed in range(READERS)]
    for thread in threads:
        thread.start()
    time.sleep(BEFORE_S)
    before = len(measured.answers) / BEFORE_S
    kill()
    time.sleep(AFTER_S)
    ended.set()
    for thread in threads:
        thread.join()
    still = int((_rounds(url) < measured.rounds).sum())
    gaps = np.diff(np.sort(measured.answers))
    print(f"requests/s before the kill            {before:,.0f}, of {KEYS_PER_REQUEST} keys")
    print(f"requests answered, failed             {len(measured.answers):,}, {sum(measured.errors.values()):,}")
    print(f"failed, by error                      {dict(measured.errors) or 'none'}")
    print(f"longest time without any answer       {gaps.max():.2f} s")
    print(f"wrong values                          {measured.wrong}")
    # Of a primary: an acknowledged write was lost. Of a replica: that, or the replica was behind.
    print(f"users read older than acknowledged    {len(measured.lost)}; at the end {still}")
    print(f"failed writes                         {dict(measured.write_errors) or 'none'}")
    client.close()
    store.close()


def _rounds(url: str) -> np.ndarray[Any, Any]:
    """The rounds of all users, as they are stored."""
    with OnlineClient(url, "failover", timeout_s=10.0) as client:
        found: np.ndarray[Any, Any] = client.get_online_features("s", {"user_id": np.arange(USERS)}).to_numpy()[:, 0]
    return found


def main() -> None:
    """Measure each topology that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topologies", nargs="*", default=["cluster", "sentinel"])
    parser.add_argument("--read-from", default="primary", choices=["primary", "replica", "nearest"])
    options = parser.parse_args()
    for name in options.topologies:
        print(f"\n{name}, read_from={options.read_from}")
        if name == "cluster":
            with redis_cluster("--cluster-node-timeout", "2000") as cluster:
                measure(f"{cluster.url}?read_from={options.read_from}", lambda: _first(cluster).kill(), 8)
        else:
            with redis_sentinels() as sentinels:
                url = sentinels.url_with(f"read_from={options.read_from}")
                measure(url, lambda: sentinels.primary.kill(), 1)


def _first(cluster: RedisCluster) -> Any:
    """A primary that holds rows."""
    return cluster.holder(b"{failover:0}epoch")


if __name__ == "__main__":
    main()
