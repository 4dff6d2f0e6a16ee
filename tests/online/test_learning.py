"""What clients learn about servers: requests do not wait for it, and servers that are gone are forgotten."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from feature_store.errors import OnlineStoreError, StoreReplyError
from feature_store.online import OnlineStore, keys
from feature_store.online.redis.cluster import Cluster
from feature_store.online.redis.sentinel import Sentinels
from tests.online.clients import CLIENTS
from tests.online.node_worlds import MISSING, NOW_US, USERS, ages, expected, publish, write
from tests.redis_nodes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.redis_nodes import RedisCluster, RedisNode, RedisSentinels

EPOCH = keys.epoch_key("shop", 3)
_CLOSE_WAIT = "08"


class Learning:
    """Counts how often clients begin and end to learn from Sentinels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = self.ended = 0
        learning = Sentinels.learning

        def counted(*args: Any) -> Any:
            self.begun += 1
            try:
                yield from learning(*args)
            finally:
                self.ended += 1

        monkeypatch.setattr(Sentinels, "learning", counted)
        monkeypatch.setattr(Sentinels, "refresh_s", 0.0)  # each request finds that the map is old


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def test_requests_do_not_wait_for_sentinels_that_hang(
    sentinels: RedisSentinels, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The servers are well: all requests are answered while the client still waits for the first Sentinel."""
    store = OnlineStore(sentinels.url, "shop", timeout_s=5.0)
    publish(store, 1)
    learning = Learning(monkeypatch)
    client = CLIENTS[kind](sentinels.url, "shop", timeout_s=60.0)
    assert ages(client) == expected(1)
    wait_until(lambda: learning.begun == learning.ended, "the end of the first refresh")
    begun = learning.begun
    for sentinel in sentinels.sentinels:
        sentinel.pause()
    for _ in range(20):
        asked = {"user_id": USERS + MISSING}
        response = client.get_online_features("s", asked, now=NOW_US, deadline_ms=200)
        assert not response.skipped
        assert response.to_dict()["age_1"] == expected(1)["age_1"]
    assert learning.begun == begun + 1, "each request asks the Sentinels, or none does"
    assert learning.ended == begun, "the requests waited for the Sentinels"
    for sentinel in sentinels.sentinels:
        sentinel.resume()
    wait_until(lambda: learning.ended == learning.begun, "an answer of the Sentinels")
    client.close()
    store.close()


def test_a_fail_over_is_followed_while_a_sentinel_hangs(sentinels: RedisSentinels, kind: str) -> None:
    """The old primary is alive and answers until the others tell it that it is a replica."""
    store = OnlineStore(sentinels.url, "shop", timeout_s=5.0)
    publish(store, 1)
    client = CLIENTS[kind](sentinels.url, "shop", timeout_s=10.0)
    assert ages(client) == expected(1)
    sentinels.wait_for_replicas()
    old, hung = sentinels.primary, sentinels.sentinels[-1]
    sentinels.fail_over()
    hung.pause()
    another = OnlineStore(sentinels.url, "shop", timeout_s=5.0)
    publish(another, 2)
    wait_until(lambda: ages(client) == expected(2), "an answer of the new primary")
    wait_until(lambda: writes(store, 2), "a writer of the new primary")
    wait_until(lambda: ages(client) == expected(2) and not half_closed(old), "closed connections to the old primary")
    assert sentinels.primary is not old
    for one in (client, another, store):
        one.close()


def writes(store: OnlineStore, version: int) -> bool:
    """Write a version's rows, unless the store reads the plan of another version."""
    published = store.published()
    is_published = published is not None and published.plan.version == version
    if is_published:
        write(store, version)
    return is_published


def test_the_connections_to_a_replaced_node_are_closed(cluster: RedisCluster, kind: str) -> None:
    """Pools of clients and writers do not keep the sockets that the dead node left half closed."""
    store = OnlineStore(cluster.url, "shop", timeout_s=5.0)
    publish(store, 1)
    client = CLIENTS[kind](cluster.url, "shop", timeout_s=10.0)
    together = [threading.Thread(target=lambda: ages(client)) for _ in range(8)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    cluster.wait_for_replicas()
    primary = cluster.holder(EPOCH)
    write(store, 1)
    primary.kill()
    cluster.take_over(primary)
    assert ages(client) == expected(1)
    write(store, 1)
    wait_until(lambda: ages(client) == expected(1) and not half_closed(primary), "closed connections to a dead node")
    client.close()
    store.close()


def test_the_connections_to_a_server_that_is_no_primary_any_more_are_closed(
    cluster: RedisCluster, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is well, and would keep them open. Clients and writers close them when a new map does not name it."""
    monkeypatch.setattr(Cluster, "refresh_s", 0.0)
    url = f"{cluster.url}?client_name=probe"
    store = OnlineStore(url, "shop", timeout_s=5.0)
    publish(store, 1)
    client = CLIENTS[kind](url, "shop", timeout_s=10.0)
    assert ages(client) == expected(1)
    primary = cluster.holder(EPOCH)
    assert "name=probe" in primary("CLIENT", "LIST")
    cluster.hand_over(primary)

    def has_none() -> bool:
        assert ages(client) == expected(1)
        write(store, 1)
        return "name=probe" not in primary("CLIENT", "LIST")

    wait_until(has_none, "closed connections to a replica that was a primary")
    client.close()
    store.close()


def half_closed(server: RedisNode) -> list[str]:
    """The sockets of clients that a server has closed, and the client has not."""
    listed = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return [one[1] for one in listed if int(one[2].partition(":")[2], 16) == server.port and one[3] == _CLOSE_WAIT]


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    cluster = Cluster("redis+cluster://first:7000,second:7001", 1.0)
    yield cluster
    cluster.close()


def slots(*hosts: str) -> list[Any]:
    """A reply to CLUSTER SLOTS: each host has a range of slots, and a replica."""
    width = 16_384 // len(hosts)
    return [
        [i * width, (i + 1) * width - 1, [host.encode(), 7000, b"id"], [b"replica-of-" + host.encode(), 7000, b"id"]]
        for i, host in enumerate(hosts)
    ]


def learn(nodes: Cluster, reply: Any) -> str:
    """Have a map learnt. Returns the host that was asked."""
    steps = nodes.learning(nodes.version)
    question = next(steps)
    with pytest.raises(StopIteration):
        steps.send(reply)
    return question.address.host


def test_a_cluster_asks_the_nodes_of_its_newest_map(nodes: Cluster) -> None:
    assert learn(nodes, slots("a", "b")) == "first"
    node = nodes.node(EPOCH)
    assert learn(nodes, slots("c", "d")) in {"a", "b", "replica-of-a", "replica-of-b"}
    assert nodes.node(EPOCH) is not node
    for _ in range(20):
        assert learn(nodes, slots("c", "d")) in {"c", "d", "replica-of-c", "replica-of-d"}
    assert {endpoint.address.host for endpoint in nodes.named()} == {"c", "d", "replica-of-c", "replica-of-d"}


def test_a_map_that_comes_late_is_not_taken(nodes: Cluster) -> None:
    """One thread learns in the background, one because it must. The first answer counts."""
    late = nodes.learning(nodes.version)
    next(late)
    learn(nodes, slots("a", "b"))
    with pytest.raises(StopIteration):
        late.send(slots("old"))
    assert nodes.node(EPOCH).address.host in {"a", "b"}


@pytest.mark.parametrize("target", ["?:7005", ":7005"])
def test_a_redirection_without_a_host_leads_to_the_host_that_answered(nodes: Cluster, target: str) -> None:
    by = nodes.endpoint("here", 7000)
    assert nodes.place(target, by) is nodes.endpoint("here", 7005)
    assert nodes.place("::1:7005", by) is nodes.endpoint("::1", 7005)


@pytest.mark.parametrize("target", ["", "here", "here:", "here:port", "here:0", "here:70000", "here:-1", "here:²"])
def test_a_redirection_to_no_node_is_an_error(nodes: Cluster, target: str) -> None:
    with pytest.raises(StoreReplyError, match="no host and port"):
        nodes.place(target, nodes.endpoint("here", 7000))


def test_a_client_of_shards_is_refused_on_another_event_loop(cluster: RedisCluster) -> None:
    """Requests are refused before they use the locks and connections of the client's loop, which goes on."""
    store = OnlineStore(cluster.url, "shop", timeout_s=5.0)
    publish(store, 1)
    client = CLIENTS["asyncio"](cluster.url, "shop", timeout_s=10.0)
    assert ages(client) == expected(1)

    async def ask() -> list[Any]:
        asked = [client.client.get_online_features("s", {"user_id": USERS}, now=NOW_US) for _ in range(8)]
        return await asyncio.gather(*asked, return_exceptions=True)

    for error in asyncio.run(ask()):
        assert isinstance(error, OnlineStoreError)
        assert "belong to another event loop" in str(error)
    assert ages(client) == expected(1)
    client.close()

    async def ask_and_close() -> list[Any]:
        answers = await ask()
        await client.client.close()
        return answers

    for response in asyncio.run(ask_and_close()):
        assert response.to_dict()["age_1"] == [1] * len(USERS)
    store.close()
