"""Blocking connections: send a request, fill its parser; a pool of them that threads and forked processes can share."""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import hiredis

from feature_store.errors import OnlineStoreError, StoreConnectionError

if TYPE_CHECKING:
    from feature_store.online.endpoint import Endpoint
    from feature_store.online.observer import Observers
    from feature_store.online.resp import ReplyParser


class Connection:
    """One connection.

    Raises:
        StoreConnectionError, StoreTimeoutError: the server cannot be reached, or does not answer in time.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._socket, self._keep = endpoint.connect()
        self._reader = hiredis.Reader()

    def exchange(self, command: bytes, parser: ReplyParser, deadline: float | None = None) -> None:
        """Send a command and take its reply; by a time of the clock `time.monotonic`, if one is given."""
        if deadline is not None:
            self._exchange_by(command, parser, deadline)
            return
        try:
            self._socket.sendall(command)
            receive = self._socket.recv_into
            while True:
                got = receive(parser.buffer())
                if not got:
                    raise self._endpoint.lost("the server closed the connection")
                if parser.received(got):
                    return
        except OSError as error:
            raise self._mapped(error) from error

    def _exchange_by(self, command: bytes, parser: ReplyParser, deadline: float) -> None:
        # The usual timeout is the kernel's (see Endpoint), which counts anew for each piece.
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._endpoint.timeout()
                self._socket.settimeout(left)
                if command:
                    self._socket.sendall(command)
                    command = b""
                got = self._socket.recv_into(parser.buffer())
                if not got:
                    raise self._endpoint.lost("the server closed the connection")
                if parser.received(got):
                    self._socket.settimeout(None)
                    return
        except OSError as error:
            raise self._mapped(error) from error

    def send(self, command: bytes) -> None:
        """Send a command whose reply `reply()` will return, in the order of sending."""
        try:
            self._socket.sendall(command)
        except OSError as error:
            raise self._mapped(error) from error

    def reply(self) -> Any:
        """The next reply to what was sent; a hiredis.ReplyError is returned, not raised."""
        while (reply := self._reader.gets()) is False:
            try:
                piece = self._socket.recv(1 << 16)
            except OSError as error:
                raise self._mapped(error) from error
            if not piece:
                raise self._endpoint.lost("the server closed the connection")
            self._reader.feed(piece)
        return reply

    def close(self) -> None:
        """Close the socket."""
        self._keep.disconnect()

    def _mapped(self, error: OSError) -> OSError:
        if isinstance(error, OnlineStoreError):
            return error
        if isinstance(error, (TimeoutError, BlockingIOError)):
            return self._endpoint.timeout()
        return self._endpoint.lost(str(error))


class Pool:
    """Idle connections, the last used first. A connection that failed is never used again.

    Args:
        endpoint: where they lead.
        observers: are told when a connection turned out dead and the request goes on with another.
    """

    def __init__(self, endpoint: Endpoint, observers: Observers) -> None:
        self._endpoint, self._observers = endpoint, observers
        self._idle: deque[Connection] = deque()
        _pools.add(self)

    def exchange(self, command: bytes, parser: ReplyParser, deadline: float | None = None) -> None:
        """Send a request that only reads, and take its reply; once more when an idle connection turns out dead.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server cannot be reached, or does not answer in time.
        """
        connection, is_new = self._take()
        try:
            connection.exchange(command, parser, deadline)
        except StoreConnectionError:
            connection.close()
            if is_new or parser.has_begun:
                raise
            # A server that restarted has closed them all.
            self.close()
            self._observers.reconnected()
            return self.exchange(command, parser, deadline)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return None

    def close(self) -> None:
        """Close the idle connections. The pool can be used again."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:  # another thread took the last one
                return

    def _take(self) -> tuple[Connection, bool]:
        try:
            return self._idle.pop(), False
        except IndexError:
            return Connection(self._endpoint), True


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _forget_inherited_connections() -> None:
    """In a forked child: its parent goes on using the connections, so the child closes its copies."""
    for pool in list(_pools):
        pool.close()


os.register_at_fork(after_in_child=_forget_inherited_connections)
