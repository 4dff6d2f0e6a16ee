"""How a call of a writer or a job is sent again, in a topology of shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from feature_store.errors import (
    ClusterDownError,
    LoadingError,
    MasterDownError,
    OnlineStoreError,
    ReadOnlyReplicaError,
    StoreConnectionError,
    StoreTimeoutError,
)
from feature_store.online.redis.following import MOST_AT_ONCE, Patience, Route

if TYPE_CHECKING:
    from collections.abc import Collection

    from feature_store.online.redis.endpoint import Endpoint

# Errors of a server while the topology changes. The next primary takes the call.
CHANGING = (
    StoreConnectionError,
    StoreTimeoutError,
    ReadOnlyReplicaError,
    ClusterDownError,
    LoadingError,
    MasterDownError,
)


class _Shard(Protocol):
    @property
    def primary(self) -> Endpoint: ...


class _Shards(Protocol):
    """What a recovery needs of `Shards`."""

    version: int

    def shard(self, key: bytes) -> _Shard | None: ...
    def node(self, key: bytes) -> Endpoint: ...
    def place(self, target: str, by: Endpoint) -> Endpoint: ...
    def put(self, key: bytes, node: Endpoint) -> None: ...
    def refresh(self, version: int, failed: Collection[Endpoint] = ()) -> None: ...


class ShardRecovery:
    """How one failed call about a key is sent again: see `Recovery`."""

    def __init__(self, shards: _Shards, key: bytes) -> None:
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
            self._shards.refresh(self._shards.version, [known.primary] if known is not None else ())
        if self._shards.shard(self._key) is known or code == "TRYAGAIN":
            self._patience.wait()
        return Route(self._node(error))

    def wait(self) -> None:
        """See Recovery."""
        self._patience.wait()

    def _redirected(self, code: str, target: str) -> Route:
        self._redirections += 1
        if self._redirections > MOST_AT_ONCE:
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
