"""A server hangs: its connections stay open and nothing answers. Readers leave it, within the limits of requests."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from feature_store.errors import StoreTimeoutError
from feature_store.online import OnlineStore, keys
from tests.online.clients import CLIENTS
from tests.online.node_worlds import NOW_US, USERS, ages, expected, publish
from tests.redis_nodes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.redis_nodes import RedisCluster, RedisNode

EPOCH = keys.epoch_key("shop", 3)


@pytest.fixture
def store(cluster: RedisCluster) -> Iterator[OnlineStore]:
    store = OnlineStore(cluster.url, "shop", timeout_s=5.0)
    publish(store, 1)
    cluster.wait_for_replicas()
    cluster.wait_for_listed_replicas()
    yield store
    store.close()


@pytest.fixture(params=["blocking", "asyncio"])
def make_client(request: pytest.FixtureRequest, cluster: RedisCluster) -> Iterator[Callable[[str, float], Any]]:
    opened = []

    def make(read_from: str, timeout_s: float) -> Any:
        opened.append(CLIENTS[request.param](f"{cluster.url}?read_from={read_from}", "shop", timeout_s=timeout_s))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


def test_primaries_answer_for_replicas_that_hang(
    store: OnlineStore, cluster: RedisCluster, make_client: Callable[[str, float], Any]
) -> None:
    """No request fails, whether its client had connections to the replicas or not."""
    used, new = make_client("replica", 2.0), make_client("replica", 2.0)
    assert ages(used) == expected(1)
    for replica in [cluster.replica_of(primary) for primary in cluster.primaries]:
        replica.pause()
    for client in (used, new):
        for _ in range(5):
            assert ages(client) == expected(1)


def test_the_nearest_server_may_hang(
    store: OnlineStore, cluster: RedisCluster, make_client: Callable[[str, float], Any]
) -> None:
    """A request that chose a primary may fail; then a replica of its shard answers, although the map has not changed."""
    client = make_client("nearest", 2.0)
    for _ in range(5):
        assert ages(client) == expected(1)
    cluster.holder(EPOCH).pause()
    answered_after(client, failures=1)


@pytest.mark.parametrize("read_from", ["primary", "replica"])
def test_a_primary_that_hangs_is_left_when_another_took_over(
    store: OnlineStore, cluster: RedisCluster, make_client: Callable[[str, float], Any], read_from: str
) -> None:
    """The first request that it does not answer makes the client learn the map again."""
    client = make_client(read_from, 2.0)
    assert ages(client) == expected(1)
    primary = cluster.holder(EPOCH)
    replica = cluster.replica_of(primary)
    primary.pause()
    replica("CLUSTER", "FAILOVER", "TAKEOVER")
    for node in cluster.nodes:
        if node is not primary:
            wait_until(partial(names, node, replica), "a Cluster that knows the new primary")
    answered_after(client, failures=1)


def test_redirections_are_no_rows_when_another_node_hangs(
    store: OnlineStore, cluster: RedisCluster, make_client: Callable[[str, float], Any]
) -> None:
    """One node redirects and one is late: the group is skipped at the deadline, and no error is taken for rows."""
    client = make_client("primary", 10.0)
    assert ages(client) == expected(1)
    source = cluster.holder(EPOCH)
    target, hung = (node for node in cluster.primaries if node is not source)
    cluster.move(EPOCH, target)
    hung.pause()
    response = client.get_online_features("s", {"user_id": list(USERS)}, now=NOW_US, deadline_ms=400)
    hung.resume()
    assert list(response.skipped) == ["user"]
    assert response.to_dict()["age_1"] == [None] * len(USERS)
    assert np.isnan(response.to_numpy()).all(), "a part of the group was read, which no form shows"
    assert ages(client) == expected(1)


def answered_after(client: Any, *, failures: int) -> None:
    """Check that requests are answered after at most some that fail with their limits."""
    for _ in range(failures):
        with suppress(StoreTimeoutError):
            assert ages(client) == expected(1)
    for _ in range(3):
        assert ages(client) == expected(1)


def names(node: RedisNode, primary: RedisNode) -> bool:
    """Whether a node names another as a primary."""
    return any(first[2][1] == primary.port for first in node("CLUSTER", "SLOTS"))
