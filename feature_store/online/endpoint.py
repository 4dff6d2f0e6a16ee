"""How Redis is reached. redis-py reads the URL, connects, encrypts and authenticates; from then on the bytes are ours.

This module is redis-py's one door in the package: it maps its errors, and nothing else sees its private parts.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Any

from feature_store.errors import ConfigError, OnlineStoreError, StoreConnectionError, StoreTimeoutError
from feature_store.online.redis_errors import is_reply_error, reply_error
from feature_store.redaction import hide_password, redacted, with_quoted_password, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis


class Endpoint:
    """A Redis server.

    Args:
        url: `redis://`, `rediss://` or `unix://`, as redis-py reads it; or a connection pool of redis-py's, such as a
            Sentinel's.
        timeout_s: seconds to wait to connect, and for each piece of an answer.

    Raises:
        ConfigError: the URL cannot be read.
    """

    def __init__(self, url: str | redis.ConnectionPool, timeout_s: float) -> None:
        import redis

        self.timeout_s = timeout_s
        if not isinstance(url, str):
            self.shown, self.pool = "the given connection pool", url
            return
        url = with_quoted_password(url)
        hide_password(url)
        self.shown = redacted(without_secrets(url))
        try:
            # RESP 2, whose nil is the same for every type; no notifications, so that replies are all that comes.
            self.pool = redis.ConnectionPool.from_url(
                url, protocol=2, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
            )
        except ValueError as error:
            raise ConfigError(
                f"online store URL {self.shown}", expected="redis://, rediss:// or unix://", got=str(error)
            ) from None

    def client(self) -> redis.Redis:
        """A redis-py client, for what is not on the read path."""
        import redis

        return redis.Redis(connection_pool=self.pool)

    def connect(self) -> tuple[socket.socket, Any]:
        """A connected and authenticated socket, and what must be kept as long as it is used.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server cannot be reached.
        """
        with self.errors():
            connection = self.pool.connection_class(**self.pool.connection_kwargs)
            connection.connect()
        connected: socket.socket = connection._sock
        if connected.type == socket.SOCK_STREAM and type(connected) is socket.socket:
            # A blocking socket whose time limit the kernel keeps: one system call a read instead of poll and read.
            connected.settimeout(None)
            limit = struct.pack("ll", int(self.timeout_s), int(self.timeout_s % 1 * 1_000_000))
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        return connected, connection

    async def connect_async(self) -> Any:
        """The asyncio transport of a connected and authenticated connection, and what must be kept with it.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server cannot be reached.
        """
        import redis
        import redis.asyncio.connection as asynchronous

        classes: dict[Any, Any] = {
            redis.Connection: asynchronous.Connection,
            redis.SSLConnection: asynchronous.SSLConnection,
            redis.UnixDomainSocketConnection: asynchronous.UnixDomainSocketConnection,
        }
        kwargs = dict(self.pool.connection_kwargs)
        for name in [name for name in kwargs if name.startswith("maint_notifications") or name == "retry"]:
            del kwargs[name]
        with self.errors():
            connection = classes.get(self.pool.connection_class, asynchronous.Connection)(**kwargs)
            await connection.connect()
        return connection._writer.transport, connection

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Map what redis-py and sockets raise to this library's errors."""
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
            return reply_error(f"Redis at {self.shown}", error)
        return self.lost(str(error))

    def timeout(self) -> StoreTimeoutError:
        """The error for an answer that did not come in time."""
        return StoreTimeoutError(
            f"Redis at {self.shown}",
            expected=f"an answer within {self.timeout_s * 1000:g} ms",
            got="none",
            hint="is it overloaded, swapping or paused? The limit is timeout_s",
        )

    def lost(self, reason: str) -> StoreConnectionError:
        """The error for a server that cannot be reached."""
        return StoreConnectionError(
            f"Redis at {self.shown}",
            expected="a connection",
            got=reason,
            hint="is the server running and the URL right?",
        )
