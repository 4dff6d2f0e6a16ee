"""The requests of online clients as Prometheus metrics. prometheus-client's door in this package."""

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

# Seconds. From what one entity takes on the same machine to what no one who waits is content with.
BUCKETS = (5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 7.5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.25, 0.5, 1.0)
_SERVICE = ["service"]


class _OfService(NamedTuple):
    """The metrics of one service, found once: looking them up by label for each request costs more than counting."""

    seconds: Histogram
    rows: Counter
    keys: Counter
    sent: Counter
    received: Counter
    statuses: list[Counter]


class ClientMetrics(Observer):
    """Give it to clients: `OnlineClient(…, observers=[ClientMetrics()])`. Several clients of a process share one.

    What it counts is under `feature_store_client_`; docs/guides/monitoring.md names the metrics. They are objects of
    prometheus-client, so its multi-process mode works as usual. A request's time is that until its answer is there,
    reads in shadow included; values are decoded later, by whoever asks for them. Requests with a deadline are not read
    in shadow.
    Labels are the names that plans hold, so that callers cannot add series: `(unknown)` is a service that the plan
    does not have (or any, before a first plan is read), `(references)` a list of feature references.

    Args:
        registry: where the metrics are registered; prometheus-client's own unless given.

    Raises:
        MissingDependencyError: prometheus-client is not installed (`feature-store[metrics]`).
        ConfigError: the registry has them already.

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
            hint = "make one ClientMetrics, and give it to every client of the process"
            expected = "one without a client's metrics"
            raise ConfigError("metrics registry", expected=expected, got=str(error), hint=hint) from error
        self._services: dict[str, _OfService] = {}

    def request(self, request: Observed) -> None:
        """See Observer."""
        if request.error is not None:
            self._errors.labels(request.label, type(request.error).__name__).inc()
        response = request.response
        if response is None:
            return
        found = self._services.get(request.service) or self._of_service(request.service)
        found.seconds.observe(request.seconds)
        found.rows.inc(len(response))
        keys, sent, received = response.traffic
        found.keys.inc(keys)
        found.sent.inc(sent)
        found.received.inc(received)
        for status, count in response.status_counts().items():
            found.statuses[status].inc(count)
        self._count_skipped(request.service, response)

    def reconnected(self) -> None:
        """See Observer."""
        self._reconnects.inc()

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
        found = self._services[service] = _OfService(
            self._seconds.labels(service),
            self._rows.labels(service),
            self._keys.labels(service),
            self._sent.labels(service),
            self._received.labels(service),
            [self._values.labels(service, status.name) for status in Status],
        )
        return found

    def _register(self, registry: CollectorRegistry) -> None:
        def counter(name: str, about: str, labels: list[str]) -> Counter:
            return Counter(f"feature_store_client_{name}", about, labels, registry=registry)

        self._seconds = Histogram(
            "feature_store_client_request_seconds",
            "Time of requests that were answered",
            _SERVICE,
            buckets=BUCKETS,
            registry=registry,
        )
        self._errors = counter("errors", "Requests that failed, by error", ["service", "error"])
        self._values = counter("values", "Values served, by status", ["service", "status"])
        self._rows = counter("rows", "Entity rows asked for", _SERVICE)
        self._keys = counter("keys", "Distinct keys read", _SERVICE)
        self._sent = counter("sent_bytes", "Bytes sent", _SERVICE)
        self._received = counter("received_bytes", "Bytes received", _SERVICE)
        self._skipped = counter(
            "skipped", "Row groups and stream views not read, to keep a deadline", ["service", "group"]
        )
        self._shadow_reads = counter(
            "shadow_reads", "Requests read again in shadow, by what was found", ["service", "outcome"]
        )
        self._reconnects = counter("reconnects", "Idle connections that turned out dead", [])
        self._plan_reads = counter("plan_reads", "Times that the serving plan was read", [])
        self._plan_version = Gauge(
            "feature_store_client_plan_version",
            "Version of the serving plan that was read last",
            registry=registry,
            multiprocess_mode="max",
        )
