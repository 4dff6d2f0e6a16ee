"""Writes that a real Redis refuses: full, a replica, without script or permission. None is lost or doubled."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import redis

from feature_store.definitions import FeatureService
from feature_store.errors import PermissionDeniedError, ReadOnlyReplicaError, StoreFullError
from feature_store.online import OnlineClient, OnlineStore
from feature_store.online.tile_writer import Merge
from feature_store.online.writer import CALLS_UNDER_WAY, ROWS_PER_CALL
from tests.online import stream_worlds
from tests.online.worlds import NOW_US, batch, numbers, plan_of
from tests.raw_redis import raw_client
from tests.servers import redis_server
from tests.steps import at_send

if TYPE_CHECKING:
    from collections.abc import Iterator

service = FeatureService("service", features=[numbers])
ROWS: list[dict[str, Any]] = [
    {"movie_id": i, "event_ts": NOW_US, "a": 1.0, "b": 1.0, "c": i} for i in range(2 * CALLS_UNDER_WAY * ROWS_PER_CALL)
]


@pytest.fixture
def store(redis_url: str) -> Iterator[OnlineStore]:
    with opened(redis_url) as made:
        yield made


@contextlib.contextmanager
def opened(url: str) -> Iterator[OnlineStore]:
    made = OnlineStore(url, "test")
    made.publish(plan_of(service), over=None)
    yield made
    made.close()


@pytest.fixture
def admin(redis_url: str) -> Iterator[Any]:
    with raw_client(redis_url) as client:
        yield client
        client.config_set("maxmemory", 0)


@pytest.mark.parametrize("sends", [1, 2, CALLS_UNDER_WAY, CALLS_UNDER_WAY + 3, 2 * CALLS_UNDER_WAY])
def test_rows_are_written_when_redis_forgets_the_script(
    redis_url: str, store: OnlineStore, admin: Any, sends: int
) -> None:
    with store.writer("numbers") as writer, at_send(sends, lambda *_: admin.script_flush()):
        assert writer.write(batch(numbers, ROWS)) == (len(ROWS), 0)
    with OnlineClient(redis_url, "test") as client:
        answer = client.get_online_features(["numbers:c"], {"movie_id": list(range(len(ROWS)))}, now=NOW_US)
        assert answer.to_dict()["c"] == list(range(len(ROWS)))


@pytest.mark.parametrize("sends", [1, 2, 4])
def test_merges_count_once_when_redis_forgets_the_script(redis_url: str, admin: Any, sends: int) -> None:
    """Four merges are under way, and each expects the fence that the merge before leaves."""
    store = OnlineStore(redis_url, "test")
    store.publish(stream_worlds.plan_of(), over=None)
    with store.tile_writer("activity") as writer:
        merges: list[Merge] = []
        merge, writer.merge = writer.merge, lambda made: merges.append(made) or []  # type: ignore[method-assign]
        for i in range(4):
            event = {"user_id": 1, "ts": stream_worlds.NOW_US, "price": 1.0, "action": "buy"}
            stream_worlds.merge_events(writer, [event], {"e:0": (i or None, i + 1)})
        writer.merge = merge  # type: ignore[method-assign]
        with at_send(sends, lambda *_: admin.script_flush()):
            for made in merges:
                writer.send(made)
            assert [writer.answer() for _ in merges] == [[]] * 4
        assert writer.fences() == [{"e:0": 4}]
    with OnlineClient(redis_url, "test") as client:
        answer = client.get_online_features(["activity:price_count_1h"], {"user_id": 1}, now=stream_worlds.NOW_US)
        assert answer.to_dict() == {"price_count_1h": [4]}
    store.close()


def test_a_full_redis_refuses_rows_and_says_so(store: OnlineStore, admin: Any) -> None:
    with store.writer("numbers") as writer:
        admin.config_set("maxmemory", 1)
        with pytest.raises(StoreFullError, match=r"write numbers \(Redis at .*memory limit .*raise `maxmemory`"):
            writer.write(batch(numbers, ROWS))
    with pytest.raises(StoreFullError):
        store.publish(plan_of(service, version=2), over=store.published())


def test_a_replica_refuses_rows_and_the_connection_is_closed(one_server_url: str) -> None:
    """Sentinels and a Cluster decide themselves who is a replica."""
    with opened(one_server_url) as store, raw_client(one_server_url) as admin:
        with store.writer("numbers") as writer:
            admin.replicaof("127.0.0.1", "1")
            try:
                with pytest.raises(ReadOnlyReplicaError, match="read-only replica"):
                    writer.write(batch(numbers, ROWS))
                with pytest.raises(ReadOnlyReplicaError):
                    store.publish(plan_of(service, version=2), over=store.published())
            finally:
                admin.replicaof("NO", "ONE")
        with store.writer("numbers") as writer:
            assert writer.write(batch(numbers, ROWS)) == (len(ROWS), 0)


def test_a_user_without_permission_is_told_the_command() -> None:
    with redis_server() as server, redis.Redis.from_url(server.url) as admin:
        with_permission = OnlineStore(server.url, "test")
        with_permission.publish(plan_of(service), over=None)
        with_permission.close()
        admin.acl_setuser(
            "reader", enabled=True, nopass=True, keys=["*"], commands=["+@connection", "+@read", "+@transaction"]
        )
        store = OnlineStore(server.url.replace("unix://", "unix://reader:x@"), "test")
        with pytest.raises(PermissionDeniedError, match=r"NOPERM SCRIPT\|LOAD"):
            store.writer("numbers")
        store.close()
