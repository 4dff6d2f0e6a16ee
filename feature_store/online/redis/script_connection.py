"""The calls of one script, several under way at once, on the nodes that hold their keys. All writers use it.

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
from feature_store.online.redis.following import ASKING, Route
from feature_store.online.redis.resp import argument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.following import Recovery
    from feature_store.online.redis.topology import Topology

# Redirections by a node of a Cluster. Its connection stays open, since the node serves other keys.
_REDIRECTING = ("MOVED", "ASK", "TRYAGAIN")


class ScriptCalls:
    """Calls of one script, each sent to the node that holds its keys. Answers come in the order of sending.

    A call whose node fails or no longer holds its keys is sent again to the node that the topology's `recovery` gives;
    see redis/following.py.

    Args:
        topology: finds the nodes of the keys.
        script: the source of the script.
        purpose: the action of its calls, for errors, such as `merge into user_activity`.

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
        """Send a call. `answer()` takes the replies in the order of sending.

        Args:
            key: one of the keys that the call names.
            command: the call.

        Raises:
            StoreConnectionError, StoreTimeoutError: the node went away or does not take the bytes in time.
        """
        if any(node.is_forgotten for node in self._connections):
            self._close_forgotten()
        call = _Call(key, command)
        try:
            self._send(call, Route(self._topology.node(key)))
        except OnlineStoreError as error:
            self._send_again(call, error)
        self._order.append(call)

    def answer(self) -> Any:
        """The reply to the oldest call whose reply was not taken yet.

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
            commands: per command, one of the keys that it names, and its bytes.

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
        """Send a call again, and all other calls whose connection is closed.

        Raises:
            OnlineStoreError: the recovery gives up.
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

    def _close_forgotten(self) -> None:
        """Close the connections to nodes that the map no longer names, once no call is under way on them."""
        for node, connection in list(self._connections.items()):
            if node.is_forgotten and not connection.is_busy:
                connection.close()
                del self._connections[node]

    def _forget_closed(self, connection: ScriptConnection | None) -> None:
        if connection is not None and connection.is_closed:
            self._connections = {node: known for node, known in self._connections.items() if known is not connection}


class _Call:
    """A call under way.

    Attributes:
        key: one of the keys that the call names.
        command: the bytes of the call.
        connection: the connection on which it was sent last.
        reply: a tuple whose only item is the reply, a value or an error of hiredis; None before the reply came.
        recovery: decides where the call is sent again; None when it has not failed.
    """

    __slots__ = ("command", "connection", "key", "recovery", "reply")

    def __init__(self, key: bytes, command: bytes) -> None:
        self.key, self.command = key, command
        self.connection: ScriptConnection | None = None
        self.reply: tuple[Any] | None = None
        self.recovery: Recovery | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the reply can no longer come, because the connection is closed."""
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
        purpose: the action of its calls, for errors, such as `merge into user_activity`.

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

    @property
    def is_busy(self) -> bool:
        """Whether replies to calls are missing."""
        return bool(self._under_way)

    def send(self, call: _Call, *, is_asking: bool = False) -> None:
        """Send a call. `answer` returns its reply.

        Args:
            call: the call.
            is_asking: send ASKING before the call. Then its reply is taken at once, after all earlier replies.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server went away or does not take the bytes in time.
        """
        call.connection, call.reply = self, None
        with self._closed_by_failures():
            if is_asking:
                self._take(len(self._under_way))
                self._connection.send(ASKING)
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
        """Close the connection if the block fails: replies to calls under way can no longer come."""
        if self.is_closed:
            raise self._endpoint.lost("the connection was closed")
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _take(self, count: int) -> None:
        """Take the replies to the first calls under way. If a call did not find the script, load it and call again.

        In that case the replies to all calls under way are taken first, and the calls that did not find the script are
        repeated in their order. A later call may have found the script already, since any client can load it in
        between. Rows need no order between calls, and the fences keep the order of merges.
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
        """Return a reply, or raise its error. A connection to a server that cannot serve is closed."""
        if not isinstance(reply, Exception):
            return reply
        error = reply_error(self._where, reply)
        if error.is_wrong_server and error.code not in _REDIRECTING:
            self.close()
        raise error


def _is_missing(reply: Any) -> bool:
    return isinstance(reply, Exception) and str(reply).startswith("NOSCRIPT")
