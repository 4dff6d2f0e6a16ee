"""JSON with the prefix of a Schema Registry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from feature_store import JsonSchemaFormat
from feature_store.errors import DefinitionError, StreamError
from feature_store.testing.formats import FormatSuite
from tests.schema_registry_server import SchemaRegistryServer, schema_registry_server


@pytest.fixture
def registry() -> Iterator[SchemaRegistryServer]:
    with schema_registry_server() as server:
        yield server


class TestJsonSchema(FormatSuite):
    garbage = (
        b"",
        b"{}",
        b"\x00\x00\x00",
        b"\x00\x00\x00\x00\x01{",
        b"\x00\x00\x00\x00\x01[1]",
        b"\x00\x00\x00\x00\x02{}",
    )

    @pytest.fixture
    def format(self, registry: SchemaRegistryServer) -> JsonSchemaFormat:
        registry.register("events-value", {"type": "object"}, schemaType="JSON")
        return JsonSchemaFormat(registry=registry.url)

    def encoded(self, document: Mapping[str, Any]) -> bytes:
        return b"\x00\x00\x00\x00\x01" + json.dumps(document).encode()

    def test_each_reason_is_told(self, format: JsonSchemaFormat, registry: SchemaRegistryServer) -> None:
        avro = registry.register("other", {"type": "string"})
        values = [b"{}", b"\0" + avro.to_bytes(4, "big") + b"{}", b"\0\0\0\0\x63{}", None, b"\0\0\0\0\1{"]
        assert [rejection.reason for _, rejection in sorted(self.decoded(format, values).rejected.items())] == [
            "expected a zero byte and the id of a schema in the registry, got 7b 7d",
            f"schema {avro}: expected a schema of the type JSON, got AVRO",
            "the Schema Registry has no schema 99",
            "expected a message with a value, got no value",
            "expected a JSON object: unexpected end of data: line 1 column 2 (char 1)",
        ]

    def test_a_registry_that_does_not_answer_rejects_nothing(
        self, format: JsonSchemaFormat, registry: SchemaRegistryServer
    ) -> None:
        registry.fails = 503
        with pytest.raises(StreamError, match="HTTP 503"):
            self.decoded(format, [self.encoded({"at": 1})])


def test_it_needs_a_registry() -> None:
    with pytest.raises(DefinitionError, match="env:NAME"):
        JsonSchemaFormat(registry="https://me:hunter22@host")
