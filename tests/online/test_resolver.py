"""Names of hosts: a resolver that hangs holds one thread for each name, whatever waits for it."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
import redis

from feature_store.errors import StoreConnectionError, StoreTimeoutError
from tests.online.clients import CLIENTS
from tests.online.test_pools import free_port
from tests.online.transports import ask, fill
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RedisServer

NAME = "redis.test"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as made:
        fill(made.url)
        yield made


@pytest.fixture
def port(server: RedisServer) -> int:
    with redis.Redis.from_url(server.url) as admin:
        if not (port := int(admin.config_get("port")["port"])):
            admin.config_set("port", port := free_port())
    return port


class Resolver:
    """Resolves NAME, once it goes on; `asked` is how often it was asked."""

    def __init__(self) -> None:
        self._own = socket.getaddrinfo
        self.goes_on, self.asked, self.knows = threading.Event(), 0, True

    def __call__(self, host: str, port: Any, *options: Any, **named: Any) -> Any:
        if host != NAME:
            return self._own(host, port, *options, **named)
        if socket.AI_NUMERICHOST in options:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        self.asked += 1
        self.goes_on.wait(60)
        if not self.knows:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._own("127.0.0.1", port, *options, **named)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.goes_on.set()


@pytest.fixture(params=list(CLIENTS))
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    opened: list[Any] = []

    def client(url: Any, **options: Any) -> Any:
        opened.append(CLIENTS[request.param](url, "test", **options))
        return opened[-1]

    yield client
    for one in opened:
        one.close()


def test_a_resolver_that_hangs(make: Any, resolver: Resolver, port: int) -> None:
    short = make(f"redis://{NAME}:{port}", timeout_s=0.1)
    for _ in range(5):
        with pytest.raises(StoreTimeoutError):
            ask(short)
    assert resolver.asked == 1
    resolver.goes_on.set()
    assert ask(make(f"redis://{NAME}:{port}")).to_dict()["c"] == [1, 2, 3]


def test_a_name_that_nothing_knows_is_asked_for_again(make: Any, resolver: Resolver, port: int) -> None:
    resolver.knows = False
    resolver.goes_on.set()
    client = make(f"redis://{NAME}:{port}")
    for asked in (1, 2):
        with pytest.raises(StoreConnectionError, match="Name or service not known"):
            ask(client)
        assert resolver.asked == asked
    resolver.knows = True
    assert ask(client).to_dict()["c"] == [1, 2, 3]


def test_a_process_without_a_thread_to_spare(
    make: Any, resolver: Resolver, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "feature-store-resolver":
            raise RuntimeError("can't start new thread")
        start(thread)

    resolver.goes_on.set()
    client = make(f"redis://{NAME}:{port}")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StoreConnectionError, match="can't start new thread"):
            ask(client)
    assert ask(client).to_dict()["c"] == [1, 2, 3]
