"""JSON by the suite of formats; a format of another package; documents of sources that state no format."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from feature_store import Aggregation, Entity, Field, Float64, Int64, JsonFormat, KafkaSource, StreamFeatureView
from feature_store.definitions import DefinitionSet
from feature_store.definitions.message_format import FORMATS, MessageFormat
from feature_store.errors import DefinitionError
from feature_store.streaming.formats.documents import Document, DocumentDecoder
from feature_store.testing.formats import FormatSuite


class TestJson(FormatSuite):
    garbage = (b"", b"{", b"[1]", b"7", b"\xff")

    @pytest.fixture
    def format(self) -> JsonFormat:
        return JsonFormat()

    def encoded(self, document: Mapping[str, Any]) -> bytes:
        return json.dumps(document).encode()


class LinesFormat(MessageFormat):
    """A format of another package: a line `name=value` for each member, values as JSON."""

    kind: ClassVar[str] = "lines"
    decoder: ClassVar[str] = f"{__name__}:LinesDecoder"

    separator: str = "="


class LinesDecoder(DocumentDecoder):
    def document(self, value: bytes) -> Document:
        assert isinstance(self._source.format, LinesFormat)
        pairs = [line.partition(self._source.format.separator) for line in value.decode().splitlines()]
        if not pairs or not all(found for _, found, _ in pairs):
            raise ValueError("expected lines of name=value")
        return {name: json.loads(text) for name, _, text in pairs}


class EntryPoint:
    name = "lines"

    def load(self) -> type[MessageFormat]:
        return LinesFormat


class TestFormatOfAnotherPackage(FormatSuite):
    @pytest.fixture
    def format(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[LinesFormat]:
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [EntryPoint()])
        FORMATS.named.cache_clear()
        yield LinesFormat(separator=":")
        FORMATS.named.cache_clear()

    def encoded(self, document: Mapping[str, Any]) -> bytes:
        return "\n".join(f"{name}:{json.dumps(value)}" for name, value in document.items()).encode()

    def test_it_has_a_name(self, format: LinesFormat) -> None:
        source = KafkaSource("e", topic="e", event_timestamp="at", schema=[Field("n", Int64)], format="lines")
        assert source.format == LinesFormat()


def test_a_format_that_is_not_registered_is_refused() -> None:
    with pytest.raises(DefinitionError, match="no installed package registers it"):
        KafkaSource("e", topic="e", event_timestamp="at", schema=[Field("n", Int64)], format=LinesFormat())


def test_documents_of_sources_that_state_no_format_are_those_of_json() -> None:
    source = KafkaSource("e", topic="e", event_timestamp="at", schema=[Field("id", Int64), Field("n", Float64)])
    view = StreamFeatureView(
        "v",
        entities=[Entity("thing", join_key="id")],
        source=source,
        aggregations=[Aggregation("n", "mean", windows=[timedelta(hours=1)])],
    )
    document = DefinitionSet([view]).to_document()
    # Of release 0.1, whose hashes and registries stay as they are.
    assert document["stream_feature_views"]["v"]["source"].keys() == {
        "name", "description", "owner", "tags", "topic", "event_timestamp", "timestamp_unit", "history", "schema"
    }  # fmt: skip
    assert DefinitionSet.from_document(document).stream_feature_views["v"].source.format == JsonFormat()
