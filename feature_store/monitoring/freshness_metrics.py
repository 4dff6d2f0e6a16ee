"""Freshness as Prometheus metrics, measured when they are asked for."""

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

# Redis looks at all values for a measurement; several that scrape share one.
_MEASURED_EVERY_S = 10.0


class FreshnessCollector(Collector):
    """`feature_store_freshness_seconds`, `feature_store_freshness_limit_seconds` (of views that declare one), and
    `feature_store_freshness_measured`, 0 when the last measurement failed: then nothing is said of views.

    Args:
        measure: makes a report.
    """

    def __init__(self, measure: Callable[[], FreshnessReport]) -> None:
        self._measure, self._lock = measure, threading.Lock()
        self._report: FreshnessReport | None = None
        self._measured_at = -_MEASURED_EVERY_S

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        report = self._newest()
        age = GaugeMetricFamily(
            "feature_store_freshness_seconds", "Age of the newest event time that is stored", labels=["view"]
        )
        limit = GaugeMetricFamily(
            "feature_store_freshness_limit_seconds", "Age that a view declares not to exceed", labels=["view"]
        )
        for view in report.views if report is not None else ():
            if view.age_s is not None:
                # It grows between measurements, too.
                age.add_metric([view.view], max(time.time() - (view.newest_us or 0) / 1e6, 0))
            if view.limit_s is not None:
                limit.add_metric([view.view], view.limit_s)
        yield age
        yield limit
        yield GaugeMetricFamily("feature_store_freshness_measured", "1 when it could be measured", report is not None)

    def _newest(self) -> FreshnessReport | None:
        with self._lock:
            if time.monotonic() - self._measured_at >= _MEASURED_EVERY_S:
                try:
                    self._report = self._measure()
                except FeatureStoreError:  # scraped again, it may be back; until then there is nothing to say
                    self._report = None
                self._measured_at = time.monotonic()
            return self._report


class FreshnessMetrics:
    """Serves `/metrics`.

    Args:
        port: where; 0: on any that is free.
        measure: makes a report.

    Attributes:
        port: where it serves.

    Raises:
        RequestError: the port is taken.
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
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> FreshnessMetrics:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
