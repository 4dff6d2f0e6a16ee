"""Formats of messages: how the value of a Kafka message becomes the members of an event.

A format is a subclass of MessageFormat, found by its `kind` (`FORMATS`). Packages add formats by the entry point group
`feature_store.formats`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, SerializeAsAny, SerializerFunctionWrapHandler, model_serializer

from feature_store.definitions.definition import Model
from feature_store.definitions.kinds import Kinds
from feature_store.definitions.validation import shown
from feature_store.errors import DefinitionError


class MessageFormat(Model):
    """The base of every format of messages.

    A subclass declares what decoding needs in attributes of JSON types without secrets, and sets the two class
    variables.

    Attributes:
        kind: the name under which the class is registered, and which stored documents hold.
        decoder: `module:class` of the Decoder of its messages (`feature_store.streaming.decoder`). It is a string,
            because definitions load no library of a format.
    """

    kind: ClassVar[str]
    decoder: ClassVar[str]

    def __hash__(self) -> int:
        return hash((type(self), self.model_dump_json()))

    def __str__(self) -> str:
        return self.kind

    def facts(self) -> dict[str, str]:
        """What people who browse the registry read of the format, by name."""
        return {}

    @model_serializer(mode="wrap")
    def _with_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        return {"kind": self.kind} | {name: value for name, value in document.items() if value is not None}


class JsonFormat(MessageFormat):
    """One JSON object a message, in UTF-8. Undeclared members are ignored; a missing member is null.

    Example:
        >>> from feature_store import Field, Int64, JsonFormat, KafkaSource
        >>> fields = [Field("user_id", Int64)]
        >>> clicks = KafkaSource("clicks", topic="clicks", event_timestamp="at", schema=fields, format=JsonFormat())
        >>> clicks.format.kind
        'json'
    """

    kind: ClassVar[str] = "json"
    decoder: ClassVar[str] = "feature_store.streaming.formats.json_messages:JsonDecoder"


FORMATS: Kinds[MessageFormat] = Kinds(
    "format",
    "feature_store.formats",
    {
        "avro": "feature_store.definitions.avro_format:AvroFormat",
        "cloudevents": "feature_store.definitions.cloud_events_format:CloudEventsFormat",
        "json": "feature_store.definitions.message_format:JsonFormat",
        "json_schema": "feature_store.definitions.json_schema_format:JsonSchemaFormat",
        "msgpack": "feature_store.definitions.message_pack_format:MessagePackFormat",
    },
    unnamed="json",
)


def _check_format(given: Any) -> Any:
    if isinstance(given, str):
        return FORMATS.named(given)()
    if not isinstance(given, MessageFormat):
        expected = 'a format, such as AvroFormat(...), or the name of one, such as "json"'
        raise DefinitionError("format", expected=expected, got=shown(given))
    return FORMATS.check(given.kind, given)


# An attribute that holds a format, or the name of a format that needs no arguments.
AnyMessageFormat = Annotated[SerializeAsAny[MessageFormat], BeforeValidator(_check_format)]
