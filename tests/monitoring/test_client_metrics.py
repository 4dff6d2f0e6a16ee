"""Metrics of clients, as Prometheus reads them, and the dashboard that shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from feature_store.definitions import FeatureService
from feature_store.errors import ConfigError, NotFoundError
from feature_store.monitoring import ClientMetrics
from feature_store.online import OnlineStore
from feature_store.streaming.metrics import Metrics
from feature_store.streaming.status import StreamStatus, TopicCounts, ViewCounts
from tests.online.clients import CLIENTS
from tests.online.worlds import HOUR_US, NOW_US, numbers, plan_of, profile, write
from tests.raw_redis import raw_client
from tests.servers import redis_server

if TYPE_CHECKING:
    from feature_store.online.observer import Observer

DASHBOARD = Path(__file__).parents[2] / "examples" / "grafana" / "dashboard.json"
service = FeatureService("service", features=[numbers[["a", "c"]], profile[["age"]]])
ROWS = {"movie_id": [1, 2, 3, 3], "user_id": 1}


@pytest.fixture(params=list(CLIENTS))
def kind(request: pytest.FixtureRequest) -> Any:
    return CLIENTS[request.param]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def fill(url: str) -> None:
    with_nulls = [{"movie_id": 1, "event_ts": NOW_US, "a": 1.0, "c": 1}, {"movie_id": 2, "event_ts": NOW_US, "a": 2.0}]
    store = OnlineStore(url, "test")
    store.publish(plan_of(service), over=store.published())
    write(store, numbers, with_nulls)
    write(store, profile, [{"user_id": 1, "event_ts": NOW_US - 2 * HOUR_US, "age": 30}])
    store.close()


def scraped(registry: CollectorRegistry) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in lines}


def test_requests_are_counted(kind: Any, redis_url: str, registry: CollectorRegistry) -> None:
    fill(redis_url)
    client = kind(redis_url, "test", observers=[ClientMetrics(registry)])
    traffic = [client.get_online_features("service", ROWS, now=NOW_US).traffic for _ in range(3)]
    with pytest.raises(NotFoundError):
        client.get_online_features("nothing", ROWS)
    found = scraped(registry)
    assert found['feature_store_client_request_seconds_count{service="service"}'] == 3
    assert found['feature_store_client_request_seconds_bucket{le="+Inf",service="service"}'] == 3
    assert 0 < found['feature_store_client_request_seconds_sum{service="service"}'] < 3
    statuses = {"PRESENT": 3, "NULL": 1, "MISSING": 4, "EXPIRED": 4, "SKIPPED": 0, "PRUNED": 0}
    for status, count in statuses.items():
        assert found[f'feature_store_client_values_total{{service="service",status="{status}"}}'] == 3 * count
    assert found['feature_store_client_rows_total{service="service"}'] == 3 * 4
    assert found['feature_store_client_keys_total{service="service"}'] == 3 * 4
    assert found['feature_store_client_sent_bytes_total{service="service"}'] == sum(one.sent for one in traffic)
    assert found['feature_store_client_received_bytes_total{service="service"}'] == sum(one.received for one in traffic)
    assert found['feature_store_client_errors_total{error="NotFoundError",service="(unknown)"}'] == 1
    assert found["feature_store_client_plan_version"] == 1
    assert found["feature_store_client_plan_reads_total"] == 1, "the epoch says that no other plan is published"
    assert found["feature_store_client_reconnects_total"] == 0
    client.close()


def test_a_restarted_server_is_a_reconnect(kind: Any, registry: CollectorRegistry) -> None:
    with redis_server() as server:
        fill(server.url)
        client = kind(server.url, "test", observers=[ClientMetrics(registry)])
        client.get_online_features("service", ROWS, now=NOW_US)
        server.stop()
        server.start()
        fill(server.url)
        client.get_online_features("service", ROWS, now=NOW_US)
        client.close()
    assert scraped(registry)["feature_store_client_reconnects_total"] == 1


def test_reads_in_shadow_are_counted(registry: CollectorRegistry) -> None:
    metrics = ClientMetrics(registry)
    metrics.shadowed("service", differing=False, failed=False)
    metrics.shadowed("service", differing=True, failed=False)
    metrics.shadowed("service", differing=False, failed=True)
    found = scraped(registry)
    for outcome in ("same", "differing", "failed"):
        assert found[f'feature_store_client_shadow_reads_total{{outcome="{outcome}",service="service"}}'] == 1


def test_what_is_skipped_to_keep_a_deadline_is_counted(kind: Any, redis_url: str, registry: CollectorRegistry) -> None:
    fill(redis_url)
    client = kind(redis_url, "test", observers=[ClientMetrics(registry)])
    client.get_online_features("service", ROWS, now=NOW_US)
    with raw_client(redis_url) as admin:
        admin.client_pause(2_000)  # no reply comes in time
        client.get_online_features("service", ROWS, now=NOW_US, deadline_ms=1.0)
        admin.ping()  # answers when the pause is over
    found = scraped(registry)
    skipped = {name: value for name, value in found.items() if name.startswith("feature_store_client_skipped_total")}
    assert len(skipped) == 2 and set(skipped.values()) == {1}
    assert found['feature_store_client_values_total{service="service",status="SKIPPED"}'] == 4 * 3
    client.close()


def test_one_set_of_metrics_a_registry(registry: CollectorRegistry) -> None:
    ClientMetrics(registry)
    with pytest.raises(ConfigError, match="pass it to every client"):
        ClientMetrics(registry)


# -- the dashboard ----------------------------------------------------------------------------------------------------


def known_names(observer: Observer, registry: CollectorRegistry) -> set[str]:
    """The names of all samples of clients and streams."""
    registry.register(_AllOfAStream())
    names = set()
    for metric in registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(metric.type, [""])
        names |= {metric.name + suffix for suffix in suffixes}
    return names


class _AllOfAStream:
    def collect(self) -> Any:
        status = StreamStatus(
            views={"v": ViewCounts(newest_us=1)}, topics={"t": TopicCounts()}, positions={("t", 0): (0, 1)}
        )
        with Metrics(0) as metrics:
            metrics.update(status)
            yield from list(metrics.collect())


def test_every_metric_of_the_dashboard_exists(registry: CollectorRegistry) -> None:
    known = known_names(ClientMetrics(registry), registry)
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    used = {name for query in queries for name in re.findall(r"feature_store_\w+", query)}
    assert len(queries) >= 12
    assert used <= known, used - known
    assert {name.split("_")[2] for name in used} > {"client", "lag", "events"}


def test_the_dashboard_can_be_imported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in dashboard["panels"])
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"datasource", "service"}
