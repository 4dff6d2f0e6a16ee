"""A request of an event loop to a server and, when the server is late, to another server. The first answer counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from feature_store.errors import OnlineStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from feature_store.online.redis.async_pool import AsyncPool
    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.limit import Limit
    from feature_store.online.redis.resp import Command
    from feature_store.online.redis.shard_request import Hedge, ShardRequest


class AsyncRace:
    """The usual request pays for a timer. A task is made only for a hedge.

    Args:
        request: the request that the commands belong to.
        server: the server that is asked first.
        commands: the commands.
        limit: the time limit of the server.
        pool: returns the pool of a server.
    """

    def __init__(
        self,
        request: ShardRequest,
        server: Endpoint,
        commands: Sequence[Command],
        limit: Limit,
        pool: Callable[[Endpoint], AsyncPool],
    ) -> None:
        self._request, self._server, self._commands, self._limit, self._pool = request, server, commands, limit, pool
        self._hedge: Hedge | None = None
        self._asking: asyncio.Task[None] | None = None
        self._waiter: asyncio.Task[object] | None = None
        self._is_won = False

    async def run(self, began: float, hedge_at: float) -> bool:
        """Ask the server and, at `hedge_at`, another one. Returns whether the other one answered first.

        Raises:
            StoreConnectionError, StoreTimeoutError, StoreReplyError: as AsyncPool.ask, for the first server.
        """
        loop = asyncio.get_running_loop()
        waiter = self._waiter = asyncio.current_task()
        assert waiter is not None
        cancelled_before = waiter.cancelling()
        timer = loop.call_at(hedge_at, self._begin, loop)
        try:
            await self._pool(self._server).ask(self._commands, self._limit)
        except asyncio.CancelledError:
            # As asyncio.timeout: `_ask` cancelled the wait. If the caller did so, too, the request ends.
            if not self._is_won or waiter.uncancel() > cancelled_before:
                raise
            assert self._hedge is not None
            self._request.take_over(self._hedge, self._commands, began)
            return True
        finally:
            self._waiter = None
            timer.cancel()
            if self._asking is not None:
                self._asking.cancel()
            if self._hedge is not None:
                self._request.end_hedge(self._hedge)
        return False

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiter is None:
            return
        self._hedge = self._request.hedge(self._server, self._commands)
        if self._hedge.target is not None:
            self._asking = loop.create_task(self._ask(self._hedge, self._hedge.target))

    async def _ask(self, hedge: Hedge, target: Endpoint) -> None:
        try:
            await self._pool(target).ask(hedge.commands, self._limit)
        except OnlineStoreError:  # requests that choose this server will see why
            return
        if self._waiter is not None and self._request.accepts(hedge):
            self._is_won = True
            self._waiter.cancel()
