"""Reads of ours beside the floor in Python. `python -m benchmarks` adds the floor in C and the peer."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from benchmarks.floor.floor import PythonFloor
from benchmarks.projects import MIXED, READ, STORED, fill, project
from benchmarks.read import ENTITIES, ITEMS, row_dtype, row_keys
from feature_store.monitoring import ClientMetrics, Tracing
from feature_store.online import OnlineClient
from feature_store.online.layout import RowLayout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.server import Server
    from feature_store import FeatureStore
    from feature_store.online.observer import Observer


@pytest.fixture(scope="module")
def reading(redis_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with project(tmp_path_factory.mktemp("read"), "reading", READ, redis_server.url) as store:
        fill(store)
        yield store


@pytest.fixture(scope="module")
def mixed(redis_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with project(tmp_path_factory.mktemp("mixed"), "mixed", MIXED, redis_server.url) as store:
        fill(store)
        yield store


@pytest.mark.parametrize("count", ENTITIES)
def test_ours(benchmark: Any, reading: FeatureStore, count: int) -> None:
    benchmark.group = f"read {count} × 50 features in 2 views"
    client = reading.client
    requests = itertools.cycle([{"user_id": random.sample(range(STORED), count)} for _ in range(100)])
    benchmark(lambda: client.get_online_features("both", next(requests)).to_numpy())


@pytest.mark.parametrize("count", ENTITIES)
def test_python_floor(benchmark: Any, reading: FeatureStore, redis_server: Server, count: int) -> None:
    benchmark.group = f"read {count} × 50 features in 2 views"
    layout = RowLayout(reading.client.plan().groups[0])
    requests = itertools.cycle([row_keys(layout, random.sample(range(STORED), count), "reading") for _ in range(100)])
    floor = PythonFloor(redis_server.address, *row_dtype(layout))
    benchmark(lambda: floor.read(next(requests)))
    floor.close()


def test_a_user_and_candidates(benchmark: Any, mixed: FeatureStore) -> None:
    benchmark.group = f"read 1 user + {ITEMS} items, 5 views × 20 features each side"
    client = mixed.client
    requests = itertools.cycle(
        [{"user_id": random.randrange(STORED), "item_id": random.sample(range(STORED), ITEMS)} for _ in range(100)]
    )
    benchmark(lambda: client.get_online_features("mixed", next(requests)).to_numpy())


def _observers(kind: str) -> list[Observer]:
    if kind == "metrics":
        return [ClientMetrics(CollectorRegistry())]
    if kind == "tracing":  # spans are made and recorded, and exported nowhere
        return [Tracing(TracerProvider().get_tracer("benchmark"))]
    return []


@pytest.mark.parametrize("count", [1, 200])
@pytest.mark.parametrize("kind", ["off", "metrics", "tracing"])
def test_observed(benchmark: Any, reading: FeatureStore, count: int, kind: str) -> None:
    benchmark.group = f"read {count} × 50 features in 2 views, observed"
    requests = itertools.cycle([{"user_id": random.sample(range(STORED), count)} for _ in range(100)])
    with OnlineClient(reading.online_url, "reading", observers=_observers(kind)) as client:
        benchmark(lambda: client.get_online_features("both", next(requests)).to_numpy())
