"""Servers that refuse connections, and processes that are held up: requests do not fail for them, nor blame others."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from feature_store.errors import StoreTimeoutError
from feature_store.online import OnlineStore
from feature_store.online.observer import Observers
from feature_store.online.redis.limit import Limit
from feature_store.online.redis.resp import Command, ReplyParser, packed
from feature_store.online.redis.topology import connect
from tests.online.clients import CLIENTS
from tests.online.node_worlds import ages, expected, publish
from tests.redis_nodes import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.redis_nodes import RedisNode, RedisSentinels


class Full:
    """A server that accepts no further client, until `end`."""

    def __init__(self, node: RedisNode) -> None:
        self._admin = redis.Redis(port=node.port, password=PASSWORD, single_connection_client=True)
        self._before = self._admin.config_get("maxclients")["maxclients"] or 10_000
        self._admin.config_set("maxclients", 1)

    def end(self) -> None:
        self._admin.config_set("maxclients", self._before)
        self._admin.close()


@pytest.fixture
def store(sentinels: RedisSentinels) -> Iterator[OnlineStore]:
    made = OnlineStore(sentinels.url, "shop", timeout_s=10.0)
    publish(made, 1)
    sentinels.wait_for_replicas()
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_the_primary_answers_for_replicas_that_refuse_connections(
    sentinels: RedisSentinels, store: OnlineStore, kind: str
) -> None:
    full = [Full(replica) for replica in sentinels.replicas]
    client = CLIENTS[kind](sentinels.url_with("read_from=replica"), "shop", timeout_s=10.0)
    try:
        for _ in range(5):
            assert ages(client) == expected(1)
    finally:
        client.close()
        for one in full:
            one.end()


@pytest.mark.parametrize("read_from", ["primary", "replica"])
@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_a_process_that_was_held_up_suspects_no_server(sentinels: RedisSentinels, kind: str, read_from: str) -> None:
    """The limit of the request is over before anything is sent. The map stays, and no server is avoided."""
    shards: Any = connect(sentinels.url_with(f"read_from={read_from}"), 60.0)
    shards.refresh(shards.version)
    shards._learnt_at -= 10.0  # else nobody is suspected yet
    pool = shards.pool(Observers(()), None) if kind == "blocking" else shards.async_pool(Observers(()), None)
    version, limit = shards.version, Limit(time.monotonic() - 0.5, 1.0)
    commands = [Command(b"k", packed(b"MGET", b"k"), ReplyParser(1), b"epoch")]

    async def exchange() -> None:
        await pool.exchange(commands, limit)

    with pytest.raises(StoreTimeoutError, match="this process was held up"):
        if kind == "blocking":
            pool.exchange(commands, limit)
        else:
            asyncio.run(exchange())
    assert (shards.suspects, shards.version) == (set(), version)
    assert not pool._readers._avoided
    shards.close()
