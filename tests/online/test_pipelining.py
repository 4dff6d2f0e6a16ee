"""Many requests of one event loop on few connections: a request that fails does not harm the others."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
import redis

from feature_store.errors import DamagedPlanError, StoreConnectionError, StoreReplyError, StoreTimeoutError
from feature_store.online import AsyncOnlineClient
from feature_store.online.observer import Observers
from feature_store.online.redis.async_connection import AsyncConnection
from feature_store.online.redis.async_pool import MOST_BYTES, USUAL_CONNECTIONS, AsyncPool
from feature_store.online.redis.endpoint import Endpoint
from feature_store.online.redis.limit import Limit
from feature_store.online.redis.pool import Pool
from feature_store.online.redis.resp import BoundedParser, Command, ReplyParser, argument
from tests.online.proxy import Listener, Proxy
from tests.online.test_connections import LOOPS, PING, opened
from tests.online.transports import ask, fill
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RedisServer


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as made:
        fill(made.url)
        with redis.Redis.from_url(made.url) as admin:
            admin.mset({f"k{i}": f"v{i}" for i in range(100)} | {"large": b"x" * 100_000})
        yield made


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    made = Proxy(server.url)
    yield made
    made.close()


@pytest.fixture(params=list(LOOPS))
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as made:
        yield made


def pool(url: str, *, timeout_s: float = 60.0, most: int = 64) -> AsyncPool:
    return AsyncPool(Endpoint(url, timeout_s), Observers(()), most)


async def get(connections: AsyncPool, key: str, *, seconds: float = 60.0) -> Any:
    command = Command(b"", b"*2\r\n$4\r\nMGET\r\n" + argument(key.encode()), ReplyParser(1))
    await connections.exchange([command], Limit.of(seconds))
    return command.parser.replies[0][0]


def test_requests_share_few_connections_and_get_their_own_replies(server: RedisServer, runner: asyncio.Runner) -> None:
    async def requests() -> None:
        connections = pool(server.url)
        for _ in range(3):
            names = [i % 100 for i in range(200)]
            found = await asyncio.gather(*[get(connections, f"k{i}") for i in names])
            assert found == [f"v{i}".encode() for i in names]
        assert connections.size <= USUAL_CONNECTIONS and connections.waiting == 0
        connections.close()

    before = opened(server)
    runner.run(requests())
    assert opened(server) - before - 1 <= USUAL_CONNECTIONS


def test_large_replies_wait_in_the_client(server: RedisServer, runner: asyncio.Runner) -> None:
    """They do not wait in Redis, which would keep them in memory."""

    async def requests() -> None:
        connections = pool(server.url)
        await get(connections, "k1")
        tasks = [asyncio.create_task(get(connections, "large")) for _ in range(40)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            assert all(one.bytes_owed < MOST_BYTES + (1 << 17) for one in connections._connections)
        assert {len(task.result()) for task in tasks} == {100_000}
        connections.close()

    runner.run(requests())


def test_what_a_request_leaves_behind_is_dropped(proxy: Proxy, runner: asyncio.Runner) -> None:
    """One request is cancelled, another is too late. Their replies come later, before those of the others."""

    async def requests() -> None:
        connections = pool(proxy.url(), most=1)
        await get(connections, "k0")
        held = threading.Event()
        proxy.before = lambda command: held.wait(60)
        cancelled = asyncio.create_task(get(connections, "k1"))
        late = asyncio.create_task(get(connections, "large", seconds=0.2))
        others = [asyncio.create_task(get(connections, f"k{i}")) for i in range(2, 30)]
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(StoreTimeoutError):
            await late
        held.set()
        assert await asyncio.gather(*others) == [f"v{i}".encode() for i in range(2, 30)]
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert connections.size == 1
        connections.close()

    runner.run(requests())
    assert proxy.connections == 1


def test_a_connection_that_falls_silent_is_left(proxy: Proxy, runner: asyncio.Runner) -> None:
    """New requests get another connection. Those on the silent one are sent again after `timeout_s` without a reply."""
    held, stalls = threading.Event(), iter([True])

    def hold(command: list[bytes]) -> None:
        if next(stalls, False):  # only the first command, and those behind it on its connection
            held.wait(120)

    async def requests() -> None:
        connections = pool(proxy.url(), timeout_s=2.0)
        await get(connections, "k0")
        proxy.before = hold
        waiting = [asyncio.create_task(get(connections, f"k{i}")) for i in range(1, 10)]
        await asyncio.sleep(0)
        (silent,) = connections._connections
        while not silent.is_silent:
            await asyncio.sleep(0.01)
        assert await get(connections, "k50") == b"v50"
        assert await asyncio.gather(*waiting) == [f"v{i}".encode() for i in range(1, 10)]
        assert silent.lost and silent not in connections._connections
        connections.close()

    runner.run(requests())
    held.set()


def test_connections_that_are_killed_under_load(server: RedisServer, runner: asyncio.Runner) -> None:
    """Requests are sent again unless their replies had begun. None gets the reply of another."""

    async def requests() -> tuple[int, int]:
        good = failed = 0
        async with AsyncOnlineClient(server.url, "test", timeout_s=60.0) as client:
            await ask(client)
            with redis.Redis.from_url(server.url) as admin:
                for _ in range(5):
                    tasks = [asyncio.create_task(ask(client, [i, i + 1])) for i in range(60)]
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    admin.client_kill_filter(_type="normal", skipme=True)
                    for i, found in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
                        if isinstance(found, StoreConnectionError):
                            failed += 1
                        else:
                            assert found.to_dict()["c"] == [i, i + 1]
                            good += 1
        return good, failed

    good, failed = runner.run(requests())
    assert good + failed == 300 and failed <= 5 * USUAL_CONNECTIONS


def test_a_refused_reply_is_no_ones_but_its_own(server: RedisServer, runner: asyncio.Runner) -> None:
    async def requests() -> None:
        connections = pool(server.url, most=1)
        await get(connections, "k0")
        refused = Command(b"", b"*2\r\n$4\r\nMGET\r\n" + argument(b"large"), BoundedParser(1000, "a plan"))
        first = asyncio.create_task(connections.exchange([refused], Limit.of(60.0)))
        others = [asyncio.create_task(get(connections, f"k{i}")) for i in range(30)]
        with pytest.raises(DamagedPlanError):
            await first
        assert await asyncio.gather(*others) == [f"v{i}".encode() for i in range(30)]
        connections.close()

    runner.run(requests())


def test_closing_lets_requests_that_are_under_way_end(server: RedisServer, runner: asyncio.Runner) -> None:
    async def requests() -> None:
        connections = pool(server.url)
        await get(connections, "k0")
        tasks = [asyncio.create_task(get(connections, f"k{i}")) for i in range(10)]
        await asyncio.sleep(0)
        connections.close()
        assert connections.size == 0
        assert await asyncio.gather(*tasks) == [f"v{i}".encode() for i in range(10)]
        assert await get(connections, "k1") == b"v1"
        connections.close()

    runner.run(requests())


class Answering(Listener):
    """Answers PING. Sends some bytes once it has received some other commands, which begin with `*`; then nothing."""

    def __init__(self, commands: int, reply: bytes) -> None:
        self._commands, self._reply = commands, reply
        super().__init__()

    def serve(self, client: socket.socket) -> None:
        received = b""
        while received.count(b"*") < self._commands and (piece := client.recv(1 << 12)):
            client.sendall(b"+PONG\r\n" * piece.count(PING))
            received += piece.replace(PING, b"")
        client.sendall(self._reply)
        client.recv(1)


def command(parser: ReplyParser) -> Command:
    return Command(b"", b"*1\r\n$4\r\nTIME\r\n", parser)


@pytest.mark.parametrize("after", [b"*1\r\n$9999\r\n" + b"x" * 100, b"!no Redis"])
def test_a_reply_is_taken_whatever_comes_with_it(runner: asyncio.Runner, after: bytes) -> None:
    """The bytes after it belong to another request, which alone fails."""
    server = Answering(2, b"*1\r\n$3\r\nabc\r\n" + after)
    rows, plan = ReplyParser(1), BoundedParser(4096, "plan")

    async def requests() -> list[BaseException | None]:
        connection = await AsyncConnection.open(Endpoint(server.url(), 20.0), Limit.of(20.0))
        asked = [connection.ask([command(parser)], Limit.of(20.0)) for parser in (rows, plan)]
        return await asyncio.gather(*[one.done for one in asked], return_exceptions=True)

    of_rows, of_plan = runner.run(requests())
    server.close()
    assert of_rows is None and rows.replies == [[b"abc"]]
    assert isinstance(of_plan, DamagedPlanError if after.startswith(b"*") else StoreConnectionError)


@pytest.mark.parametrize("name", ["blocking", *LOOPS])
def test_an_error_reply_is_raised_although_another_reply_is_late(name: str) -> None:
    """With a deadline a client goes on with what came in time, and an error must not be taken for rows."""
    server = Answering(2, b"-NOPERM no rights\r\n")
    commands, limit = [command(ReplyParser(1)) for _ in range(2)], Limit.of(0.3)

    async def request() -> None:
        connections = pool(server.url(), timeout_s=0.3)
        try:
            await connections.exchange(commands, limit)
        finally:
            connections.close()

    with pytest.raises(StoreReplyError, match="NOPERM"):
        if name == "blocking":
            Pool(Endpoint(server.url(), 0.3), Observers(()), 4).exchange(commands, limit)
        else:
            with asyncio.Runner(loop_factory=LOOPS[name]) as runner:
                runner.run(request())
    server.close()
