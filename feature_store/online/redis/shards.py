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

from feature_store.errors import OnlineStoreError, StoreReplyError
from feature_store.online.redis.connection import Connection
from feature_store.online.redis.endpoint import Endpoint, Question
from feature_store.online.redis.following import FollowingCommands
from feature_store.online.redis.location import Location
from feature_store.online.redis.resp import Command, ReplyParser
from feature_store.online.redis.shard_recovery import ShardRecovery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Sequence

    from feature_store.online.redis.address import Address
    from feature_store.online.redis.limit import Limit
# After a map was learnt, a primary that does not answer in time is not suspected for this long. Without it, clients
# whose limits are too short for a busy store would ask for the map with each request.
_TRUSTED_S = 0.25


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
        suspects: the primaries that did not answer in time since the newest map was learnt, and not since then.
    """

    def __init__(self, location: Location, timeout_s: float, slots: int) -> None:
        self.location = location
        self.whole = Endpoint(replace(location, kind="server", others=()), timeout_s)
        self.limit: Callable[[], Limit] = self.whole.limit
        self.version = 0
        self.suspects: set[Endpoint] = set()
        # When the map was learnt, when it becomes old, and when it was last learnt because it was old.
        self._learnt_at = self._old_at = self._asked_at = 0.0
        self._shards: list[Shard | None] = [None] * slots
        self._by_primary: dict[Endpoint, Shard] = {}
        self._endpoints: dict[tuple[str, int, bool], Endpoint] = {}
        self.renew_locks()
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
    def learning(self, version: int, failed: Collection[Endpoint] = ()) -> Generator[Question, Any, None]:
        """The steps of `refresh` without I/O: yields the questions to servers, and takes their replies.

        Args:
            version: the version of the newest map.
            failed: servers that did not answer. They are asked last.

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
        elif self._refreshed():
            shard = self.shard(key)
        if shard is None:
            raise self.uncovered(key)
        return shard.primary

    def _refreshed(self) -> bool:
        """Learn an old map again. Returns whether there may be a new map.

        A writer waits for the map, so that it writes to no server that was replaced. It does not wait when the servers
        that name the others did not answer the last time.
        """
        answered = self._learnt_at >= self._asked_at
        if not self.becomes_old():
            return False
        if not answered:
            self.refresh_soon()
            return False
        with contextlib.suppress(OnlineStoreError):  # then the known map stays
            self.refresh(self.version, self.suspects.copy(), half(self.limit()))
        return True

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
        self._shards[self.slot(key)] = self._by_primary.setdefault(node, Shard(node))

    def learnt(self, version: int, shards: list[Shard | None]) -> None:
        """Take a new map, unless a newer one than `version` is known already.

        Servers that it does not name are forgotten, and their connections closed.
        """
        with self._taking:
            if version != self.version:
                return
            self._shards = shards
            self._by_primary = {shard.primary: shard for shard in shards if shard is not None}
            self.suspects.clear()
            self._learnt_at = time.monotonic()
            self._old_at = self._learnt_at + self.refresh_s
            self.version += 1
            named = self.named()
            for place, endpoint in list(self._endpoints.items()):
                if endpoint not in named:
                    del self._endpoints[place]
                    endpoint.is_forgotten = True
                    endpoint.close_idle()

    def named(self) -> set[Endpoint]:
        """The servers that the known map names."""
        return {endpoint for shard in list(self._by_primary.values()) for endpoint in (shard.primary, *shard.replicas)}

    def suspect(self, primary: Endpoint) -> None:
        """Record that a primary did not answer in time: another server may have its role. The map becomes old."""
        if time.monotonic() > self._learnt_at + _TRUSTED_S:
            self.suspects.add(primary)
            self._old_at = 0.0

    def becomes_old(self) -> bool:
        """Whether the map must be learnt again. True for one caller each time that the map has become old."""
        now = time.monotonic()
        if now < self._old_at:
            return False
        self._asked_at, self._old_at = now, now + self.refresh_s
        return True

    def place(self, target: str, by: Endpoint) -> Endpoint:
        """The node that a redirection names: `host:port`. Without a host, or with `?`, it is that of the server.

        Args:
            target: the node.
            by: the server that redirects.

        Raises:
            StoreReplyError: the redirection names no node.
        """
        host, _, port = target.rpartition(":")
        if not port.isdecimal() or not 0 < int(port) < 1 << 16:
            where = f"Redis at {by.shown}"
            raise StoreReplyError(where, problem=f"it redirects to {target[:100]!r}, which is no host and port")
        return self.endpoint(known_host(host, by.address), int(port))

    # -- learning -----------------------------------------------------------------------------------------------

    def refresh(self, version: int, failed: Collection[Endpoint] = (), limit: Limit | None = None) -> None:
        """Learn the shards, unless another thread has done so since `version` was the newest map.

        Args:
            version: the version of the map that turned out wrong.
            failed: servers that did not answer. They are asked last.
            limit: the time limit; the topology's own unless given.

        Raises:
            StoreConnectionError, StoreTimeoutError: no server answers.
        """
        limit = limit or self.limit()
        with self._alone(limit):
            self._learn(version, failed, limit)

    def refresh_soon(self) -> None:
        """Learn the shards in a thread of its own, unless such a thread runs. Until it has, the known map stays."""
        if not self._background.acquire(blocking=False):
            return
        try:
            threading.Thread(target=self._refresh_now, name="feature-store topology", daemon=True).start()
        except RuntimeError:  # no more threads, or the interpreter ends: the known map stays
            self._background.release()

    def _refresh_now(self) -> None:
        """The work of the thread. It does not make requests wait that must learn the shards: their limits differ."""
        background = self._background
        try:
            with contextlib.suppress(OnlineStoreError):  # then the known map stays
                self._learn(self.version, self.suspects.copy(), self.limit())
        finally:
            background.release()

    def _learn(self, version: int, failed: Collection[Endpoint], limit: Limit) -> None:
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

    def renew_locks(self) -> None:
        """Make new locks. In a forked child, threads that the child does not have may hold the old ones."""
        # Held while a thread learns the map that it needs, while a new map is taken, and while `refresh_soon` learns.
        self._lock, self._taking, self._background = threading.Lock(), threading.Lock(), threading.Lock()

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


def half(limit: Limit) -> Limit:
    """Half of the remaining time. A limit that has ended stays: it is reported where a connection is used."""
    try:
        return limit.share(2)
    except TimeoutError:
        return limit


def known_host(host: str, by: Address) -> str:
    """The host that a node names in a reply. A node that does not know its own host names the host `?`, or none."""
    return by.host if host in ("", "?") else host


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
        shards.renew_locks()


os.register_at_fork(after_in_child=_renew_locks)
