"""CloudEvents in both modes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from feature_store import CloudEventsFormat, Field, Int64, KafkaSource, String
from feature_store.streaming.decoder import EventBatch, decoder_of
from feature_store.testing.formats import FormatSuite, StoredMessage

AT = "2026-01-05T10:00:00Z"
ABOUT = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "click", "time": AT}


class TestStructured(FormatSuite):
    garbage = (
        b"",
        b"{",
        b"{}",
        b'{"specversion": "1.0"}',
        b'{"data": {"at": 1}}',
        json.dumps(ABOUT | {"data": 7}).encode(),
    )

    @pytest.fixture
    def format(self) -> CloudEventsFormat:
        return CloudEventsFormat()

    def encoded(self, document: Mapping[str, Any]) -> bytes:
        return json.dumps(ABOUT | {"data": document}).encode()


def binary(value: bytes | None, **about: str | None) -> StoredMessage:
    attributes = ABOUT | about
    headers = [(f"ce_{name}", text.encode()) for name, text in attributes.items() if text is not None]
    return StoredMessage(value, headers_=[("content-type", b"application/json; charset=utf-8"), *headers])


def structured(content_type: str = "application/cloudevents+json", **about: Any) -> StoredMessage:
    value = json.dumps(ABOUT | about).encode()
    return StoredMessage(value, headers_=[("Content-Type", content_type.encode())])


def decoded(messages: Sequence[StoredMessage]) -> EventBatch:
    fields = [Field("user", Int64), Field("ce_type", String), Field("ce_subject", String)]
    source = KafkaSource("e", topic="e", event_timestamp="ce_time", schema=fields, format=CloudEventsFormat())
    return decoder_of(source).decode(messages)


def test_both_modes_give_the_same_event() -> None:
    found = decoded([binary(b'{"user": 1}', subject="a"), structured(data={"user": 1}, subject="a"), binary(None)])
    assert not found.rejected
    assert set(found.event_us.tolist()) == {1_767_607_200_000_000}
    assert found.columns["user"][0].tolist()[:2] == [1, 1]
    assert found.columns["user"][1].tolist() == [False, False, True]
    assert found.columns["ce_type"][0].tolist() == ["click"] * 3
    assert found.columns["ce_subject"][0].tolist()[:2] == ["a", "a"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (binary(b"{}", id=None), "got a message without id"),
        (binary(b"{}", specversion="0.3"), "expected CloudEvents 1.0, got '0.3'"),
        (binary(b"[1]"), "expected a JSON object, got [1]"),
        (structured(type=None), "got a message without type"),
        (structured(data_base64="AAEC"), "got data_base64"),
        (structured(data=[1]), "got [1]"),
        (structured("application/cloudevents-batch+json"), "got a batch of events"),
        (StoredMessage(None), "got no value"),
        (StoredMessage(b"{}", headers_=[("ce_specversion", b"\xff")]), "utf-8"),
    ],
)
def test_what_is_no_event_is_rejected_with_the_reason(message: StoredMessage, reason: str) -> None:
    found = decoded([binary(b'{"user": 1}'), message])
    assert len(found) == 1
    assert reason in found.rejected[1].reason
