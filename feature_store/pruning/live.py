"""Measurements of a service in the online store: request times, memory in Redis, rows materialized per day."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from feature_store.arrow.sources.opening import open_view
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.feature_view import FeatureView
from feature_store.errors import NotFoundError
from feature_store.online.client import OnlineClient
from feature_store.online.store import OnlineStore
from feature_store.pruning.budget import Latency
from feature_store.pruning.footprint import Counted, Footprint, footprint
from feature_store.pruning.latency import Timed, fit_latency
from feature_store.pruning.service import PrunableService
from feature_store.pruning.trials import Report

# The sizes of requests at which latency is measured, as shares of the usual number of entities.
_SHARES = (0.1, 0.5, 1.0)
_DECODES = 31
_RECENT_DAYS, _DAY_US = 28, 86_400_000_000


class LiveService:
    """A service in the online store.

    Args:
        service: the service.
        online: the project's online store.
        client: returns a client of the online store. Only methods that time requests call it.
        folder: the project's folder, which paths of sources are relative to.
    """

    def __init__(
        self, service: PrunableService, online: OnlineStore, client: Callable[[], OnlineClient], folder: Path
    ) -> None:
        self._service, self._online, self._client, self._folder = service, online, client, folder

    def request(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """Entity rows of stored entities; request fields are zero or empty.

        Args:
            counts: the number of distinct entities, by entity name.

        Raises:
            NotFoundError: no entity of a view of the service is stored.
        """
        service, rows = self._service, dict[str, Any]()
        for view in service.definitions.stored_views_of(service.name):
            keys = self._online.sample_keys(view.name, max(counts[entity.name] for entity in view.entities))
            if not keys:
                where = f"latency of {service.name}"
                raise NotFoundError(where, expected=f"stored entities of {view.name}", got="none")
            for entity, values in zip(view.entities, zip(*keys, strict=True), strict=True):
                count = counts[entity.name]
                listed = [values[i % len(values)] for i in range(count)]
                rows[entity.join_key] = listed if count > 1 else listed[0]
        for computed in service.definitions.on_demand_feature_views.values():
            for request in computed.requests:
                rows |= {field.name: field.dtype.scalar.zero for field in request.fields}
        return rows

    def latency(self, request: Mapping[str, int], *, repeats: int = 100) -> Latency:
        """How long requests take, at their 99th percentile: fitted to requests for the whole service and for each of
        its views, at several sizes.

        Args:
            request: the number of distinct entities in a usual request, by entity name.
            repeats: the number of requests of each kind.

        Raises:
            NotFoundError: no entity is stored.
            RequestError: the request lacks an entity.
        """
        kinds: list[tuple[str | list[str], list[str]]] = [(self._service.name, self._service.features)]
        for view in self._service.definitions.stored_views_of(self._service.name):
            own = [column for column in self._service.columns if column.view == view.name]
            if own:
                kinds.append(([column.reference for column in own], [column.name for column in own]))
        timed = []
        for share in _SHARES:
            counts = {entity: max(1, round(count * share)) for entity, count in request.items()}
            model, rows = self._service.costs(counts), self.request(counts)
            for features, names in kinds:
                timed.append(Timed(model.cost(names), [self._timed_ms(features, rows) for _ in range(repeats)]))
        return fit_latency(timed)

    def footprint(
        self,
        requests: Sequence[Mapping[str, Any]],
        *,
        repeats: int = 1000,
        now: datetime | None = None,
        report: Report | None = None,
    ) -> Footprint:
        """What requests cost as they are served now: sends them, reads Redis's counters and takes the time.

        Redis counts all of its clients, so let no other client send requests meanwhile.

        Args:
            requests: entity rows and request fields. Several requests read different keys.
            repeats: the number of requests that are timed, in turn.
            now: the time of the requests.
            report: called after each timed request.
        """
        online, client = self._online, self._client()

        def read(rows: Mapping[str, Any]) -> int:
            response = client.get_online_features(self._service.name, rows, now=now)
            response.to_numpy()
            return len(response.names)

        features = [read(rows) for rows in requests][-1]  # a warm-up before anything is counted
        counted = [Counted.of(online.info()), Counted.of(online.info())]
        for rows in requests:
            read(rows)
        counted.append(Counted.of(online.info()))
        seconds = []
        for i, rows in enumerate(islice(cycle(requests), repeats)):
            begun = time.perf_counter()
            read(rows)
            seconds.append(time.perf_counter() - begun)
            if report is not None:
                report(i + 1, repeats)
        return footprint(features, counted, len(requests), seconds, self._redis_bytes())

    def decode_ns(self, request: Mapping[str, int]) -> dict[str, int]:
        """For each feature that is served, the nanoseconds to make a matrix of it alone: a median.

        Raises:
            NotFoundError: no entity is stored.
        """
        client, rows, found = self._client(), self.request(request), {}
        for column in self._service.served_columns:
            times = []
            for _ in range(_DECODES):
                response = client.get_online_features([column.reference], rows)
                begun = time.perf_counter_ns()
                response.to_numpy()
                times.append(time.perf_counter_ns() - begun)
            found[column.name] = sorted(times)[_DECODES // 2]
        return found

    def stored_rows(self) -> dict[str, int]:
        """The number of rows of each row group, and of entities of each stream view."""
        return {name: about["rows"] for name, about in self._online.statistics().items()}

    def daily_rows(self, stored: Mapping[str, int]) -> dict[str, float]:
        """The number of rows that are materialized per day, for each view where it is known.

        It is the mean number of source rows per day over the last four weeks. A view with aggregations is assumed to
        write the row of each stored entity once a day.
        """
        plan, found = self._online.require_published().plan, dict[str, float]()
        finished = self._online.finished_intervals()
        for view in self._service.served_definitions.stored_views_of(self._service.name):
            if not isinstance(view, FeatureView) or view.source is None:
                continue
            if view.aggregations:
                found[view.name] = float(stored.get(plan.group_of(view.name).name, 0))
            elif intervals := finished[view.name]:
                end_us = intervals[-1][1]
                times = TimeRange(view.source.event_timestamp, end_us - _RECENT_DAYS * _DAY_US, end_us)
                count = open_view(view.source, view, self._folder).count(times)
                found |= {} if count is None else {view.name: count / _RECENT_DAYS}
        return found

    def _redis_bytes(self) -> int:
        """The memory of all rows and tiles that the service reads."""
        plan, read = self._online.require_published().plan, set()
        for view in self._service.served_definitions.stored_views_of(self._service.name):
            read.add(view.name if plan.tiles_of(view.name) is not None else plan.group_of(view.name).name)
        return sum(about["bytes"] for name, about in self._online.statistics().items() if name in read)

    def _timed_ms(self, features: str | list[str], rows: Mapping[str, Any]) -> float:
        begun = time.perf_counter()
        self._client().get_online_features(features, rows).to_numpy()
        return (time.perf_counter() - begun) * 1e3
