"""Signals that arrive while a client waits do not lengthen its limit: Python calls receive again after each."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import redis

from feature_store.errors import StoreTimeoutError
from feature_store.online import OnlineClient
from feature_store.online.redis.connection import Connection
from feature_store.online.redis.endpoint import Endpoint
from feature_store.online.redis.limit import Limit
from feature_store.online.redis.resp import packed
from tests.online.test_pools import free_port
from tests.online.transports import ask, fill
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import RedisServer

LIMIT_S, PERIOD_S = 0.5, 0.05
# Ten come within the limit.
MOST_SIGNALS = 400


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as made:
        fill(made.url)
        yield made


@pytest.fixture(params=["tcp", "unix"])
def url(server: RedisServer, request: pytest.FixtureRequest) -> str:
    if request.param == "unix":
        return server.url
    with redis.Redis.from_url(server.url) as admin:
        if not (port := int(admin.config_get("port")["port"])):
            admin.config_set("port", port := free_port())
    return f"redis://127.0.0.1:{port}"


@pytest.fixture
def hang(server: RedisServer) -> Iterator[Callable[[], None]]:
    """Pauses the server, and lets a signal interrupt this process every PERIOD_S."""
    came: list[int] = []

    def count(*_: object) -> None:
        came.append(1)
        if len(came) == MOST_SIGNALS:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def begin() -> None:
        os.kill(server._process.pid, signal.SIGSTOP)
        signal.setitimer(signal.ITIMER_REAL, PERIOD_S, PERIOD_S)

    before = signal.signal(signal.SIGALRM, count)
    yield begin
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    os.kill(server._process.pid, signal.SIGCONT)
    assert 0 < len(came) < MOST_SIGNALS, "the client waited until the signals ended"


def test_a_request(url: str, hang: Any) -> None:
    with OnlineClient(url, "test", timeout_s=60.0) as client:
        assert ask(client).to_dict()["c"] == [1, 2, 3]
        client._limit = lambda: Limit.of(LIMIT_S)
        hang()
        with pytest.raises(StoreTimeoutError, match="expected an answer within 500 ms"):
            ask(client)


def test_a_new_connection(url: str, hang: Any) -> None:
    hang()
    with pytest.raises(StoreTimeoutError):
        Connection(Endpoint(f"{url}?client_name=model", LIMIT_S))


def test_a_command_that_the_server_does_not_take(url: str, hang: Any) -> None:
    connection = Connection(Endpoint(url, LIMIT_S))
    hang()
    with pytest.raises(StoreTimeoutError):
        connection.send(packed(b"ECHO", bytes(1 << 25)))
    connection.close()


def test_the_replies_of_a_writer(url: str, hang: Any) -> None:
    connection = Connection(Endpoint(url, LIMIT_S))
    hang()
    connection.send(packed(b"PING"))
    with pytest.raises(StoreTimeoutError):
        connection.reply()
    connection.close()
