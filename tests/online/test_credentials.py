"""Credential providers of redis-py: whatever they do wrong is an error of this library that names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis

from feature_store.errors import StoreConnectionError
from feature_store.online import OnlineStore
from tests.online.clients import CLIENTS
from tests.online.transports import PASSWORD, USER, ask, fill
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import RedisServer


class Tokens(redis.CredentialProvider):
    """Gives what it is told to give, or raises it."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def get_credentials(self) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as made:
        fill(made.url)
        yield made


@pytest.mark.parametrize("kind", [*CLIENTS, "store"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (RuntimeError(f"no token for {PASSWORD}"), r"get_credentials\(\) raised RuntimeError"),
        (OSError(f"no token for {PASSWORD}"), r"get_credentials\(\) raised OSError"),
        (TimeoutError(f"no token for {PASSWORD}"), r"get_credentials\(\) raised TimeoutError"),
        (None, r"get_credentials\(\) raised TypeError"),
        ((USER, PASSWORD, ""), "got 3 values: str, str, str"),
        ((USER, PASSWORD.encode()), "got 2 values: str, bytes"),
        ((), "got 0 values"),
    ],
    ids=["error", "os error", "timeout", "none", "three", "bytes", "empty"],
)
def test_what_a_provider_does_wrong(server: RedisServer, kind: str, wrong: Any, message: str) -> None:
    tokens = Tokens(wrong)
    pool = redis.ConnectionPool(
        connection_class=redis.UnixDomainSocketConnection, path=str(server.socket), credential_provider=tokens
    )
    made: Any = OnlineStore(pool, "test") if kind == "store" else CLIENTS[kind](pool, "test")
    use = made.require_published if kind == "store" else lambda: ask(made)
    with pytest.raises(StoreConnectionError, match=rf"credential provider Tokens: .*{message}") as caught:
        use()
    assert PASSWORD not in str(caught.value)
    tokens.given = (USER, PASSWORD)
    assert use()
    made.close()
