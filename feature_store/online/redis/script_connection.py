"""The calls of one script, several under way, on the nodes that hold their keys: what all writers send with.

Redis forgets its scripts: after SCRIPT FLUSH, after a restart, and after a failover to a replica. A call then answers
NOSCRIPT and has done nothing, so the connection loads the script and sends the call again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from typing import TYPE_CHECKING, Any

from feature_store.errors import OnlineStoreError, StoreReplyError
from feature_store.online.redis.connection import Connection
from feature_store.online.redis.errors import reply_error
from feature_store.online.redis.following import Route
from feature_store.online.redis.resp import argument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.following import Recovery
    from feature_store.online.redis.topology import Topology

_ASKING = b"*1\r\n$6\r\nASKING\r\n"
# What a node of a Cluster answers that serves other keys: its connection is needed further on.
_REDIRECTING = ("MOVED", "ASK", "TRYAGAIN")


class ScriptCalls:
    """Calls of one script, each sent to the node that holds its keys. Answers come in the order of sending.

    A call whose node fails or does not hold its keys any more is sent again, where the topology's `recovery` says so;
    see redis/following.py.

    Args:
        topology: where the keys are.
        script: the source of the script.
        purpose: what its calls do, for errors: `merge into user_activity`.

    Raises:
        StoreConnectionError, StoreTimeoutError: a node cannot be reached or does not answer in time.
        StoreReplyError: Redis refuses the script.
    """

    def __init__(self, topology: Topology, script: bytes, purpose: str) -> None:
        self._topology, self._script, self._purpose = topology, script, purpose
        self.sha = hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()
        self._connections: dict[Endpoint, ScriptConnection] = {}
        self._order: deque[_Call] = deque()
        try:
            for node in topology.nodes():
                self._of_node(node)
        except OnlineStoreError as error:
            self.close()
            topology.recovery(b"").after(error)  # a call finds its node when it is sent
        except BaseException:
            self.close()
            raise

    def send(self, key: bytes, command: bytes) -> None:
        """Send a call; `answer()` takes its reply, in the order of sending.

        Args:
            key: one of the keys that the call names.
            command: the call.

        Raises:
            StoreConnectionError, StoreTimeoutError: the node went away or does not take the bytes in time.
        """
        call = _Call(key, command)
        try:
            self._send(call, Route(self._topology.node(key)))
        except OnlineStoreError as error:
            self._send_again(call, error)
        self._order.append(call)

    def answer(self) -> Any:
        """The reply to the first call whose reply was not taken yet.

        Raises:
            StoreReplyError: Redis refuses the call. Calls that were sent after it have replies of their own.
            StoreConnectionError, StoreTimeoutError: the node went away or does not answer in time.
        """
        call = self._order.popleft()
        while True:
            try:
                return call.answer()
            except OnlineStoreError as error:
                self._send_again(call, error)

    def replies(self, commands: Sequence[tuple[bytes, bytes]]) -> list[Any]:
        """The replies to other commands than calls of the script, in their order. No call may be under way.

        Args:
            commands: of each, one of the keys that it names, and the command.

        Raises:
            StoreReplyError, StoreConnectionError, StoreTimeoutError: as `answer`.
        """
        for key, command in commands:
            self.send(key, command)
        replies: list[Any] = []
        refused: StoreReplyError | None = None
        for _ in commands:
            try:
                replies.append(self.answer())
            except StoreReplyError as error:
                refused = refused or error
        if refused is not None:
            raise refused
        return replies

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _send(self, call: _Call, route: Route) -> None:
        """Send a call on the connection to a node. The connection is closed if that fails."""
        connection = self._of_node(route.node)
        try:
            connection.send(call, is_asking=route.asking)
        except OnlineStoreError:
            self._forget_closed(connection)
            raise

    def _send_again(self, call: _Call, error: OnlineStoreError) -> None:
        """Send a call again, and all others that were sent to a connection which is closed.

        Raises:
            OnlineStoreError: the topology does not say where.
        """
        self._forget_closed(call.connection)
        call.recovery = call.recovery or self._topology.recovery(call.key)
        while True:
            route = call.recovery.after(error)
            try:
                self._send(call, route)
                break
            except OnlineStoreError as another:
                error = another
        for other in self._order:
            if other.is_lost:
                with contextlib.suppress(OnlineStoreError):  # its own turn comes
                    self._send(other, Route(self._topology.node(other.key)))

    def _of_node(self, node: Endpoint) -> ScriptConnection:
        connection = self._connections.get(node)
        if connection is None:
            connection = self._connections[node] = ScriptConnection(node, self._script, self._purpose)
        return connection

    def _forget_closed(self, connection: ScriptConnection | None) -> None:
        if connection is not None and connection.is_closed:
            self._connections = {node: known for node, known in self._connections.items() if known is not connection}


class _Call:
    """A call under way.

    Attributes:
        key: one of the keys that it names.
        command: its bytes.
        connection: where it was sent last.
        reply: what came, a value or an error of hiredis, as the only item; None: nothing came yet.
        recovery: where it is sent again; None: it has not failed.
    """

    __slots__ = ("command", "connection", "key", "recovery", "reply")

    def __init__(self, key: bytes, command: bytes) -> None:
        self.key, self.command = key, command
        self.connection: ScriptConnection | None = None
        self.reply: tuple[Any] | None = None
        self.recovery: Recovery | None = None

    @property
    def is_lost(self) -> bool:
        """Whether its reply does not come any more."""
        return self.reply is None and self.connection is not None and self.connection.is_closed

    def answer(self) -> Any:
        """The reply; see ScriptCalls.answer."""
        assert self.connection is not None
        return self.connection.answer(self)


class ScriptConnection:
    """A connection to one node, on which a script is loaded.

    Args:
        endpoint: the node.
        script: the source of the script.
        purpose: what its calls do, for errors: `merge into user_activity`.

    Raises:
        StoreConnectionError, StoreTimeoutError: the server cannot be reached or does not answer in time.
        StoreReplyError: Redis refuses the script.
    """

    def __init__(self, endpoint: Endpoint, script: bytes, purpose: str) -> None:
        self._endpoint, self._script = endpoint, script
        self._where = f"{purpose} (Redis at {endpoint.shown})"
        self._under_way: deque[_Call] = deque()
        self._connection = Connection(endpoint)
        self.is_closed = False
        self._load()

    def send(self, call: _Call, *, is_asking: bool = False) -> None:
        """Send a call, whose reply `answer` returns.

        Args:
            call: the call.
            is_asking: send ASKING before it. Then its reply is taken at once, and all that come before it.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server went away or does not take the bytes in time.
        """
        call.connection, call.reply = self, None
        with self._closed_by_failures():
            if is_asking:
                self._take(len(self._under_way))
                self._connection.send(_ASKING)
            self._connection.send(call.command)
            self._under_way.append(call)
            if is_asking:
                self._connection.reply()
                self._take(1)

    def answer(self, call: _Call) -> Any:
        """The reply to a call that was sent here.

        Raises:
            StoreReplyError: Redis refuses the call. Calls that were sent after it have replies of their own.
            StoreConnectionError, StoreTimeoutError: the server went away or does not answer in time.
        """
        while call.reply is None:
            with self._closed_by_failures():
                self._take(1)
        return self._checked(call.reply[0])

    def close(self) -> None:
        """Close the connection."""
        self.is_closed = True
        self._connection.close()

    @contextlib.contextmanager
    def _closed_by_failures(self) -> Iterator[None]:
        """A connection that fails within the block is closed: replies to calls under way do not come any more."""
        if self.is_closed:
            raise self._endpoint.lost("the connection was closed")
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _take(self, count: int) -> None:
        """Take the replies to the first calls under way. Load the script, and make the calls again that did not find
        it, in their order.

        When one did not find it, the replies to all calls under way are taken first. A later call may have found the
        script already, since any client can load it in between. Order is not needed between rows, and between merges
        the fences keep it.
        """
        replies = [self._connection.reply() for _ in range(count)]
        if any(map(_is_missing, replies)):
            replies += [self._connection.reply() for _ in range(len(self._under_way) - count)]
            self._load()
            for i, call in enumerate(list(self._under_way)):
                if _is_missing(replies[i]):
                    self._connection.send(call.command)
                    replies[i] = self._connection.reply()
        for reply in replies:
            self._under_way.popleft().reply = (reply,)

    def _load(self) -> None:
        self._connection.send(b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n" + argument(self._script))
        try:
            self._checked(self._connection.reply())
        except BaseException:
            self.close()
            raise

    def _checked(self, reply: Any) -> Any:
        """A reply, or its error raised. A connection to a server that cannot serve is closed."""
        if not isinstance(reply, Exception):
            return reply
        error = reply_error(self._where, reply)
        if error.is_wrong_server and error.code not in _REDIRECTING:
            self.close()
        raise error


def _is_missing(reply: Any) -> bool:
    return isinstance(reply, Exception) and str(reply).startswith("NOSCRIPT")
