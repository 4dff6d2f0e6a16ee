"""Where Redis is: URLs and pools of redis-py, read into addresses.

    redis://user:password@host:6379/0                                 one server; rediss:// with TLS
    unix:///run/redis.sock
    redis+cluster://user:password@host:6379,host:6379                 a Cluster, with the names of some of its nodes
    redis+sentinel://user:password@host:26379,host:26379/service/0    the servers that Sentinels name; user and password
                                                                      are those of the servers
`rediss+cluster` and `rediss+sentinel` use TLS, for Sentinels too. Options follow after `?`: those of redis-py, and

    read_from            primary (the default), replica or nearest: where clients read features; Cluster and Sentinel
    hedge                true: a read that a server is slow to answer is sent to another server, too; see hedging.py
    credential_provider  module:name of a provider of user and password, instead of those of the URL; see providers.py
    sentinel_username, sentinel_password, sentinel_credential_provider    for the Sentinels
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode

from feature_store._redaction import hide, hide_password, redacted, with_quoted_password, without_secrets
from feature_store.errors import ConfigError
from feature_store.online.redis.address import TCP, TLS, UNIX, Address, check_host
from feature_store.online.redis.providers import provider_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    import redis

# The most connections of one client. One connection answers some thousand requests a second, and Redis runs one command
# at a time. With more connections, requests wait inside Redis, not in the client's queue, which keeps time limits.
MOST_CONNECTIONS = 64
PRIMARY, REPLICA, NEAREST = "primary", "replica", "nearest"
_READ_FROM = (PRIMARY, REPLICA, NEAREST)
_OF_SENTINELS = ("sentinel_username", "sentinel_password", "sentinel_credential_provider")
_DEFAULT_PORTS = {"cluster": 6379, "sentinel": 26379}
# The classes that a redis-py connection pool may consist of, by module and name. A subclass can add checks, which this
# client would silently leave out.
_TRANSPORTS = {
    ("redis.connection", "Connection"): TCP,
    ("redis.connection", "SSLConnection"): TLS,
    ("redis.connection", "UnixDomainSocketConnection"): UNIX,
    ("redis.asyncio.connection", "Connection"): TCP,
    ("redis.asyncio.connection", "SSLConnection"): TLS,
    ("redis.asyncio.connection", "UnixDomainSocketConnection"): UNIX,
    ("redis.sentinel", "SentinelManagedConnection"): TCP,
    ("redis.sentinel", "SentinelManagedSSLConnection"): TLS,
    ("redis.asyncio.sentinel", "SentinelManagedConnection"): TCP,
    ("redis.asyncio.sentinel", "SentinelManagedSSLConnection"): TLS,
}
_POOLS = {
    ("redis.connection", "ConnectionPool"),
    ("redis.connection", "BlockingConnectionPool"),
    ("redis.asyncio.connection", "ConnectionPool"),
    ("redis.asyncio.connection", "BlockingConnectionPool"),
}
_SENTINEL_POOLS = {
    ("redis.sentinel", "SentinelConnectionPool"),
    ("redis.asyncio.sentinel", "SentinelConnectionPool"),
}
_SEVERAL = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>cluster|sentinel)://"
    r"(?P<user>[^@/?#]*@)?(?P<hosts>[^@/?#]*)(?P<path>/[^?#]*)?(\?(?P<options>[^#]*))?"
)
_HOST = re.compile(r"(\[(?P<v6>[^]]+)\]|(?P<name>[^:\[\]]+))(:(?P<port>\d{1,5}))?")
_FORMS = "redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://"


@dataclass(frozen=True)
class Location:
    """The servers of a store, as a URL or a pool names them.

    Attributes:
        kind: `server`, `cluster` or `sentinel`.
        address: the server's address. For a Cluster, the first node that the URL names. For Sentinels, the options of
            connections to the servers that they name; the host is not used.
        shown: the location for people, without a password.
        most_connections: the most connections of one client to one server.
        others: the addresses of the Cluster's other nodes, or of the Sentinels.
        service: the name that the Sentinels give to the primary and its replicas.
        is_master: whether the Sentinels are asked for the primary, rather than for a replica.
        read_from: where clients read features.
        is_hedged: whether slow reads are sent to another server, too.
    """

    kind: str
    address: Address
    shown: str
    most_connections: int
    others: tuple[Address, ...] = ()
    service: str = ""
    is_master: bool = True
    read_from: str = PRIMARY
    is_hedged: bool = False

    @classmethod
    def of(cls, url: str | redis.ConnectionPool) -> Location:
        """Read a URL or a pool.

        Raises:
            ConfigError: the URL cannot be read, the pool is of an unknown class, or an option is not followed here.
        """
        if not isinstance(url, str):
            return _of_pool(url)
        url = with_quoted_password(url)
        hide_password(url)
        several = _SEVERAL.fullmatch(url)
        return _of_server(url) if several is None else _of_several(several)

    def most(self, given: int | None) -> int:
        """The most connections of a client: `given`, else the number of the URL or pool, else 64.

        Raises:
            ConfigError: `given` is not a number greater than 0.
        """
        if given is None:
            return self.most_connections
        if not isinstance(given, int) or isinstance(given, bool) or given < 1:
            raise ConfigError("max_connections", expected="a number greater than 0", got=repr(given))
        return given


def is_cluster(url: object) -> bool:
    """Whether a URL names a Redis Cluster."""
    return isinstance(url, str) and url.startswith(("redis+cluster://", "rediss+cluster://"))


def _of_server(url: str) -> Location:
    import redis

    shown = redacted(without_secrets(url))
    where = f"online store URL {shown}"
    try:
        pool = redis.ConnectionPool.from_url(url)
    except ValueError as error:
        raise ConfigError(where, expected=_FORMS, got=str(error)) from None
    transport = _TRANSPORTS[_name_of(pool.connection_class)]
    address = Address.of(transport, _set_options(pool), where, known_only=True)
    return Location("server", address, shown, _most_connections(pool))


def _of_several(found: re.Match[str]) -> Location:
    kind = found["kind"]
    shown = redacted(without_secrets(found[0]))
    where = f"online store URL {shown}"
    service, _, db = (found["path"] or "").removeprefix("/").partition("/")
    if kind == "cluster":
        service, db = "", service
    if db not in ("", "0") and (kind == "cluster" or not db.isdigit()):
        expected = "database 0: a Cluster has no other" if kind == "cluster" else "/service or /service/database"
        raise ConfigError(where, expected=expected, got=repr(db))
    if kind == "sentinel" and not service:
        raise ConfigError(where, expected="the Sentinels' name of the primary: …/service", got="none")
    options = dict(parse_qsl(found["options"] or "", keep_blank_values=True))
    own = {name: options.pop(name, "") for name in ("read_from", "hedge", *_OF_SENTINELS)}
    hide(own["sentinel_password"])
    _check_reads(own["read_from"], own["hedge"], where)
    if kind == "cluster" and any(own[name] for name in _OF_SENTINELS):
        raise ConfigError(where, expected="no user of Sentinels: a Cluster has none", got="one")
    hosts = [_host(text, _DEFAULT_PORTS[kind], where) for text in found["hosts"].split(",")]
    first = _of_server(
        f"{found['scheme']}://{found['user'] or ''}localhost/{db}" + (f"?{urlencode(options)}" if options else "")
    )
    address = replace(first.address, host=hosts[0][0], port=hosts[0][1])
    if kind == "cluster":
        others = tuple(replace(address, host=host, port=port) for host, port in hosts[1:])
    else:
        others = tuple(_sentinel(address, own, host, port, where) for host, port in hosts)
    return Location(
        kind,
        address,
        shown,
        first.most_connections,
        others,
        unquote(service),
        read_from=own["read_from"] or PRIMARY,
        is_hedged=own["hedge"] == "true",
    )


def _check_reads(read_from: str, hedge: str, where: str) -> None:
    if read_from not in ("", *_READ_FROM):
        raise ConfigError(where, expected=f"read_from of {', '.join(_READ_FROM)}", got=repr(read_from))
    if hedge not in ("", "true", "false"):
        raise ConfigError(where, expected="hedge=true or hedge=false", got=repr(hedge))
    if hedge == "true" and read_from in ("", PRIMARY):
        raise ConfigError(
            where,
            problem="hedge=true lets replicas answer reads, and read_from does not",
            hint="add read_from=nearest or read_from=replica",
        )


def _sentinel(of_servers: Address, own: Mapping[str, str], host: str, port: int, where: str) -> Address:
    """The address of a Sentinel: TLS as of the servers, with a user or a provider of its own."""
    name = own["sentinel_credential_provider"]
    if name and (own["sentinel_username"] or own["sentinel_password"]):
        raise ConfigError(where, expected="a password or a credential provider for the Sentinels", got="both")
    return replace(
        of_servers,
        host=host,
        port=port,
        db=0,
        username=own["sentinel_username"],
        password=own["sentinel_password"],
        credential_provider=provider_named(name, where) if name else None,
    )


def _host(text: str, port: int, where: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None or not 0 < int(found["port"] or port) < 1 << 16:
        raise ConfigError(where, expected="hosts with ports, joined by commas: host:port,host:port", got=repr(text))
    host = found["v6"] or found["name"]
    check_host(host, where)
    return host, int(found["port"] or port)


def _of_pool(pool: Any) -> Location:
    where, kind = "connection pool", _name_of(type(pool))
    transport = _TRANSPORTS.get(_name_of(getattr(pool, "connection_class", None)))
    if kind not in _POOLS | _SENTINEL_POOLS or transport is None:
        made_of = getattr(getattr(pool, "connection_class", None), "__qualname__", "nothing known")
        raise ConfigError(
            where,
            expected="a URL, or redis-py's own ConnectionPool, BlockingConnectionPool or SentinelConnectionPool of "
            "its own connection classes",
            got=f"{type(pool).__qualname__} of {made_of}",
            hint="a subclass may encrypt or check what this client would not: give a URL instead",
        )
    options = {name: value for name, value in pool.connection_kwargs.items() if name != "connection_pool"}
    most = _most_connections(pool)
    address = Address.of(transport, options, where, known_only=False)
    if kind not in _SENTINEL_POOLS:
        return Location("server", address, address.shown, most)
    sentinels = tuple(_sentinel_address(client) for client in pool.sentinel_manager.sentinels)
    shown = f"{'master' if pool.is_master else 'replica'} {pool.service_name!r} of the Sentinels"
    return Location("sentinel", address, shown, most, sentinels, pool.service_name, pool.is_master)


def _name_of(kind: Any) -> tuple[str, str]:
    return getattr(kind, "__module__", ""), getattr(kind, "__qualname__", "")


def _set_options(pool: redis.ConnectionPool) -> dict[str, Any]:
    """The options that a URL sets, without those that redis-py adds to every pool."""
    import redis

    added = redis.ConnectionPool().connection_kwargs
    return {name: value for name, value in pool.connection_kwargs.items() if name not in added}


def _most_connections(pool: Any) -> int:
    """The `max_connections` that a pool was given, else MOST_CONNECTIONS."""
    import redis

    given: int = pool.max_connections
    return MOST_CONNECTIONS if given == redis.ConnectionPool().max_connections else given


def _sentinel_address(client: Any) -> Address:
    transport = _TRANSPORTS.get(_name_of(client.connection_pool.connection_class))
    if transport is None:
        raise ConfigError(
            "Sentinels of the connection pool", expected="redis-py's own connection classes", got="others"
        )
    return Address.of(transport, client.connection_pool.connection_kwargs, "Sentinel", known_only=False)
