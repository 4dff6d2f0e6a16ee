"""A pool of blocking connections that threads and forked processes share: bounded, with a fair queue."""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from feature_store.errors import OnlineStoreError, StoreTimeoutError
from feature_store.online.redis.connection import Connection
from feature_store.online.redis.resp import error_among
from feature_store.online.redis.retry import may_send_again

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.errors import StoreReplyError
    from feature_store.online.observer import Observers
    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.limit import Limit
    from feature_store.online.redis.race import Runner
    from feature_store.online.redis.resp import Command

# A connection that is idle for this long, while others are in use, is closed.
IDLE_S = 60.0
# After a further connection could not be opened, a pool waits for this long before it tries again.
RETRY_S = 1.0
# The most connections that owe replies which no request waits for. Further ones are closed.
MOST_OWING = 4
_Waiter = queue.SimpleQueue["Connection | None"]


class Started(NamedTuple):
    """Commands that were sent, and whose replies have not been taken.

    Attributes:
        connection: the connection that gets the replies.
        is_new: whether it was opened for these commands.
        commands, limit: as given.
    """

    connection: Connection
    is_new: bool
    commands: Sequence[Command]
    limit: Limit


class Pool:
    """Connections to one server. The one used last is used first, and one that failed is never used again.

    When all connections are in use, requests wait in the order in which they came, until their time limits end. So do
    requests that could not open a further connection.

    Args:
        endpoint: the server of the connections.
        observers: are called when a connection was dead and the request goes on with another.
        most: the most connections.
    """

    def __init__(self, endpoint: Endpoint, observers: Observers, most: int) -> None:
        self._endpoint, self._observers, self._most = endpoint, observers, most
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        # The usual request finds a connection in `_idle` and no request in `_waiting`, and takes no lock: one operation
        # of a deque is atomic. `_lock` is for `_open` and `_waiting`.
        self._lock = threading.Lock()
        self._idle: deque[Connection] = deque()
        self._waiting: deque[_Waiter] = deque()
        # Connections that owe replies which no request waits for any more.
        self._owing: deque[Runner] = deque()
        self._open = 0
        self._trim_at = self._retry_at = 0.0

    def exchange(self, commands: Sequence[Command], limit: Limit) -> None:
        """Send commands that only read, and take their replies. They are sent again if an idle connection was dead.

        Raises:
            StoreConnectionError: the server cannot be reached, or closed the connection.
            StoreTimeoutError: the server does not answer in time, or no connection was free. Some parsers may be
                complete.
            StoreReplyError: the server answers with an error.
        """
        connection, is_new = self._take(limit)
        try:
            connection.exchange(commands, limit.further() if is_new else limit)
        except BaseException as error:
            reply = error_among(commands)
            if reply is not None and isinstance(error, StoreTimeoutError):
                # An error that came says why, and must not be taken for rows.
                self._discard(connection)
                raise self.refused(reply) from None
            self._failed(connection, error, commands, is_new=is_new)
            self.finish(self.start(commands, limit.further()))
        else:
            self._give_back(connection, limit)
        reply = error_among(commands)
        if reply is not None:
            raise self.refused(reply)

    def start(self, commands: Sequence[Command], limit: Limit) -> Started:
        """Send commands that only read. `finish` or `abandon` must follow.

        Raises:
            StoreConnectionError, StoreTimeoutError: as `exchange`.
        """
        while True:
            connection, is_new = self._take(limit)
            try:
                connection.ask(commands, limit.further() if is_new else limit)
            except BaseException as error:
                self._failed(connection, error, commands, is_new=is_new)
                limit = limit.further()
            else:
                return Started(connection, is_new, commands, limit)

    def finish(self, started: Started) -> None:
        """Take the replies. Error replies stay in their parsers.

        Raises:
            StoreConnectionError, StoreTimeoutError: as `exchange`.
        """
        while True:
            connection, is_new, commands, limit = started
            try:
                connection.take(commands, limit)
            except BaseException as error:
                self._failed(connection, error, commands, is_new=is_new)
            else:
                self._give_back(connection, limit)
                return
            started = self.start(commands, limit.further())

    def abandon(self, started: Started) -> None:
        """Give up the replies, and close the connection."""
        self._discard(started.connection)

    @property
    def has_idle(self) -> bool:
        """Whether a request probably finds a connection, so that it need not wait for one."""
        return bool(self._idle)

    def took(self, runner: Runner) -> None:
        """Record that all replies have been taken from a connection, by a runner."""
        runner.connection.idle_since = time.monotonic()
        self._give_back(runner.connection, None)

    def leave(self, runner: Runner) -> None:
        """Give up replies that are on their way. The connection is used again once they have come."""
        runner.leave()
        self._owing.append(runner)
        while len(self._owing) > min(MOST_OWING, self._most // 2):
            self._drop_oldest()

    @property
    def size(self) -> int:
        """How many connections there are, idle or in use."""
        return self._open

    @property
    def waiting(self) -> int:
        """How many requests wait for a connection."""
        return len(self._waiting)

    def close(self) -> None:
        """Close the idle connections. The pool can be used again."""
        while self._owing:
            self._drop_oldest()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return
            self._discard(connection)

    def forget(self) -> None:
        """In a forked child: close the copies of the parent's connections, which the parent goes on using."""
        inherited = [*self._idle, *[runner.connection for runner in self._owing]]
        self._begin()
        for connection in inherited:
            connection.close()

    def refused(self, reply: Exception) -> StoreReplyError:
        """The error for an error reply. Connections that lead to a server that cannot serve are closed."""
        error = self._endpoint.refused(reply)
        if error.is_wrong_server:
            self.close()
        return error

    def _failed(
        self, connection: Connection, error: BaseException, commands: Sequence[Command], *, is_new: bool
    ) -> None:
        """Discard a connection. Raises the error unless the commands may be sent again."""
        self._discard(connection)
        if not may_send_again(error, commands, is_new=is_new):
            raise error
        self.close()  # a server that restarted has closed all idle connections
        self._observers.reconnected()

    def _take(self, limit: Limit) -> tuple[Connection, bool]:
        if not self._waiting:
            try:
                return self._idle.pop(), False
            except IndexError:
                pass
            if self._owing:
                self._reclaim()
        failure: OnlineStoreError | None = None
        while True:
            connection = self._wait(limit, failure)
            if connection is not None:
                return connection, False
            is_only = self._open == 1
            try:
                return self._opened(limit, is_only=is_only), True
            except OnlineStoreError as error:
                self._retry_at = time.monotonic() + RETRY_S
                self._free()
                if is_only:
                    raise
                failure = error
            except BaseException:
                self._free()
                raise

    def _reclaim(self) -> None:
        """Use connections again whose replies have come. Those that owe replies for too long are closed."""
        for _ in range(len(self._owing)):
            try:
                runner = self._owing.popleft()
            except IndexError:  # another thread took it
                return
            try:
                runner.receive_at_once()
            except OnlineStoreError:
                self._discard(runner.connection)
                continue
            if runner.is_done:
                self.took(runner)
            elif runner.since < time.monotonic() - self._endpoint.timeout_s:
                self._discard(runner.connection)
            else:
                self._owing.append(runner)

    def _drop_oldest(self) -> None:
        try:
            runner = self._owing.popleft()
        except IndexError:  # another thread took it
            return
        self._discard(runner.connection)

    def _wait(self, limit: Limit, failure: OnlineStoreError | None) -> Connection | None:
        """A connection that became free; None when the request may open one.

        Args:
            limit: the limit of the request.
            failure: why the request could not open a connection, if it has tried; else None.
        """
        waiter: _Waiter = queue.SimpleQueue()
        with self._lock:
            if failure is None:
                self._waiting.append(waiter)
            else:
                self._waiting.appendleft(waiter)
            self._serve()
        try:
            connection = waiter.get(timeout=_left(limit))
        except queue.Empty:
            late = self._too_late(waiter, limit)
            raise failure or late from None
        except BaseException:
            self._too_late(waiter, limit)
            raise
        if connection is not None and limit.at <= time.monotonic():
            self._give_back(connection, None)
            raise self._endpoint.busy(limit, self._most)
        return connection

    def _opened(self, limit: Limit, *, is_only: bool) -> Connection:
        """A new connection. While there are others, it has half of the remaining time: if it fails, the request waits
        for one of them. It is tried, since a server that has its most clients accepts it and refuses the first command.
        """
        try:
            share = limit if is_only else limit.share(2)
        except TimeoutError:
            raise self._endpoint.too_late(limit) from None
        return Connection(self._endpoint, share, is_tried=True)

    def _too_late(self, waiter: _Waiter, limit: Limit) -> Exception:
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                return self._endpoint.busy(limit, self._most)
        connection = waiter.get_nowait()  # it came at the last moment
        if connection is None:
            self._free()
        else:
            self._give_back(connection, None)
        return self._endpoint.busy(limit, self._most)

    def _give_back(self, connection: Connection, limit: Limit | None) -> None:
        if not self._waiting:
            self._idle.append(connection)
            if limit is not None:
                began = limit.at - limit.seconds
                connection.idle_since = began
                if began > self._trim_at:
                    self._trim(began)
            if not self._waiting:
                return
            with self._lock:  # a request came between the two checks
                self._serve()
            return
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(connection)
            else:
                self._idle.append(connection)

    def _trim(self, now: float) -> None:
        """Close the connections that have been idle for IDLE_S seconds; they are first in `_idle`."""
        self._trim_at = now + 1.0
        while len(self._idle) > 1:
            try:
                oldest = self._idle.popleft()
            except IndexError:
                return
            if oldest.idle_since > now - IDLE_S:
                self._idle.appendleft(oldest)
                return
            self._discard(oldest)

    def _discard(self, connection: Connection) -> None:
        connection.close()
        self._free()

    def _free(self) -> None:
        """Allow another connection in place of a closed one."""
        with self._lock:
            self._open -= 1
            self._serve()

    def _serve(self) -> None:
        """Give each request that waits an idle connection, or None: it may open one. The caller holds the lock."""
        while self._waiting:
            connection: Connection | None
            try:
                connection = self._idle.pop()
            except IndexError:
                if self._open >= self._most or (self._open and time.monotonic() < self._retry_at):
                    return
                self._open += 1
                connection = None
            self._waiting.popleft().put(connection)


def _left(limit: Limit) -> float:
    try:
        return limit.left()
    except TimeoutError:
        return 0.0


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _forget_inherited_connections() -> None:
    for pool in list(_pools):
        pool.forget()


os.register_at_fork(after_in_child=_forget_inherited_connections)
