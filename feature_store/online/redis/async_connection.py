"""Connections of asyncio and uvloop: each receives straight into a request's parser; and a bounded pool of them.

Timers are set to a time rather than after a delay: uvloop counts delays from the time when its loop last woke, so that
they end too early in a process that was busy since. The clock of both loops is that of `time.monotonic`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import hiredis

from feature_store.errors import OnlineStoreError
from feature_store.online.redis.address import UNIX, is_replica
from feature_store.online.redis.pool import IDLE_S
from feature_store.online.redis.replies import Replies
from feature_store.online.redis.resp import Command, ReplyParser
from feature_store.online.redis.retry import may_send_again

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.errors import StoreReplyError
    from feature_store.online.observer import Observers
    from feature_store.online.redis.address import Address
    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.limit import Limit


class AsyncConnection(asyncio.BufferedProtocol):
    """One connection with the commands of at most one request under way."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._replies = Replies()
        self._done: asyncio.Future[None] | None = None
        self._lost = ""
        self._stray = memoryview(bytearray(1))
        self.idle_since = 0.0

    @classmethod
    async def open(cls, endpoint: Endpoint, limit: Limit) -> AsyncConnection:
        """Connect and authenticate.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server cannot be reached, or not in time.
            StoreReplyError: the server refuses the user, the password or the database.
            ConfigError: a file of certificates or keys cannot be read.
        """
        return await cls.to(await _find(endpoint, limit), endpoint, limit)

    @classmethod
    async def to(cls, address: Address, endpoint: Endpoint, limit: Limit) -> AsyncConnection:
        """A connection to one address of an endpoint: a Sentinel's, say."""
        connection = cls(endpoint)
        try:
            async with asyncio.timeout_at(limit.at):
                given = await connection._credentials(address)
                await connection._connect(address, limit)
        except OnlineStoreError:
            raise
        except TimeoutError as error:
            connection.close()
            raise endpoint.timeout(limit) from error
        except OSError as error:
            connection.close()
            raise endpoint.lost(str(error)) from error
        except BaseException:
            connection.close()
            raise
        try:
            await connection._greet(address, given, limit)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _credentials(self, address: Address) -> tuple[str, ...]:
        if address.credential_provider is None:
            return address.credentials()
        return await self._loop.run_in_executor(None, address.credentials)  # it may ask a server

    async def _connect(self, address: Address, limit: Limit) -> None:
        if address.transport == UNIX:
            await self._loop.create_unix_connection(lambda: self, address.path)
            return
        context = address.tls.context if address.tls is not None else None
        places = await self._loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        for i, (*_, place) in enumerate(places):
            try:
                async with asyncio.timeout_at(limit.share(len(places) - i).at):
                    await self._loop.create_connection(
                        lambda: self,
                        str(place[0]),
                        address.port,
                        ssl=context,
                        server_hostname=address.host if context is not None else None,
                    )
            except OSError:
                if i == len(places) - 1:
                    raise
            else:
                with contextlib.suppress(OSError):
                    self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                return

    async def _greet(self, address: Address, credentials: tuple[str, ...], limit: Limit) -> None:
        commands = address.greeting(credentials)
        if not commands:
            return
        replies = await self.replies(commands, limit)
        for reply in replies[:-1] if address.is_master else replies:
            if isinstance(reply, Exception):
                raise self._endpoint.refused(reply)
        if address.is_master and is_replica(replies):
            raise self._endpoint.lost(f"{address.shown}, which the Sentinels name, is no master")

    async def replies(self, commands: list[bytes], limit: Limit) -> list[Any]:
        """The replies to commands, errors among them."""
        parser = ReplyParser(len(commands))
        await self.exchange([Command(b"", b"".join(commands), parser)], limit)
        return parser.replies

    async def exchange(self, commands: Sequence[Command], limit: Limit) -> None:
        """Send commands at once and take their replies. After a timeout, some parsers may be complete.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server went away, or does not answer in time.
        """
        if self._lost:
            raise self._endpoint.lost(self._lost)
        self._done = self._loop.create_future()
        self._replies.expect([command.parser for command in commands])
        timer = self._loop.call_at(limit.at, self._expire, limit)
        self._transport.write(
            commands[0].data if len(commands) == 1 else b"".join([command.data for command in commands])
        )
        try:
            await self._done
        finally:
            timer.cancel()
            self._done = None

    def close(self) -> None:
        """Close the transport."""
        self._lost = self._lost or "the connection was closed"
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop when the connection is there, encrypted where it is to be."""
        self._transport = transport
        if self._lost:  # it was given up while it was made
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop puts what it receives.

        Always a view: asyncio takes slices of the buffer under TLS, and a slice of a bytearray is a copy.
        """
        return self._replies.buffer() if self._replies else self._stray

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the loop when bytes have come."""
        if not self._replies or self._done is None:
            self._fail(self._endpoint.lost("bytes without a request"))
            self._transport.abort()
            return
        try:
            self._replies.received(nbytes)
        except hiredis.HiredisError as error:
            self._fail(self._endpoint.lost(f"bytes that are not the Redis protocol ({error})"))
            return
        except OnlineStoreError as error:  # the parser does not take the reply, whose rest is on its way
            self._fail(error)
            self._transport.abort()
            return
        if not self._replies and not self._done.done():
            self._done.set_result(None)

    def eof_received(self) -> None:
        """Called by the loop when the server has closed its side."""
        self._fail(self._endpoint.lost("the server closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop when the connection is gone."""
        self._fail(self._endpoint.lost(str(exc or "the connection was closed")))

    def _expire(self, limit: Limit, *, is_last_look: bool = False) -> None:
        if self._done is None or self._done.done():
            return
        if is_last_look:
            self._fail(self._endpoint.timeout(limit))
            return
        # A process that got no time itself may find the timer due and the reply there at once: it looks for that first.
        self._loop.call_later(0, partial(self._expire, limit, is_last_look=True))

    def _fail(self, error: OnlineStoreError) -> None:
        self._lost = self._lost or error.got
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


class AsyncPool:
    """Connections of one event loop, the last used first. One that failed is never used again.

    When all are in use, requests wait in the order in which they came, as long as their limits in time let them.

    Args:
        endpoint: where they lead.
        observers: get a call when a connection was dead and the request goes on with another.
        most: how many connections there are at most.
    """

    def __init__(self, endpoint: Endpoint, observers: Observers, most: int) -> None:
        self._endpoint, self._observers, self._most = endpoint, observers, most
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: deque[AsyncConnection] = deque()
        self._waiting: deque[asyncio.Future[AsyncConnection | None]] = deque()
        self._open = 0

    async def exchange(self, commands: Sequence[Command], limit: Limit) -> None:
        """Send commands that only read, and take their replies; once more when an idle connection turns out dead.

        Raises:
            StoreConnectionError: the server cannot be reached, or closed the connection.
            StoreTimeoutError: the server does not answer in time, or no connection was free. Some parsers may be
                complete.
            StoreReplyError: the server answers with an error.
            OnlineStoreError: the pool belongs to another event loop.
        """
        await self.ask(commands, limit)
        for command in commands:
            parser = command.parser
            if not parser.fixed and parser.error is not None:
                raise self.refused(parser.error)

    async def ask(self, commands: Sequence[Command], limit: Limit) -> None:
        """As `exchange`, but error replies stay in their parsers.

        Raises:
            StoreConnectionError, StoreTimeoutError, OnlineStoreError: as `exchange`.
        """
        while True:
            connection, is_new = await self._take(limit)
            try:
                await connection.exchange(commands, limit)
            except BaseException as error:  # cancellation too: an answer may still come to this connection
                self._discard(connection)
                if not may_send_again(error, commands, is_new=is_new):
                    raise
                self._close_idle()  # a server that restarted has closed them all
                self._observers.reconnected()
            else:
                self._give_back(connection, limit.at - limit.seconds)
                return

    @property
    def size(self) -> int:
        """How many connections there are, idle or in use."""
        return self._open

    @property
    def waiting(self) -> int:
        """How many requests wait for a connection."""
        return len(self._waiting)

    def close(self) -> None:
        """Close the idle connections. The pool can be used again, by another event loop too."""
        if self._loop is not None and self._loop.is_closed():
            self._idle.clear()
            self._open = 0
        self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            self._discard(self._idle.pop())

    def refused(self, reply: Exception) -> StoreReplyError:
        """The error for an error reply. Connections that lead to a server that cannot serve are closed."""
        error = self._endpoint.refused(reply)
        if error.is_wrong_server:
            self._close_idle()
        return error

    async def _take(self, limit: Limit) -> tuple[AsyncConnection, bool]:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._join(loop)
        if self._idle and not self._waiting:
            return self._idle.pop(), False
        if self._open >= self._most or self._waiting:
            connection = await self._wait(loop, limit)
            if connection is not None:
                return connection, False
        else:
            self._open += 1
        try:
            return await AsyncConnection.open(self._endpoint, limit), True
        except BaseException:
            self._free()
            raise

    async def _wait(self, loop: asyncio.AbstractEventLoop, limit: Limit) -> AsyncConnection | None:
        """A connection that another request gives back; None: leave to make one."""
        waiter: asyncio.Future[AsyncConnection | None] = loop.create_future()
        self._waiting.append(waiter)
        timer = loop.call_at(limit.at, self._too_late, waiter, limit)
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # It was served, and then cancelled before it could go on.
                connection = waiter.result()
                if connection is None:
                    self._free()
                else:
                    self._give_back(connection, None)
            raise
        finally:
            timer.cancel()

    def _too_late(self, waiter: asyncio.Future[AsyncConnection | None], limit: Limit) -> None:
        if not waiter.done():
            waiter.set_exception(self._endpoint.busy(limit, self._most))

    def _give_back(self, connection: AsyncConnection, began: float | None) -> None:
        if began is not None:
            connection.idle_since = began
        waiter = self._next()
        if waiter is not None:
            waiter.set_result(connection)
            return
        self._idle.append(connection)
        if began is not None and len(self._idle) > 1 and self._idle[0].idle_since < began - IDLE_S:
            self._discard(self._idle.popleft())

    def _discard(self, connection: AsyncConnection) -> None:
        connection.close()
        self._free()

    def _free(self) -> None:
        """Allow another connection in place of a closed one."""
        waiter = self._next()
        if waiter is not None:
            waiter.set_result(None)
        else:
            self._open -= 1

    def _next(self) -> asyncio.Future[AsyncConnection | None] | None:
        """The first request that still waits."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter
        return None

    def _join(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._open:
            raise OnlineStoreError(
                "AsyncOnlineClient",
                problem="its connections belong to another event loop"
                + (", which is closed" if self._loop is not None and self._loop.is_closed() else ""),
                hint="make one client for each event loop, and close it (`async with`) before its loop ends",
            )
        self._loop = loop


async def _find(endpoint: Endpoint, limit: Limit) -> Address:
    """The address of an endpoint, asking Sentinels where there are some."""
    steps = endpoint.finding()
    try:
        question = next(steps)
        while True:
            try:
                reply = await _asked(question.address, question.command, endpoint, limit.share(question.servers))
            except OnlineStoreError as error:
                question = steps.throw(error)
            except TimeoutError:
                raise endpoint.timeout(limit) from None
            else:
                question = steps.send(reply)
    except StopIteration as finished:
        address: Address = finished.value
        return address


async def _asked(address: Address, command: bytes, endpoint: Endpoint, limit: Limit) -> Any:
    connection = await AsyncConnection.to(address, endpoint, limit)
    try:
        (reply,) = await connection.replies([command], limit)
    finally:
        connection.close()
    if isinstance(reply, Exception):
        raise endpoint.refused(reply)
    return reply
