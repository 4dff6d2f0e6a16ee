"""The connections of a client that threads share, to all servers of a topology of shards."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from feature_store.errors import OnlineStoreError, StoreConnectionError, StoreTimeoutError
from feature_store.online.redis.pool import Pool
from feature_store.online.redis.readers import Readers
from feature_store.online.redis.shard_request import Pause, Refresh, RefreshSoon, Send, ShardRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.online.observer import Observers
    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.limit import Limit
    from feature_store.online.redis.pool import Started
    from feature_store.online.redis.resp import Command
    from feature_store.online.redis.shards import Shards


class ShardPool:
    """A pool for each server; see ClientPool.

    Args:
        shards: the topology.
        observers: the client's observers.
        most: the most connections to each server.
    """

    def __init__(self, shards: Shards, observers: Observers, most: int) -> None:
        self._shards, self._observers, self._most = shards, observers, most
        self._readers = Readers(shards.location.read_from)
        self._pools: dict[Endpoint, Pool] = {}
        # The newest map whose servers the pools are for.
        self._version = 0

    def exchange(self, commands: Sequence[Command], limit: Limit) -> None:
        """See ClientPool."""
        if self._version != self._shards.version:
            self._close_unnamed()
        request = ShardRequest(self._shards, self._readers, commands)
        for step in request.steps():
            if isinstance(step, Send):
                self._send(step, request, limit)
            elif isinstance(step, RefreshSoon):
                self._shards.refresh_soon()
            elif isinstance(step, Refresh):
                with contextlib.suppress(*([OnlineStoreError] if step.may_fail else [])):
                    self._shards.refresh(step.version, step.failed, request.limit_of_refresh(step, limit))
            else:
                _wait(step, limit)
            limit = limit.further()

    def _send(self, step: Send, request: ShardRequest, limit: Limit) -> None:
        """Ask all servers, then take all replies."""
        started: list[tuple[Endpoint, float, Pool, Started]] = []
        try:
            for server, commands in step.batches:
                began, pool = time.monotonic(), self._pool(server)
                try:
                    sent = pool.start(commands, request.limit_of(server, limit))
                except (StoreConnectionError, StoreTimeoutError) as error:
                    request.failed(server, error)
                else:
                    started.append((server, began, pool, sent))
                limit = limit.further()
            while started:
                server, began, pool, sent = started.pop(0)
                try:
                    pool.finish(sent)
                except (StoreConnectionError, StoreTimeoutError) as error:
                    request.failed(server, error)
                else:
                    request.answered(server, began)
        except BaseException:
            for *_, pool, sent in started:
                pool.abandon(sent)
            raise

    @property
    def size(self) -> int:
        """See ClientPool."""
        return sum(pool.size for pool in list(self._pools.values()))

    @property
    def waiting(self) -> int:
        """See ClientPool."""
        return sum(pool.waiting for pool in list(self._pools.values()))

    def close(self) -> None:
        """See ClientPool."""
        for pool in list(self._pools.values()):
            pool.close()

    def _pool(self, server: Endpoint) -> Pool:
        pool = self._pools.get(server)
        if pool is None:
            pool = self._pools.setdefault(server, Pool(server, self._observers, self._most))
        return pool

    def _close_unnamed(self) -> None:
        """Close the pools of servers that the newest map does not name."""
        self._version = self._shards.version
        named = self._shards.named()
        self._readers.keep(named)
        for server, pool in list(self._pools.items()):
            if server not in named:
                pool.close()
                if not pool.size:  # else a request uses a connection, which the next map closes
                    self._pools.pop(server, None)


def _wait(step: Pause, limit: Limit) -> None:
    left = limit.at - time.monotonic()
    if left < step.seconds and step.error is not None:
        raise step.error
    time.sleep(max(0.0, min(left, step.seconds)))
