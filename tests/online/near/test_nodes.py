"""The near-cache on a Cluster and with Sentinels: it hears each primary, and gives nothing that none of them vouches for.

While a writer counts up, slots move, primaries hand over or are replaced, and connections are cut. Each value that a
client reads is compared with the values that it has seen, and with those that were acknowledged a bound before.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from redis.crc import key_slot

from feature_store.errors import OnlineStoreError
from feature_store.online import OnlineClient, OnlineStore, keys
from feature_store.online.batch import RowBatch, Values
from tests.online.clients import CLIENTS
from tests.online.node_worlds import MISSING, NOW_US, USERS, ages, expected, publish
from tests.redis_nodes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.redis_nodes import RedisCluster, RedisNode, RedisSentinels

BOUND_MS = 200.0
EPOCH = keys.epoch_key("shop", 3)
KINDS = ["blocking", "asyncio"]


def make_client(kind: str, url: str) -> Any:
    return CLIENTS[kind](url, "shop", timeout_s=10.0, cache={"user": "1MB"}, cache_bound_ms=BOUND_MS)


def state_of(client: Any) -> Any:
    return client.cache if isinstance(client, OnlineClient) else client.client.cache


def hears(client: Any) -> None:
    """Wait until the client has heard of all earlier writes on all primaries, and has kept the values that it read."""
    before = state_of(client).renewals
    wait_until(lambda: state_of(client).renewals >= before + 3, "renewals of all leases")


def is_used(client: Any) -> bool:
    """Whether a request of all users is answered by the cache alone. Requests make a client follow its servers."""
    ages(client)
    time.sleep(0.02)
    before = state_of(client).groups["user"]
    ages(client)
    after = state_of(client).groups["user"]
    return bool(after.hits - before.hits == len(USERS) + len(MISSING))


def write(store: OnlineStore, version: int) -> None:
    """Give all users an age."""
    ids, times = np.array(USERS), np.full(len(USERS), NOW_US + version)
    ages_ = Values(np.full(len(ids), version, np.int32), np.zeros(len(ids), bool))
    with store.writer("profile") as writer:
        writer.write(RowBatch({"user_id": ids}, times, times, {"age_1": ages_}))


class History:
    """Reads with a client while a thread writes one version after the other, and notes what is wrong.

    Args:
        client: the client, with a near-cache.
        url: of the store.

    Attributes:
        writing: is held while a version is written.
    """

    def __init__(self, client: Any, url: str) -> None:
        self._client, self._url = client, url
        self._over, self.writing = threading.Event(), threading.Lock()
        # Versions with the times at which their writes were acknowledged.
        self._acknowledged: list[tuple[int, float]] = [(1, time.monotonic())]
        self._seen = np.zeros(len(USERS), int)
        self.values = 0
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=work) for work in (self._write, self._read)]

    def __enter__(self) -> History:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self) -> None:
        """Wait until the cache is used again, and then for some versions more."""
        before = state_of(self._client).groups["user"].hits
        wait_until(lambda: state_of(self._client).groups["user"].hits > before + 2000, "hits of the cache")
        version = self._acknowledged[-1][0]
        wait_until(lambda: self._acknowledged[-1][0] > version + 3, "writes")

    def _write(self) -> None:
        store, version = OnlineStore(self._url, "shop", timeout_s=5.0), 2
        while not self._over.is_set():
            with self.writing, contextlib.suppress(OnlineStoreError):  # then the same version is written again
                write(store, version)
                self._acknowledged.append((version, time.monotonic()))
                version += 1
            time.sleep(0.1)
        store.close()

    def _read(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            due = max(version for version, at in self._acknowledged if at <= began - BOUND_MS / 1000 or version == 1)
            try:
                found = np.array(ages(self._client)["age_1"][: len(USERS)])
            except OnlineStoreError:
                continue
            for user in np.flatnonzero((found < self._seen) | (found < due)).tolist():
                self.wrong.append(f"user {user}: {found[user]}, seen {self._seen[user]}, due {due}")
            self._seen = np.maximum(self._seen, found)
            self.values += len(found)


def cut(nodes: list[RedisNode]) -> None:
    """Close the connections on which clients hear of changes."""
    for node in nodes:
        for connection in listening(node):
            node("CLIENT", "KILL", "ID", connection)


def listening(node: RedisNode) -> list[str]:
    """The ids of the connections on which clients hear of changes."""
    lines = [dict(part.split("=", 1) for part in line.split(" ")) for line in node("CLIENT", "LIST").splitlines()]
    return [line["id"] for line in lines if "t" in line["flags"]]


@pytest.fixture(params=KINDS)
def of_cluster(request: pytest.FixtureRequest, cluster: RedisCluster) -> Iterator[Any]:
    store = OnlineStore(cluster.url, "shop", timeout_s=5.0)
    publish(store, 1)
    store.close()
    client = make_client(request.param, cluster.url)
    yield client
    client.close()


def test_each_primary_is_heard(of_cluster: Any, cluster: RedisCluster) -> None:
    assert ages(of_cluster) == expected(1)
    wait_until(lambda: is_used(of_cluster), "answers of the cache")
    assert ages(of_cluster) == expected(1)
    with contextlib.closing(OnlineStore(cluster.url, "shop", timeout_s=5.0)) as store:
        write(store, 7)  # to buckets on all three
    hears(of_cluster)
    assert ages(of_cluster)["age_1"][: len(USERS)] == [7] * len(USERS)
    assert [len(listening(node)) for node in cluster.primaries] == [1, 1, 1]


def test_no_value_is_used_while_a_slot_moves(of_cluster: Any, cluster: RedisCluster) -> None:
    """The keys of the slot are on two nodes, and the new node may be one that the client does not hear."""
    ages(of_cluster)
    wait_until(lambda: is_used(of_cluster), "answers of the cache")
    slot, source = key_slot(EPOCH), cluster.holder(EPOCH)
    target = next(node for node in cluster.primaries if node is not source)
    cluster.begin_move(slot, source, target)
    wait_until(lambda: not state_of(of_cluster).is_active, "the end of the lease")
    before = state_of(of_cluster).groups["user"].hits
    while cluster.move_keys(slot, source, target, 2):
        assert ages(of_cluster) == expected(1)
    assert state_of(of_cluster).groups["user"].hits == before
    cluster.end_move(slot, target)
    wait_until(lambda: is_used(of_cluster), "answers of the cache")
    assert state_of(of_cluster).error is None


def test_the_history_of_a_cluster_is_right(of_cluster: Any, cluster: RedisCluster) -> None:
    """Slots move, a primary hands over to its replica, and connections are cut."""
    ages(of_cluster)
    acts: list[Callable[[], Any]] = [
        lambda: cluster.move(EPOCH),
        lambda: cluster.hand_over(cluster.holder(EPOCH)),
        lambda: cut(cluster.primaries),
        lambda: cluster.move(EPOCH),
    ]
    with History(of_cluster, cluster.url) as history:
        history.goes_on()
        for act in acts:
            act()
            history.goes_on()
    assert history.wrong == []
    assert state_of(of_cluster).losses >= len(acts)


def test_the_history_of_a_killed_primary_is_right(of_cluster: Any, cluster: RedisCluster) -> None:
    ages(of_cluster)
    with History(of_cluster, cluster.url) as history:
        history.goes_on()
        primary = cluster.holder(EPOCH)
        with history.writing:  # else the replica may lack a write that was acknowledged
            cluster.wait_for_replicas()
            primary.kill()
            cluster.take_over(primary)
        history.goes_on()
    assert history.wrong == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_history_of_sentinels_is_right(sentinels: RedisSentinels, kind: str) -> None:
    """The replaced primary is alive, and takes writes until the Sentinels demote it."""
    store = OnlineStore(sentinels.url, "shop", timeout_s=5.0)
    publish(store, 1)
    client = make_client(kind, sentinels.url)
    ages(client)
    wait_until(lambda: is_used(client), "answers of the cache")
    write(store, 3)
    hears(client)
    assert ages(client)["age_1"][: len(USERS)] == [3] * len(USERS)
    sentinels.wait_for_replicas()
    sentinels.fail_over()
    sentinels.wait_for_end()
    sentinels.wait_for_replicas()
    with contextlib.closing(OnlineStore(sentinels.url, "shop", timeout_s=5.0)) as another:
        write(another, 4)
    wait_until(lambda: ages(client)["age_1"][0] == 4, "an answer of the new primary")
    wait_until(lambda: is_used(client), "answers of the cache")
    assert ages(client)["age_1"][: len(USERS)] == [4] * len(USERS)
    cut([sentinels.primary])
    wait_until(lambda: is_used(client), "answers of the cache")
    write(another, 5)
    hears(client)
    assert ages(client)["age_1"][: len(USERS)] == [5] * len(USERS)
    another.close()
    client.close()
    store.close()
