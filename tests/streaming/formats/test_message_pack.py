"""MessagePack."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest

from feature_store import Bytes, Field, KafkaSource, MessagePackFormat, Timestamp
from feature_store.streaming.decoder import decoder_of
from feature_store.testing.formats import FormatSuite, messages_of


class TestMessagePack(FormatSuite):
    # Empty, a number, a list, a reserved byte, an extension, a text that is not UTF-8.
    garbage = (b"", b"\x07", b"\x91\x01", b"\xc1", b"\xd4\x05\x00", b"\x81\xa1\xff\x01", b"\xdf\xff\xff\xff\xff")

    @pytest.fixture
    def format(self) -> MessagePackFormat:
        return MessagePackFormat()

    def encoded(self, document: Mapping[str, Any]) -> bytes:
        found: bytes = msgpack.packb(document)
        return found


def test_bytes_and_timestamps_are_those_of_the_format() -> None:
    at = datetime(2026, 1, 5, 10, tzinfo=UTC)
    value = msgpack.packb({"at": at, "hash": b"\x00\xff", "seen": at, 7: "x"}, datetime=True)
    fields = [Field("hash", Bytes), Field("seen", Timestamp)]
    source = KafkaSource("e", topic="e", event_timestamp="at", schema=fields, format="msgpack")
    found = decoder_of(source).decode(messages_of([value, msgpack.packb({"at": 1.5, "hash": "text"})]))
    assert found.event_us.tolist() == [1_767_607_200_000_000]
    assert found.columns["hash"][0].tolist() == [b"\x00\xff"]
    assert found.columns["seen"][0].tolist() == [1_767_607_200_000_000]
    assert found.rejected[1].where in ("at", "hash")
