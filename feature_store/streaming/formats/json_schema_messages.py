"""Decodes JSON messages with the prefix of a Schema Registry."""

from __future__ import annotations

from collections.abc import Sequence

from feature_store.definitions.json_schema_format import JsonSchemaFormat
from feature_store.definitions.source import KafkaSource
from feature_store.streaming.formats.documents import LONGEST_REASON, Documents
from feature_store.streaming.formats.json_messages import JsonDecoder
from feature_store.streaming.formats.registries import opened_registry
from feature_store.streaming.formats.wire import PREFIX, UnknownSchemaError, schema_id

_EMPTY = b"{}"  # stands for a rejected value


class JsonSchemaDecoder(JsonDecoder):
    """The decoder of JsonSchemaFormat.

    Raises:
        StreamError: the environment variable with the URL of the registry is not set.
    """

    def __init__(self, source: KafkaSource) -> None:
        super().__init__(source)
        assert isinstance(source.format, JsonSchemaFormat)
        self._registry = opened_registry(source.format.registry or "")
        self._checked: dict[int, str] = {}

    def check(self) -> str:
        """See Decoder."""
        return self._registry.check()

    def documents(self, values: Sequence[bytes | None]) -> Documents:
        """See DocumentDecoder."""
        rejected: dict[int, str] = {}
        contents: list[bytes | None] = []
        for place, value in enumerate(values):
            try:
                contents.append(None if value is None else self._content(value))
            except ValueError as error:
                rejected[place] = str(error)[:LONGEST_REASON]
                contents.append(_EMPTY)
        found = super().documents(contents)
        return Documents(found.documents, {**found.rejected, **rejected})

    def _content(self, value: bytes) -> bytes:
        """The JSON of a value whose prefix names a JSON Schema."""
        found = schema_id(value)
        if found not in self._checked:
            try:
                self._registry.schema(found, "JSON")
                self._checked[found] = ""
            except UnknownSchemaError:  # it may be registered later
                raise
            except ValueError as error:
                self._checked[found] = f"schema {found}: {error}"
        if self._checked[found]:
            raise ValueError(self._checked[found])
        return value[PREFIX:]
