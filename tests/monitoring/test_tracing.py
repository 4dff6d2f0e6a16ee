"""Spans of requests, as an exporter sees them."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from feature_store.definitions import FeatureService
from feature_store.errors import RequestError
from feature_store.monitoring import Tracing
from feature_store.online import OnlineClient, OnlineStore
from tests.online.clients import CLIENTS
from tests.online.worlds import NOW_US, numbers, plan_of, profile, write

service = FeatureService("service", features=[numbers[["a", "c"]], profile[["age"]]])
ROWS = {"movie_id": [1, 2], "user_id": 1}


@pytest.fixture(params=list(CLIENTS))
def kind(request: pytest.FixtureRequest) -> Any:
    return CLIENTS[request.param]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
def filled(redis_url: str) -> str:
    store = OnlineStore(redis_url, "test")
    store.publish(plan_of(service), over=store.published())
    write(store, numbers, [{"movie_id": 1, "event_ts": NOW_US, "a": 1.0, "c": 1}])
    store.close()
    return redis_url


def test_a_request_is_a_span(kind: Any, filled: str, exporter: InMemorySpanExporter, provider: TracerProvider) -> None:
    client = kind(filled, "test", observers=[Tracing(provider.get_tracer("test"))])
    response = client.get_online_features("service", ROWS, now=NOW_US, request_id="r7")
    (span,) = exporter.get_finished_spans()
    assert span.name == "feature_store.get_online_features" and span.kind is SpanKind.CLIENT
    assert span.start_time is not None and span.end_time is not None and span.end_time > span.start_time
    assert dict(span.attributes or {}) == {
        "feature_store.service": "service",
        "feature_store.request_id": "r7",
        "feature_store.rows": 2,
        "feature_store.keys": 3,
        "feature_store.sent_bytes": response.traffic.sent,
        "feature_store.received_bytes": response.traffic.received,
        "feature_store.plan_version": 1,
        "feature_store.values.present": 2,
        "feature_store.values.missing": 4,
    }
    assert span.status.status_code is StatusCode.UNSET
    client.close()


def test_a_failed_request_has_its_error(
    kind: Any, filled: str, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    client = kind(filled, "test", observers=[Tracing(provider.get_tracer("test"))])
    with pytest.raises(RequestError):
        client.get_online_features("service", {"user_id": 1})
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]
    client.close()


def test_a_span_is_the_child_of_the_current_one(
    filled: str, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    tracer = provider.get_tracer("test")
    with OnlineClient(filled, "test", observers=[Tracing(tracer)]) as client, tracer.start_as_current_span("ranking"):
        client.get_online_features("service", ROWS, now=NOW_US, deadline_ms=5000)
    inner, outer = exporter.get_finished_spans()
    assert inner.parent is not None and inner.parent.span_id == outer.context.span_id


def test_without_a_provider_nothing_is_recorded(filled: str) -> None:
    with OnlineClient(filled, "test", observers=[Tracing()]) as client:
        assert client.get_online_features("service", ROWS, now=NOW_US).to_dict()["c"] == [1, None]
