"""The metrics of a near-cache are those that its client counts."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from feature_store.errors import ConfigError
from feature_store.monitoring import CacheMetrics
from feature_store.online import AsyncOnlineClient, OnlineClient


@pytest.mark.parametrize("kind", [OnlineClient, AsyncOnlineClient])
def test_they_are_those_of_the_client(kind: type[OnlineClient] | type[AsyncOnlineClient], redis_url: str) -> None:
    client, registry = kind(redis_url, "test", cache={"movie": "1MB"}), CollectorRegistry()
    CacheMetrics(client, registry)
    assert client.cache is not None
    for name in ("hits_total", "misses_total", "invalidated_total", "bytes"):
        assert registry.get_sample_value(f"feature_store_cache_{name}", {"group": "movie"}) == 0
    assert registry.get_sample_value("feature_store_cache_active") == 0
    assert registry.get_sample_value("feature_store_cache_losses_total") == client.cache.losses
    with pytest.raises(ConfigError, match="a registry has the metrics of one near-cache"):
        CacheMetrics(client, registry)


def test_a_client_without_a_near_cache_is_refused(redis_url: str) -> None:
    with pytest.raises(ConfigError, match="the client has no near-cache"):
        CacheMetrics(OnlineClient(redis_url, "test"), CollectorRegistry())
