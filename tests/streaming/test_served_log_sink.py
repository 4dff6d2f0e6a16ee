"""Served records on a real Kafka."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import pytest
from confluent_kafka import Consumer

from feature_store.arrow.served_log import About
from feature_store.definitions import FeatureService
from feature_store.errors import RequestError
from feature_store.monitoring import ServedLog
from feature_store.online import OnlineClient, OnlineStore
from feature_store.streaming import KafkaSink
from tests.online.worlds import NOW_US, numbers, plan_of, profile, write
from tests.streaming.streaming_worlds import make_topic

service = FeatureService("service", features=[numbers[["a", "c"]], profile[["age"]]])
ROWS = {"movie_id": [1, 2], "user_id": 1}


@pytest.fixture
def filled(redis_url: str) -> str:
    store = OnlineStore(redis_url, "test")
    store.publish(plan_of(service), over=store.published())
    write(store, numbers, [{"movie_id": 1, "event_ts": NOW_US, "a": float("nan"), "c": 1}])
    store.close()
    return redis_url


def messages(address: str, topic: str, count: int) -> Iterator[tuple[Any, bytes]]:
    settings = {"bootstrap.servers": address, "group.id": "test", "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    for _ in range(count):
        message = consumer.poll(30)
        assert message is not None and message.error() is None
        yield message.key(), message.value() or b""
    consumer.close()


def serve(url: str, sink: KafkaSink) -> ServedLog:
    with ServedLog(sink, 1.0) as log, OnlineClient(url, "test", observers=[log]) as client:
        client.get_online_features("service", ROWS, now=NOW_US, request_id="r0", log_fields={"position": [5, 6]})
        client.get_online_features("service", ROWS | {"movie_id": [1]}, now=NOW_US, log_fields={"position": 7})
        assert log.flush(60)
    return log


def test_a_request_is_an_arrow_message(filled: str, kafka: str) -> None:
    make_topic(kafka, "served", 1)
    assert serve(filled, KafkaSink("served", {"bootstrap.servers": kafka})).counts.written == 2
    (key, value), (no_key, second) = messages(kafka, "served", 2)
    assert (key, no_key) == (b"r0", None)
    with pa.ipc.open_stream(value) as reader:
        table = reader.read_all()
    assert About.of(table.schema, "").features == {"a": "Float32", "c": "Int32", "age": "Int32"}
    assert table.select(["movie_id", "request_row", "c", "position"]).to_pydict() == {
        "movie_id": [1, 2],
        "request_row": [0, 1],
        "c": [1, None],
        "position": [5, 6],
    }
    with pa.ipc.open_stream(second) as reader:
        assert reader.read_all()["position"].to_pylist() == [7]


def test_a_request_is_a_json_message(filled: str, kafka: str) -> None:
    make_topic(kafka, "served", 1)
    serve(filled, KafkaSink("served", {"bootstrap.servers": kafka}, format="json"))
    (_, value), _ = messages(kafka, "served", 2)
    first, second = orjson.loads(value)
    assert second["served_status"] == {"a": "MISSING", "c": "MISSING", "age": "MISSING"}
    assert first == {
        "request_id": "r0",
        "request_row": 0,
        "served_at": datetime.fromtimestamp(NOW_US / 1e6, UTC).isoformat(),
        "served_by": "service",
        "served_version": 1,
        "served_plan": None,
        "movie_id": 1,
        "user_id": 1,
        "a": None,
        "c": 1,
        "age": None,
        "served_status": {"age": "MISSING"},
        "position": 5,
    }


def test_a_broker_that_is_down_fails_no_request(filled: str, caplog: pytest.LogCaptureFixture) -> None:
    down = {"bootstrap.servers": "127.0.0.1:1", "message.timeout.ms": 500}
    with caplog.at_level(logging.ERROR, "feature_store.served_log"):
        counts = serve(filled, KafkaSink("served", down)).counts
    assert (counts.written, counts.failed) == (0, 2)
    assert "topic served: expected 2 messages to arrive, got 0" in caplog.text


def test_there_are_two_formats() -> None:
    with pytest.raises(RequestError, match="arrow or json"):
        KafkaSink("served", {}, format="avro")  # type: ignore[arg-type]
