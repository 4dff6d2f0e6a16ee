"""Connections of asyncio and uvloop, each with many requests under way: Redis answers in the order of the commands.

Commands that are sent within one step of the event loop leave in one write. A request may end without its replies,
because its time is over or its task was cancelled. Then other parsers take its replies and drop them.

Timers are set to a time rather than to a delay. uvloop counts a delay from the time when its loop last woke, so a delay
ends too early in a process that was busy since. The clock of both loops is that of `time.monotonic`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import hiredis

from feature_store.errors import OnlineStoreError
from feature_store.online.redis.async_opening import Opened, connect, find, try_out
from feature_store.online.redis.replies import Replies
from feature_store.online.redis.resp import Command, ReplyParser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from feature_store.online.redis.address import Address
    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.limit import Limit

# A connection with more unsent bytes than this gets no more commands. These are the bytes of about 100 requests.
_MOST_WAITING_BYTES = 1 << 20


# A connection that owes replies and has been silent for this long gets no commands while there are others.
_SILENT_S = 0.25


class Asked:
    """Commands that were sent and whose replies are awaited.

    Attributes:
        commands, limit: as given.
        done: a future that gets a result when all replies have come, or an error.
        owed: how many replies are missing.
        size: the bytes of the replies, as far as known.
        is_new: whether they are the first on a connection.
    """

    __slots__ = ("commands", "done", "is_new", "limit", "owed", "size")

    def __init__(self, commands: Sequence[Command], limit: Limit, done: asyncio.Future[None], *, is_new: bool) -> None:
        self.commands, self.limit, self.done, self.is_new = commands, limit, done, is_new
        self.owed = len(commands)
        self.size = sum([command.parser.bytes_expected for command in commands])


class AsyncConnection(Opened):
    """One connection.

    Attributes:
        lost: why the connection is closed; empty while it is open.
        is_paused: whether commands are sent faster than the server takes them.
        is_silent: whether the server owes replies and has sent nothing for a while.
        is_new: whether no request has sent commands since the connection was opened.
        owed: the number of missing replies, plus the requests that were promised this connection and have not used it.
        bytes_owed: the bytes of these replies, as far as known.
        idle_since: when the connection last became idle, on the clock of `time.monotonic`.
        when_free: called when replies have come, when the server takes commands again, and when the connection is lost.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._replies = Replies()
        self._asked: deque[Asked] = deque()
        self._outbox: list[bytes] = []
        self._is_retired = False
        self._has_answered = False
        # When the last byte came or, if later, when the first command with a missing reply was sent.
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._stray = memoryview(bytearray(1))
        self.lost = ""
        self.is_paused = self.is_silent = False
        self.is_new = True
        self.owed = self.bytes_owed = 0
        self.idle_since = 0.0
        self.when_free: Callable[[AsyncConnection], None] = _nothing

    @classmethod
    async def open(cls, endpoint: Endpoint, limit: Limit, *, is_tried: bool = False) -> AsyncConnection:
        """Connect and authenticate.

        Args:
            endpoint: the server.
            limit: the limit of connecting and authenticating.
            is_tried: wait until the server has answered on the connection. A server that has its most clients accepts a
                connection, and refuses the first command.

        Raises:
            StoreConnectionError: the server cannot be reached.
            StoreTimeoutError: the server cannot be reached in time.
            StoreReplyError: the server refuses the user, the password, the database or the connection.
            ConfigError: a file of certificates or keys cannot be read.
        """
        connection = await cls.to(await find(endpoint, limit, cls.to), endpoint, limit)
        if is_tried and not connection._has_answered:
            try:
                await try_out(connection, endpoint, limit)
            except BaseException:
                connection.close()
                raise
        connection.is_new = True
        return connection

    @classmethod
    async def to(cls, address: Address, endpoint: Endpoint, limit: Limit) -> AsyncConnection:
        """A connection to one address of an endpoint, such as a Sentinel's."""
        connection = cls(endpoint)
        try:
            connection._has_answered = await connect(connection, endpoint, address, limit)
        except BaseException:
            connection.close()
            raise
        return connection

    async def replies(self, commands: list[bytes], limit: Limit) -> list[Any]:
        """The replies to commands. Error replies are returned, not raised."""
        parser = ReplyParser(len(commands))
        await self.exchange([Command(b"", b"".join(commands), parser)], limit)
        return parser.replies

    async def exchange(self, commands: Sequence[Command], limit: Limit) -> None:
        """Send commands and take their replies. After a timeout, some parsers may be complete.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server went away, or does not answer in time.
        """
        asked = self.ask(commands, limit)
        try:
            await asked.done
        except asyncio.CancelledError:
            self.leave(asked)
            raise

    def promise(self, size: int) -> None:
        """Reserve a reply of `size` bytes for a command that will be sent; `take_back` undoes it."""
        self.owed += 1
        self.bytes_owed += size

    def take_back(self, size: int) -> None:
        """See `promise`."""
        self.owed -= 1
        self.bytes_owed -= size

    def ask(self, commands: Sequence[Command], limit: Limit) -> Asked:
        """Send commands. `done` of the result completes with their replies. A caller that gives up calls `leave`.

        Raises:
            StoreConnectionError: the connection is closed.
            StoreTimeoutError: the limit is over. Nothing was sent.
        """
        if self.lost:
            raise self._endpoint.lost(self.lost)
        now = time.monotonic()
        if limit.at <= now:
            raise self._endpoint.too_late(limit)
        asked = Asked(commands, limit, self._loop.create_future(), is_new=self.is_new)
        self.is_new = False
        data = commands[0].data if len(commands) == 1 else b"".join([command.data for command in commands])
        is_idle = not self._asked
        self._asked.append(asked)
        self.owed += asked.owed
        self.bytes_owed += asked.size
        self._replies.expect([command.parser for command in commands])
        if is_idle:
            self._heard_at = now
        at = min(limit.at, self._heard_at + _SILENT_S)
        if at < self._timer_at:
            self._set_timer(at)
        if is_idle:
            self._transport.write(data)
        else:
            # Other commands wait for replies, so these commands may leave with the next ones, in one write.
            if not self._outbox:
                self._loop.call_soon(self._flush)
            self._outbox.append(data)
        return asked

    def leave(self, asked: Asked) -> None:
        """Give up the replies: they are dropped when they come."""
        if asked.owed and not self.lost:
            self._replies.drop([command.parser for command in asked.commands])
        if not asked.done.done():
            asked.done.cancel()
        if self._is_retired:
            self._close_if_done()

    def retire(self) -> None:
        """Close the connection once no request waits for its replies."""
        self._is_retired = True
        self._close_if_done()

    def close(self) -> None:
        """Close the transport. Requests that wait for replies fail."""
        self._fail(self.lost or "the connection was closed")
        if self._transport is not None:
            self._transport.abort()

    # -- called by the loop -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open; with TLS, it is encrypted."""
        self._transport = transport
        if self.lost:  # it was given up while it was made
            self._transport.abort()
        else:
            self._transport.set_write_buffer_limits(_MOST_WAITING_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer into which the loop receives bytes.

        It is always a view: under TLS, asyncio slices the buffer, and a slice of a bytearray would be a copy.
        """
        return self._replies.buffer() if self._replies else self._stray

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        self._heard_at = time.monotonic()
        self.is_silent = False
        if not self._replies:
            self._break("bytes without a request")
            return
        replies, error = self._replies, None
        try:
            replies.received(nbytes)
        except (hiredis.HiredisError, OnlineStoreError) as raised:
            error = raised
        # Replies that are complete are those of their requests, whatever came after them.
        if replies.completed:
            self._complete(replies.completed)
        if error is not None and not self.lost:
            self._refuse(error)

    def eof_received(self) -> None:
        """The server has closed its side."""
        self._fail("the server closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._fail(str(exc or "the connection was closed"))

    def pause_writing(self) -> None:
        """The server does not take the bytes that are sent."""
        self.is_paused = True

    def resume_writing(self) -> None:
        """The server takes commands again."""
        self.is_paused = False
        self.when_free(self)

    def _flush(self) -> None:
        if self._outbox and not self.lost:
            self._transport.write(b"".join(self._outbox))
        self._outbox.clear()

    # -- replies ------------------------------------------------------------------------------------------------

    def _complete(self, count: int) -> None:
        """Complete the first requests with `count` more replies."""
        self.owed -= count
        asked = self._asked
        while count:
            first = asked[0]
            if first.owed > count:
                first.owed -= count
                break
            count -= first.owed
            first.owed = 0
            asked.popleft()
            self.bytes_owed -= first.size
            if not first.done.done():
                first.done.set_result(None)
        if not asked:
            self.idle_since = self._heard_at
            if self._is_retired:
                self.close()
        self.when_free(self)

    def _break(self, reason: str) -> None:
        self._fail(reason)
        self._transport.abort()

    def _refuse(self, error: hiredis.HiredisError | OnlineStoreError) -> None:
        """Close the connection, since the bytes are not the protocol, or the first request's parser refused its reply,
        whose rest is on its way: then the other requests are not at fault and may be sent again."""
        if isinstance(error, hiredis.HiredisError):
            self._break(f"bytes that are not the Redis protocol ({error})")
            return
        first, *others = self._asked
        for asked in others:
            asked.is_new = False
        if not first.done.done():
            first.done.set_exception(error)
        self._break("another request did not take its reply")

    def _fail(self, reason: str) -> None:
        """Mark the connection as lost, and fail its requests with the reason."""
        self.lost = self.lost or reason
        if self._timer is not None:
            self._timer.cancel()
        for asked in self._asked:
            if not asked.done.done():
                asked.done.set_exception(self._endpoint.lost(self.lost))
        self._asked.clear()
        self._replies = Replies()
        self.when_free(self)

    # -- limits in time -----------------------------------------------------------------------------------------

    def _set_timer(self, at: float) -> None:
        """Set the one timer of all requests. Of many requests with the same limit, only the first sets it."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        # A process that was not scheduled may find the timer due and replies waiting. It takes the replies first.
        self._timer = self._loop.call_at(at, partial(self._loop.call_later, 0, self._expire))

    def _expire(self) -> None:
        """Fail the requests whose time is over. Close the connection if no byte comes on it."""
        self._timer_at = math.inf
        if self.lost:
            return
        now = self._loop.time()
        for asked in self._asked:
            if asked.limit.at <= now and not asked.done.done():
                self._replies.drop([command.parser for command in asked.commands])
                asked.done.set_exception(self._endpoint.timeout(asked.limit))
        if self._is_retired:
            self._close_if_done()
        elif self._asked and now - self._heard_at >= self._endpoint.timeout_s:
            # Redis answers in order, so no later request gets a reply before these. A new connection may get one.
            for asked in self._asked:
                asked.is_new = False
            self._break(f"no byte came for {self._endpoint.timeout_s:g} s")
        if self._asked and not self.lost:
            self.is_silent = now - self._heard_at >= _SILENT_S
            silent_at = self._heard_at + (self._endpoint.timeout_s if self.is_silent else _SILENT_S)
            limits = [asked.limit.at for asked in self._asked if not asked.done.done()]
            self._set_timer(min([silent_at, *limits]))

    def _close_if_done(self) -> None:
        if all(asked.done.done() for asked in self._asked):
            self.close()


def _nothing(connection: AsyncConnection) -> None:
    pass
