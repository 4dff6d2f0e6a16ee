"""The suite of formats of messages: the contract of `MessageFormat` and its `Decoder`.

    from feature_store.testing.formats import FormatSuite

    class TestBencode(FormatSuite):
        @pytest.fixture
        def format(self):
            return BencodeFormat()

        def encoded(self, document):
            return bencode(document)

It needs pytest and numpy.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from feature_store.definitions import (
    Aggregation,
    Bool,
    DefinitionSet,
    Entity,
    Field,
    Float64,
    Int64,
    KafkaSource,
    StreamFeatureView,
    String,
)
from feature_store.definitions.message_format import MessageFormat
from feature_store.registry.catalog import described
from feature_store.streaming.decoder import EventBatch, decoder_of

_SCHEMA = [Field("id", Int64), Field("name", String), Field("score", Float64), Field("flag", Bool)]
_AT_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message without a broker. Its methods are those of `Message`."""

    content: bytes | None
    offset_: int = 0
    key_: bytes | None = None
    headers_: Sequence[tuple[str, bytes | None]] = ()
    time_ms: int | None = None
    topic_: str = "events"
    partition_: int = 0

    def topic(self) -> str:
        return self.topic_

    def partition(self) -> int:
        return self.partition_

    def offset(self) -> int:
        return self.offset_

    def key(self) -> bytes | None:
        return self.key_

    def value(self) -> bytes | None:
        return self.content

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return list(self.headers_) or None

    def timestamp(self) -> tuple[int, int]:
        return (0, -1) if self.time_ms is None else (1, self.time_ms)

    def __len__(self) -> int:
        return len(self.content or b"")


def messages_of(values: Iterable[bytes | None]) -> list[StoredMessage]:
    """A message of each value, one offset after the other."""
    return [StoredMessage(value, offset) for offset, value in enumerate(values)]


class FormatSuite:
    """What holds for every format. A subclass has the fixture `format` and the method `encoded`.

    Attributes:
        can_lack_members: whether a value that lacks a member can be encoded. If not, `encoded` gets None for it.
        garbage: values that are not of the format.
    """

    can_lack_members = True
    garbage: Sequence[bytes] = (b"", b"\xff\xfe\xfd", b"\xc1" * 40)

    @pytest.fixture
    def format(self) -> MessageFormat:
        raise NotImplementedError

    def encoded(self, document: Mapping[str, Any]) -> bytes:
        """The value of a message with the members `at` (a long, milliseconds since 1970), `id` (a long), `name` (text),
        `score` (a double) and `flag` (a boolean), all but `at` nullable."""
        raise NotImplementedError

    def decoded(self, format: MessageFormat, values: Iterable[bytes | None]) -> EventBatch:
        source = KafkaSource("events", topic="events", event_timestamp="at", schema=_SCHEMA, format=format)
        return decoder_of(source).decode(messages_of(values))

    def test_members_are_columns(self, format: MessageFormat) -> None:
        documents = [_document(i) for i in range(300)]
        found = self.decoded(format, [self.encoded(document) for document in documents])
        assert not found.rejected
        assert found.event_us.tolist() == [1000 * document["at"] for document in documents]
        for field in _SCHEMA:
            values, nulls = found.columns[field.name]
            assert values.dtype == field.dtype.numpy
            assert nulls.tolist() == [document[field.name] is None for document in documents]
            got = [value for value, null in zip(values.tolist(), nulls.tolist(), strict=True) if not null]
            assert got == [document[field.name] for document in documents if document[field.name] is not None]

    def test_what_is_not_of_the_format_is_rejected_and_harms_no_other_message(self, format: MessageFormat) -> None:
        good = self.encoded(_document(1))
        values = [good, None, *(value for bad in self.garbage for value in (bad, good)), good[: len(good) // 2]]
        found = self.decoded(format, values)
        assert [values[place] for place in found.places.tolist()] == [value for value in values if value == good]
        assert found.columns["id"][0].tolist() == [_document(1)["id"]] * len(found)
        assert all(rejection.reason for rejection in found.rejected.values())

    def test_no_message_gives_no_event(self, format: MessageFormat) -> None:
        assert len(self.decoded(format, [])) == 0
        assert len(self.decoded(format, [None])) == 0

    def test_a_message_without_a_time_is_no_event(self, format: MessageFormat) -> None:
        if not self.can_lack_members:
            pytest.skip("messages of this format have all members")
        found = self.decoded(format, [self.encoded({"id": 1})])
        assert found.rejected[0].where == "at"

    def test_a_missing_member_is_null(self, format: MessageFormat) -> None:
        found = self.decoded(format, [self.encoded(_document(1) | {"name": None})])
        assert found.columns["name"][1].tolist() == [True]

    def test_definitions_with_it_are_stored_and_read_and_shown(self, format: MessageFormat) -> None:
        source = KafkaSource("events", topic="events", event_timestamp="at", schema=_SCHEMA, format=format)
        view = StreamFeatureView(
            "recent",
            entities=[Entity("thing", join_key="id")],
            source=source,
            aggregations=[Aggregation("score", "mean", windows=[timedelta(hours=1)])],
        )
        definitions = DefinitionSet([view])
        again = DefinitionSet.from_document(definitions.to_document())
        assert again.stream_feature_views["recent"].source.format == format
        assert again.to_document() == definitions.to_document()
        assert pickle.loads(pickle.dumps(format)) == format
        assert described(definitions, "events")["format"]["kind"] == format.kind


def _document(i: int) -> dict[str, Any]:
    return {
        "at": _AT_MS + i,
        "id": (-1) ** i * 7 ** (i % 22),
        "name": None if i % 5 == 0 else f"näme {i} {'x' * (i % 90)}",
        "score": None if i % 7 == 0 else i / 3,
        "flag": None if i % 3 == 0 else i % 2 == 0,
    }
