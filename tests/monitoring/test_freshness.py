from __future__ import annotations

import urllib.request
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from feature_store.definitions import (
    Aggregation,
    Entity,
    FeatureView,
    Field,
    Int64,
    KafkaSource,
    ParquetSource,
    StreamFeatureView,
)
from feature_store.errors import RequestError, StoreConnectionError
from feature_store.monitoring.freshness import FreshnessReport, ViewFreshness, freshness_report
from feature_store.monitoring.freshness_metrics import FreshnessMetrics
from feature_store.online.newest import Newest

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR, HOUR_US = timedelta(hours=1), 3_600_000_000
NOW = 1_700_000_000_000_000
user = Entity("user", join_key="user_id")


def batch(
    freshness: timedelta | None = HOUR, source: str | None = "a.parquet", ttl: timedelta | None = None
) -> FeatureView:
    read = ParquetSource(source, event_timestamp="at") if source else None
    schema = [Field("a", Int64)]
    return FeatureView("batch", entities=[user], schema=schema, source=read, freshness=freshness, ttl=ttl)


def stream(freshness: timedelta | None = HOUR) -> StreamFeatureView:
    clicks = KafkaSource(
        "clicks", topic="clicked", event_timestamp="ts", schema=[Field("user_id", Int64), Field("a", Int64)]
    )
    return StreamFeatureView(
        "stream",
        entities=[user],
        source=clicks,
        aggregations=[Aggregation("a", "count", windows=[HOUR])],
        freshness=freshness,
    )


def one(view: Any, event_us: int | None, materialized_us: int | None = None) -> ViewFreshness:
    newest = {} if event_us == -1 else {view.name: Newest(event_us, 3, True)}
    known = {} if materialized_us is None else {view.name: materialized_us}
    return freshness_report([view], newest, known, at_us=NOW).views[0]


@pytest.mark.parametrize(
    ("view", "event_us", "state", "age_s"),
    [
        (batch(), NOW - HOUR_US, "fresh", 3600.0),
        (batch(), NOW - HOUR_US - 1, "stale", 3600.000001),
        (batch(None), NOW - 100 * HOUR_US, "undeclared", 360_000.0),
        (batch(), None, "empty", None),
        (batch(None), None, "empty", None),
        (batch(None, ttl=HOUR), NOW - HOUR_US, "undeclared", 3600.0),
        (batch(None, ttl=HOUR), NOW - HOUR_US - 1, "expired", 3600.000001),
        (batch(None, ttl=timedelta(0)), NOW - 100 * HOUR_US, "undeclared", 360_000.0),
        (batch(ttl=2 * HOUR), NOW - 2 * HOUR_US, "stale", 7200.0),
        (batch(ttl=2 * HOUR), NOW - 3 * HOUR_US, "expired", 10800.0),
        (batch(None, ttl=HOUR), None, "empty", None),
        (batch(), -1, "empty", None),
        (stream(), NOW, "fresh", 0.0),
        (stream(), NOW + HOUR_US, "fresh", 0.0),
        (stream(), NOW - 2 * HOUR_US, "stale", 7200.0),
    ],
)
def test_states(view: Any, event_us: int | None, state: str, age_s: float | None) -> None:
    found = one(view, event_us)
    assert (found.state, found.age_s) == (state, age_s)
    assert found.is_breached == (state in ("stale", "expired") or (state == "empty" and view.freshness is not None))


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (one(stream(), None), "topic clicked get events"),
        (one(batch(source=None), None), "pushed"),
        (one(batch(), None), "run `feature-store materialize --view batch`"),
        (one(batch(), None, NOW), "has no newer rows"),
        (one(batch(), NOW - 5 * HOUR_US, NOW), "a.parquet has no newer rows"),
        (one(batch(), NOW - 5 * HOUR_US, NOW - 4 * HOUR_US), "more often"),
        (one(batch(None, ttl=HOUR), NOW - 5 * HOUR_US, NOW), "a longer ttl serves older values"),
        (one(batch(None, ttl=HOUR), NOW - 5 * HOUR_US, NOW - 4 * HOUR_US), "more often"),
    ],
)
def test_what_to_do(found: ViewFreshness, says: str) -> None:
    assert found.is_breached
    assert says in found.hint


def test_the_report_as_a_document() -> None:
    newest = {"batch": Newest(NOW - 2 * HOUR_US, 3, False), "stream": Newest(NOW, 9, True)}
    report = freshness_report([batch(), stream()], newest, {"batch": NOW, "stream": NOW}, at_us=NOW)
    document = report.to_document()
    assert document["breached"] == ["batch"]
    assert [(view["view"], view["whole"], view["materialized_us"]) for view in document["views"]] == [
        ("batch", False, NOW),
        ("stream", True, None),
    ]


def _scrape(measure: Callable[[], FreshnessReport]) -> str:
    with (
        FreshnessMetrics(0, measure) as metrics,
        urllib.request.urlopen(f"http://localhost:{metrics.port}/metrics") as answer,
    ):
        return str(answer.read().decode())


def test_metrics_tell_ages_and_limits() -> None:
    newest = {"batch": Newest(NOW, 3, True)}
    text = _scrape(lambda: freshness_report([batch(ttl=2 * HOUR), stream(None)], newest, {}, at_us=NOW))
    assert 'feature_store_freshness_seconds{view="batch"}' in text
    assert 'feature_store_freshness_seconds{view="stream"}' not in text, "nothing is stored of it"
    assert 'feature_store_freshness_limit_seconds{view="batch"} 3600.0' in text
    assert 'limit_seconds{view="stream"}' not in text
    assert 'feature_store_ttl_seconds{view="batch"} 7200.0' in text
    assert 'ttl_seconds{view="stream"}' not in text
    assert "feature_store_freshness_measured 1.0" in text


def test_metrics_say_when_they_could_not_be_measured() -> None:
    def fail() -> FreshnessReport:
        raise StoreConnectionError("Redis")

    text = _scrape(fail)
    assert "feature_store_freshness_measured 0.0" in text
    assert "{view=" not in text


def test_a_port_that_is_taken() -> None:
    def measure() -> FreshnessReport:
        return FreshnessReport(0, ())

    with FreshnessMetrics(0, measure) as metrics, pytest.raises(RequestError, match="a free port"):
        FreshnessMetrics(metrics.port, measure)
