"""A process that does not run in time says so: it does not blame a server that it has not asked anything."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from feature_store.errors import StoreTimeoutError
from feature_store.online import Status
from feature_store.online.observer import Observers
from feature_store.online.redis.async_pool import AsyncPool
from feature_store.online.redis.endpoint import Endpoint
from feature_store.online.redis.limit import Limit
from feature_store.online.redis.pool import Pool
from feature_store.online.redis.resp import Command, ReplyParser, packed
from tests.online.clients import CLIENTS
from tests.online.proxy import Proxy
from tests.online.transports import ask, fill
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RedisServer

HELD_UP = r"its 1000 ms were over before anything was sent: this process was held up.*The limit is timeout_s"
NO_ANSWER = "expected an answer within 1000 ms, got none"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as made:
        fill(made.url)
        yield made


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    made = Proxy(server.url)
    yield made
    made.close()


@pytest.fixture(params=list(CLIENTS))
def client(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[Any]:
    made = CLIENTS[request.param](proxy.url(), "test", timeout_s=60.0)
    yield made
    made.close()


@pytest.fixture(params=["blocking", "asyncio"])
def exchange(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[Any]:
    """Sends PING within a limit, on connections of one pool."""
    endpoint = Endpoint(proxy.url(), 60.0)
    pool: Any = (Pool if request.param == "blocking" else AsyncPool)(endpoint, Observers(()), 4)
    runner = asyncio.Runner()

    def one(limit: Limit) -> None:
        commands = [Command(b"", packed(b"PING"), ReplyParser(1))]
        exchanged = pool.exchange(commands, limit)
        if request.param == "asyncio":
            runner.run(awaited(exchanged))

    async def awaited(exchanged: Any) -> None:
        await exchanged

    yield one
    with runner:
        pool.close()


def over() -> Limit:
    """The limit of a request that began before this process stood still for 1.5 s."""
    return Limit(time.monotonic() - 0.5, 1.0)


def test_a_client_that_stood_still_before_it_asked(client: Any, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(client).to_dict()["c"] == [1, 2, 3]
    asked: list[Any] = []
    proxy.before = asked.append
    with monkeypatch.context() as patched:
        patched.setattr(getattr(client, "client", client), "_limit", over)
        for _ in range(2):
            with pytest.raises(StoreTimeoutError, match=HELD_UP):
                ask(client)
    assert not asked
    assert ask(client).to_dict()["c"] == [1, 2, 3]
    assert ask(client, deadline_ms=0).status["c"] == [Status.SKIPPED] * 3


def test_before_it_connected_and_after(exchange: Any, proxy: Proxy) -> None:
    with pytest.raises(StoreTimeoutError, match=HELD_UP):
        exchange(over())
    assert proxy.connections == 0
    exchange(Limit.of(60.0))
    with pytest.raises(StoreTimeoutError, match=HELD_UP):
        exchange(over())
    exchange(Limit.of(60.0))


def test_a_request_that_waited_for_the_server_says_that(exchange: Any) -> None:
    """Such as for the plan, before it could ask for the rows."""
    exchange(Limit.of(60.0))
    with pytest.raises(StoreTimeoutError, match=NO_ANSWER):
        exchange(over().further())
