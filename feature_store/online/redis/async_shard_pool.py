"""The connections of a client of one event loop, to all servers of a topology of shards."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from feature_store.errors import OnlineStoreError, StoreConnectionError, StoreReplyError, StoreTimeoutError
from feature_store.online.redis.async_connection import AsyncConnection
from feature_store.online.redis.async_pool import AsyncPool, of_another_loop
from feature_store.online.redis.async_race import AsyncRace
from feature_store.online.redis.hedging import Hedges
from feature_store.online.redis.readers import Readers
from feature_store.online.redis.shard_request import Pause, Refresh, RefreshSoon, Send, ShardRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from feature_store.online.observer import Observers
    from feature_store.online.redis.endpoint import Endpoint, Question
    from feature_store.online.redis.limit import Limit
    from feature_store.online.redis.resp import Command
    from feature_store.online.redis.shards import Shards


class AsyncShardPool:
    """A pool for each server; see AsyncClientPool.

    Args:
        shards: the topology.
        observers: the client's observers.
        most: the most connections to each server.
    """

    def __init__(self, shards: Shards, observers: Observers, most: int) -> None:
        self._shards, self._observers, self._most = shards, observers, most
        hedges = Hedges(observers) if shards.location.is_hedged else None
        self._readers = Readers(shards.location.read_from, hedges)
        self._pools: dict[Endpoint, AsyncPool] = {}
        # The newest map whose servers the pools are for.
        self._version = 0
        self._begin()

    def _begin(self) -> None:
        """Begin on an event loop. Its lock is held while a request learns the map that it needs."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._learning = asyncio.Lock()
        self._background: asyncio.Task[None] | None = None

    async def exchange(self, commands: Sequence[Command], limit: Limit) -> None:
        """See AsyncClientPool."""
        if self._loop is not asyncio.get_running_loop():
            self._join()
        if self._version != self._shards.version:
            self._close_unnamed()
        request = ShardRequest(self._shards, self._readers, commands)
        for step in request.steps():
            if isinstance(step, Send):
                await self._send(step, request, limit)
            elif isinstance(step, RefreshSoon):
                self._refresh_soon()
            elif isinstance(step, Refresh):
                with contextlib.suppress(*([OnlineStoreError] if step.may_fail else [])):
                    await self._refresh(step, request.limit_of_refresh(step, limit))
            else:
                await _wait(step, limit)
            if not request.was_held_up:
                limit = limit.further()

    async def _send(self, step: Send, request: ShardRequest, limit: Limit) -> None:
        """Ask all servers, and wait for all."""
        asked = [self._ask(server, commands, request, limit) for server, commands in step.batches]
        if len(asked) == 1:  # a task and its end take 10 µs
            await asked[0]
            return
        for error in await asyncio.gather(*asked, return_exceptions=True):
            if error is not None:
                raise error

    async def _ask(self, server: Endpoint, commands: Sequence[Command], request: ShardRequest, limit: Limit) -> None:
        began = time.monotonic()
        limit = request.limit_of(server, limit)
        hedge_at = request.hedge_at(server, commands, began)
        try:
            if hedge_at is None:
                await self._pool(server).ask(commands, limit)
            elif await AsyncRace(request, server, commands, limit, self._pool).run(began, hedge_at):
                return
        except (StoreConnectionError, StoreTimeoutError, StoreReplyError) as error:
            request.failed(server, error)
        else:
            request.answered(server, began)

    async def _refresh(self, step: Refresh, limit: Limit) -> None:
        """As Shards.refresh."""
        try:
            async with asyncio.timeout_at(limit.at), self._learning:
                await self._learn(step.version, step.failed, limit)
        except OnlineStoreError:
            raise
        except TimeoutError:
            raise self._shards.whole.timeout(limit) from None

    def _refresh_soon(self) -> None:
        """As Shards.refresh_soon, in a task."""
        if self._background is None or self._background.done():
            self._background = asyncio.get_running_loop().create_task(self._refresh_now())

    async def _refresh_now(self) -> None:
        shards = self._shards
        with contextlib.suppress(OnlineStoreError):  # then the known map stays
            await self._learn(shards.version, shards.suspects.copy(), shards.limit())

    async def _learn(self, version: int, failed: Collection[Endpoint], limit: Limit) -> None:
        steps = self._shards.learning(version, failed)
        with contextlib.suppress(StopIteration):
            question = next(steps)
            while True:
                try:
                    reply = await _asked(question, self._shards.whole, limit)
                except OnlineStoreError as error:
                    question = steps.throw(error)
                else:
                    question = steps.send(reply)

    def _join(self) -> None:
        """Use the locks and tasks of the running event loop.

        Raises:
            OnlineStoreError: there are connections of another one.
        """
        if self.size:
            raise of_another_loop(self._loop)
        self._begin()
        self._loop = asyncio.get_running_loop()

    @property
    def size(self) -> int:
        """See AsyncClientPool."""
        return sum(pool.size for pool in self._pools.values())

    @property
    def waiting(self) -> int:
        """See AsyncClientPool."""
        return sum(pool.waiting for pool in self._pools.values())

    def close(self) -> None:
        """See AsyncClientPool."""
        if self._background is not None and not self._background.get_loop().is_closed():
            self._background.cancel()
        self._begin()
        for pool in self._pools.values():
            pool.close()

    def _pool(self, server: Endpoint) -> AsyncPool:
        pool = self._pools.get(server)
        if pool is None:
            pool = self._pools[server] = AsyncPool(server, self._observers, self._most)
        return pool

    def _close_unnamed(self) -> None:
        """As ShardPool."""
        self._version = self._shards.version
        named = self._shards.named()
        self._readers.keep(named)
        for server, pool in list(self._pools.items()):
            if server not in named:
                pool.close()
                if not pool.size:  # else a connection is being opened, which the next map closes
                    del self._pools[server]


async def _asked(question: Question, whole: Endpoint, limit: Limit) -> Any:
    """The answer of a server, on a connection opened for the question."""
    try:
        share = limit.share(question.servers)
    except TimeoutError:
        raise whole.timeout(limit) from None
    connection = await AsyncConnection.to(question.address, whole, share)
    try:
        (reply,) = await connection.replies([question.command], share)
    finally:
        connection.close()
    if isinstance(reply, Exception):
        raise whole.refused(reply)
    return reply


async def _wait(step: Pause, limit: Limit) -> None:
    left = limit.at - time.monotonic()
    if left < step.seconds and step.error is not None:
        raise step.error
    await asyncio.sleep(max(0.0, min(left, step.seconds)))
