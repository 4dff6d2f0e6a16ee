"""Prometheus metrics of a client's near-cache, collected when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store._extras import requires_extra
from feature_store.errors import ConfigError

with requires_extra("metrics", "CacheMetrics"):
    from prometheus_client import REGISTRY
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry, Metric

    from feature_store.online.async_client import AsyncOnlineClient
    from feature_store.online.client import OnlineClient

_OF_GROUPS = {
    "hits": "Keys whose value came from the near-cache",
    "misses": "Keys that were read although the near-cache was in use",
    "invalidated": "Values that were dropped because Redis said that they changed",
}


class CacheMetrics(Collector):
    """Metrics of the near-cache of one client, which docs/guides/near-cache.md lists. They cost requests nothing.

    Args:
        client: the client.
        registry: where the metrics are registered; None: the default registry of prometheus-client.

    Raises:
        MissingDependencyError: prometheus-client is not installed (`feature-store[metrics]`).
        ConfigError: the client has no near-cache, or the registry already has the metrics of one.

    Example:
        >>> from prometheus_client import CollectorRegistry
        >>> from feature_store.monitoring import CacheMetrics
        >>> from feature_store.online import OnlineClient
        >>> registry = CollectorRegistry()
        >>> with OnlineClient(redis_url, project="shop", cache={"product": "1MB"}) as client:
        ...     _ = CacheMetrics(client, registry)
        >>> registry.get_sample_value("feature_store_cache_hits_total", {"group": "product"})
        0
    """

    def __init__(self, client: OnlineClient | AsyncOnlineClient, registry: CollectorRegistry | None = None) -> None:
        if client.cache is None:
            raise ConfigError("CacheMetrics", problem="the client has no near-cache", hint="give the client `cache`")
        self._client = client
        try:
            (registry if registry is not None else REGISTRY).register(self)
        except ValueError as error:
            hint = "a registry has the metrics of one near-cache"
            raise ConfigError("metrics registry", problem=str(error), hint=hint) from error

    def describe(self) -> Iterator[Metric]:
        """See Collector: the registry refuses the metrics of a second near-cache by their names."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        state = self._client.cache
        assert state is not None
        for name, about in _OF_GROUPS.items():
            counter = CounterMetricFamily(f"feature_store_cache_{name}", about, labels=["group"])
            for group, stats in state.groups.items():
                counter.add_metric([group], getattr(stats, name))
            yield counter
        size = GaugeMetricFamily("feature_store_cache_bytes", "Bytes that the values take", labels=["group"])
        for group, stats in state.groups.items():
            size.add_metric([group], stats.bytes)
        yield size
        yield GaugeMetricFamily("feature_store_cache_active", "1 while the values are used", state.is_active)
        yield CounterMetricFamily("feature_store_cache_losses", "How often all values were dropped", state.losses)
        lag_s = float("nan") if state.lag_ms is None else state.lag_ms / 1000
        yield GaugeMetricFamily(
            "feature_store_cache_lag_seconds", "p99 of the time by which invalidations are behind, in seconds", lag_s
        )
