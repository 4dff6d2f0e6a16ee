"""What a client keeps is bounded by the plan and constants, whatever names, lists and sizes its callers use."""

from __future__ import annotations

import contextlib
import gc
import random
import weakref
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from feature_store.definitions import FeatureService, FeatureView, Field, Float32
from feature_store.errors import NotFoundError, RequestError
from feature_store.monitoring import ClientMetrics
from feature_store.online import OnlineStore, published_plan, service
from tests.online.clients import CLIENTS
from tests.online.worlds import NOW_US, numbers, plan_of, profile, write

ranking = FeatureService("ranking", features=[numbers, profile[["age"]]])
wide = FeatureView("wide", entities=numbers.entities, schema=[Field(f"f{i}", Float32) for i in range(40)])


@pytest.fixture(params=list(CLIENTS))
def kind(request: pytest.FixtureRequest) -> Any:
    return CLIENTS[request.param]


@pytest.fixture
def store(redis_url: str) -> Any:
    with contextlib.closing(OnlineStore(redis_url, "test")) as store:
        store.publish(plan_of(ranking, views=[numbers, profile, wide]), over=store.published())
        write(store, wide, [{"movie_id": 1, "event_ts": NOW_US} | {f"f{i}": float(i) for i in range(40)}])
        yield store


def published(client: Any) -> published_plan.PublishedPlan:
    found = getattr(client, "client", client)._conversation._published
    assert found is not None
    return found  # type: ignore[no-any-return]


def test_lists_of_references_that_stay_compiled_are_bounded(kind: Any, store: OnlineStore, redis_url: str) -> None:
    client, chance = kind(redis_url, "test"), random.Random(7)
    for _ in range(published_plan.MOST_LISTS + 200):
        names = chance.sample(range(40), 5)
        found = client.get_online_features([f"wide:f{i}" for i in names], {"movie_id": 1}, now=NOW_US)
        assert found.to_numpy().tolist() == [[float(i) for i in names]]
    kept = published(client)
    assert kept._of_references.cache_info().currsize == published_plan.MOST_LISTS
    assert not kept._compiled
    client.close()


def test_a_list_is_compiled_once_however_it_is_written(kind: Any, store: OnlineStore, redis_url: str) -> None:
    client = kind(redis_url, "test")
    names = ["wide:f3", "wide:f1"]
    for given in (names, tuple(names), np.array(names), np.array(names, object)):
        found = client.get_online_features(given, {"movie_id": 1}, now=NOW_US)
        assert found.to_dict() == {"f3": [3.0], "f1": [1.0]}
    assert published(client)._of_references.cache_info().misses == 1
    for given in ([7], [None], [["wide:f1"]]):
        with pytest.raises(RequestError, match=r"features\[0\]"):
            client.get_online_features(given, {"movie_id": 1})
    client.close()


def test_shapes_of_requests_are_bounded(
    kind: Any, store: OnlineStore, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_SHAPES", 10)
    client = kind(redis_url, "test")
    for asked, most in (("ranking", 10), (["wide:f1"], service.MOST_SHAPES_OF_A_LIST)):
        for size in range(1, 300):
            client.get_online_features(asked, {"movie_id": list(range(size)), "user_id": 1}, now=NOW_US)
        assert 0 < len(published(client).service(asked).writer.shapes) <= most
    client.close()


def test_made_up_services_are_one_series_and_no_reads_of_the_plan(
    kind: Any, store: OnlineStore, redis_url: str
) -> None:
    registry = CollectorRegistry()
    client = kind(redis_url, "test", observers=[ClientMetrics(registry)])
    client.get_online_features("ranking", {"movie_id": 1, "user_id": 1})

    def series() -> int:
        return sum(len(metric.samples) for metric in registry.collect())

    for i in range(3):
        with pytest.raises(NotFoundError):
            client.get_online_features(f"made up {i}", {"movie_id": 1})
    before = series()
    for i in range(200):
        with pytest.raises(NotFoundError):
            client.get_online_features(f"other {i}", {"movie_id": 1})
    assert series() == before
    labels = {"service": "(unknown)", "error": "NotFoundError"}
    assert registry.get_sample_value("feature_store_client_errors_total", labels) == 203
    assert registry.get_sample_value("feature_store_client_plan_reads_total") == 1
    assert list(published(client)._compiled) == ["ranking"]
    client.close()


def test_a_service_that_is_published_is_found_at_once(kind: Any, store: OnlineStore, redis_url: str) -> None:
    client = kind(redis_url, "test")
    with pytest.raises(NotFoundError):
        client.get_online_features("later", {"movie_id": 1})
    later = FeatureService("later", features=[wide[["f2"]]])
    plan = plan_of(ranking, later, views=[numbers, profile, wide], version=2)
    store.publish(plan, over=store.published())
    assert client.get_online_features("later", {"movie_id": 1}, now=NOW_US).names == ["f2"]
    client.close()


def test_a_plan_that_was_replaced_is_freed_at_once(kind: Any, store: OnlineStore, redis_url: str) -> None:
    """The garbage collector would free it much later, and what is compiled from a plan takes megabytes."""
    client = kind(redis_url, "test")
    for asked in (["wide:f1"], "ranking"):
        client.get_online_features(asked, {"movie_id": 1, "user_id": 1}, now=NOW_US)
    gc.disable()
    try:
        before = weakref.ref(published(client))
        store.publish(plan_of(ranking, views=[numbers, profile, wide], version=2), over=store.published())
        for asked in (["wide:f1"], "ranking"):
            client.get_online_features(asked, {"movie_id": 1, "user_id": 1}, now=NOW_US)
        assert before() is None
    finally:
        gc.enable()
    client.close()


def test_before_a_plan_is_read_no_service_is_known(kind: Any) -> None:
    registry = CollectorRegistry()
    client = kind("redis://127.0.0.1:1", "test", observers=[ClientMetrics(registry)])
    for i in range(20):
        with pytest.raises(ConnectionError):
            client.get_online_features(f"any {i}", {"movie_id": 1})
    found = [
        sample for metric in registry.collect() for sample in metric.samples if sample.name.endswith("errors_total")
    ]
    assert [(sample.labels["service"], sample.value) for sample in found] == [("(unknown)", 20)]
    client.close()
