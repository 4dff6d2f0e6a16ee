"""Calls that follow their key: a call is sent again after its node failed, or moved the key to another node.

`Recovery` is a topology's rule for this. The commands of redis-py (`FollowingCommands`) and scripts
(script_connection.py) both use it. All calls may be sent again after a lost answer: a second write of the same rows
changes nothing, merges have fences, and publications and progress compare the stored values first.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from feature_store.errors import OnlineStoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from feature_store.online.redis.endpoint import Endpoint

T = TypeVar("T")
# How long writers and jobs wait for a fail-over, or for the end of a slot's move. A Cluster with the default
# `cluster-node-timeout 15000` needs 16 to 20 s to replace a primary. Clients that read wait only for `timeout_s`.
PATIENCE_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.25
# This many redirections in a row are followed at once. After that, two nodes may point at each other and need time.
MOST_AT_ONCE = 5
# Precedes a command to a node that does not own the command's slot yet.
ASKING = b"*1\r\n$6\r\nASKING\r\n"


class Route(NamedTuple):
    """The node that a call is sent to.

    Attributes:
        node: the server.
        asking: whether ASKING precedes the call, because the server does not own the key's slot yet.
    """

    node: Endpoint
    asking: bool = False


class Recovery(Protocol):
    """How one failed call about a key is sent again. Each call has its own recovery, with its own time limit."""

    def after(self, error: OnlineStoreError) -> Route:
        """The node that the call is sent to next. Waits a little if the topology needs time.

        Raises:
            OnlineStoreError: `error`, when sending again does not help or the time is over.
        """
        ...

    def wait(self) -> None:
        """Wait until the topology may have changed."""
        ...


class Patience:
    """The pauses of one call. Each is longer than the one before; together they last PATIENCE_S."""

    def __init__(self) -> None:
        self._end = time.monotonic() + PATIENCE_S
        self._pause_s = _FIRST_PAUSE_S

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self._end

    def wait(self) -> None:
        """Wait for the next pause."""
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


class FollowingCommands:
    """The commands of a redis-py client. Each is sent to the node that holds a key at that time.

    Args:
        node: returns the node that holds the key now.
        recovery: makes the recovery of a call.
    """

    def __init__(self, node: Callable[[], Endpoint], recovery: Callable[[], Recovery]) -> None:
        self._node, self._recovery = node, recovery

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **options: self.follow(lambda route: _call(route, name, arguments, options))

    def pipeline(self, *, transaction: bool) -> _Transaction:
        """Commands of one transaction. All their keys are on the node."""
        assert transaction
        return _Transaction(self)

    def follow(self, run: Callable[[Route], T], *, is_transaction: bool = False) -> T:
        """The result of `run` on the node that holds the key. After an error, `run` is called where the recovery says.

        Args:
            run: sends something to a node.
            is_transaction: whether a transaction is sent. While its keys are moved, it waits until all are on one node.
        """
        route, recovery = Route(self._node()), None
        while True:
            try:
                return run(route)
            except OnlineStoreError as error:
                recovery = recovery or self._recovery()
                route = recovery.after(error)
                if route.asking and is_transaction:
                    recovery.wait()
                    route = Route(self._node())


class _Transaction:
    """Commands of a transaction, which are sent together once all are known.

    Args:
        followed: the commands that the transaction belongs to.
    """

    def __init__(self, followed: FollowingCommands) -> None:
        self._followed = followed
        self._calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __enter__(self) -> _Transaction:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **options: self._calls.append((name, arguments, options))

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """As `execute` of a redis-py pipeline."""

        def run(route: Route) -> list[Any]:
            with route.node.commands() as client, client.pipeline(transaction=True) as together:
                for name, arguments, options in self._calls:
                    getattr(together, name)(*arguments, **options)
                replies: list[Any] = together.execute(raise_on_error=raise_on_error)
                return replies

        return self._followed.follow(run, is_transaction=True)


def _call(route: Route, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    with route.node.commands() as client:
        if not route.asking:
            return getattr(client, name)(*arguments, **options)
        with client.pipeline(transaction=False) as together:  # ASKING counts for the next command of its connection
            together.execute_command("ASKING")
            getattr(together, name)(*arguments, **options)
            return together.execute()[1]
