"""Fields that are parts of the message around its value."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from feature_store import (
    Aggregation,
    Bool,
    Bytes,
    Date,
    Decimal,
    Entity,
    Field,
    Float64,
    Int32,
    Int64,
    KafkaSource,
    StreamFeatureView,
    String,
    Timestamp,
)
from feature_store.definitions import DefinitionSet
from feature_store.errors import DefinitionError
from feature_store.streaming.decoder import EventBatch, decoder_of
from feature_store.testing.formats import StoredMessage
from tests.streaming.streaming_worlds import has_read, make_topic, project, work

AT_MS = 1_700_000_000_000
VALUE = b'{"at": %d, "price": 2.5}' % AT_MS


def decoded(fields: list[Field], metadata: dict[str, str], *messages: StoredMessage, time: str = "at") -> EventBatch:
    source = KafkaSource("e", topic="e", event_timestamp=time, schema=fields, metadata=metadata)
    return decoder_of(source).decode(messages)


def column(batch: EventBatch, name: str) -> list[Any]:
    values, nulls = batch.columns[name]
    return [None if null else value for value, null in zip(values.tolist(), nulls.tolist(), strict=True)]


def test_what_is_around_the_value_is_a_column() -> None:
    fields = [Field("user", Int64), Field("country", String), Field("where", Int32), Field("place", Int64)]
    fields += [Field("from", String), Field("sent", Timestamp), Field("price", Float64)]
    metadata = {"user": "key", "country": "headers.x-country", "where": "partition", "place": "offset"}
    metadata |= {"from": "topic", "sent": "timestamp"}
    several = [("x-country", b"at"), ("other", b"x"), ("x-country", "ö".encode())]
    first = StoredMessage(VALUE, 7, b"17", several, AT_MS + 5, "events", 3)
    found = decoded(
        fields, metadata, first, StoredMessage(VALUE, 8), StoredMessage(VALUE, 9, b"", [("x-country", None)])
    )
    assert found.places.tolist() == [0, 1]
    assert [column(found, field.name) for field in fields] == [
        [17, None],
        ["ö", None],
        [3, 0],
        [7, 8],
        ["events", "events"],
        [(AT_MS + 5) * 1000, None],
        [2.5, 2.5],
    ]
    assert (found.rejected[2].where, found.rejected[2].kind) == ("user", "malformed")


@pytest.mark.parametrize(
    ("dtype", "good", "stored", "bad"),
    [
        (Int64, b"-5", -5, b"1_000"),
        (Float64, b"2.5", 2.5, b"two"),
        (Bool, b"true", True, b"yes"),
        (String, "é".encode(), "é", b"\xff"),
        (Bytes, b"\xff\x00", b"\xff\x00", None),
        (Date, b"1970-01-03", 2, b"yesterday"),
        (Decimal(6, 2), b"12.30", 1230, b"12.345"),
        (Timestamp, b"1970-01-01T00:00:01Z", 1_000_000, b"noon"),
        (Timestamp, b"1000", 1_000_000, b"10.5.2026"),
    ],
)
@pytest.mark.parametrize("part", ["key", "headers.h"])
def test_bytes_are_read_as_text_of_the_type(dtype: Any, good: bytes, stored: Any, bad: bytes | None, part: str) -> None:
    messages = [StoredMessage(VALUE, i, text, [("h", text)]) for i, text in enumerate((good, None, bad))]
    found = decoded([Field("x", dtype)], {"x": part}, *messages)
    assert column(found, "x")[:2] == [stored, None]
    assert list(found.rejected) == ([] if bad is None else [2])
    assert all(rejection.where == "x" and rejection.reason for rejection in found.rejected.values())


def test_the_time_of_an_event_may_be_that_of_kafka() -> None:
    messages = [StoredMessage(b"{}", 0, time_ms=AT_MS), StoredMessage(b"{}", 1)]
    found = decoded([Field("n", Int64)], {"sent": "timestamp"}, *messages, time="sent")
    assert found.event_us.tolist() == [AT_MS * 1000]
    assert (found.rejected[1].where, found.rejected[1].reason) == ("sent", "expected a time, got null")


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"usr": "key"}, "did you mean 'user'"),
        ({"user": "header.x"}, "headers.<name>"),
        ({"user": "headers."}, "headers.<name>"),
        ({"user": "timestamp"}, "a field of Timestamp"),
        ({"user": "topic"}, "a field of String"),
        ({"small": "offset"}, "a field of Int64"),
    ],
)
def test_a_part_that_cannot_be_the_field_is_refused(metadata: dict[str, str], text: str) -> None:
    fields = [Field("user", Int64), Field("small", Int32)]
    with pytest.raises(DefinitionError) as caught:
        KafkaSource("e", topic="e", event_timestamp="at", schema=fields, metadata=metadata)
    assert text in str(caught.value)


def test_definitions_keep_it() -> None:
    source = KafkaSource(
        "e", topic="e", event_timestamp="at", schema=[Field("id", Int64), Field("n", Float64)], metadata={"id": "key"}
    )
    view = StreamFeatureView(
        "v",
        entities=[Entity("thing", join_key="id")],
        source=source,
        aggregations=[Aggregation("n", "mean", windows=[timedelta(hours=1)])],
    )
    again = DefinitionSet.from_document(DefinitionSet([view]).to_document())
    assert again.stream_feature_views["v"].source.metadata == {"id": "key"}


DEFINITIONS = """
from datetime import timedelta
from feature_store import *
fields = [Field("user_id", Int64), Field("price", Float64), Field("country", String)]
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="sent", schema=fields,
    metadata={"user_id": "key", "country": "headers.country", "sent": "timestamp"})
by_user = StreamFeatureView("by_user", entities=[Entity("user", join_key="user_id")], source=clicks, aggregations=[
    Aggregation("price", "sum", windows=[timedelta(days=1)], filter="country == 'at'", name="spent")])
"""


@pytest.mark.parametrize("engine", ["workers", "spark"])
def test_every_reader_sees_them(
    tmp_path: Path, redis_url: str, kafka: str, engine: str, request: pytest.FixtureRequest
) -> None:
    if engine == "spark":
        request.getfixturevalue("spark_engine")
    make_topic(kafka, "clicks", 2)
    producer = Producer({"bootstrap.servers": kafka})
    now_ms = time.time_ns() // 1_000_000
    for i in range(300):
        headers = [("country", b"at" if i % 3 else b"de")]
        producer.produce("clicks", b'{"price": %d}' % i, str(i % 10), i % 2, timestamp=now_ms - i, headers=headers)
    assert producer.flush(30) == 0
    with project(tmp_path, redis_url, kafka, definitions=DEFINITIONS) as store:
        if engine == "spark":
            store.stream(engine="spark", until_caught_up=True)
        else:
            work(store, has_read(300))
        found = store.get_online_features(["by_user:spent_1d"], {"user_id": list(range(10))}).to_dict()
    expected = [float(sum(i for i in range(300) if i % 10 == user and i % 3)) for user in range(10)]
    assert list(found.values()) == [expected]
