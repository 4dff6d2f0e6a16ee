"""Freshness: the age of the newest stored event time of each view, and the ages that it should not exceed.

A view may declare a freshness, and a batch view a ttl. When its newest value is older than the ttl, all its values are
expired, and requests get defaults.

Freshness measures what is stored, not whether jobs succeed. A materialization that finds no new rows succeeds, and its
view is no fresher. A topic without events looks like one that nobody reads, so a declared freshness should allow for
quiet hours. For a batch view with aggregations, the event time is the end of the computed interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from feature_store.definitions.dtypes import given_microseconds
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.online.newest import Newest
from feature_store.project.context import Project

State = Literal["fresh", "stale", "expired", "empty", "undeclared"]


@dataclass(frozen=True)
class ViewFreshness:
    """The freshness of a view.

    Attributes:
        view: the view's name.
        kind: `batch` or `stream`.
        source: the source's name, or the topic; None: rows are pushed.
        newest_us: the newest stored event time, microseconds since 1970; None: nothing is stored.
        age_s: its age in seconds at the report's time, at least 0.
        limit_s: the declared freshness in seconds; None: the view declares none.
        ttl_s: the ttl in seconds; None: the values never expire.
        rows: the number of stored values that were compared.
        whole: whether these are all; else the newest of a sample.
        materialized_us: the end of the last materialization; None: never materialized, or a stream view.
    """

    view: str
    kind: Literal["batch", "stream"]
    source: str | None
    newest_us: int | None
    age_s: float | None
    limit_s: float | None
    ttl_s: float | None
    rows: int
    whole: bool
    materialized_us: int | None

    @property
    def is_expired(self) -> bool:
        """Whether the newest value is older than the ttl, and all values are expired with it."""
        return self.ttl_s is not None and self.age_s is not None and self.age_s > self.ttl_s

    @property
    def is_breached(self) -> bool:
        """Whether the view is expired, or older than declared. An empty view that declares a freshness is."""
        is_older = self.limit_s is not None and (self.age_s is None or self.age_s > self.limit_s)
        return is_older or self.is_expired

    @property
    def state(self) -> State:
        """`empty`: nothing is stored. `expired`: all values are older than the ttl. `undeclared`: no freshness is
        declared. Else `fresh` or `stale`.
        """
        if self.age_s is None:
            return "empty"
        if self.is_expired:
            return "expired"
        if self.limit_s is None:
            return "undeclared"
        return "stale" if self.is_breached else "fresh"

    @property
    def hint(self) -> str:
        """What to do when it is breached."""
        if self.kind == "stream":
            return f"is `feature-store stream` running, and does topic {self.source} get events?"
        if self.source is None:
            return "its rows are pushed: check the process that pushes them"
        if self.materialized_us is None:
            return f"run `feature-store materialize --view {self.view}`"
        if self._materialized_since_limit:
            longer = "; a longer ttl serves older values" if self.is_expired else ""
            return f"it is materialized, but {self.source} has no newer rows: check the job that writes it{longer}"
        return f"run `feature-store materialize --view {self.view}`, more often"

    @property
    def _materialized_since_limit(self) -> bool:
        """Whether the last materialization would have found rows that are fresh now."""
        assert self.materialized_us is not None
        limits = [limit for limit in (self.limit_s, self.ttl_s) if limit is not None]
        if self.newest_us is None or self.age_s is None or not limits:
            return self.newest_us is None
        return self.materialized_us > self.newest_us + (self.age_s - min(limits)) * 1e6


@dataclass(frozen=True)
class FreshnessReport:
    """The freshness of views at one time, `at_us`, microseconds since 1970."""

    at_us: int
    views: tuple[ViewFreshness, ...]

    @property
    def breached(self) -> list[ViewFreshness]:
        """The views that are expired, or older than declared."""
        return [view for view in self.views if view.is_breached]

    def to_document(self) -> dict[str, Any]:
        """The report as JSON types."""
        views = [
            asdict(view) | {"state": view.state, "hint": view.hint if view.is_breached else None} for view in self.views
        ]
        return {"at_us": self.at_us, "views": views, "breached": [view.view for view in self.breached]}


def freshness_of(project: Project, service: str | None = None, *, at: datetime | None = None) -> FreshnessReport:
    """How old the newest stored event time of each view is; see `FeatureStore.monitoring.freshness`."""
    definitions = project.newest().served_definitions()
    views = definitions.stored_views if service is None else definitions.stored_views_of(service)
    finished = project.online.finished_intervals()
    return freshness_report(
        views,
        project.online.newest_event_times(),
        {view: max(end for _, end in intervals) for view, intervals in finished.items() if intervals},
        at_us=given_microseconds(at or datetime.now(UTC), "at"),
    )


def freshness_report(
    views: Sequence[FeatureView | StreamFeatureView],
    newest: Mapping[str, Newest],
    materialized: Mapping[str, int],
    *,
    at_us: int,
) -> FreshnessReport:
    """The freshness of views.

    Args:
        views: the served views.
        newest: the newest stored event times; a view that is not in it has nothing stored.
        materialized: the ends of the last materializations of batch views, in microseconds.
        at_us: the time at which ages are measured. An event after it, from a clock that is ahead, has age 0.
    """
    measured = []
    for view in views:
        stored = newest.get(view.name)
        newest_us = stored.event_us if stored is not None else None
        is_stream = isinstance(view, StreamFeatureView)
        measured.append(
            ViewFreshness(
                view=view.name,
                kind="stream" if is_stream else "batch",
                source=_source(view),
                newest_us=newest_us,
                age_s=None if newest_us is None else max(at_us - newest_us, 0) / 1e6,
                limit_s=None if view.freshness is None else view.freshness / timedelta(seconds=1),
                ttl_s=None if view.ttl_us is None else view.ttl_us / 1e6,
                rows=stored.rows if stored is not None else 0,
                whole=stored.whole if stored is not None else True,
                materialized_us=None if is_stream else materialized.get(view.name),
            )
        )
    return FreshnessReport(at_us, tuple(measured))


def _source(view: FeatureView | StreamFeatureView) -> str | None:
    if isinstance(view, StreamFeatureView):
        return view.source.topic
    return view.source.name if view.source is not None else None
