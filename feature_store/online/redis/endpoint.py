"""How Redis is reached: redis-py reads URLs and pools, and this library's connections send and receive the bytes.

This module maps redis-py's errors, and uses only its public parts. Both clients connect in the same way: they ask an
endpoint for an address (`finding`), open a connection to it, and exchange its greeting.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from feature_store.errors import OnlineStoreError, StoreConnectionError, StoreReplyError, StoreTimeoutError
from feature_store.online.redis.address import TCP, TLS, UNIX
from feature_store.online.redis.errors import is_reply_error, reply_error
from feature_store.online.redis.limit import Limit, checked_timeout
from feature_store.online.redis.location import Location
from feature_store.online.redis.resp import packed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    import redis

    from feature_store.online.redis.address import Address

_new_tuple = tuple.__new__
# A server that was asked where the keys are, and why its answer did not tell.
Failure: TypeAlias = "tuple[Address, OnlineStoreError | str]"


class Question(NamedTuple):
    """A question to another server, whose answer a connection needs first.

    Attributes:
        address: the address of the other server.
        command: the bytes to send after its greeting.
        servers: how many servers may still have to be asked. Each gets an equal share of the remaining time.
    """

    address: Address
    command: bytes
    servers: int


class Endpoint:
    """A Redis server, or the server that Sentinels name.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as redis-py reads it; `redis+sentinel://`, as redis/location.py reads
            it; or a redis-py connection pool (plain, TLS, Unix, blocking or a Sentinel's; of `redis` or
            `redis.asyncio`), of which only the options are read.
        timeout_s: seconds for a whole answer.

    Attributes:
        location: where the server is.
        number: the number of the endpoint, in the order in which endpoints were made.
        is_replica: whether the server is asked as a replica, which may be behind and takes no writes.
        is_forgotten: whether a newer map of the servers does not name it. It is never named again: another object is.

    Raises:
        ConfigError: the URL cannot be read, the pool is of an unknown class, or an option is not followed here.
    """

    is_replica = is_forgotten = False
    _numbers = itertools.count()

    def __init__(self, url: str | redis.ConnectionPool | Location, timeout_s: float) -> None:
        self.number = next(self._numbers)
        self.timeout_s = checked_timeout(timeout_s)
        self.location = url if isinstance(url, Location) else Location.of(url)
        self.shown = self.location.shown
        self._address = self.location.address
        self._sentinels = self.location.others if self.location.kind == "sentinel" else ()
        self._service, self._is_master = self.location.service, self.location.is_master
        if self._address.tls is not None:
            _ = self._address.tls.context  # reading certificates takes time that no request has

    @property
    def address(self) -> Address:
        """The address of the server. With Sentinels, the options of connections to the servers that they name."""
        return self._address

    def limit(self) -> Limit:
        """The limit of an answer that is requested now."""
        seconds = self.timeout_s
        # Every request makes a limit. This way it takes 0.3 µs instead of 1 µs.
        return _new_tuple(Limit, (time.monotonic() + seconds, seconds, "timeout_s", False))

    def finding(self) -> Generator[Question, Any, Address]:
        """Find the address to connect to. Yields the questions to Sentinels, and takes their replies.

        Raises:
            StoreConnectionError: no Sentinel names a server.
        """
        if not self._sentinels:
            return self._address
        failures: list[Failure] = []
        verb = b"GET-MASTER-ADDR-BY-NAME" if self._is_master else b"REPLICAS"
        command = packed(b"SENTINEL", verb, self._service.encode())
        for i, sentinel in enumerate(self._sentinels):
            try:
                reply = yield Question(sentinel, command, len(self._sentinels) - i + 1)
            except OnlineStoreError as error:
                failures.append((sentinel, error))
                continue
            node = master_of(reply) if self._is_master else _replica(reply)
            if node is not None:
                return replace(self._address, host=node[0], port=node[1], is_master=self._is_master)
            failures.append((sentinel, "knows no such server"))
        raise self.not_found("no Sentinel names it", failures)

    @cached_property
    def pool(self) -> redis.ConnectionPool:
        """A redis-py pool to the same server, for everything but reads of features."""
        import redis
        import redis.sentinel
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # A retry of redis-py would wait for the whole timeout again. A connection that died while it was idle is made
        # anew without retries.
        shared: dict[str, Any] = {
            "socket_timeout": self.timeout_s,
            "socket_connect_timeout": self.timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        address = self._address
        if self._sentinels:
            module: Any = redis.sentinel
            sentinels = module.Sentinel([])
            sentinels.sentinels = [redis.Redis(**_options(one), **shared) for one in self._sentinels]
            pool: redis.ConnectionPool = module.SentinelConnectionPool(
                self._service,
                sentinels,
                is_master=self._is_master,
                ssl=address.transport == TLS,
                **{name: value for name, value in _options(address).items() if name not in ("host", "port", "ssl")},
                **shared,
            )
            return pool
        options = _options(address)
        kind = {TCP: redis.Connection, TLS: redis.SSLConnection, UNIX: redis.UnixDomainSocketConnection}
        options.pop("ssl", None)
        return redis.ConnectionPool(connection_class=kind[address.transport], **options, **shared)

    @cached_property
    def client(self) -> redis.Redis:
        """A redis-py client, for everything but reads of features."""
        import redis

        return redis.Redis(connection_pool=self.pool)

    @contextlib.contextmanager
    def commands(self) -> Iterator[Any]:
        """A redis-py client whose errors become this library's, within the block."""
        with self.errors():
            yield self.client

    def close(self) -> None:
        """Close the connections of redis-py's pool. The endpoint can be used again."""
        if "pool" in self.__dict__:
            self.pool.disconnect()

    def close_idle(self) -> None:
        """Close the connections of redis-py's pool that no thread uses at this time."""
        if "pool" in self.__dict__:
            self.pool.disconnect(inuse_connections=False)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Map the errors of redis-py and of sockets to this library's errors."""
        import redis

        try:
            yield
        except redis.RedisError as error:
            raise self._mapped(error) from error
        except (TimeoutError, BlockingIOError) as error:
            raise self.timeout() from error
        except OSError as error:
            raise self.lost(str(error)) from error

    def _mapped(self, error: redis.RedisError) -> OnlineStoreError:
        import redis

        if isinstance(error, redis.TimeoutError):
            return self.timeout()
        if is_reply_error(error):
            return self.refused(error)
        return self.lost(str(error))

    def refused(self, reply: Exception) -> StoreReplyError:
        """The error for an error reply of Redis."""
        return reply_error(f"Redis at {self.shown}", reply)

    def timeout(self, limit: Limit | None = None) -> StoreTimeoutError:
        """The error for an answer that did not come in time."""
        seconds, setting = (limit.seconds, limit.setting) if limit is not None else (self.timeout_s, "timeout_s")
        return StoreTimeoutError(
            f"Redis at {self.shown}",
            expected=f"an answer within {seconds * 1000:g} ms",
            got="none",
            hint=f"is it overloaded, swapping or paused? The limit is {setting}, which connecting counts against, too",
        )

    def too_late(self, limit: Limit) -> StoreTimeoutError:
        """The error for a limit that ended before a command was sent."""
        return self.timeout(limit) if limit.has_waited else self.held_up(limit)

    def held_up(self, limit: Limit) -> StoreTimeoutError:
        """The error for a request that asked nothing before its time was over, because its process did not run."""
        error = StoreTimeoutError(
            f"request to Redis at {self.shown}",
            problem=f"its {limit.seconds * 1000:g} ms were over before anything was sent: this process was held up",
            hint="did it get too little CPU, or did other code block its thread or event loop? "
            f"The limit is {limit.setting}",
        )
        error.is_held_up = True
        return error

    def busy(self, limit: Limit, most: int) -> StoreTimeoutError:
        """The error for a request that waited for a connection until its time was over."""
        return StoreTimeoutError(
            f"Redis at {self.shown}",
            problem=f"no connection was free within {limit.seconds * 1000:g} ms: other requests use all {most}",
            hint=f"send fewer requests at once, or set max_connections; the limit is {limit.setting}",
        )

    def lost(self, reason: str) -> StoreConnectionError:
        """The error for a server that cannot be reached."""
        return StoreConnectionError(
            f"Redis at {self.shown}",
            expected="a connection",
            got=reason,
            hint="is the server running and the URL right?",
        )

    def not_found(self, reason: str, failures: Sequence[Failure]) -> StoreConnectionError:
        """The error when no server that was asked says where the keys are."""
        return self.lost(f"{reason} ({'; '.join(f'{asked.shown}: {_in_short(why)}' for asked, why in failures)})")


def _in_short(why: OnlineStoreError | str) -> str:
    if isinstance(why, str):
        return why
    if isinstance(why, StoreReplyError):
        return f"answers with the error {why.code}"
    return why.got if why.got != "none" else "no answer in time"


def master_of(reply: Any) -> tuple[str, int] | None:
    """Host and port in a reply to SENTINEL GET-MASTER-ADDR-BY-NAME; None when the Sentinel knows no such server."""
    return (reply[0].decode(), int(reply[1])) if isinstance(reply, list) and len(reply) == 2 else None


def replicas_of(reply: Any) -> list[tuple[str, int]]:
    """Hosts and ports of the replicas that serve, from a reply to SENTINEL REPLICAS."""
    listed = [dict(zip(flat[::2], flat[1::2], strict=False)) for flat in reply or ()]
    serving = [one for one in listed if not {b"s_down", b"o_down", b"disconnected"} & {*one[b"flags"].split(b",")}]
    return [(one[b"ip"].decode(), int(one[b"port"])) for one in serving]


def _replica(reply: Any) -> tuple[str, int] | None:
    """A random replica of those that serve; None when no replica serves."""
    serving = replicas_of(reply)
    return random.choice(serving) if serving else None


def _options(address: Address) -> dict[str, Any]:
    """An address as options of redis-py."""
    given = {
        "host": address.host,
        "port": address.port,
        "path": address.path,
        "username": address.username,
        "password": address.password,
        "client_name": address.client_name,
        "credential_provider": address.provider,
    }
    unused = ("host", "port") if address.transport == UNIX else ("path",)
    options = {name: value for name, value in given.items() if name not in unused and value}
    options["db"] = address.db
    return options if address.tls is None else {**options, **address.tls.options, "ssl": True}
