"""Credential providers of redis-py: whatever they do wrong is an error of this library that names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis

from feature_store.errors import ConfigError, OnlineStoreError, StoreConnectionError
from feature_store.online import OnlineClient, OnlineStore
from tests.online.clients import CLIENTS
from tests.online.transports import PASSWORD, SERVICE as SERVED, USER, ask, fill
from tests.online.worlds import NOW_US, numbers, plan_of, write
from tests.redis_nodes import SERVICE
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.redis_nodes import RedisNode
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


# -- providers that a URL names -------------------------------------------------------------------------------------


class Rotating(redis.CredentialProvider):
    """Gives the newest password of a user, and counts how often it is asked."""

    def __init__(self, user: str) -> None:
        self.user, self.password, self.asked = user, "first", 0

    def get_credentials(self) -> tuple[str, str]:
        self.asked += 1
        return self.user, self.password


of_servers, of_sentinels = Rotating("rotating"), Rotating("watching")
not_a_provider = "text"


def fails() -> Any:
    raise RuntimeError("no token")


class Nodes:
    """Servers that know the users of the providers, and the URL that names the providers."""

    def __init__(self, servers: list[RedisNode], sentinels: list[RedisNode], url: str) -> None:
        self.servers, self.sentinels, self.url = servers, sentinels, url

    def rotate(self, password: str) -> None:
        """Give both users another password, and close their connections."""
        for provider, nodes in ((of_servers, self.servers), (of_sentinels, self.sentinels)):
            provider.password = password
            for node in nodes:
                node("ACL", "SETUSER", provider.user, "on", "resetpass", f">{password}", "~*", "&*", "+@all")
                node("CLIENT", "KILL", "USER", provider.user)

    def forget(self) -> None:
        for provider, nodes in ((of_servers, self.servers), (of_sentinels, self.sentinels)):
            for node in nodes:
                node("ACL", "DELUSER", provider.user)


@pytest.fixture(params=["cluster", "sentinels"])
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    named = f"credential_provider={__name__}:of_servers"
    made: Any = request.getfixturevalue(request.param)
    if request.param == "cluster":
        yielded = Nodes(made.nodes, [], f"{made.url}?{named}")
    else:
        places = ",".join(node.place for node in made.sentinels)
        asked = f"{named}&sentinel_credential_provider={__name__}:of_sentinels"
        yielded = Nodes(made.servers, made.sentinels, f"redis+sentinel://{places}/{SERVICE}?{asked}")
    yield yielded
    yielded.forget()


@pytest.mark.parametrize("read_from", ["primary", "replica"])
@pytest.mark.parametrize("kind", CLIENTS)
def test_a_provider_that_a_url_names_follows_passwords_on_all_servers(nodes: Nodes, kind: str, read_from: str) -> None:
    nodes.rotate("first")
    url = f"{nodes.url}&read_from={read_from}"
    fill_with(url)
    client = CLIENTS[kind](url, "test")
    assert values(client) == {1, 2, 3}
    before = of_servers.asked
    for password in ("second", "third"):
        nodes.rotate(password)
        assert values(client) == {1, 2, 3}
        fill_with(url)  # writers, too
    assert of_servers.asked > before + 2
    client.close()


def test_a_wrong_password_of_a_provider_is_an_error_without_it(nodes: Nodes) -> None:
    nodes.rotate("first")
    fill_with(nodes.url)
    of_servers.password = of_sentinels.password = PASSWORD
    for make in CLIENTS.values():
        client = make(nodes.url, "test", timeout_s=5.0)
        with pytest.raises(OnlineStoreError) as caught:
            ask(client)
        assert PASSWORD not in str(caught.value)
        client.close()


@pytest.mark.parametrize(
    "scheme", ["redis://localhost", "redis+cluster://localhost", "redis+sentinel://localhost/main"]
)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:provider", "No module named 'no_such_module'"),
        (f"{__name__}:nothing", "has no attribute 'nothing'"),
        (f"{__name__}:not_a_provider", "'str' object is not callable"),
        (f"{__name__}:fails", "no token"),
        ("provider", "no colon"),
    ],
)
def test_a_name_that_leads_to_no_provider_is_refused(scheme: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match="credential provider") as caught:
        OnlineClient(f"{scheme}?credential_provider={name}", "test")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:t0p-s3cret@localhost?credential_provider=a:b",
        "redis+cluster://:t0p-s3cret@localhost?credential_provider=a:b",
        "redis+sentinel://localhost/main?sentinel_password=t0p-s3cret&sentinel_credential_provider=a:b",
    ],
)
def test_a_password_beside_a_provider_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="a password or a credential provider") as caught:
        OnlineClient(url, "test")
    assert "t0p" not in str(caught.value)


def fill_with(url: str) -> None:
    """Publish a plan and write rows, by a URL."""
    store = OnlineStore(url, "test")
    store.publish(plan_of(SERVED), over=store.published())
    write(store, numbers, [{"movie_id": i, "event_ts": NOW_US, "a": 1.0, "b": 2.0, "c": i} for i in range(1, 4)])
    store.close()


def values(client: Any) -> set[int]:
    return set(ask(client).to_dict()["c"])
