"""A Redis Cluster: nodes are killed and slots are moved while clients read and write."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis.crc import key_slot

from feature_store.errors import (
    ClusterDownError,
    PermissionDeniedError,
    StoreConnectionError,
    StoreTimeoutError,
)
from feature_store.online import OnlineClient, OnlineStore, keys
from feature_store.online.redis.topology import connect
from tests.online.clients import CLIENTS
from tests.online.node_worlds import (
    BUCKETS,
    NOW_US,
    USERS,
    ages,
    counts,
    expected,
    oracle,
    publish,
    rows,
    stream,
    write,
)
from tests.online.stream_worlds import plan_of as stream_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.redis_nodes import RedisCluster, RedisNode


@pytest.fixture
def store(cluster: RedisCluster) -> Iterator[OnlineStore]:
    store = OnlineStore(cluster.url, "shop", timeout_s=5.0)
    publish(store, 1)
    yield store
    store.close()


@pytest.fixture(params=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest, cluster: RedisCluster) -> Iterator[Any]:
    client = CLIENTS[request.param](cluster.url, "shop", timeout_s=10.0)
    yield client
    client.close()


EPOCH = keys.epoch_key("shop", 3)


# -- reads ------------------------------------------------------------------------------------------------------


def test_a_request_is_answered_by_all_nodes(store: OnlineStore, client: Any, cluster: RedisCluster) -> None:
    """The buckets are on all three primaries, and missing rows are served as missing."""
    holders = {cluster.holder(keys.epoch_key("shop", bucket)).port for bucket in range(BUCKETS)}
    assert len(holders) == 3
    for _ in range(3):
        assert ages(client) == expected(1)


def test_reads_and_writes_follow_a_slot_that_moves_key_by_key(
    store: OnlineStore, client: Any, cluster: RedisCluster
) -> None:
    """At every step of the move: before it, while each node has some of the keys, and after it."""
    assert ages(client) == expected(1)
    slot, source = key_slot(EPOCH), cluster.holder(EPOCH)
    target = next(node for node in cluster.primaries if node is not source)
    cluster.begin_move(slot, source, target)
    assert ages(client) == expected(1)
    while cluster.move_keys(slot, source, target, 2):
        assert ages(client) == expected(1)
    cluster.end_move(slot, target)
    assert ages(client) == expected(1)
    write(store, 1, [*USERS, 77])
    assert client.get_online_features("s", {"user_id": [77]}, now=NOW_US).to_dict()["age_1"] == [1]


def test_a_write_waits_until_its_slot_was_moved(store: OnlineStore, cluster: RedisCluster) -> None:
    """Redis refuses a script whose keys are on two nodes (TRYAGAIN)."""
    slot, source = key_slot(EPOCH), cluster.holder(EPOCH)
    target = next(node for node in cluster.primaries if node is not source)
    cluster.begin_move(slot, source, target)
    cluster.move_keys(slot, source, target, 3)

    def finish() -> None:
        while cluster.move_keys(slot, source, target, 100):
            pass
        cluster.end_move(slot, target)

    mover = threading.Timer(0.3, finish)
    mover.start()
    with store.writer("profile") as writer:  # writes to all buckets, some of which are on the same node
        assert writer.write(rows(1, list(range(100, 200)))).written == 100
    mover.join()
    assert {user for (user,) in store.sample_keys("profile", 1000)} == {*USERS, *range(100, 200)}


def test_reads_go_on_when_a_primary_is_killed(store: OnlineStore, client: Any, cluster: RedisCluster) -> None:
    """A request that comes before the fail-over waits for the replica, within its limit."""
    assert ages(client) == expected(1)
    primary = cluster.holder(EPOCH)
    cluster.wait_for_replicas()
    primary.kill()
    taking_over = threading.Timer(0.5, lambda: cluster.take_over(primary))
    taking_over.start()
    assert ages(client) == expected(1)
    taking_over.join()
    assert ages(client) == expected(1)


def test_a_request_ends_with_its_limit_when_no_replica_takes_over(
    store: OnlineStore, cluster: RedisCluster, client: Any
) -> None:
    """Requests for buckets of the other nodes are answered."""
    hasty = OnlineClient(cluster.url, "shop", timeout_s=0.5)
    primary = cluster.holder(EPOCH)
    held = [keys.tag("shop", bucket) for bucket in range(BUCKETS)]
    others = [bucket for bucket, tag in enumerate(held) if cluster.holder(tag) is not primary]
    users = [user for user in USERS if keys.buckets_of([user.to_bytes(8, "big")], BUCKETS)[0] in others]
    assert ages(client) == expected(1)
    assert ages(hasty) == expected(1)
    primary.kill()
    with pytest.raises((StoreConnectionError, StoreTimeoutError, ClusterDownError)):
        ages(hasty)
    for one in (hasty, client):
        assert one.get_online_features("s", {"user_id": users}, now=NOW_US).to_dict()["age_1"] == [1] * len(users)
    hasty.close()


def test_nodes_that_the_url_names_may_be_dead(store: OnlineStore, cluster: RedisCluster) -> None:
    """One node that answers is enough. When none answers, the error names all."""
    cluster.nodes[0].kill()
    with suppress(LookupError):
        cluster.take_over(cluster.nodes[0])
    assert connect(cluster.url, 5.0).nodes()
    nobody = "redis+cluster://127.0.0.1:1,127.0.0.1:2"
    with pytest.raises(StoreConnectionError, match=r"127\.0\.0\.1:1.*127\.0\.0\.1:2"):
        connect(nobody, 1.0).nodes()


def test_no_answer_mixes_plans_while_nodes_change(store: OnlineStore, client: Any, cluster: RedisCluster) -> None:
    """While a client reads, plans are published, old rows are dropped, a slot moves and a primary hands over."""
    versions: list[int] = [1]
    done = threading.Event()
    failed: list[BaseException] = []

    def change() -> None:
        try:
            for version in range(2, 8):
                publish(store, version)
                versions.append(version)
                if version == 3:
                    cluster.move(EPOCH)
                if version == 5:
                    cluster.hand_over(cluster.holder(EPOCH))
        except BaseException as error:  # asserted at the end
            failed.append(error)
        done.set()

    changer = threading.Thread(target=change)
    changer.start()
    seen = set()
    while not done.is_set():
        answer = ages(client)
        (name,) = answer
        version = int(name.removeprefix("age_"))
        assert answer == expected(version)
        seen.add(version)
    changer.join()
    assert not failed, failed
    assert ages(client) == expected(7)
    assert len(seen) > 1


def test_each_node_is_looked_at(store: OnlineStore, cluster: RedisCluster) -> None:
    """`infos`, `server_id` and clocks cover all three nodes, so `doctor` sees that one of them may evict keys."""
    careless = cluster.primaries[-1]
    careless("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    policies = sorted(info["maxmemory_policy"] for info in store.infos())
    careless("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert policies == ["allkeys-lru", "noeviction", "noeviction"]
    assert len(store.server_id().split()) == 3


# -- replicas ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
@pytest.mark.parametrize("read_from", ["replica", "nearest"])
def test_replicas_answer_reads(store: OnlineStore, cluster: RedisCluster, kind: str, read_from: str) -> None:
    """Redis counts reads on the replicas. Rows of a plan that a replica does not have yet come from the primary."""
    cluster.wait_for_replicas()
    cluster.wait_for_listed_replicas()
    client = CLIENTS[kind](f"{cluster.url}?read_from={read_from}", "shop", timeout_s=10.0)
    replicas = [node for node in cluster.nodes if node not in cluster.primaries]
    before = sum(reads_of(node) for node in replicas)
    for _ in range(30):
        assert ages(client) == expected(1)
    assert sum(reads_of(node) for node in replicas) > before
    for version in (2, 3):
        publish(store, version)
        assert ages(client) == expected(version)
    client.close()


def reads_of(node: RedisNode) -> int:
    line = next((line for line in node("INFO", "commandstats").splitlines() if line.startswith("cmdstat_mget:")), "")
    return int(line.partition("calls=")[2].partition(",")[0] or 0)


@pytest.mark.parametrize("at", [1, 6])
@pytest.mark.parametrize("what", ["kill", "hand over", "move"])
def test_an_event_counts_once_whatever_happens_to_a_node(cluster: RedisCluster, what: str, at: int) -> None:
    """A primary is killed and its replica, perhaps without the last merges, takes over; it hands over; slots move."""
    store = OnlineStore(cluster.url, "test", timeout_s=5.0)
    store.publish(stream_plan(buckets=BUCKETS), over=None)
    keys_of = [keys.epoch_key("test", bucket) for bucket in range(BUCKETS)]
    acting: list[threading.Thread] = []

    def act(batch: int) -> None:
        if batch != at:
            return
        primary = cluster.holder(keys_of[0])
        if what == "kill":
            cluster.wait_for_replicas()  # they have the publication; they may lack later merges
            acting.append(threading.Timer(0.05, lambda: (primary.kill(), cluster.take_over(primary))))
        elif what == "hand over":
            acting.append(threading.Thread(target=cluster.hand_over, args=(primary,)))
        else:
            acting.append(threading.Thread(target=lambda: [cluster.move(key) for key in keys_of[:3]]))
        acting[0].start()

    stream(cluster.url, act)
    acting[0].join()  # the next test begins with whole slots
    assert counts(cluster.url) == oracle()
    store.close()


# -- rights -----------------------------------------------------------------------------------------------------


def rights_of(role: str) -> list[str]:
    """The rights of a role in docs/security.md, with those that docs/guides/production-redis.md adds for a Cluster."""
    docs = Path(__file__).parents[2] / "docs"
    found = re.search(rf"```acl {role}\n(.*?)```", (docs / "security.md").read_text(), re.DOTALL)
    assert found is not None
    rights = re.findall(r"\([^)]*\)|\S+", found[1])[4:]
    for line in (docs / "guides" / "production-redis.md").read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if len(cells) > 3 and role in cells[1].split(", "):
            rights += [right.replace("\\|", "|") for right in re.findall(r"\+[a-z\\|]+", cells[2])]
    return ["reset", "on", *rights]


def test_the_least_rights_suffice_on_a_cluster(cluster: RedisCluster) -> None:
    """Roles can apply, write, merge, read from primaries and replicas, and follow a slot. `serving` cannot write."""
    urls = {}
    for role in ("serving", "materialize", "stream", "apply"):
        urls[role] = cluster.url.replace("://", f"://{role}:{role}-password@")
        for node in cluster.nodes:
            node("ACL", "SETUSER", role, *rights_of(role))
    owner = OnlineStore(urls["apply"], "shop", timeout_s=5.0)
    publish(owner, 1)
    store = OnlineStore(urls["materialize"], "shop", timeout_s=5.0)
    write(store, 1)
    streaming = OnlineStore(urls["stream"], "shop", timeout_s=5.0)
    with streaming.tile_writer("clicks") as writer:
        assert writer.fences() == [{}] * BUCKETS
    for read_from in ("primary", "replica"):
        with OnlineClient(f"{urls['serving']}?read_from={read_from}", "shop", timeout_s=10.0) as client:
            assert ages(client) == expected(1)
            cluster.move(EPOCH)
            assert ages(client) == expected(1)
    with pytest.raises(PermissionDeniedError):
        publish(OnlineStore(urls["serving"], "shop"), 2)
    publish(owner, 2)
    assert owner.teardown() > 0
    for one in (owner, store, streaming):
        one.close()
    for node in cluster.nodes:
        node("ACL", "DELUSER", *urls)


def test_a_writer_closes_its_connections_to_nodes_that_have_no_slots_any_more(cluster: RedisCluster) -> None:
    """The writer stays open over the change. It was connected to the node that is a replica now."""
    store = OnlineStore(f"{cluster.url}?client_name=writes", "shop", timeout_s=10.0)
    publish(store, 1)
    cluster.wait_for_replicas()
    before = cluster.holder(keys.epoch_key("shop", 0))

    def is_connected() -> bool:
        return any("name=writes" in line for line in before("CLIENT", "LIST").splitlines())

    with store.writer("profile") as writer:
        writer.write(rows(1))
        assert is_connected()
        cluster.hand_over(before)
        cluster.wait()
        for _ in range(2):
            writer.write(rows(1))
        store.writer("profile").close()  # learns the map
        writer.write(rows(1))
        assert not is_connected()
    store.close()
