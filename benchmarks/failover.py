"""A primary is killed while clients read and a writer writes: `python -m benchmarks.failover [cluster|sentinel] …`.

Starts a Cluster of 3 primaries and 3 replicas, or a primary with 2 replicas and 3 Sentinels, and waits until the
servers fail over by themselves. Prints how many requests failed, the longest time without an answer, how many values
were wrong, and how many acknowledged writes were lost until they were written again.

The load is paced: each request is due at a time of its own, whether or not the requests before it are answered, and
its time counts from when it is due. Readers and the writer are processes: none waits for the interpreter of another.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.definitions import DefinitionSet, Entity, FeatureService, FeatureView, Field, Int32
from feature_store.errors import FeatureStoreError
from feature_store.online import AsyncOnlineClient, OnlineClient, OnlineStore
from feature_store.online.batch import RowBatch, Values
from feature_store.registry.compile import compile_plan
from tests.redis_nodes import RedisCluster, redis_cluster, redis_sentinels

if TYPE_CHECKING:
    from collections.abc import Callable

USERS, KEYS_PER_REQUEST, ROWS_PER_WRITE = 2_000, 10, 200
READERS, WRITES_PER_S = 2, 10
BEFORE_S, AFTER_S = 4.0, 8.0
TIMEOUT_S = 1.0
# A request that is sent so much later than it is due is late: the reader itself had no time.
LATE_S = 0.01
_user = Entity("user", join_key="user_id")
_profile = FeatureView("profile", entities=[_user], schema=[Field("round", Int32), Field("negative", Int32)])


@dataclass
class Load:
    """What readers and writer are told.

    Attributes:
        url: of the servers.
        starts, ends: when the load starts and ends, `time.monotonic()`.
        rounds: the file with the newest round of each user whose write was acknowledged, int64.
        requests_per_s: of all readers together.
    """

    url: str
    starts: float
    ends: float
    rounds: Path
    requests_per_s: int

    def acknowledged(self) -> np.ndarray[Any, Any]:
        """The rounds, which all processes share."""
        return np.memmap(self.rounds, np.int64, "r+", shape=(USERS,))


@dataclass
class Seen:
    """What a reader or the writer saw.

    Attributes:
        due, sent: of each answered request, when it was due, and when it was sent.
        answered: when its answer came.
        errors: the numbers of failed requests or writes, by class.
        wrong: values that were never written.
        older: users of whom a value was read that is older than the one acknowledged before.
    """

    due: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    older: set[int] = field(default_factory=set)


def _rows(users: np.ndarray[Any, Any], number: int) -> RowBatch:
    none, rounds = np.zeros(len(users), bool), np.full(len(users), number, np.int32)
    times = np.full(len(users), 1_700_000_000_000_000 + number)
    return RowBatch(
        {"user_id": users}, times, times, {"round": Values(rounds, none), "negative": Values(-rounds, none)}
    )


def _write(load: Load, _number: int, answers: Any) -> None:
    """Write 200 users, `WRITES_PER_S` times a second; a write that fails is repeated."""
    store, seen, acknowledged = OnlineStore(load.url, "failover", timeout_s=TIMEOUT_S), Seen(), load.acknowledged()
    calls = USERS // ROWS_PER_WRITE
    for call in range(int((load.ends - load.starts) * WRITES_PER_S)):
        time.sleep(max(0.0, load.starts + call / WRITES_PER_S - time.monotonic()))
        number, start = 1 + call // calls, call % calls * ROWS_PER_WRITE
        users = np.arange(start, start + ROWS_PER_WRITE)
        while time.monotonic() < load.ends:
            try:
                with store.writer("profile") as writer:
                    writer.write(_rows(users, number))
            except FeatureStoreError as error:
                seen.errors[type(error).__name__] += 1
            else:
                acknowledged[users] = number
                break
    store.close()
    answers.put(seen)


def _read(load: Load, number: int, answers: Any) -> None:
    """Read, at this reader's part of the requests."""
    answers.put(asyncio.run(_read_all(load, number)))


async def _read_all(load: Load, number: int) -> Seen:
    seen, acknowledged, chance = Seen(), load.acknowledged(), np.random.default_rng(number)
    under_way: set[asyncio.Task[None]] = set()
    async with AsyncOnlineClient(load.url, "failover", timeout_s=TIMEOUT_S) as client:
        await client.get_online_features("s", {"user_id": [0]})  # compiles the service

        async def request(due: float, users: np.ndarray[Any, Any]) -> None:
            sent, before = time.monotonic(), acknowledged[users].copy()
            try:
                found = (await client.get_online_features("s", {"user_id": users})).to_numpy()
            except FeatureStoreError as error:
                seen.errors[type(error).__name__] += 1
                return
            seen.due.append(due)
            seen.sent.append(sent)
            seen.answered.append(time.monotonic())
            # Both values of a row are of one write: else a row was torn.
            seen.wrong += int((found[:, 0] != -found[:, 1]).sum())
            seen.older |= set(users[found[:, 0] < before].tolist())

        each_s = READERS / load.requests_per_s
        for i in range(int((load.ends - load.starts) / each_s)):
            due = load.starts + (i + number / READERS) * each_s
            # Without a pause the loop would answer nothing while requests are late.
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(request(due, chance.choice(USERS, KEYS_PER_REQUEST, replace=False)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
    return seen


def measure(url: str, kill: Callable[[], None], buckets: int, rate: int) -> None:
    """Run readers and a writer, kill a primary, and print what was seen."""
    store = OnlineStore(url, "failover", timeout_s=5.0)
    definitions = DefinitionSet([_profile, FeatureService("s", features=[_profile])])
    store.publish(compile_plan(definitions, project="failover", version=1, buckets=buckets), over=None)
    with store.writer("profile") as writer:
        writer.write(_rows(np.arange(USERS), 0))
    context, starts = multiprocessing.get_context("spawn"), time.monotonic() + 3.0  # until all processes are ready
    answers = context.Queue()
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(8 * USERS))
        file.flush()
        load = Load(url, starts, starts + BEFORE_S + AFTER_S, Path(file.name), rate)
        tasks = [_write] + [_read] * READERS
        processes = [context.Process(target=task, args=(load, i - 1, answers)) for i, task in enumerate(tasks)]
        for process in processes:
            process.start()
        time.sleep(max(0.0, starts + BEFORE_S - time.monotonic()))
        killed = time.monotonic()
        kill()
        seen = [answers.get() for _ in processes]
        for process in processes:
            process.join()
        still = int((_rounds(url) < load.acknowledged()).sum())
    store.close()
    _show(seen, killed, still)


def _show(seen: list[Seen], killed: float, still: int) -> None:
    readers = [one for one in seen if one.due]
    failed: Counter[str] = sum((one.errors for one in readers), Counter())
    due, sent, answered = (
        np.concatenate([getattr(one, name) for one in readers]) for name in ("due", "sent", "answered")
    )
    took_ms = (answered - due) * 1e3
    before = due < killed - TIMEOUT_S
    p50, p99 = np.quantile(took_ms[before], [0.5, 0.99])
    writer = sum((one.errors for one in seen if not one.due), Counter())
    print(f"before the kill, from due to answer   p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    late, after = sent - due > LATE_S, due >= killed
    shares = f"{late[before].mean():.1%}, {late[after].mean():.1%}"
    print(f"sent over {LATE_S * 1e3:.0f} ms late, before, after   {shares}")
    print(f"requests answered, failed             {len(due):,}, {sum(failed.values()):,}")
    print(f"failed, by error                      {dict(failed) or 'none'}")
    print(f"longest time without any answer       {np.diff(np.sort(answered)).max():.2f} s")
    print(f"wrong values                          {sum(one.wrong for one in readers)}")
    # Of a primary: an acknowledged write was lost. Of a replica: that, or the replica was behind.
    older = set().union(*(one.older for one in readers))
    print(f"users read older than acknowledged    {len(older)}; at the end {still}")
    print(f"failed writes                         {dict(writer) or 'none'}")


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
    parser.add_argument("--rate", type=int, default=2_000, help="requests a second")
    options = parser.parse_args()
    for name in options.topologies:
        print(f"\n{name}, read_from={options.read_from}, {options.rate:,} requests a second of {KEYS_PER_REQUEST} keys")
        if name == "cluster":
            with redis_cluster("--cluster-node-timeout", "2000") as cluster:
                measure(f"{cluster.url}?read_from={options.read_from}", lambda: _first(cluster).kill(), 8, options.rate)
        else:
            with redis_sentinels() as sentinels:
                url = sentinels.url_with(f"read_from={options.read_from}")
                measure(url, lambda: sentinels.primary.kill(), 1, options.rate)


def _first(cluster: RedisCluster) -> Any:
    """A primary that holds rows."""
    return cluster.holder(b"{failover:0}epoch")


if __name__ == "__main__":
    main()
