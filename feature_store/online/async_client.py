"""The asyncio client of a model server: the steps of `conversation.py` over asyncio transports."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from feature_store.errors import FeatureStoreError
from feature_store.online.conversation import Conversation
from feature_store.online.near import near_cache
from feature_store.online.observer import Observed, Observers
from feature_store.online.offered import Offered
from feature_store.online.plan_load import PlanLoad
from feature_store.online.read_options import read_options
from feature_store.online.redis.limit import Limit
from feature_store.online.redis.topology import connect
from feature_store.online.request_forms import entity_columns, feature_names

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from datetime import datetime
    from typing import Self

    import redis

    from feature_store.online.conversation import Step
    from feature_store.online.near.near_cache import CacheState
    from feature_store.online.observer import Observer
    from feature_store.online.offered import Definitions, Transforms
    from feature_store.online.read_options import ReadOptions
    from feature_store.online.response import OnlineResponse
    from feature_store.online.shadow import ShadowCounts
    from feature_store.registry.serving_plan import ServingPlan


T = TypeVar("T")


class AsyncOnlineClient:
    """`OnlineClient` for asyncio and uvloop. Make one per event loop; any number of requests can run at once.

    Requests share two connections, on which many are under way at once.

    Args:
        url, project, timeout_s, transforms, definitions, observers, max_connections, cache, cache_bound_ms: as in
            `OnlineClient`.

    Raises:
        ConfigError, DefinitionError: as `OnlineClient`.

    Example:
        >>> import asyncio
        >>> from feature_store.online import AsyncOnlineClient
        >>> async def rank():
        ...     async with AsyncOnlineClient(redis_url, project="shop", definitions="features.py") as client:
        ...         rows = {"user_id": 1, "product_id": [1, 2], "basket_price": 40.0}
        ...         return (await client.get_online_features("ranking", rows)).to_numpy()
        >>> asyncio.run(rank()).shape
        (2, 5)
    """

    def __init__(
        self,
        url: str | redis.ConnectionPool,
        project: str,
        *,
        timeout_s: float = 1.0,
        transforms: Transforms | None = None,
        definitions: Definitions | None = None,
        observers: Sequence[Observer] = (),
        max_connections: int | None = None,
        cache: Mapping[str, int | str] | None = None,
        cache_bound_ms: float = 250.0,
    ) -> None:
        self._observers = Observers(observers)
        topology = connect(url, timeout_s)
        self._limit = topology.limit
        self._near = near_cache(cache, topology, cache_bound_ms)
        self._conversation = Conversation(
            project,
            Offered(transforms, definitions),
            self._observers,
            is_on_one_node=topology.is_one_node,
            near=self._near,
        )
        self._pool = topology.async_pool(self._observers, max_connections)

    async def get_online_features(
        self,
        service: str | Sequence[str],
        entity_rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] | Any,
        *,
        now: datetime | int | None = None,
        model_features: Sequence[str] | None = None,
        plan: str | None = None,
        deadline_ms: float | None = None,
        request_id: str | None = None,
        log_fields: Mapping[str, Any] | None = None,
    ) -> OnlineResponse:
        """As `OnlineClient.get_online_features`.

        Raises:
            OnlineStoreError: the client was used on another event loop and not closed there.
        """
        service, entity_rows = feature_names(service), entity_columns(entity_rows)
        if not self._observers:
            return await self._read(service, entity_rows, read_options(now, model_features, plan, deadline_ms))
        label_of = self._conversation.label_of
        with Observed(self._observers, label_of, service, entity_rows, request_id, log_fields) as observed:
            options = read_options(now, model_features, plan, deadline_ms)
            observed.response = await self._read(service, entity_rows, options)
        return observed.response

    async def _read(
        self, service: str | Sequence[str], entity_rows: Mapping[str, Any], options: ReadOptions
    ) -> OnlineResponse:
        conversation = self._conversation
        if options.deadline_ms is not None:
            limit = Limit.of_deadline(options.deadline_ms)
        else:
            limit = self._limit()
            begun = conversation.begin(service, entity_rows, options)
            if begun is not None:
                await self._pool.exchange(begun[2].commands, limit)
                response = conversation.finish(*begun, options.now_us)
                if response is not None:
                    return response
                limit = limit.further()
        return await self._run(conversation.get_online_features(service, entity_rows, options), limit)

    @property
    def skipped(self) -> dict[str, int]:
        """As `OnlineClient.skipped`."""
        return dict(self._conversation.skipped)

    def shadow(self, service: str) -> ShadowCounts | None:
        """As `OnlineClient.shadow`."""
        return self._conversation.shadows.of(service)

    @property
    def cache(self) -> CacheState | None:
        """As `OnlineClient.cache`."""
        return None if self._near is None else self._near.state

    async def plan(self) -> ServingPlan:
        """As `OnlineClient.plan`."""
        return (await self._run(self._conversation.load_plan(), self._limit())).plan

    async def close(self) -> None:
        """Close the idle connections. Afterwards the client can be used on another event loop."""
        self._pool.close()
        if self._near is not None:
            self._near.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, steps: Generator[Step, None, T], limit: Limit) -> T:
        """As `OnlineClient._run`."""
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, PlanLoad):
                        await _ended(step, limit)
                    else:
                        await self._pool.exchange(step, limit)
                except FeatureStoreError as error:
                    step = steps.throw(error)
                else:
                    step = next(steps)
                limit = limit.further()
        except StopIteration as finished:
            result: T = finished.value
            return result
        finally:
            steps.close()  # at once: other requests may wait for these steps


async def _ended(load: PlanLoad, limit: Limit) -> None:
    """Wait until a read of the plan has ended. Its own request reads on if this one is cancelled.

    Raises:
        StoreTimeoutError: the limit ended first.
    """
    ended = asyncio.Event()
    load.when_ended(ended.set)
    try:
        async with asyncio.timeout_at(limit.at):
            await ended.wait()
    except TimeoutError:
        raise load.too_late(limit) from None
