"""No request fails because a further connection cannot be opened, while another answers."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import redis

from feature_store.errors import OnlineStoreError, StoreConnectionError, StoreReplyError, StoreTimeoutError
from feature_store.online.observer import Observers
from feature_store.online.redis import async_pool
from feature_store.online.redis.async_pool import USUAL_CONNECTIONS, AsyncPool
from feature_store.online.redis.endpoint import Endpoint
from feature_store.online.redis.limit import Limit
from feature_store.online.redis.pool import Pool
from feature_store.online.redis.resp import Command, ReplyParser, packed
from tests.online.proxy import Listener, Proxy
from tests.online.test_connections import LOOPS
from tests.servers import redis_server

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.servers import RedisServer

BURST = async_pool.MOST_COMMANDS


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as made, redis.Redis.from_url(made.url) as admin:
        admin.set("k", "v")
        yield made


@pytest.fixture
def admin(server: RedisServer) -> Iterator[Any]:
    with redis.Redis.from_url(server.url) as made:
        made.ping()
        yield made


@pytest.fixture(params=list(LOOPS))
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as made:
        yield made


def pool(url: str) -> AsyncPool:
    return AsyncPool(Endpoint(url, 60.0), Observers(()), 64)


async def get(connections: AsyncPool, *, seconds: float = 60.0) -> Any:
    command = Command(b"", packed(b"MGET", b"k"), ReplyParser(1))
    await connections.exchange([command], Limit.of(seconds))
    return command.parser.replies[0][0]


async def burst(connections: AsyncPool) -> None:
    """Check that as many requests as one connection takes are answered: so many that the pool opens another."""
    assert set(await asyncio.gather(*[get(connections) for _ in range(BURST)])) == {b"v"}


async def opening_ends(connections: AsyncPool) -> None:
    while connections._opening is not None:
        await asyncio.sleep(0.001)


def only(count: int, admin: Any) -> None:
    """Let the server accept `count` more clients, besides those that it has."""
    admin.config_set("maxclients", admin.info("clients")["connected_clients"] + count)


@pytest.mark.parametrize("options", ["", "client_name=model"], ids=["plain", "greeting"])
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_a_server_that_has_its_most_clients(
    server: RedisServer, admin: Any, runner: asyncio.Runner, transport: str, options: str
) -> None:
    """It accepts a connection and refuses the first command on it. One connection answers all requests."""
    port = enabled_port(admin)
    url = f"redis://127.0.0.1:{port}?{options}" if transport == "tcp" else f"{server.url}?{options}"

    async def requests() -> None:
        connections = pool(url)
        assert await get(connections) == b"v"
        only(0, admin)
        for _ in range(20):
            await burst(connections)
        await opening_ends(connections)
        assert connections.size == 1
        assert 1 <= admin.info("stats")["rejected_connections"] <= 20
        connections._retry_at = 0.0
        only(1, admin)
        await burst(connections)
        await opening_ends(connections)
        assert connections.size == USUAL_CONNECTIONS, "there is room again"
        await burst(connections)
        connections.close()

    runner.run(requests())


def enabled_port(admin: Any) -> int:
    from tests.online.test_pools import free_port

    port = free_port()
    admin.config_set("port", port)
    return port


def test_a_user_whose_password_was_changed(server: RedisServer, admin: Any, runner: asyncio.Runner) -> None:
    admin.acl_setuser("model", enabled=True, passwords=["+first"], keys=["*"], commands=["+@all"])

    async def requests() -> None:
        connections = pool(server.url.replace("unix://", "unix://model:first@"))
        assert await get(connections) == b"v"
        admin.acl_setuser("model", reset_passwords=True, passwords=["+second"], enabled=True)
        for _ in range(3):
            await burst(connections)
            await opening_ends(connections)
        assert connections.size == 1
        connections.close()

    runner.run(requests())


class Hanging(Proxy):
    """Passes on the commands of the first connection, and accepts others without an answer."""

    def serve(self, client: socket.socket) -> None:
        if self.connections == 1:
            super().serve(client)


def test_a_server_that_hangs_when_it_accepts(server: RedisServer, runner: asyncio.Runner) -> None:
    proxy = Hanging(server.url)

    async def requests() -> None:
        connections = pool(proxy.url())
        assert await get(connections) == b"v"
        for _ in range(3):
            await burst(connections)
        assert connections._opening is not None and proxy.connections == 2, "the requests did not wait for it"
        connections.close()

    runner.run(requests())
    proxy.close()


def test_the_next_try_comes_after_a_while(
    server: RedisServer, admin: Any, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_pool, "RETRY_S", 600.0)

    async def requests() -> None:
        connections = pool(server.url)
        assert await get(connections) == b"v"
        only(0, admin)
        for _ in range(10):
            await burst(connections)
            await opening_ends(connections)
        assert admin.info("stats")["rejected_connections"] == 1
        connections.close()

    runner.run(requests())


class Refusing(Listener):
    """Closes each connection at once."""

    def serve(self, client: socket.socket) -> None:
        client.close()


def test_without_any_connection_each_request_learns_why(
    server: RedisServer, admin: Any, runner: asyncio.Runner
) -> None:
    refusing = Refusing()
    port = enabled_port(admin)
    only(0, admin)

    async def failures(url: str) -> list[Any]:
        connections = pool(url)
        failed = await asyncio.gather(*[get(connections) for _ in range(10)], return_exceptions=True)
        assert connections.size == connections.waiting == 0
        assert len(set(map(id, failed))) == 10, "each has a traceback of its own"
        return failed

    # A server that has its most clients closes the connection after its error reply, which may then be lost.
    full: Any = (StoreReplyError, StoreConnectionError)
    for url, kind in [
        (refusing.url(), StoreConnectionError),
        ("unix:///nowhere/redis.sock", StoreConnectionError),
        (f"redis://127.0.0.1:{port}", full),
        (server.url, full),
    ]:
        assert all(isinstance(error, kind) for error in runner.run(failures(url)))
    refusing.close()


def test_a_request_that_ends_leaves_the_connection_to_the_next(server: RedisServer, runner: asyncio.Runner) -> None:
    """Opening a connection takes longer than the limit of the request that needs it; another request is cancelled."""
    proxy, goes_on = Proxy(server.url), threading.Event()
    proxy.before = lambda command: goes_on.wait(60)

    async def requests() -> None:
        connections = pool(proxy.url())
        cancelled = asyncio.create_task(get(connections))
        with pytest.raises(StoreTimeoutError, match="expected an answer within 50 ms, got none"):
            await get(connections, seconds=0.05)
        cancelled.cancel()
        goes_on.set()
        assert await get(connections) == b"v"
        assert proxy.connections == 1 and connections.size == 1
        connections.close()

    runner.run(requests())
    proxy.close()


# -- threads --------------------------------------------------------------------------------------------------------


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def get_in_thread(connections: Pool, seconds: float = 60.0) -> Any:
    command = Command(b"", packed(b"MGET", b"k"), ReplyParser(1))
    connections.exchange([command], Limit.of(seconds))
    return command.parser.replies[0][0]


def all_are_answered(connections: Pool, threads: ThreadPoolExecutor, count: int) -> None:
    assert set(threads.map(get_in_thread, [connections] * count)) == {b"v"}


@pytest.mark.parametrize("options", ["", "client_name=model"], ids=["plain", "greeting"])
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_threads_and_a_server_that_has_its_most_clients(
    server: RedisServer, admin: Any, threads: ThreadPoolExecutor, transport: str, options: str
) -> None:
    port = enabled_port(admin)
    url = f"redis://127.0.0.1:{port}?{options}" if transport == "tcp" else f"{server.url}?{options}"
    connections = Pool(Endpoint(url, 60.0), Observers(()), 64)
    assert get_in_thread(connections) == b"v"
    only(0, admin)
    while not admin.info("stats")["rejected_connections"]:
        all_are_answered(connections, threads, 500)
        assert connections.size == 1
    only(2, admin)
    connections._retry_at = 0.0
    while connections.size == 1:
        all_are_answered(connections, threads, 500)
    assert connections.size <= 3
    connections.close()
    assert connections.size == connections.waiting == 0


def test_threads_and_a_server_that_hangs_when_it_accepts(server: RedisServer, threads: ThreadPoolExecutor) -> None:
    """A request gives an attempt half of its limit, and then waits for a connection that answers."""
    proxy = Hanging(server.url)
    connections = Pool(Endpoint(proxy.url(), 60.0), Observers(()), 64)
    assert get_in_thread(connections) == b"v"
    held, _ = connections._take(Limit.of(60.0))
    hangs = threads.submit(get_in_thread, connections, 8.0)
    while proxy.connections == 1:
        time.sleep(0.001)
    connections._give_back(held, None)
    assert hangs.result(60) == b"v"
    assert connections.size == 1 and proxy.connections == 2
    connections.close()
    proxy.close()


def test_threads_without_any_connection(server: RedisServer, admin: Any, threads: ThreadPoolExecutor) -> None:
    port = enabled_port(admin)
    only(0, admin)
    for url in ("unix:///nowhere/redis.sock", f"redis://127.0.0.1:{port}", server.url):
        connections = Pool(Endpoint(url, 60.0), Observers(()), 64)
        waiting = [threads.submit(get_in_thread, connections) for _ in range(8)]
        assert all(isinstance(one.exception(60), OnlineStoreError) for one in waiting)
        assert connections.size == connections.waiting == 0


def test_a_pool_that_is_closed_opens_no_more(server: RedisServer, runner: asyncio.Runner) -> None:
    proxy = Hanging(server.url)

    async def requests() -> None:
        connections = pool(proxy.url())
        assert await get(connections) == b"v"
        await burst(connections)
        (task,) = asyncio.all_tasks() - {asyncio.current_task()}
        connections.close()
        assert connections.size == 0
        await asyncio.wait([task])
        assert task.cancelled()

    runner.run(requests())
    proxy.close()
