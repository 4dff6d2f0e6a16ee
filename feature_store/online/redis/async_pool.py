"""A pool of the connections of one event loop: few connections, each with many requests under way."""

from __future__ import annotations

import asyncio
import copy
import time
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from feature_store.errors import FeatureStoreError, OnlineStoreError, StoreTimeoutError
from feature_store.online.redis.async_connection import AsyncConnection
from feature_store.online.redis.pool import IDLE_S, RETRY_S
from feature_store.online.redis.resp import error_among
from feature_store.online.redis.retry import may_send_again

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.errors import StoreReplyError
    from feature_store.online.observer import Observers
    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.limit import Limit
    from feature_store.online.redis.resp import Command

# Connections that share the requests of a client as long as all of them answer; see docs/decisions/0019-pipelining.md.
USUAL_CONNECTIONS = 2
# A connection takes no more commands when it owes this many replies, or this many bytes of replies. Other requests wait
# in the queue of the pool, where they can still get another connection. Redis keeps replies that a client does not read
# in memory, and sends them in pieces of 64 kB.
MOST_COMMANDS = 64
MOST_BYTES = 1 << 19
# When a connection owes this much, another is opened, as long as there are fewer than USUAL_CONNECTIONS.
_BUSY_COMMANDS, _BUSY_BYTES = MOST_COMMANDS // 4, MOST_BYTES // 4
_Waiter: TypeAlias = "asyncio.Future[AsyncConnection]"


class AsyncPool:
    """Connections of one event loop. A connection that failed is never used again.

    When all connections are full, requests wait in the order in which they came, until their time limits end.

    A task of the pool opens connections, one at a time, so no request pays for a further connection or fails with it.
    Requests wait for the task only while no connection answers.

    Args:
        endpoint: the server of the connections.
        observers: are called when a connection was dead and the request goes on with another.
        most: the most connections.
    """

    def __init__(self, endpoint: Endpoint, observers: Observers, most: int) -> None:
        self._endpoint, self._observers, self._most = endpoint, observers, most
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections: list[AsyncConnection] = []
        self._opening: asyncio.Task[None] | None = None
        self._retry_at = 0.0
        # The requests that wait, and the bytes of their replies.
        self._waiting: deque[tuple[_Waiter, int]] = deque()

    async def exchange(self, commands: Sequence[Command], limit: Limit) -> None:
        """Send commands that only read, and take their replies. They are sent again if an idle connection was dead.

        Raises:
            StoreConnectionError: the server cannot be reached, or closed the connection.
            StoreTimeoutError: the server does not answer in time, or no connection was free. Some parsers may be
                complete.
            StoreReplyError: the server answers with an error.
            OnlineStoreError: the pool belongs to another event loop.
        """
        try:
            await self.ask(commands, limit)
        except StoreTimeoutError:
            # An error that came says why, and must not be taken for rows.
            reply = error_among(commands)
            if reply is None:
                raise
            raise self.refused(reply) from None
        reply = error_among(commands)
        if reply is not None:
            raise self.refused(reply)

    async def ask(self, commands: Sequence[Command], limit: Limit) -> None:
        """As `exchange`, but error replies stay in their parsers.

        Raises:
            StoreConnectionError, StoreTimeoutError, OnlineStoreError: as `exchange`.
        """
        while True:
            connection = self._at_once(limit)
            if connection is None:
                size = sum([command.parser.bytes_expected for command in commands])
                connection = await self._connection(size, limit)
                connection.take_back(size)
                limit = limit.further()
            if connection.lost:  # it was closed while the request waited for it
                self._forget(connection)
                continue
            asked = connection.ask(commands, limit)
            try:
                await asked.done
            except BaseException as error:
                connection.leave(asked)
                self._forget(connection)
                if not may_send_again(error, commands, is_new=asked.is_new):
                    raise
                self._reconnect()
                limit = limit.further()
            else:
                return

    @property
    def size(self) -> int:
        """How many connections there are."""
        return len(self._connections) + (self._opening is not None)

    @property
    def waiting(self) -> int:
        """How many requests wait for a connection."""
        return len(self._waiting)

    def close(self) -> None:
        """Close each connection when its last request has ended. The pool can be used again, by another event loop
        too."""
        opening, self._opening = self._opening, None
        if self._loop is not None and self._loop.is_closed():
            self._connections.clear()
            self._waiting.clear()
            return
        if opening is not None:
            opening.cancel()
        for connection in self._connections:
            connection.retire()
        self._connections.clear()
        self._serve()

    def refused(self, reply: Exception) -> StoreReplyError:
        """The error for an error reply. Connections that lead to a server that cannot serve are closed."""
        error = self._endpoint.refused(reply)
        if error.is_wrong_server:
            self.close()
        return error

    # -- which connection ---------------------------------------------------------------------------------------

    def _at_once(self, limit: Limit) -> AsyncConnection | None:
        """A connection without waiting, for the usual request; None when the request must wait or open a connection."""
        if self._waiting or not self._connections or self._loop is not asyncio.get_running_loop():
            return None
        if len(self._connections) > 1:
            self._trim(limit.at - limit.seconds)
        first = self._connections[0]
        if first.owed < _BUSY_COMMANDS and first.bytes_owed < _BUSY_BYTES and _is_well(first):
            return first
        return self._chosen()

    async def _connection(self, size: int, limit: Limit) -> AsyncConnection:
        """A connection with `size` bytes of replies reserved."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._join(loop)
        if limit.at <= time.monotonic():
            raise self._endpoint.too_late(limit)
        if any(connection.lost for connection in self._connections):
            self._reconnect()
        if self._waiting:
            self._serve()  # a connection may have fallen silent since, so that another may be opened
        if not self._waiting:
            chosen = self._chosen()
            if chosen is not None:
                chosen.promise(size)
                return chosen
        return await self._wait(loop, size, limit)

    def _chosen(self) -> AsyncConnection | None:
        """The connection that owes the least; None when requests must wait for one. Opens another where one is needed.

        A connection that is silent or paused gets requests only if no other can be opened.
        """
        best: AsyncConnection | None = None
        for one in self._connections:
            if one.lost or one.is_paused or one.owed >= MOST_COMMANDS or one.bytes_owed >= MOST_BYTES:
                continue
            if best is None or (_is_well(one), -one.owed) > (_is_well(best), -best.owed):
                best = one
        well = best if best is not None and _is_well(best) else None
        if well is not None and well.owed < _BUSY_COMMANDS and well.bytes_owed < _BUSY_BYTES:
            return well
        if self._may_open():
            assert self._loop is not None
            self._opening = self._loop.create_task(self._open())
        return well if self._opening is not None else best

    def _may_open(self) -> bool:
        """Whether another connection may be opened: too few connections answer."""
        if self._opening is not None or len(self._connections) >= self._most:
            return False
        if not self._connections:
            return True
        if sum([_is_well(one) for one in self._connections]) >= USUAL_CONNECTIONS:
            return False
        return time.monotonic() >= self._retry_at

    async def _open(self) -> None:
        """Open a connection. It is used once the server has answered on it: a server that has its most clients accepts
        a connection, refuses its first command, and closes it."""
        await asyncio.sleep(0)  # a task that starts eagerly has not returned to `_chosen` yet
        try:
            connection = await AsyncConnection.open(self._endpoint, self._endpoint.limit(), is_tried=True)
        except BaseException as error:
            if self._is_opening():
                self._opening = None
                self._not_opened(error)
            elif not isinstance(error, FeatureStoreError):
                raise
            return
        if not self._is_opening():
            connection.close()
            return
        self._opening = None
        connection.when_free = self._when_free
        self._connections.append(connection)
        self._serve()

    def _is_opening(self) -> bool:
        """Whether the current task opens a connection for the pool, which was not closed meanwhile."""
        return self._opening is asyncio.current_task()

    def _not_opened(self, error: BaseException) -> None:
        """Go on with the other connections. Without any, the requests that wait fail, except after a timeout: it was
        the limit of the task, and each of them has its own."""
        self._retry_at = time.monotonic() + RETRY_S
        self._connections = [one for one in self._connections if not one.lost]
        if self._connections or isinstance(error, StoreTimeoutError):
            self._serve()
        elif isinstance(error, FeatureStoreError):
            while self._drop_done():
                waiter, _ = self._waiting.popleft()
                waiter.set_exception(_copy_of(error))
        if not isinstance(error, FeatureStoreError):
            raise error

    async def _wait(self, loop: asyncio.AbstractEventLoop, size: int, limit: Limit) -> AsyncConnection:
        """A connection with `size` bytes of replies reserved, once there is one that takes the request."""
        waiter: _Waiter = loop.create_future()
        self._waiting.append((waiter, size))
        timer = loop.call_at(limit.at, self._too_late, waiter, limit)
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # The request got a connection, and was cancelled before it could use it.
                waiter.result().take_back(size)
                self._serve()
            raise
        finally:
            timer.cancel()

    def _too_late(self, waiter: _Waiter, limit: Limit) -> None:
        if not waiter.done():
            is_busy = bool(self._connections)
            waiter.set_exception(self._endpoint.busy(limit, self._most) if is_busy else self._endpoint.timeout(limit))

    def _when_free(self, connection: AsyncConnection) -> None:
        """Give a connection that owes less now to requests that wait."""
        if not self._waiting:
            return
        if connection.lost or connection.is_paused or connection not in self._connections:
            self._serve()
            return
        while connection.owed < MOST_COMMANDS and connection.bytes_owed < MOST_BYTES and self._drop_done():
            waiter, size = self._waiting.popleft()
            connection.promise(size)
            waiter.set_result(connection)

    def _serve(self) -> None:
        """Give each request that waits a connection, as far as connections take more requests."""
        self._connections = [one for one in self._connections if not one.lost]
        while self._drop_done():
            chosen = self._chosen()
            if chosen is None:
                return
            waiter, size = self._waiting.popleft()
            chosen.promise(size)
            waiter.set_result(chosen)

    def _drop_done(self) -> bool:
        """Forget requests that wait no longer. Returns whether a request still waits."""
        while self._waiting and self._waiting[0][0].done():
            self._waiting.popleft()
        return bool(self._waiting)

    # -- connections that are not used any more -----------------------------------------------------------------

    def _forget(self, connection: AsyncConnection) -> None:
        """Remove a connection that is closed, so that another may be opened."""
        if connection.lost and connection in self._connections:
            self._connections.remove(connection)
            self._serve()

    def _reconnect(self) -> None:
        """Close the idle connections, since a server that restarted has closed them all."""
        self._connections = [one for one in self._connections if not one.lost]
        for connection in [one for one in self._connections if not one.owed]:
            self._connections.remove(connection)
            connection.close()
        self._observers.reconnected()

    def _trim(self, now: float) -> None:
        """Close the last connection if it has not been used for IDLE_S seconds."""
        last = self._connections[-1]
        if not last.owed and last.idle_since < now - IDLE_S:
            self._connections.pop()
            last.close()

    def _join(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.size:
            raise of_another_loop(self._loop)
        self._loop = loop


def of_another_loop(loop: asyncio.AbstractEventLoop | None) -> OnlineStoreError:
    """The error for a client whose connections belong to another event loop."""
    return OnlineStoreError(
        "AsyncOnlineClient",
        problem="its connections belong to another event loop"
        + (", which is closed" if loop is not None and loop.is_closed() else ""),
        hint="make one client for each event loop, and close it (`async with`) before its loop ends",
    )


def _is_well(connection: AsyncConnection) -> bool:
    """Whether a connection answers. Such a connection gets requests before others."""
    return not (connection.lost or connection.is_paused or connection.is_silent)


def _copy_of(error: FeatureStoreError) -> FeatureStoreError:
    """An error of its own for each request, since raising one adds to its traceback."""
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied
