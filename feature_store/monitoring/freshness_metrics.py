"""Freshness as Prometheus metrics, measured when Prometheus scrapes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from feature_store._extras import requires_extra
from feature_store.errors import FeatureStoreError, RequestError
from feature_store.monitoring.freshness import FreshnessReport

with requires_extra("metrics", "freshness --metrics-port"):
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

# A measurement makes Redis read all values, so several scrapes share one.
_MEASURED_EVERY_S = 10.0


class FreshnessCollector(Collector):
    """`feature_store_freshness_seconds`, `feature_store_freshness_limit_seconds` (if a view declares one),
    `feature_store_ttl_seconds` (if it has one), and `feature_store_freshness_measured`: 0 if the last measurement
    failed. Then the others are absent.

    Args:
        measure: measures the freshness.
    """

    def __init__(self, measure: Callable[[], FreshnessReport]) -> None:
        self._measure, self._lock = measure, threading.Lock()
        self._report: FreshnessReport | None = None
        self._measured_at = -_MEASURED_EVERY_S

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        report = self._newest()
        age = GaugeMetricFamily(
            "feature_store_freshness_seconds", "Age of the newest stored event time", labels=["view"]
        )
        limit = GaugeMetricFamily(
            "feature_store_freshness_limit_seconds", "Declared freshness of a view", labels=["view"]
        )
        ttl = GaugeMetricFamily(
            "feature_store_ttl_seconds", "Age at which the values of a view expire", labels=["view"]
        )
        for view in report.views if report is not None else ():
            if view.age_s is not None:
                # The age grows between measurements, too.
                age.add_metric([view.view], max(time.time() - (view.newest_us or 0) / 1e6, 0))
            if view.limit_s is not None:
                limit.add_metric([view.view], view.limit_s)
            if view.ttl_s is not None:
                ttl.add_metric([view.view], view.ttl_s)
        yield age
        yield limit
        yield ttl
        yield GaugeMetricFamily(
            "feature_store_freshness_measured", "1 if the last measurement succeeded", report is not None
        )

    def _newest(self) -> FreshnessReport | None:
        with self._lock:
            if time.monotonic() - self._measured_at >= _MEASURED_EVERY_S:
                try:
                    self._report = self._measure()
                except FeatureStoreError:  # the next scrape measures again
                    self._report = None
                self._measured_at = time.monotonic()
            return self._report


class FreshnessMetrics:
    """Serves freshness at `/metrics` until closed.

    Args:
        port: the port; 0: any free port.
        measure: measures the freshness.

    Attributes:
        port: the port that it listens on.

    Raises:
        RequestError: the port is in use.
    """

    def __init__(self, port: int, measure: Callable[[], FreshnessReport]) -> None:
        registry = CollectorRegistry()
        registry.register(FreshnessCollector(measure))
        try:
            self._server, self._thread = start_http_server(port, registry=registry)
        except OSError as error:
            raise RequestError(f"metrics port {port}", expected="a free port", got=str(error)) from error
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> FreshnessMetrics:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
