"""Prometheus metrics for the requests of online clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from feature_store._extras import requires_extra
from feature_store.errors import ConfigError
from feature_store.online.observer import Observed, Observer
from feature_store.online.response import OnlineResponse
from feature_store.online.status import Status

with requires_extra("metrics", "ClientMetrics"):
    from prometheus_client import REGISTRY, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

# Seconds: from the time of one entity on the same machine to more than any caller accepts.
BUCKETS = (5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 7.5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.25, 0.5, 1.0)
_SERVICE = ["service"]


class _OfService(NamedTuple):
    """The metrics of a service, looked up once: a lookup by label for each request costs more than counting."""

    seconds: Histogram
    rows: Counter
    keys: Counter
    sent: Counter
    received: Counter
    statuses: list[Counter]


class ClientMetrics(Observer):
    """Metrics of requests: `OnlineClient(…, observers=[ClientMetrics()])`. All clients of a process share one object.

    The metrics begin with `feature_store_client_`; docs/guides/monitoring.md lists them. They are objects of
    prometheus-client, so its multi-process mode works as usual. The time of a request ends when its answer has arrived,
    shadow reads included; values are decoded later, on access. Requests with a deadline are not read in shadow. Labels
    are names in plans, so that callers cannot add series: `(unknown)` is a service that the plan lacks, or any service
    before the first plan is read, and `(references)` a list of feature references.

    Args:
        registry: where the metrics are registered; None: the default registry of prometheus-client.

    Raises:
        MissingDependencyError: prometheus-client is not installed (`feature-store[metrics]`).
        ConfigError: the registry already has a client's metrics.

    Example:
        >>> from prometheus_client import CollectorRegistry
        >>> from feature_store.monitoring import ClientMetrics
        >>> from feature_store.online import OnlineClient
        >>> registry = CollectorRegistry()
        >>> rows = {"user_id": 1, "product_id": [1, 2], "basket_price": 40.0}
        >>> observers = [ClientMetrics(registry)]
        >>> with OnlineClient(redis_url, project="shop", definitions="features.py", observers=observers) as client:
        ...     _ = client.get_online_features("ranking", rows)
        >>> registry.get_sample_value("feature_store_client_rows_total", {"service": "ranking"})
        2.0
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        try:
            self._register(registry if registry is not None else REGISTRY)
        except ValueError as error:
            hint = "create one ClientMetrics, and pass it to every client of the process"
            raise ConfigError("metrics registry", problem=str(error), hint=hint) from error
        self._services: dict[str, _OfService] = {}

    def request(self, request: Observed) -> None:
        """See Observer."""
        if request.error is not None:
            self._errors.labels(request.label, type(request.error).__name__).inc()
        response = request.response
        if response is None:
            return
        metrics = self._services.get(request.service) or self._of_service(request.service)
        metrics.seconds.observe(request.seconds)
        metrics.rows.inc(len(response))
        keys, sent, received = response.traffic
        metrics.keys.inc(keys)
        metrics.sent.inc(sent)
        metrics.received.inc(received)
        for status, count in response.status_counts().items():
            metrics.statuses[status].inc(count)
        self._count_skipped(request.service, response)

    def reconnected(self) -> None:
        """See Observer."""
        self._reconnects.inc()

    def hedged(self, outcome: str, load: float) -> None:
        """See Observer."""
        self._hedges.labels(outcome).inc()
        self._hedge_load.set(load)

    def plan_read(self, version: int) -> None:
        """See Observer."""
        self._plan_reads.inc()
        self._plan_version.set(version)

    def shadowed(self, service: str, *, differing: bool, failed: bool) -> None:
        """See Observer."""
        self._shadow_reads.labels(service, "failed" if failed else "differing" if differing else "same").inc()

    def _count_skipped(self, service: str, response: OnlineResponse) -> None:
        for name in response.skipped:
            self._skipped.labels(service, name).inc()

    def _of_service(self, service: str) -> _OfService:
        metrics = self._services[service] = _OfService(
            self._seconds.labels(service),
            self._rows.labels(service),
            self._keys.labels(service),
            self._sent.labels(service),
            self._received.labels(service),
            [self._values.labels(service, status.name) for status in Status],
        )
        return metrics

    def _register(self, registry: CollectorRegistry) -> None:
        def counter(name: str, about: str, labels: list[str]) -> Counter:
            return Counter(f"feature_store_client_{name}", about, labels, registry=registry)

        self._seconds = Histogram(
            "feature_store_client_request_seconds",
            "Time of answered requests, in seconds",
            _SERVICE,
            buckets=BUCKETS,
            registry=registry,
        )
        self._errors = counter("errors", "Requests that failed, by error", ["service", "error"])
        self._values = counter("values", "Values served, by status", ["service", "status"])
        self._rows = counter("rows", "Entity rows requested", _SERVICE)
        self._keys = counter("keys", "Distinct keys read", _SERVICE)
        self._sent = counter("sent_bytes", "Bytes sent", _SERVICE)
        self._received = counter("received_bytes", "Bytes received", _SERVICE)
        self._skipped = counter(
            "skipped", "Row groups and stream views skipped to keep a deadline", ["service", "group"]
        )
        self._shadow_reads = counter(
            "shadow_reads", "Requests read again in shadow, by outcome", ["service", "outcome"]
        )
        self._reconnects = counter("reconnects", "Dead idle connections that were replaced", [])
        self._hedges = counter("hedges", "Slow reads that another server was asked for, by outcome", ["outcome"])
        self._hedge_load = Gauge(
            "feature_store_client_hedge_load",
            "Bytes sent for hedges, as a share of the bytes of all reads",
            registry=registry,
            multiprocess_mode="max",
        )
        self._plan_reads = counter("plan_reads", "Reads of the serving plan", [])
        self._plan_version = Gauge(
            "feature_store_client_plan_version",
            "Version of the last serving plan that was read",
            registry=registry,
            multiprocess_mode="max",
        )
