"""Topologies of several servers: shards, each a primary with its replicas. They are learnt from servers, and change.

`Shards` has the common parts of a Cluster and of Sentinels. A subclass defines how the shards are learnt (`learning`)
and to which shard a key belongs (`slot`). The known map is a hint: a server that does not hold a key, or must not take
a write, reports it and changes nothing. So an outdated map costs time, and never correctness.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from feature_store.errors import (
    ClusterDownError,
    LoadingError,
    MasterDownError,
    OnlineStoreError,
    ReadOnlyReplicaError,
    StoreConnectionError,
    StoreTimeoutError,
)
from feature_store.online.redis.connection import Connection
from feature_store.online.redis.endpoint import Endpoint, Question
from feature_store.online.redis.following import FollowingCommands, Patience, Route
from feature_store.online.redis.location import Location
from feature_store.online.redis.resp import Command, ReplyParser

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from feature_store.online.redis.address import Address
    from feature_store.online.redis.limit import Limit

# Errors of a server while the topology changes. The next primary takes the call.
CHANGING = (
    StoreConnectionError,
    StoreTimeoutError,
    ReadOnlyReplicaError,
    ClusterDownError,
    LoadingError,
    MasterDownError,
)


class Shard(NamedTuple):
    """The servers that hold the same keys."""

    primary: Endpoint
    replicas: tuple[Endpoint, ...] = ()


class Shards(ABC):
    """The shards of a store.

    Args:
        location: where some of the servers are.
        timeout_s: seconds for a whole answer.
        slots: how many different numbers `slot` returns.

    Attributes:
        location: as given.
        whole: stands for the topology as a whole: its time limit, and errors that belong to no single server.
        version: the number of the newest map.
        suspected: a primary that did not answer in time since the newest map was learnt; None when all did.
    """

    def __init__(self, location: Location, timeout_s: float, slots: int) -> None:
        self.location = location
        self.whole = Endpoint(replace(location, kind="server", others=()), timeout_s)
        self.limit: Callable[[], Limit] = self.whole.limit
        self.version = 0
        self.suspected: Endpoint | None = None
        self._old_at = 0.0
        self._shards: list[Shard | None] = [None] * slots
        self._endpoints: dict[tuple[str, int, bool], Endpoint] = {}
        self._lock = threading.Lock()
        _all.add(self)

    @property
    def shown(self) -> str:
        """See Topology."""
        return self.location.shown

    # A map is learnt again after this many seconds, even without a failure.
    refresh_s: ClassVar[float]

    @property
    @abstractmethod
    def is_one_node(self) -> bool:
        """See Topology."""

    @property
    def only_server(self) -> Endpoint | None:
        """See Topology: after a fail-over, another server answers."""
        return None

    @abstractmethod
    def slot(self, key: bytes) -> int:
        """The slot of a key, a number below `slots`. Keys with one hash tag have one slot."""

    @abstractmethod
    def learning(self, version: int, failed: Endpoint | None = None) -> Generator[Question, Any, None]:
        """The steps of `refresh` without I/O: yields the questions to servers, and takes their replies.

        Raises:
            StoreConnectionError: no server answers.
        """

    @abstractmethod
    def uncovered(self, key: bytes) -> OnlineStoreError:
        """The error for a key that no shard holds."""

    @abstractmethod
    def together(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        """See Topology."""

    @abstractmethod
    def address_of(self, host: str, port: int, *, is_replica: bool) -> Address:
        """The address of a server, with the options of connections to it."""

    @abstractmethod
    def scan(self, key: bytes, prefix: bytes) -> Iterator[list[bytes]]:
        """See Topology."""

    @abstractmethod
    def scan_all(self, prefix: bytes) -> Iterator[list[bytes]]:
        """See Topology."""

    # -- where keys are -----------------------------------------------------------------------------------------

    def shard(self, key: bytes) -> Shard | None:
        """The servers that hold a key, as far as known; None when they are not known."""
        return self._shards[self.slot(key)]

    def node(self, key: bytes) -> Endpoint:
        """See Topology.

        Raises:
            StoreConnectionError, StoreTimeoutError: no server answers.
            ClusterDownError: no server holds the key.
        """
        shard = self.shard(key)
        if shard is None:
            self.refresh(self.version)
            shard = self.shard(key)
        elif self.becomes_old():
            with contextlib.suppress(OnlineStoreError):  # then the known map stays
                self.refresh(self.version)
            shard = self.shard(key)
        if shard is None:
            raise self.uncovered(key)
        return shard.primary

    def nodes(self) -> Sequence[Endpoint]:
        """See Topology. The shards are learnt anew.

        Raises:
            StoreConnectionError, StoreTimeoutError: no server answers.
        """
        self.refresh(self.version)
        return [shard.primary for shard in self.all]

    @property
    def all(self) -> list[Shard]:
        """The known shards."""
        return list({shard.primary: shard for shard in self._shards if shard is not None}.values())

    def endpoint(self, host: str, port: int, *, is_replica: bool = False) -> Endpoint:
        """The server at an address, in a role. It is always the same object."""
        known = self._endpoints.get((host, port, is_replica))
        if known is None:
            address = self.address_of(host, port, is_replica=is_replica)
            location = replace(self.location, kind="server", address=address, others=(), shown=address.shown)
            endpoint = Endpoint(location, self.whole.timeout_s)
            endpoint.is_replica = is_replica
            known = self._endpoints.setdefault((host, port, is_replica), endpoint)
        return known

    def put(self, key: bytes, node: Endpoint) -> None:
        """Record that a server is the primary of a key."""
        known = next((shard for shard in self._shards if shard is not None and shard.primary is node), Shard(node))
        self._shards[self.slot(key)] = known

    def learnt(self, shards: list[Shard | None]) -> None:
        """Take a new map."""
        self._shards = shards
        self.suspected = None
        self.version += 1
        self._old_at = time.monotonic() + self.refresh_s

    def suspect(self, primary: Endpoint) -> None:
        """Record that a primary did not answer in time: another server may have its role. The map becomes old."""
        self.suspected = primary
        self._old_at = 0.0

    def becomes_old(self) -> bool:
        """Whether the map must be learnt again. True for one caller each time that the map has become old."""
        now = time.monotonic()
        if now < self._old_at:
            return False
        self._old_at = now + self.refresh_s
        return True

    def place(self, target: str, by: Endpoint) -> Endpoint:
        """The node that a redirection names: `host:port`, or `:port` of the host that answered."""
        host, _, port = target.rpartition(":")
        return self.endpoint(host or by.address.host, int(port))

    # -- learning -----------------------------------------------------------------------------------------------

    def refresh(self, version: int, failed: Endpoint | None = None, limit: Limit | None = None) -> None:
        """Learn the shards, unless another thread has done so since `version` was the newest map.

        Args:
            version: the version of the map that turned out wrong.
            failed: a server that just failed. It is asked last.
            limit: the time limit; the topology's own unless given.

        Raises:
            StoreConnectionError, StoreTimeoutError: no server answers.
        """
        limit = limit or self.limit()
        with self._alone(limit):
            steps = self.learning(version, failed)
            with contextlib.suppress(StopIteration):
                question = next(steps)
                while True:
                    try:
                        reply = _asked(question, self.whole, limit)
                    except OnlineStoreError as error:
                        question = steps.throw(error)
                    else:
                        question = steps.send(reply)

    @contextlib.contextmanager
    def _alone(self, limit: Limit) -> Iterator[None]:
        try:
            is_mine = self._lock.acquire(timeout=limit.left())
        except TimeoutError:
            is_mine = False
        if not is_mine:
            raise self.whole.timeout(limit)
        try:
            yield
        finally:
            self._lock.release()

    def renew_lock(self) -> None:
        """In a forked child: make a new lock, since a thread that the child does not have may hold the old lock."""
        self._lock = threading.Lock()

    # -- calls --------------------------------------------------------------------------------------------------

    def recovery(self, key: bytes) -> ShardRecovery:
        """See Topology."""
        return ShardRecovery(self, key)

    @contextlib.contextmanager
    def commands(self, key: bytes) -> Iterator[Any]:
        """See Topology."""
        with self.whole.errors():
            yield FollowingCommands(lambda: self.node(key), lambda: self.recovery(key))

    def close(self) -> None:
        """See Topology."""
        for node in list(self._endpoints.values()):
            node.close()


class ShardRecovery:
    """How one failed call about a key is sent again: see `Recovery`."""

    # This many redirections in a row are followed at once. After that, two nodes may point at each other and need time.
    _AT_ONCE = 5

    def __init__(self, shards: Shards, key: bytes) -> None:
        self._shards, self._key = shards, key
        self._patience = Patience()
        self._redirections = 0

    def after(self, error: OnlineStoreError) -> Route:
        """See Recovery."""
        if self._patience.is_over:
            raise error
        code = getattr(error, "code", "")
        if code in ("MOVED", "ASK"):
            return self._redirected(code, getattr(error, "target", ""))
        if not isinstance(error, CHANGING):
            raise error
        known = self._shards.shard(self._key)
        if code != "TRYAGAIN":  # with TRYAGAIN the keys of one call are on two nodes, and the map is right
            self._shards.refresh(self._shards.version, known.primary if known is not None else None)
        if self._shards.shard(self._key) is known or code == "TRYAGAIN":
            self._patience.wait()
        return Route(self._node(error))

    def wait(self) -> None:
        """See Recovery."""
        self._patience.wait()

    def _redirected(self, code: str, target: str) -> Route:
        self._redirections += 1
        if self._redirections > self._AT_ONCE:
            self._patience.wait()
        node = self._shards.place(target, self._shards.node(self._key))
        if code == "MOVED":
            self._shards.put(self._key, node)
        return Route(node, asking=code == "ASK")

    def _node(self, error: OnlineStoreError) -> Endpoint:
        shard = self._shards.shard(self._key)
        if shard is None:
            raise error
        return shard.primary


def _asked(question: Question, whole: Endpoint, limit: Limit) -> Any:
    """The answer of a server, on a connection opened for the question."""
    try:
        share = limit.share(question.servers)
    except TimeoutError:
        raise whole.timeout(limit) from None
    connection = Connection.to(question.address, whole, share)
    parser = ReplyParser(1)
    try:
        connection.exchange([Command(b"", question.command, parser)], share)
    finally:
        connection.close()
    if parser.error is not None:
        raise whole.refused(parser.error)
    return parser.replies[0]


_all: weakref.WeakSet[Shards] = weakref.WeakSet()


def _renew_locks() -> None:
    for shards in list(_all):
        shards.renew_lock()


os.register_at_fork(after_in_child=_renew_locks)
