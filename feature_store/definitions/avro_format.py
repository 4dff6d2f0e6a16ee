"""AvroFormat: messages in Avro's binary encoding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field as Attribute, model_validator

from feature_store.definitions.message_format import MessageFormat
from feature_store.definitions.schema_registry import RegistryText
from feature_store.errors import DefinitionError


def _schema_text(given: Any) -> Any:
    """A schema as the text of its JSON document. It must be of a record, since only records have members."""
    try:
        document = json.loads(given) if isinstance(given, str) else given
        text = json.dumps(document, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise DefinitionError("schema", problem=f"it is not JSON: {error}") from None
    if document is not None and not (isinstance(document, Mapping) and document.get("type") == "record"):
        raise DefinitionError("schema", expected="an Avro schema of a record, as a dict or as JSON text", got=text[:80])
    return None if document is None else text


class AvroFormat(MessageFormat):
    """One Avro record a message, in the binary encoding.

    With a Schema Registry, each message names the schema that it was written with (Confluent's wire format: a zero
    byte, then the schema's id in 4 bytes). Messages of several schemas may follow each other. Members are found by
    name: a declared field that a message's schema lacks is null, and undeclared members are ignored.

    Without a registry, all messages are written with one schema, and have no prefix.

    Args:
        registry: where the Schema Registry is: `env:NAME` for the environment variable with its URL, or a URL without a
            password. The user and password come from the environment: in the URL of the variable, or as `user:password`
            in `SCHEMA_REGISTRY_USER_INFO`.
        schema: the schema of all messages, as a dict or as JSON text. Alternative to a registry.

    Raises:
        DefinitionError: not exactly one of the two is given, the registry is no place or holds a password, or the
            schema is not one of a record.

    Example:
        >>> from feature_store import AvroFormat, Field, Int64, KafkaSource
        >>> clicks = KafkaSource(
        ...     "clicks",
        ...     topic="clicks",
        ...     event_timestamp="at",
        ...     schema=[Field("user_id", Int64)],
        ...     format=AvroFormat(registry="env:SCHEMA_REGISTRY_URL"),
        ... )
        >>> clicks.format.registry
        'env:SCHEMA_REGISTRY_URL'
    """

    kind: ClassVar[str] = "avro"
    decoder: ClassVar[str] = "feature_store.streaming.formats.avro_messages:AvroDecoder"

    registry: RegistryText = None
    writer_schema: Annotated[str | None, BeforeValidator(_schema_text)] = Attribute(default=None, alias="schema")

    def __init__(self, *, registry: str | None = None, schema: str | Mapping[str, Any] | None = None) -> None:
        super().__init__(registry=registry, schema=schema)

    @model_validator(mode="after")
    def _one_place(self) -> AvroFormat:
        if (self.registry is None) == (self.writer_schema is None):
            problem = "the schema of the messages comes from exactly one place"
            hint = 'pass registry="env:SCHEMA_REGISTRY_URL", or the schema of all messages as schema={...}'
            raise DefinitionError("AvroFormat", problem=problem, hint=hint)
        return self

    def facts(self) -> dict[str, str]:
        """See MessageFormat."""
        return {"schema registry": self.registry} if self.registry is not None else {"schema": self.writer_schema or ""}
