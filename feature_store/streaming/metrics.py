"""Serves the workers' status as Prometheus metrics, from the parent process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from feature_store._extras import requires_extra
from feature_store.errors import StreamError
from feature_store.streaming.status import StreamStatus

with requires_extra("kafka", "metrics"):
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector


class Metrics(Collector):
    """Serves `/metrics` over HTTP.

    Args:
        port: the port to listen on. 0: any free port.

    Attributes:
        port: the port that it listens on.

    Raises:
        StreamError: the port cannot be opened, for example because it is in use.
    """

    def __init__(self, port: int) -> None:
        self._status, self._lock = StreamStatus(), threading.Lock()
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, registry=registry)
        except OSError as error:
            raise StreamError(f"metrics port {port}", expected="a free port", got=str(error)) from error
        self.port: int = self._server.server_port

    def update(self, status: StreamStatus) -> None:
        """Replace the status that `/metrics` shows."""
        with self._lock:
            self._status = status

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        with self._lock:
            status = self._status
        yield from _of_views(status)
        yield from _of_topics(status)
        lag = GaugeMetricFamily("feature_store_lag", "Messages that wait to be read", labels=["topic", "partition"])
        for (topic, partition), (at, end) in status.positions.items():
            if end is not None:
                lag.add_metric([topic, str(partition)], max(0, end - max(at, 0)))
        yield lag
        counters = {
            "feature_store_batches": ("Batches merged", status.batches),
            "feature_store_merge_seconds": ("Seconds spent waiting for Redis", status.merge_seconds),
            "feature_store_refused": ("Merges that fences refused", status.refused),
            "feature_store_plan_reloads": ("Plans that were published while streaming", status.reloads),
            "feature_store_worker_restarts": ("Workers that died and were started again", status.restarts),
        }
        for name, (about, value) in counters.items():
            yield CounterMetricFamily(name, about, value)
        yield GaugeMetricFamily("feature_store_waiting", "1 while a worker waits for something", bool(status.trouble))


def _of_views(status: StreamStatus) -> Iterator[Metric]:
    events = CounterMetricFamily("feature_store_events", "Events by what became of them", labels=["view", "outcome"])
    freshness = GaugeMetricFamily(
        "feature_store_freshness_seconds", "Age of the newest event that was merged", labels=["view"]
    )
    for view, counts in status.views.items():
        for outcome in ("merged", "late", "null_keys", "before_start"):
            events.add_metric([view, outcome], getattr(counts, outcome))
        if counts.newest_us:
            freshness.add_metric([view], time.time() - counts.newest_us / 1e6)
    yield events
    yield freshness


def _of_topics(status: StreamStatus) -> Iterator[Metric]:
    messages = CounterMetricFamily("feature_store_messages", "Messages read", labels=["topic"])
    dead = CounterMetricFamily("feature_store_dead", "Messages that are no events", labels=["topic", "kind"])
    lost = CounterMetricFamily("feature_store_lost", "Messages gone from Kafka before they were read", labels=["topic"])
    for topic, counts in status.topics.items():
        messages.add_metric([topic], counts.messages)
        lost.add_metric([topic], counts.lost)
        for kind in ("malformed", "future"):
            dead.add_metric([topic, kind], getattr(counts, kind))
    yield messages
    yield dead
    yield lost
