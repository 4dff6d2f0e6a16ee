"""The calls of one script, several under way, on the nodes that hold their keys: what all writers send with.

Redis forgets its scripts: after SCRIPT FLUSH, after a restart, and after a failover to a replica. A call then answers
NOSCRIPT and has done nothing, so the connection loads the script and sends the call again.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import TYPE_CHECKING, Any

from feature_store.online.redis.connection import Connection
from feature_store.online.redis.errors import reply_error
from feature_store.online.redis.resp import argument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.topology import Topology


class ScriptCalls:
    """Calls of one script, each sent to the node that holds its keys. Answers come in the order of sending.

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
        self._order: deque[ScriptConnection] = deque()
        try:
            for node in topology.nodes():
                self._of_node(node)
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
        connection = self._of_node(self._topology.node(key))
        connection.send(command)
        self._order.append(connection)

    def answer(self) -> Any:
        """The reply to the first call whose reply was not taken yet.

        Raises:
            StoreReplyError: Redis refuses the call. Calls that were sent after it have replies of their own.
            StoreConnectionError, StoreTimeoutError: the node went away or does not answer in time.
        """
        return self._order.popleft().answer()

    def replies(self, commands: Sequence[tuple[bytes, bytes]]) -> list[Any]:
        """The replies to other commands than calls of the script, in their order. No call may be under way.

        Args:
            commands: of each, one of the keys that it names, and the command.

        Raises:
            StoreReplyError, StoreConnectionError, StoreTimeoutError: as `answer`.
        """
        places: dict[ScriptConnection, list[int]] = {}
        for i, (key, _) in enumerate(commands):
            places.setdefault(self._of_node(self._topology.node(key)), []).append(i)
        replies: list[Any] = [None] * len(commands)
        for connection, indexes in places.items():
            for i, reply in zip(indexes, connection.replies([commands[i][1] for i in indexes]), strict=True):
                replies[i] = reply
        return replies

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()

    def _of_node(self, node: Endpoint) -> ScriptConnection:
        connection = self._connections.get(node)
        if connection is None:
            connection = self._connections[node] = ScriptConnection(node, self._script, self._purpose)
        return connection


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
        self._script, self._where = script, f"{purpose} (Redis at {endpoint.shown})"
        self._under_way: deque[bytes] = deque()
        self._answered: deque[Any] = deque()
        self._connection = Connection(endpoint)
        self._load()

    def send(self, command: bytes) -> None:
        """Send a call; `answer()` takes its reply, in the order of sending.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server went away or does not take the bytes in time.
        """
        self._connection.send(command)
        self._under_way.append(command)

    def answer(self) -> Any:
        """The reply to the first call whose reply was not taken yet.

        Raises:
            StoreReplyError: Redis refuses the call. Calls that were sent after it have replies of their own.
            StoreConnectionError, StoreTimeoutError: the server went away or does not answer in time.
        """
        if not self._answered:
            self._answered.append(self._connection.reply())
            command = self._under_way.popleft()
            if _is_missing(self._answered[0]):
                self._send_again(command)
        return self._checked(self._answered.popleft())

    def replies(self, commands: Sequence[bytes]) -> list[Any]:
        """The replies to other commands than calls of the script. No call may be under way.

        Raises:
            StoreReplyError, StoreConnectionError, StoreTimeoutError: as `answer`.
        """
        for command in commands:
            self._connection.send(command)
        return [self._checked(reply) for reply in [self._connection.reply() for _ in commands]]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send_again(self, command: bytes) -> None:
        """Load the script, and make the calls again that did not find it, in their order.

        The replies to all calls under way are taken first. A later call may have found the script already, since any
        client can load it in between. Order is not needed between rows, and between merges the fences keep it.
        """
        commands = [command, *self._under_way]
        self._answered.extend(self._connection.reply() for _ in self._under_way)
        self._under_way.clear()
        self._load()
        for i, again in enumerate(commands):
            if _is_missing(self._answered[i]):
                self._connection.send(again)
                self._answered[i] = self._connection.reply()

    def _load(self) -> None:
        self._connection.send(b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n" + argument(self._script))
        try:
            self._checked(self._connection.reply())
        except BaseException:
            self.close()
            raise

    def _checked(self, reply: Any) -> Any:
        if not isinstance(reply, Exception):
            return reply
        error = reply_error(self._where, reply)
        if error.is_wrong_server:
            self.close()
        raise error


def _is_missing(reply: Any) -> bool:
    return isinstance(reply, Exception) and str(reply).startswith("NOSCRIPT")
