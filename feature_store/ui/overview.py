"""The data of the overview: freshness, coverage, and findings that need attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from feature_store.definitions.dtypes import from_microseconds
from feature_store.monitoring.checks import Finding
from feature_store.monitoring.freshness import FreshnessReport, ViewFreshness
from feature_store.project.store import FeatureStore
from feature_store.registry.serving_plan import ServingPlan

# The most views on the overview, the stale ones first.
_MOST_VIEWS = 60
_ORDER = {"expired": 0, "stale": 1, "empty": 2, "fresh": 3, "undeclared": 4}


@dataclass(frozen=True)
class Coverage:
    """The rows of a row group, or the tiles of a stream view, in the online store.

    Attributes:
        name: its name.
        kind: `row group` or `stream view`.
        views: the views that share the rows.
        rows: the number of entities with a row.
        row_bytes: the size of a row.
        bytes: the estimated memory of all rows in Redis.
        generation: the generation of the layout.
    """

    name: str
    kind: Literal["row group", "stream view"]
    views: tuple[str, ...]
    rows: int
    row_bytes: int
    bytes: int
    generation: int


@dataclass(frozen=True)
class Freshness:
    """The freshness of a view, with its times as datetimes."""

    about: ViewFreshness
    newest: datetime | None
    materialized: datetime | None


def coverage(store: FeatureStore, plan: ServingPlan) -> list[Coverage]:
    """The contents of the online store, by row group and stream view.

    Raises:
        OnlineStoreError: the store cannot be read.
    """
    statistics: Mapping[str, dict[str, Any]] = store.online.statistics()
    groups = [
        Coverage(
            group.name,
            "row group",
            tuple(segment.view for segment in group.segments),
            **statistics[group.name],
            generation=group.generation,
        )
        for group in plan.groups
        if group.name in statistics
    ]
    streams = [
        Coverage(tiles.view, "stream view", (tiles.view,), **statistics[tiles.view], generation=tiles.generation)
        for tiles in plan.tiles
        if tiles.view in statistics
    ]
    return [*groups, *streams]


def freshness(report: FreshnessReport) -> list[Freshness]:
    """The views, stale and empty ones first, then by age."""

    def order(view: ViewFreshness) -> tuple[int, float, str]:
        return _ORDER[view.state], -(view.age_s or 0.0), view.view

    return [
        Freshness(view, _time(view.newest_us), _time(view.materialized_us))
        for view in sorted(report.views, key=order)[:_MOST_VIEWS]
    ]


def attention(store: FeatureStore) -> list[Finding]:
    """The warnings and failures of `feature-store doctor`, failures first, including changes that are not applied."""
    findings = [finding for finding in store.monitoring.diagnose() if finding.state != "ok"]
    return sorted(findings, key=lambda finding: finding.state != "failed")


def _time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else from_microseconds(microseconds)
