"""Both clients over TCP, TLS and Unix sockets, on asyncio and uvloop: their answers and their time limits."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from feature_store.errors import AuthenticationError, StoreConnectionError, StoreTimeoutError
from feature_store.online import Status
from tests.online.clients import CLIENTS
from tests.online.proxy import Certificates, FirstBytes, Full, Proxy, Silent
from tests.online.transports import DATABASE, ENTITIES, PASSWORD, TRANSPORTS, USER, ask, certificates, fill
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RedisServer

# A limit, and how long it may take on a busy machine. Without a limit, a test would take 60 s or for ever.
LIMIT_S, GENEROUS_S = 0.3, 5.0


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as made:
        fill(made.url, DATABASE)
        yield made


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def proxy(server: RedisServer, signed: Certificates, transport: str) -> Iterator[Proxy]:
    made = Proxy(server.url, transport, signed)
    yield made
    made.close()


@pytest.fixture(params=list(CLIENTS))
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    opened: list[Any] = []

    def client(url: str, **options: Any) -> Any:
        opened.append(CLIENTS[request.param](url, "test", **options))
        return opened[-1]

    yield client
    for one in opened:
        one.close()


def at(proxy: Any) -> str:
    return str(proxy.url(f"{USER}:{PASSWORD}", f"db={DATABASE}"))


def seconds_until_timeout(client: Any, **options: Any) -> float:
    start = time.monotonic()
    with pytest.raises(StoreTimeoutError):
        ask(client, **options)
    return time.monotonic() - start


def test_answers_with_user_password_and_database(make: Any, proxy: Proxy) -> None:
    client = make(at(proxy), timeout_s=20.0)
    assert ask(client).to_dict()["c"] == [1, 2, 3]
    assert ask(client, deadline_ms=20_000).to_dict()["c"] == [1, 2, 3]
    assert proxy.connections == 1


def test_a_large_command_and_a_large_reply(make: Any, proxy: Proxy) -> None:
    """In both directions, more bytes than any socket buffer holds."""
    client = make(at(proxy), timeout_s=20.0)
    for _ in range(2):
        assert ask(client, range(ENTITIES)).to_numpy()[:, 2].tolist() == list(range(ENTITIES))


def test_a_reply_in_many_pieces(make: Any, proxy: Proxy) -> None:
    client = make(at(proxy), timeout_s=20.0)
    ask(client)
    proxy.drip_s, proxy.piece = 0.001, 7
    assert ask(client).to_dict()["c"] == [1, 2, 3]
    assert ask(client, [1, -1, 3]).status["c"] == [Status.PRESENT, Status.MISSING, Status.PRESENT]


def test_many_requests_share_connections(make: Any, proxy: Proxy) -> None:
    client = make(at(proxy), timeout_s=20.0, max_connections=3)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda i: ask(client, [i]).to_dict()["c"], range(200)))
    assert answers == [[i] for i in range(200)]
    assert proxy.connections <= 3


def test_a_server_that_stalls(make: Any, proxy: Proxy) -> None:
    """On a connection that has served before and on new ones, with timeout_s and deadline_ms in turn."""
    client = make(at(proxy), timeout_s=20.0)
    ask(client)
    ask(client, deadline_ms=20_000)
    stalled = threading.Event()
    short = make(at(proxy), timeout_s=LIMIT_S)
    while ask(short, deadline_ms=20_000).status["c"][0] == Status.SKIPPED:
        pass
    proxy.before = lambda command: stalled.wait(60)
    for _ in range(2):
        assert seconds_until_timeout(short) < GENEROUS_S
        start = time.monotonic()
        assert ask(client, deadline_ms=LIMIT_S * 1000).status["c"] == [Status.SKIPPED] * 3
        assert time.monotonic() - start < GENEROUS_S
    stalled.set()
    proxy.before = lambda command: None
    assert ask(client).to_dict()["c"] == [1, 2, 3], "the late answer is not taken for the next request's"


def test_a_server_that_sends_a_byte_now_and_then(make: Any, proxy: Proxy) -> None:
    """Each byte comes in time, but the answer does not."""
    client = make(at(proxy), timeout_s=20.0)
    ask(client)
    proxy.drip_s, proxy.piece = 0.05, 1
    assert ask(client, deadline_ms=LIMIT_S * 1000).status["c"] == [Status.SKIPPED] * 3
    assert seconds_until_timeout(make(at(proxy), timeout_s=LIMIT_S)) < GENEROUS_S


def test_a_server_that_accepts_and_never_answers(make: Any, signed: Certificates, transport: str) -> None:
    """Over TLS the handshake stalls, otherwise AUTH does."""
    silent = Silent(transport, signed)
    client = make(at(silent), timeout_s=LIMIT_S)
    for options in ({}, {"deadline_ms": LIMIT_S * 1000}):
        assert seconds_until_timeout(client, **options) < GENEROUS_S
    silent.close()


def test_a_server_whose_queue_of_connections_is_full(make: Any) -> None:
    full = Full()
    client = make(at(full), timeout_s=LIMIT_S)
    for options in ({}, {"deadline_ms": LIMIT_S * 1000}):
        assert seconds_until_timeout(client, **options) < GENEROUS_S
    full.close()


def test_a_deadline_is_kept_when_all_connections_are_in_use(make: Any, proxy: Proxy) -> None:
    client = make(at(proxy), timeout_s=20.0, max_connections=1)
    ask(client)
    stalled, seen = threading.Event(), threading.Event()

    def stall(command: list[bytes]) -> None:
        seen.set()
        stalled.wait(60)

    proxy.before = stall
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, client)
        seen.wait(60)
        start = time.monotonic()
        assert ask(client, deadline_ms=LIMIT_S * 1000).status["c"] == [Status.SKIPPED] * 3
        assert time.monotonic() - start < GENEROUS_S
        stalled.set()
        assert first.result(60).to_dict()["c"] == [1, 2, 3]
    assert ask(client).to_dict()["c"] == [1, 2, 3]


def test_a_wrong_password(make: Any, proxy: Proxy) -> None:
    client = make(proxy.url(f"{USER}:{PASSWORD}-not", f"db={DATABASE}"), timeout_s=20.0)
    with pytest.raises(AuthenticationError) as caught:
        ask(client)
    assert PASSWORD not in str(caught.value)


def test_a_certificate_that_is_not_trusted(make: Any, server: RedisServer, signed: Certificates, tmp_path: Any) -> None:
    proxy, other = Proxy(server.url, "tls", signed), certificates(tmp_path)
    untrusted = proxy.url().replace(str(signed.authority), str(other.authority))
    wrong_name = proxy.url().replace("localhost", "127.0.0.1")
    for url, reason in ((untrusted, "certificate verify failed"), (wrong_name, "127.0.0.1")):
        with pytest.raises(StoreConnectionError, match=reason):
            ask(make(url, timeout_s=20.0))
    proxy.close()


def test_no_secret_is_sent_in_clear_where_tls_is_asked_for(make: Any, signed: Certificates) -> None:
    listener = FirstBytes()
    url = at(listener).replace("redis://", "rediss://") + f"&ssl_ca_certs={signed.authority}"
    with pytest.raises(StoreConnectionError):
        ask(make(url, timeout_s=20.0))
    assert listener.seen and all(seen[:2] == b"\x16\x03" and PASSWORD.encode() not in seen for seen in listener.seen)
    listener.close()
