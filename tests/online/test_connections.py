"""A client's connections: bounded in number, shared fairly, closed when idle, and used on one event loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import uvloop

from feature_store.errors import OnlineStoreError, StoreTimeoutError
from feature_store.online import AsyncOnlineClient, OnlineClient
from feature_store.online.observer import Observers
from feature_store.online.redis import async_pool, pool
from feature_store.online.redis.async_pool import AsyncPool
from feature_store.online.redis.endpoint import Endpoint
from feature_store.online.redis.limit import Limit
from feature_store.online.redis.location import MOST_CONNECTIONS
from feature_store.online.redis.pool import Pool
from feature_store.online.redis.resp import Command, ReplyParser
from tests.online.proxy import Proxy
from tests.online.transports import ask, certificates, fill
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RedisServer

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
PING = b"*1\r\n$4\r\nPING\r\n"


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


@pytest.fixture(params=list(LOOPS))
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as made:
        yield made


def opened(server: RedisServer) -> int:
    with redis.Redis.from_url(server.url) as admin:
        return int(admin.info("stats")["total_connections_received"]) - 1


def test_one_request_after_the_other_needs_one_connection(server: RedisServer, runner: asyncio.Runner) -> None:
    async def requests() -> None:
        async with AsyncOnlineClient(server.url, "test", timeout_s=20.0) as client:
            for count in (1, 3, 300):
                for _ in range(20):
                    assert (await ask(client, range(count))).to_dict()["c"] == list(range(count))

    before = opened(server)
    runner.run(requests())
    assert opened(server) - before - 1 == 1


@pytest.mark.parametrize(("most", "count"), [(None, 3000), (3, 300)])
def test_all_of_a_burst_is_answered(server: RedisServer, runner: asyncio.Runner, most: int | None, count: int) -> None:
    async def requests() -> list[Any]:
        async with AsyncOnlineClient(server.url, "test", timeout_s=200.0, max_connections=most) as client:
            return await asyncio.gather(*[ask(client, [i]) for i in range(count)])

    before = opened(server)
    answers = runner.run(requests())
    assert [answer.to_dict()["c"][0] for answer in answers] == list(range(count))
    assert opened(server) - before - 1 <= (most or MOST_CONNECTIONS)


def test_requests_are_answered_in_the_order_in_which_they_came(server: RedisServer, runner: asyncio.Runner) -> None:
    async def requests() -> list[int]:
        answered: list[int] = []
        async with AsyncOnlineClient(server.url, "test", timeout_s=60.0, max_connections=1) as client:
            await ask(client)

            async def one(place: int) -> None:
                await ask(client, [place])
                answered.append(place)
                if place == 0:  # a caller that comes again queues behind those that wait
                    await one(200)

            await asyncio.gather(*[one(i) for i in range(200)])
        return answered

    assert runner.run(requests()) == [*range(200), 200]


def test_threads_are_served_in_the_order_in_which_they_came(server: RedisServer) -> None:
    endpoint, served = Endpoint(server.url, 60.0), list[int]()
    connections = Pool(endpoint, Observers(()), 1)
    held, _ = connections._take(endpoint.limit())

    def one(place: int) -> None:
        connections.exchange([Command(b"", PING, ReplyParser(1))], Limit.of(60.0))
        served.append(place)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(20)]
    for i, thread in enumerate(threads):
        thread.start()
        while connections.waiting <= i:
            thread.join(0.001)
    connections._give_back(held, None)
    for thread in threads:
        thread.join()
    # A thread notes its place after it has passed the connection on, so neighbours may swap places.
    assert all(abs(place - i) <= 2 for i, place in enumerate(served)) and connections.size == 1
    connections.close()
    assert connections.size == 0


def test_waiting_for_a_connection_counts_and_the_error_says_so(proxy: Proxy, runner: asyncio.Runner) -> None:
    stalled = threading.Event()

    def ping(connections: AsyncPool, seconds: float) -> Any:
        return connections.exchange([Command(b"", PING, ReplyParser(1))], Limit.of(seconds))

    async def requests() -> list[Any]:
        connections = AsyncPool(Endpoint(proxy.url(), 60.0), Observers(()), 1)
        await ping(connections, 60.0)
        proxy.before = lambda command: stalled.wait(60)
        first = [asyncio.create_task(ping(connections, 60.0)) for _ in range(async_pool.MOST_COMMANDS)]
        await asyncio.sleep(0)
        assert connections.waiting == 0
        late = await asyncio.gather(*[ping(connections, 0.3) for _ in range(3)], return_exceptions=True)
        stalled.set()
        await asyncio.gather(*first)
        connections.close()
        return late

    for error in runner.run(requests()):
        assert isinstance(error, StoreTimeoutError)
        assert "no connection was free within 300 ms: other requests use all 1" in str(error)


def test_a_request_that_is_cancelled_leaves_its_place(server: RedisServer, runner: asyncio.Runner) -> None:
    async def requests() -> None:
        async with AsyncOnlineClient(server.url, "test", timeout_s=60.0, max_connections=2) as client:
            await ask(client)
            for round_ in range(20):
                tasks = [asyncio.create_task(ask(client, [i])) for i in range(40)]
                for _ in range(round_ % 5):
                    await asyncio.sleep(0)
                for task in tasks[::3]:
                    task.cancel()
                found = await asyncio.gather(*tasks, return_exceptions=True)
                for i, answer in enumerate(found):
                    if not isinstance(answer, asyncio.CancelledError):
                        assert answer.to_dict()["c"] == [i]
                assert client._pool.size <= 2 and client._pool.waiting == 0
            assert (await ask(client)).to_dict()["c"] == [1, 2, 3]

    runner.run(requests())


def test_connections_that_are_not_needed_are_closed(
    server: RedisServer, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_pool, "IDLE_S", 0.0)

    async def requests() -> int:
        async with AsyncOnlineClient(server.url, "test", timeout_s=60.0, max_connections=8) as client:
            await asyncio.gather(*[ask(client) for _ in range(100)])
            for _ in range(10):
                await ask(client)
            return client._pool.size

    assert runner.run(requests()) == 1


def test_connections_of_threads_that_are_not_needed_are_closed(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OnlineClient(server.url, "test", timeout_s=60.0, max_connections=8) as client:
        gate = threading.Barrier(8)

        def one() -> None:
            gate.wait()
            for _ in range(30):
                ask(client)

        threads = [threading.Thread(target=one) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= client._pool.size <= 8
        monkeypatch.setattr(pool, "IDLE_S", 0.0)
        client._pool._trim_at = 0.0
        ask(client)
        assert client._pool.size == 1


def test_a_client_of_another_loop_says_so(server: RedisServer, runner: asyncio.Runner) -> None:
    client = AsyncOnlineClient(server.url, "test", timeout_s=60.0)
    assert runner.run(ask(client)).to_dict()["c"] == [1, 2, 3]

    def elsewhere() -> None:
        with (
            pytest.raises(OnlineStoreError, match=r"belong to another event loop.*one client for each event loop"),
            asyncio.Runner() as other,
        ):
            other.run(ask(client))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert runner.run(ask(client)).to_dict()["c"] == [1, 2, 3]
    runner.run(client.close())
    with asyncio.Runner() as other:
        assert other.run(ask(client)).to_dict()["c"] == [1, 2, 3], "it was closed, and begins anew"
        other.run(client.close())


GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys, time
import gevent
from gevent.pool import Pool
sys.path.insert(0, {root!r})
from tests.online.transports import ask
from feature_store.errors import StoreTimeoutError
from feature_store.online import OnlineClient
url, stalled = sys.argv[1:]
with OnlineClient(url, "test", timeout_s=20.0, max_connections=4) as client:
    found = Pool(100).map(lambda i: ask(client, [i]).to_dict()["c"], range(300))
    assert found == [[i] for i in range(300)]
    assert ask(client, range(20000)).to_numpy()[:, 2].tolist() == list(range(20000))
    assert client._pool.size <= 4
ticks = []
gevent.spawn(lambda: [(gevent.sleep(0.01), ticks.append(1)) for _ in range(1000)])
for options in ({{}}, {{"deadline_ms": 300}}):
    with OnlineClient(stalled, "test", timeout_s=0.3) as client:
        start = time.monotonic()
        try:
            ask(client, **options)
            raise SystemExit("answered")
        except StoreTimeoutError:
            assert time.monotonic() - start < 5
assert ticks, "others run while a request waits"
print("well")
"""


@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
def test_gevent(server: RedisServer, transport: str, tmp_path: Path) -> None:
    from tests.online.proxy import Silent

    signed = certificates(tmp_path)
    working, stalled = Proxy(server.url, transport, signed), Silent(transport, signed)
    code = GEVENT.format(root=str(Path(__file__).parents[2]))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, working.url(), stalled.url("model:secret")],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert ran.stdout.strip() == "well", ran.stderr
    working.close()
    stalled.close()
