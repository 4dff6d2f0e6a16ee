"""Formats of messages: how the value of a Kafka message becomes the members of an event.

A format is a class of its own, found by its `kind`. Packages add formats by the entry point group
`feature_store.formats`: the entry's name is the kind, its object the subclass of MessageFormat.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, SerializeAsAny, SerializerFunctionWrapHandler, model_serializer

from feature_store.definitions.definition import Model
from feature_store.definitions.validation import shown
from feature_store.errors import DefinitionError, did_you_mean

ENTRY_POINTS = "feature_store.formats"
# The format of sources that state none, as those of release 0.1.
UNNAMED_KIND = "json"
_BUILT_IN = {
    "avro": "feature_store.definitions.avro_format:AvroFormat",
    "cloudevents": "feature_store.definitions.cloud_events_format:CloudEventsFormat",
    "json": "feature_store.definitions.message_format:JsonFormat",
    "json_schema": "feature_store.definitions.json_schema_format:JsonSchemaFormat",
    "msgpack": "feature_store.definitions.message_pack_format:MessagePackFormat",
}


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


def message_format(document: Mapping[str, Any]) -> MessageFormat:
    """The format of a stored document.

    Raises:
        DefinitionError: no installed package registers its kind.
    """
    about = dict(document)
    return format_class(about.pop("kind", UNNAMED_KIND))(**about)


@cache
def format_class(kind: str) -> type[MessageFormat]:
    """The class that is registered for a kind.

    Raises:
        DefinitionError: no installed package registers the kind.
    """
    if kind in _BUILT_IN:
        module, _, name = _BUILT_IN[kind].partition(":")
        built_in: type[MessageFormat] = getattr(importlib.import_module(module), name)
        return built_in
    from importlib.metadata import entry_points

    registered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if kind not in registered:
        kinds = [*_BUILT_IN, *registered]
        raise DefinitionError(
            f"format {kind!r}",
            problem=f"no installed package registers it under the entry point group {ENTRY_POINTS}",
            hint=did_you_mean(kind, kinds)
            or f"install the package that has it; formats are {', '.join(sorted(kinds))}",
        )
    loaded: type[MessageFormat] = registered[kind].load()
    return loaded


def _check_format(given: Any) -> Any:
    if isinstance(given, str):
        return format_class(given)()
    if not isinstance(given, MessageFormat):
        expected = 'a format, such as AvroFormat(...), or the name of one, such as "json"'
        raise DefinitionError("format", expected=expected, got=shown(given))
    known = format_class(given.kind)
    if known is not type(given):
        hint = f"register {type(given).__name__} under a kind of its own, in the group {ENTRY_POINTS}"
        problem = f"its kind {given.kind!r} is registered for {known.__module__}.{known.__name__}"
        raise DefinitionError(type(given).__name__, problem=problem, hint=hint)
    return given


# An attribute that holds a format, or the name of a format that needs no arguments.
AnyMessageFormat = Annotated[SerializeAsAny[MessageFormat], BeforeValidator(_check_format)]
