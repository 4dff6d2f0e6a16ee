"""The blocking client of a model server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from feature_store.errors import FeatureStoreError, StoreTimeoutError
from feature_store.online.connection import Pool
from feature_store.online.conversation import WHATEVER, Conversation
from feature_store.online.endpoint import Endpoint
from feature_store.online.observer import Observed, Observers
from feature_store.online.offered import Offered

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from datetime import datetime
    from typing import Self

    import redis

    from feature_store.online.conversation import Exchange
    from feature_store.online.observer import Observer
    from feature_store.online.offered import Definitions, Transforms
    from feature_store.online.response import OnlineResponse
    from feature_store.online.shadow import ShadowCounts
    from feature_store.registry.serving_plan import ServingPlan


T = TypeVar("T")


class OnlineClient:
    """Reads features from Redis. One per process: threads share it, and it works in forked children.

    It needs Redis and nothing else: the serving plan is published there, and read again whenever another is published.

    Args:
        url: `redis://`, `rediss://` or `unix://`; or a redis-py connection pool (a Sentinel's, say).
        project: whose features.
        timeout_s: seconds to wait to connect, and for each piece of an answer.
        transforms: on-demand views (`[movie_age]`), or functions by view name.
        definitions: a Python file, a folder of such files, a module, or several of them: their on-demand views are
            offered too. A client calls no other function than those it is given here, and of those only one whose
            digest the plan lists.
        observers: are told of each request and of what happens to the connections (`feature_store.monitoring` has
            some: metrics, traces, a log of what was served).

    Raises:
        ConfigError: the URL cannot be read, or `transforms` or `definitions` is no such thing.
        DefinitionError: a file of `definitions` cannot be imported.
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
    ) -> None:
        self._observers = Observers(observers)
        self._pool = Pool(Endpoint(url, timeout_s), self._observers)
        self._conversation = Conversation(project, Offered(transforms, definitions), self._observers)

    def get_online_features(
        self,
        service: str | Sequence[str],
        entity_rows: Mapping[str, Any],
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
                stay compiled; a list that is not among them is compiled anew, some 0.3 ms.
            entity_rows: `{join key or request field: value or n values}`; a scalar stands for every row, each distinct
                key is read once, and rows come back in the order given. Names not needed are ignored.
            now: the time that ttls count from (datetime, or int microseconds since 1970); the clock's unless given.
            model_features: the names of the model's features, in order; any will do unless given.
            plan: the id of the prune plan that the model was made for, empty: none; any will do unless given.
            deadline_ms: when to answer at the latest. Views are then read one row group after the other, a round trip
                each, in the order of their importance for what they cost; what does not come in time is its default,
                with Status.SKIPPED.
            request_id: what the request is known by elsewhere, for observers.
            log_fields: what else observers should know: `{name: value or n values}`, such as positions or a variant.

        Raises:
            ModelMismatchError: the service serves other features, or under another prune plan, than the model's.
            NotFoundError: there is no such service, view or feature.
            RequestError: an entity key or request field is missing, null, or of a wrong type or length.
            NotPublishedError: no plan is published for the project.
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
            CorruptRowError: a stored row does not have the bytes that its layout demands.
            TransformError: an on-demand function is not offered, differs from the applied ones, or fails.
        """
        if self._observers:
            label_of = self._conversation.label_of
            with Observed(self._observers, label_of, service, entity_rows, request_id, log_fields) as observed:
                observed.response = self._read(service, entity_rows, now, model_features, plan, deadline_ms)
            return observed.response
        return self._read(service, entity_rows, now, model_features, plan, deadline_ms)

    def _read(
        self,
        service: str | Sequence[str],
        entity_rows: Mapping[str, Any],
        now: datetime | int | None,
        model_features: Sequence[str] | None,
        plan: str | None,
        deadline_ms: float | None,
    ) -> OnlineResponse:
        conversation = self._conversation
        made_for = WHATEVER if model_features is None and plan is None else (model_features, plan)
        if deadline_ms is not None:
            steps = conversation.get_in_time(service, entity_rows, now, made_for)
            return self._run_in_time(steps, time.monotonic() + deadline_ms / 1000)
        begun = conversation.begin(service, entity_rows, made_for)
        if begun is not None:
            request = begun[2]
            self._pool.exchange(request.command, request.parser)
            response = conversation.finish(*begun, now)
            if response is not None:
                return self._in_shadow_too(entity_rows, response) if begun[1].is_shadowed else response
        response = self._run(conversation.get_online_features(service, entity_rows, now, made_for))
        return self._in_shadow_too(entity_rows, response) if response.service.is_shadowed else response

    @property
    def skipped(self) -> dict[str, int]:
        """How often each row group and stream view was not read, to keep a deadline."""
        return dict(self._conversation.skipped)

    def shadow(self, service: str) -> ShadowCounts | None:
        """What this client has found of a service whose prune plan is in the stage `shadow`; None: nothing yet."""
        return self._conversation.shadows.of(service)

    def _in_shadow_too(self, entity_rows: Mapping[str, Any], response: OnlineResponse) -> OnlineResponse:
        try:
            self._run(self._conversation.read_in_shadow(entity_rows, response))
        except FeatureStoreError:
            self._conversation.shadow_failed(response)
        return response

    def plan(self) -> ServingPlan:
        """The plan that is published now.

        Raises:
            NotPublishedError: none is.
            StoreConnectionError, StoreTimeoutError: as `get_online_features`.
        """
        return self._run(self._conversation.load_plan()).plan

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run_in_time(self, steps: Generator[Exchange, None, OnlineResponse], deadline: float) -> OnlineResponse:
        try:
            exchange = next(steps)
            while True:
                try:
                    self._pool.exchange(*exchange, deadline)
                except StoreTimeoutError as error:
                    exchange = steps.throw(error)
                else:
                    exchange = next(steps)
        except StopIteration as finished:
            response: OnlineResponse = finished.value
            return response

    def _run(self, steps: Generator[Exchange, None, T]) -> T:
        try:
            while True:
                self._pool.exchange(*next(steps))
        except StopIteration as finished:
            result: T = finished.value
            return result
