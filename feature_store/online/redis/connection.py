"""Blocking connections: open one, send commands, fill their parsers, all within a limit in time.

The usual reply comes within a millisecond, and one system call waits for it and receives it: the kernel ends the call
after that time (SO_RCVTIMEO). A timeout of Python takes a poll and a receive. The kernel's time begins afresh when a
signal interrupts the call, so a longer wait is a poll, for which Python keeps the deadline.
"""

from __future__ import annotations

import _socket
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

import hiredis

from feature_store.errors import OnlineStoreError
from feature_store.online.redis.address import UNIX, is_replica
from feature_store.online.redis.errors import is_connection_refused
from feature_store.online.redis.limit import HeldUpError
from feature_store.online.redis.replies import Replies
from feature_store.online.redis.resolver import look_up
from feature_store.online.redis.resp import PING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from feature_store.online.redis.address import Address
    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.limit import Limit
    from feature_store.online.redis.resp import Command, ReplyParser

# How long a call waits for the first bytes before the connection polls; the kernel rounds it up to its clock ticks.
_USUAL_S = 0.001
# The limit that Python keeps is set again when it differs from the remaining time by more than this share.
_TOLERANCE = 0.02
# Bytes of a long command that are sent before the clock is read again.
_PIECE_BYTES = 1 << 14
# The shortest limit of a socket whose limit Python keeps. With 0 the socket would never wait, not even for TLS.
_SHORTEST_S = 0.001
# The call returns at once, with as much as the socket's buffer takes or holds.
_AT_ONCE = int(getattr(socket, "MSG_DONTWAIT", 0))
_READABLE, _WRITABLE = int(getattr(select, "POLLIN", 0)), int(getattr(select, "POLLOUT", 0))
_KERNEL_WAITS = bool(_AT_ONCE) and hasattr(select, "poll") and hasattr(socket, "SO_RCVTIMEO")


class Connection:
    """One connection, greeted: authenticated, and on the right database.

    Args:
        endpoint: the server to connect to.
        limit: the limit of connecting, the TLS handshake and AUTH; the endpoint's own unless given.
        is_tried: wait until the server has answered on the connection.

    Raises:
        StoreConnectionError: the server cannot be reached.
        StoreTimeoutError: the server cannot be reached in time.
        StoreReplyError: the server refuses the user, the password, the database or the connection.
        ConfigError: a file of certificates or keys cannot be read.
    """

    def __init__(self, endpoint: Endpoint, limit: Limit | None = None, *, is_tried: bool = False) -> None:
        limit = limit if limit is not None else endpoint.limit()
        self._open(endpoint, _find(endpoint, limit), limit)
        if is_tried and not self._is_greeted:
            try:
                self._try(limit.further())
            except BaseException:
                self.close()
                raise

    @classmethod
    def to(cls, address: Address, endpoint: Endpoint, limit: Limit) -> Connection:
        """A connection to one address of an endpoint, such as a Sentinel's."""
        made = cls.__new__(cls)
        made._open(endpoint, address, limit)
        return made

    def _open(self, endpoint: Endpoint, address: Address, limit: Limit) -> None:
        self.endpoint = endpoint
        self._reader = hiredis.Reader()
        context = address.tls.context if address.tls is not None else None
        self.idle_since = 0.0
        try:
            self._socket = _connected(address, limit)
        except OSError as error:
            raise self.mapped(error, limit) from error
        try:
            if context is not None:
                self._socket.settimeout(limit.further().left())
                self._socket = context.wrap_socket(
                    self._socket, server_hostname=address.host, do_handshake_on_connect=False
                )
                self._socket.do_handshake()
            # The kernel waits for the interpreter's own sockets, not for those of gevent, nor below TLS, which waits by
            # itself: there Python keeps the limit.
            self._is_kernels = _KERNEL_WAITS and context is None and isinstance(self._socket, _socket.socket)
            if self._is_kernels:
                self._socket.settimeout(None)
                usual = struct.pack("ll", 0, round(_USUAL_S * 1_000_000))
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, usual)
            self._limit_s = 0.0
            self._greet(address, limit.further())
        except OSError as error:
            self.close()
            raise self.mapped(error, limit) from error
        except BaseException:
            self.close()
            raise

    def _greet(self, address: Address, limit: Limit) -> None:
        commands = address.greeting(address.credentials())
        self._is_greeted = bool(commands)
        if not commands:
            return
        self._send(b"".join(commands), limit)
        replies = [self._reply(limit) for _ in commands]
        refused = replies[:-1] if address.is_master else replies
        for reply in refused:
            if isinstance(reply, Exception):
                raise self.endpoint.refused(reply)
        if address.is_master and is_replica(replies):
            raise self.endpoint.lost(f"{address.shown}, which the Sentinels name, is no master")

    def _try(self, limit: Limit) -> None:
        self.send(PING, limit)
        reply = self.reply(limit)
        if isinstance(reply, Exception) and is_connection_refused(reply):
            raise self.endpoint.refused(reply)

    def exchange(self, commands: Sequence[Command], limit: Limit) -> None:
        """Send commands at once and take their replies. After a timeout, some parsers may be complete.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server went away, or does not answer in time.
        """
        if len(commands) > 1:
            self.ask(commands, limit)
            self.take(commands, limit)
            return
        command = commands[0]
        try:
            self._send(command.data, limit)
            self._take_one(command.parser, limit)
        except (OSError, hiredis.HiredisError) as error:
            raise self.mapped(error, limit) from error

    def ask(self, commands: Sequence[Command], limit: Limit) -> None:
        """Send commands at once. `take` takes their replies.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server went away, or does not take the bytes in time.
        """
        try:
            self._send(b"".join([command.data for command in commands]), limit)
        except OSError as error:
            raise self.mapped(error, limit) from error

    def take(self, commands: Sequence[Command], limit: Limit) -> None:
        """Take the replies to the commands that were asked last. After a timeout, some parsers may be complete.

        When the limit is over, the replies that have arrived are taken.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server went away, or does not answer in time.
        """
        try:
            self._take_all([command.parser for command in commands], limit)
        except (OSError, hiredis.HiredisError) as error:
            raise self.mapped(error, limit) from error

    def _take_one(self, parser: ReplyParser, limit: Limit) -> None:
        receive = self._socket.recv_into
        while True:
            try:
                count = receive(parser.buffer())
            except BlockingIOError:  # nothing has come within the usual time
                self._wait(limit)
                continue
            if not count:
                raise self.endpoint.lost("the server closed the connection")
            if parser.received(count):
                return
            self._hold(limit)  # only a reply of several pieces gets here

    def _take_all(self, parsers: Sequence[ReplyParser], limit: Limit) -> None:
        replies = Replies()
        replies.expect(parsers)
        while replies:
            count = self.receive(replies.buffer(), limit)
            if not count:
                raise self.endpoint.lost("the server closed the connection")
            replies.received(count)

    def send(self, command: bytes, limit: Limit | None = None) -> None:
        """Send a command whose reply `reply()` will return, in the order of sending.

        Args:
            command: the bytes of the command.
            limit: the limit of sending; the endpoint's own unless given.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server went away, or does not take the bytes in time.
        """
        limit = limit if limit is not None else self.endpoint.limit()
        try:
            self._send(command, limit)
        except OSError as error:
            raise self.mapped(error, limit) from error

    def reply(self, limit: Limit | None = None) -> Any:
        """The next reply to what was sent, or the next push; a hiredis.ReplyError is returned, not raised.

        Args:
            limit: the limit of the reply; the endpoint's own unless given. After a timeout, call `reply` again.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server went away, or does not answer in time.
        """
        limit = limit if limit is not None else self.endpoint.limit()
        try:
            return self._reply(limit)
        except (OSError, hiredis.HiredisError) as error:
            raise self.mapped(error, limit) from error

    def at_hand(self) -> Iterator[Any]:
        """The further replies and pushes that arrived together with the last one."""
        while (reply := self._reader.gets()) is not False:
            yield reply

    def fileno(self) -> int:
        """The file of the socket, for `select`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __del__(self) -> None:
        # A client or writer that is dropped without a close leaves no open socket. If opening failed, there is none.
        opened: socket.socket | None = getattr(self, "_socket", None)
        if opened is not None:
            opened.close()

    def receive(self, buffer: memoryview, limit: Limit) -> int:
        """Receive bytes that arrive before the limit; after the limit, only bytes that have arrived already."""
        while limit.at > time.monotonic():
            self._hold(limit)
            try:
                return self._socket.recv_into(buffer)
            except BlockingIOError:
                self._wait(limit)
        if self._is_kernels:
            return self._socket.recv_into(buffer, 0, _AT_ONCE)
        self._limit_s = 0.0
        self._socket.settimeout(_SHORTEST_S)
        return self._socket.recv_into(buffer)

    def _reply(self, limit: Limit) -> Any:
        while (reply := self._reader.gets()) is False:
            self._hold(limit)
            try:
                piece = self._socket.recv(1 << 16)
            except BlockingIOError:
                self._wait(limit)
                continue
            if not piece:
                raise self.endpoint.lost("the server closed the connection")
            self._reader.feed(piece)
        return reply

    def _send(self, command: bytes, limit: Limit) -> None:
        if limit.at <= time.monotonic():
            raise limit.ended()
        if not self._is_kernels:
            rest = memoryview(command)
            while rest:
                self._hold(limit)
                rest = rest[self._socket.send(rest[:_PIECE_BYTES]) :]
            return
        sent = self._sent(command)
        while sent < len(command):
            self._wait(limit, _WRITABLE)
            sent += self._sent(memoryview(command)[sent:])

    def _sent(self, data: bytes | memoryview) -> int:
        """Send as much as the buffer of the socket takes, and return how much that is."""
        try:
            return self._socket.send(data, _AT_ONCE)
        except BlockingIOError:
            return 0

    def _wait(self, limit: Limit, event: int = _READABLE) -> None:
        """Wait until the socket has bytes to receive or, with _WRITABLE, takes bytes, or until the limit.

        Raises:
            TimeoutError: no time is left.
        """
        poller = select.poll()
        poller.register(self._socket, event)
        if not poller.poll(limit.further().left() * 1000):
            raise TimeoutError

    def _hold(self, limit: Limit) -> None:
        """Make the next call of the socket end when the limit ends, if Python keeps its limit.

        Raises:
            TimeoutError: no time is left.
        """
        left = limit.at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if not self._is_kernels and abs(left - self._limit_s) > _TOLERANCE * left:
            self._limit_s = left
            self._socket.settimeout(left)

    def mapped(self, error: Exception, limit: Limit) -> OSError:
        """The error of this library for an error of the socket or of hiredis."""
        if isinstance(error, OnlineStoreError) and isinstance(error, OSError):
            return error
        if isinstance(error, hiredis.HiredisError):
            return self.endpoint.lost(f"bytes that are not the Redis protocol ({error})")
        if isinstance(error, HeldUpError):
            return self.endpoint.held_up(limit)
        if isinstance(error, (TimeoutError, BlockingIOError)):
            return self.endpoint.timeout(limit)
        return self.endpoint.lost(str(error))


def _find(endpoint: Endpoint, limit: Limit) -> Address:
    """The address of an endpoint. Sentinels are asked for it if the endpoint has any."""
    steps = endpoint.finding()
    try:
        question = next(steps)
        while True:
            try:
                share = limit.share(question.servers).further()
                reply = _asked(question.address, question.command, endpoint, share)
            except OnlineStoreError as error:
                question = steps.throw(error)
            except TimeoutError:
                raise endpoint.too_late(limit) from None
            else:
                question = steps.send(reply)
            limit = limit.further()
    except StopIteration as finished:
        address: Address = finished.value
        return address


def _asked(address: Address, command: bytes, endpoint: Endpoint, limit: Limit) -> Any:
    connection = Connection.to(address, endpoint, limit)
    try:
        connection._send(command, limit)
        reply = connection._reply(limit)
    except OSError as error:
        raise connection.mapped(error, limit) from error
    finally:
        connection.close()
    if isinstance(reply, Exception):
        raise endpoint.refused(reply)
    return reply


def _connected(address: Address, limit: Limit) -> socket.socket:
    """A connected socket. If a host has several addresses, the first that answers is used."""
    if address.transport == UNIX:
        return _opened(socket.AF_UNIX, address.path, limit)
    places = look_up(address.host, address.port, limit)
    for i, (family, place) in enumerate(places):
        try:
            opened = _opened(family, place, limit.share(len(places) - i))
        except OSError:
            if i == len(places) - 1:
                raise
            limit = limit.further()
        else:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return opened
    raise OSError(f"{address.host} has no address")


def _opened(family: int, place: Any, limit: Limit) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.settimeout(limit.left())
        opened.connect(place)
    except BaseException:
        opened.close()
        raise
    return opened
