"""The connections of a client that threads share, to all servers of a topology of shards."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, NamedTuple

from feature_store.errors import OnlineStoreError, StoreConnectionError, StoreReplyError, StoreTimeoutError
from feature_store.online.redis.hedging import Hedges
from feature_store.online.redis.pool import Pool
from feature_store.online.redis.race import Runner, first_done, readable
from feature_store.online.redis.readers import Readers
from feature_store.online.redis.shard_request import Pause, Refresh, RefreshSoon, Send, ShardRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.online.observer import Observers
    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.limit import Limit
    from feature_store.online.redis.pool import Started
    from feature_store.online.redis.resp import Command
    from feature_store.online.redis.shard_request import Hedge
    from feature_store.online.redis.shards import Shards


# How long a hedge may wait for a new connection, and how many round trips it takes to open one.
OPENING_S, ROUND_TRIPS = 0.01, 4


class _Sent(NamedTuple):
    """Commands that were sent to a server at `began`, and when they are hedged unless it answers before."""

    server: Endpoint
    began: float
    hedge_at: float | None
    pool: Pool
    started: Started

    @property
    def hedge_after(self) -> float:
        """The seconds after which the commands are hedged."""
        return self.hedge_at - self.began if self.hedge_at is not None else 0.0


class ShardPool:
    """A pool for each server; see ClientPool.

    Args:
        shards: the topology.
        observers: the client's observers.
        most: the most connections to each server.
    """

    def __init__(self, shards: Shards, observers: Observers, most: int) -> None:
        self._shards, self._observers, self._most = shards, observers, most
        hedges = Hedges(observers) if shards.location.is_hedged else None
        self._readers = Readers(shards.location.read_from, hedges)
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
            if not request.was_held_up:
                limit = limit.further()

    def _send(self, step: Send, request: ShardRequest, limit: Limit) -> None:
        """Ask all servers, then take all replies."""
        started: list[_Sent] = []
        try:
            for server, commands in step.batches:
                began = time.monotonic()
                hedge_at = request.hedge_at(server, commands, began)
                try:
                    sent = self._start(server, commands, hedge_at, request, limit)
                except (StoreConnectionError, StoreTimeoutError, StoreReplyError) as error:
                    request.failed(server, error)
                else:
                    started.append(_Sent(server, began, hedge_at, self._pool(server), sent))
                if not request.was_held_up:
                    limit = limit.further()
            while started:
                one = started.pop(0)
                try:
                    if one.hedge_at is None or not self._hedged(one, request):
                        one.pool.finish(one.started)
                        request.answered(one.server, one.began)
                except (StoreConnectionError, StoreTimeoutError, StoreReplyError) as error:
                    request.failed(one.server, error)
        except BaseException:
            for one in started:
                one.pool.abandon(one.started)
            raise

    def _start(
        self, server: Endpoint, commands: list[Command], hedge_at: float | None, request: ShardRequest, limit: Limit
    ) -> Started:
        """Send commands to a server."""
        limit, pool = request.limit_of(server, limit), self._pool(server)
        if hedge_at is None or pool.has_idle:
            return pool.start(commands, limit)
        opening = request.limit_of_opening(server, hedge_at, limit)
        try:
            return pool.start(commands, opening)._replace(limit=limit)
        except StoreTimeoutError as error:
            if opening is limit or error.is_held_up:
                raise
            raise server.lost("no connection in time") from error

    def _hedged(self, sent: _Sent, request: ShardRequest) -> bool:
        """Ask another server, too, if a server is late. Returns whether the replies have been taken from either.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server went away, or no server answered in time.
        """
        assert sent.hedge_at is not None
        connection, commands, limit = sent.started.connection, sent.started.commands, sent.started.limit
        if readable([connection], min(sent.hedge_at, limit.at) - time.monotonic()):
            return False
        hedge = request.hedge(sent.server, commands)
        try:
            second = self._asked(hedge, sent)
            if second is None:
                sent.pool.finish(sent.started)
                request.answered(sent.server, sent.began)
            else:
                self._race(sent, hedge, second, request)
        finally:
            request.end_hedge(hedge)
        return True

    def _asked(self, hedge: Hedge, sent: _Sent) -> Started | None:
        """Send a hedge. None when it cannot be sent soon: while a connection is opened, nobody listens to the first
        server."""
        if hedge.target is None:
            return None
        limit = sent.started.limit
        try:
            soon = time.monotonic() + max(OPENING_S, ROUND_TRIPS * sent.hedge_after)
            return self._pool(hedge.target).start(hedge.commands, limit._replace(at=min(limit.at, soon)))
        except OnlineStoreError:  # requests that choose this server will see why
            return None

    def _race(self, sent: _Sent, hedge: Hedge, second: Started, request: ShardRequest) -> None:
        assert hedge.target is not None
        commands, limit, other = sent.started.commands, sent.started.limit, self._pool(hedge.target)
        runners = [Runner(sent.started.connection, commands), Runner(second.connection, hedge.commands)]
        try:
            done = first_done(runners, limit)
            if done is runners[1] and not request.accepts(hedge):
                other.took(runners.pop())
                done = first_done(runners, limit)
            if done is None:
                raise sent.server.timeout(limit)
        except BaseException:
            sent.pool.abandon(sent.started)
            for runner in runners[1:]:
                other.leave(runner)
            raise
        if done is runners[0]:
            sent.pool.took(done)
            for runner in runners[1:]:
                other.leave(runner)
            request.answered(sent.server, sent.began)
        else:
            other.took(done)
            sent.pool.leave(runners[0])
            request.take_over(hedge, commands, sent.began)

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
