"""The blocking client of a model server."""

from __future__ import annotations

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


class OnlineClient:
    """Reads features from Redis. Make one per process: threads share it, and it works in forked children.

    It needs only Redis. The serving plan is published there, and the client reads it again after each publication.

    Args:
        url: `redis://`, `rediss://` or `unix://`; or a connection pool of `redis` or `redis.asyncio` (plain, TLS, Unix,
            blocking, a Sentinel's). The client takes the pool's options and makes connections of its own.
        project: the name of the project.
        timeout_s: seconds for a whole request: waiting for a connection, connecting, TLS, AUTH, reading a new plan and
            reading the features.
        transforms: on-demand views (`[movie_age]`), or functions by view name.
        definitions: a Python file, a folder of such files, a module, or several of them, whose on-demand views are
            offered too. The client calls only functions that are given here and whose digest the plan lists.
        observers: see each request and reconnection. `feature_store.monitoring` has observers for metrics, traces and
            the served log.
        max_connections: the most connections, 64 unless given here or in the URL. When all are in use, requests wait in
            the order in which they came. A connection that is idle for a minute is closed.
        cache: keep values of these row groups and stream views in this process, `{"movie": "64MB"}`: bytes, or a text
            in KB, MB or GB. Redis says which values change. A near-cache takes one more connection to each primary, and
            a thread for each. Reads must come from primaries.
        cache_bound_ms: how long after the acknowledgement of a write the near-cache may still serve the old value, in
            milliseconds; a few milliseconds are usual. While Redis is silent for longer than this, the client reads all
            values from Redis.

    Raises:
        ConfigError: the URL or its options cannot be read, a pool is of an unknown class, timeout_s or max_connections
            is not a number greater than 0, `transforms` or `definitions` has another type, or
            `cache` names no group of the first plan, or has a size that cannot be read.
        DefinitionError: a file of `definitions` cannot be imported.

    Example:
        >>> from feature_store.online import OnlineClient
        >>> with OnlineClient(redis_url, project="shop", definitions="features.py") as client:
        ...     rows = {"user_id": 1, "product_id": [1, 2], "basket_price": 40.0}
        ...     matrix = client.get_online_features("ranking", rows).to_numpy()
        >>> matrix.shape
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
        self._pool = topology.pool(self._observers, max_connections)
        self._near = near_cache(cache, topology, cache_bound_ms)
        self._conversation = Conversation(
            project,
            Offered(transforms, definitions),
            self._observers,
            is_on_one_node=topology.is_one_node,
            near=self._near,
        )

    def get_online_features(
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
        """Read the features of n entity rows in one round trip.

        Args:
            service: a service's name, or feature references (`["movie_profile:year", …]`). The 256 lists used last
                stay compiled; compiling another list takes some 0.3 ms.
            entity_rows: `{join key or request field: value or n values}`, a list of dicts, a DataFrame (pandas, Polars)
                or an Arrow table. A scalar stands for every row. Each distinct key is read once, and rows come back in
                the order given. Names that the service does not need are ignored.
            now: the time that ttls count from (datetime, or int microseconds since 1970). Default: the current time.
            model_features: the names of the model's features, in order. Not checked unless given.
            plan: the id of the prune plan that the model was made for; empty for none. Not checked unless given.
            deadline_ms: milliseconds for this whole answer, in place of timeout_s. The client then reads each row group
                with a command of its own, those with the most importance per cost first, all in one round trip. A value
                that does not come in time is served as its default, with Status.SKIPPED.
            request_id: the caller's id of the request, for observers.
            log_fields: further values for observers: `{name: value or n values}`, such as positions or a variant.

        Raises:
            ModelMismatchError: the service serves other features than the model's, or under another prune plan.
            NotFoundError: the plan has no such service, view or feature.
            RequestError: an entity key or request field is missing, null, or of a wrong type or length.
            NotPublishedError: no plan is published for the project.
            StoreConnectionError: Redis cannot be reached, or closed the connection.
            StoreTimeoutError: Redis does not answer in time, or no connection was free.
            StoreReplyError: Redis answers with an error; its subclasses say which.
            CorruptRowError: a stored row does not fit its layout.
            TransformError: an on-demand function is not offered, or differs from the applied functions.
        """
        service, entity_rows = feature_names(service), entity_columns(entity_rows)
        if not self._observers:
            return self._read(service, entity_rows, read_options(now, model_features, plan, deadline_ms))
        label_of = self._conversation.label_of
        with Observed(self._observers, label_of, service, entity_rows, request_id, log_fields) as observed:
            options = read_options(now, model_features, plan, deadline_ms)
            observed.response = self._read(service, entity_rows, options)
        return observed.response

    def _read(
        self, service: str | Sequence[str], entity_rows: Mapping[str, Any], options: ReadOptions
    ) -> OnlineResponse:
        conversation = self._conversation
        if options.deadline_ms is not None:
            limit = Limit.of_deadline(options.deadline_ms)
        else:
            limit = self._limit()
            begun = conversation.begin(service, entity_rows, options)
            if begun is not None:
                self._pool.exchange(begun[2].commands, limit)
                response = conversation.finish(*begun, options.now_us)
                if response is not None:
                    return response
                limit = limit.further()
        return self._run(conversation.get_online_features(service, entity_rows, options), limit)

    @property
    def skipped(self) -> dict[str, int]:
        """How often each row group and stream view was not read before a deadline."""
        return dict(self._conversation.skipped)

    def shadow(self, service: str) -> ShadowCounts | None:
        """Counts of this client's shadow reads of a service; None when it was never read in shadow."""
        return self._conversation.shadows.of(service)

    @property
    def cache(self) -> CacheState | None:
        """The state of the near-cache: hits, misses, entries, lag; None without a near-cache."""
        return None if self._near is None else self._near.state

    def plan(self) -> ServingPlan:
        """The serving plan that is published now.

        Raises:
            NotPublishedError: no plan is published for the project.
            StoreConnectionError, StoreTimeoutError: as `get_online_features`.
        """
        return self._run(self._conversation.load_plan(), self._limit()).plan

    def close(self) -> None:
        """Close the idle connections and the near-cache."""
        self._pool.close()
        if self._near is not None:
            self._near.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, steps: Generator[Step, None, T], limit: Limit) -> T:
        """Run steps to their end. The error of an exchange is raised inside the steps: a request with a deadline goes
        on without the values, and a shadow read counts the failure."""
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, PlanLoad):
                        step.wait(limit)
                    else:
                        self._pool.exchange(step, limit)
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
