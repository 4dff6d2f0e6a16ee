"""Which Redis server holds a key: one interface for one server, for Sentinels and for a Cluster.

All code that talks to Redis asks a `Topology`: clients for a pool of connections, writers and readers for the node of a
key, scans for all nodes, publications for the keys that one script may name. To add a topology, write a class with
these members, let `connect` choose it by its URL, and run `feature_store.testing.topology` on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from feature_store.online.redis.endpoint import Endpoint
from feature_store.online.redis.location import Location
from feature_store.online.redis.pool import Pool
from feature_store.online.redis.scanning import scan_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import redis

    from feature_store.errors import OnlineStoreError
    from feature_store.online.observer import Observers
    from feature_store.online.redis.async_pool import AsyncPool
    from feature_store.online.redis.following import Recovery, Route
    from feature_store.online.redis.limit import Limit
    from feature_store.online.redis.resp import Command


class Topology(Protocol):
    """The Redis servers of one store.

    Each key belongs to one node. Keys with the same hash tag, `{project:bucket}`, belong to the same node, and one
    command, transaction or script may name several of them. `together` tells whether it may name keys of several tags.
    """

    @property
    def shown(self) -> str:
        """Where the store is, without a password, for errors and people."""
        ...

    @property
    def is_one_node(self) -> bool:
        """Whether one server has all keys: one command may name keys of any hash tags."""
        ...

    @property
    def only_server(self) -> Endpoint | None:
        """The server that answers all reads as long as the store is in use; None when the server may change."""
        ...

    def limit(self) -> Limit:
        """The time limit of an answer that is requested now."""
        ...

    def node(self, key: bytes) -> Endpoint:
        """The node that holds a key and takes writes of it."""
        ...

    def nodes(self) -> Sequence[Endpoint]:
        """All nodes that hold keys: each key is on exactly one of them."""
        ...

    def commands(self, key: bytes) -> AbstractContextManager[Any]:
        """The commands of a redis-py client. Each is sent to the node that holds `key` at that time.

        Within the block, their errors become this library's. After an error, a call is sent where `recovery` says.
        """
        ...

    def recovery(self, key: bytes) -> Recovery:
        """The recovery of one call about a key: how the call is sent again after an error."""
        ...

    def scan(self, key: bytes, prefix: bytes) -> Iterator[list[bytes]]:
        """The keys with the hash tag of `key` that start with `prefix`, some at a time.

        A key that exists during the whole scan is returned at least once. A key that is added or deleted meanwhile may
        be returned.
        """
        ...

    def scan_all(self, prefix: bytes) -> Iterator[list[bytes]]:
        """The keys on all nodes that start with `prefix`; see `scan`."""
        ...

    def together(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        """The keys in groups, each of which one script may name. The first key is in the first group."""
        ...

    def pool(self, observers: Observers, most: int | None) -> ClientPool:
        """Connections of a client that threads share.

        Args:
            observers: the client's observers.
            most: the most connections of the client; None for the number of the URL or pool, else 64.

        Raises:
            ConfigError: `most` is not a number greater than 0.
        """
        ...

    def async_pool(self, observers: Observers, most: int | None) -> AsyncClientPool:
        """Connections of a client of one event loop; see `pool`."""
        ...

    def close(self) -> None:
        """Close the connections that `node` and `nodes` opened. Pools are closed by their clients."""
        ...


class ClientPool(Protocol):
    """The connections by which a client that threads share exchanges its commands."""

    @property
    def size(self) -> int:
        """How many connections there are, idle or in use."""
        ...

    @property
    def waiting(self) -> int:
        """How many requests wait for a connection."""
        ...

    def exchange(self, commands: Sequence[Command], limit: Limit) -> None:
        """Send commands that only read, each to the node of its key, all at once, and take their replies.

        When it returns, each parser is complete. When it raises, some may be complete. Afterwards nothing writes into
        the parsers.

        Raises:
            StoreConnectionError: a server cannot be reached, or closed the connection.
            StoreTimeoutError: a server does not answer in time, or no connection was free.
            StoreReplyError: a server answers with an error.
        """
        ...

    def close(self) -> None:
        """Close the idle connections. The pool can be used again."""
        ...


class AsyncClientPool(Protocol):
    """The connections by which a client of one event loop exchanges its commands; see ClientPool."""

    @property
    def size(self) -> int:
        """See ClientPool."""
        ...

    @property
    def waiting(self) -> int:
        """See ClientPool."""
        ...

    async def exchange(self, commands: Sequence[Command], limit: Limit) -> None:
        """See ClientPool.

        Raises:
            StoreConnectionError, StoreTimeoutError, StoreReplyError: as ClientPool.
            OnlineStoreError: the pool belongs to another event loop.
        """
        ...

    def close(self) -> None:
        """Close the idle connections. The pool can be used again, by another event loop too."""
        ...


class Single:
    """One Redis server, or the server that the Sentinels of a redis-py pool name. It holds all keys.

    Args:
        url: as in `OnlineClient`.
        timeout_s: seconds for a whole answer.

    Raises:
        ConfigError: the URL cannot be read.
    """

    def __init__(self, url: str | redis.ConnectionPool | Location, timeout_s: float) -> None:
        self._endpoint = Endpoint(url, timeout_s)
        # The endpoint's own method: each request asks for its limit, and one call less saves 0.05 µs.
        self.limit: Callable[[], Limit] = self._endpoint.limit

    @property
    def shown(self) -> str:
        """See Topology."""
        return self._endpoint.shown

    @property
    def is_one_node(self) -> bool:
        """See Topology."""
        return True

    @property
    def only_server(self) -> Endpoint | None:
        """See Topology."""
        return self._endpoint if self._endpoint.location.kind == "server" else None

    def node(self, key: bytes) -> Endpoint:
        """See Topology."""
        return self._endpoint

    def nodes(self) -> Sequence[Endpoint]:
        """See Topology."""
        return (self._endpoint,)

    def commands(self, key: bytes) -> AbstractContextManager[Any]:
        """See Topology."""
        return self._endpoint.commands()

    def recovery(self, key: bytes) -> Recovery:
        """See Topology: no other server has the keys."""
        return _NO_RECOVERY

    def scan(self, key: bytes, prefix: bytes) -> Iterator[list[bytes]]:
        """See Topology."""
        return scan_node(self._endpoint, prefix)

    def scan_all(self, prefix: bytes) -> Iterator[list[bytes]]:
        """See Topology."""
        return scan_node(self._endpoint, prefix)

    def together(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        """See Topology."""
        return [list(keys)]

    def pool(self, observers: Observers, most: int | None) -> Pool:
        """See Topology."""
        return Pool(self._endpoint, observers, self._endpoint.location.most(most))

    def async_pool(self, observers: Observers, most: int | None) -> AsyncPool:
        """See Topology."""
        from feature_store.online.redis.async_pool import AsyncPool  # asyncio: 20 ms that threads do not need

        return AsyncPool(self._endpoint, observers, self._endpoint.location.most(most))

    def close(self) -> None:
        """See Topology."""
        self._endpoint.close()


class _NoRecovery:
    """Raises every error: the caller decides whether to call again."""

    def after(self, error: OnlineStoreError) -> Route:
        """See Recovery."""
        raise error

    def wait(self) -> None:
        """See Recovery."""


_NO_RECOVERY = _NoRecovery()


def connect(url: str | redis.ConnectionPool, timeout_s: float) -> Topology:
    """The topology of a URL or a redis-py pool. No connection is opened yet.

    Args:
        url: a URL that redis/location.py reads, or a redis-py pool.
        timeout_s: seconds for a whole answer.

    Raises:
        ConfigError: the URL cannot be read, or the pool is of an unknown class.
    """
    location = Location.of(url)
    if location.kind == "cluster":
        from feature_store.online.redis.cluster import Cluster  # only users of a Cluster pay for its import

        return Cluster(location, timeout_s)
    if location.kind == "sentinel" and isinstance(url, str):
        from feature_store.online.redis.sentinel import Sentinels

        return Sentinels(location, timeout_s)
    return Single(location, timeout_s)
