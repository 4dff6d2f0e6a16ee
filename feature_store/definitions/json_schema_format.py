"""JsonSchemaFormat: JSON messages whose schema is in a Schema Registry."""

from __future__ import annotations

from typing import ClassVar

from feature_store.definitions.message_format import MessageFormat
from feature_store.definitions.schema_registry import RegistryText
from feature_store.errors import DefinitionError


class JsonSchemaFormat(MessageFormat):
    """One JSON object a message, after a zero byte and the id of its JSON Schema (Confluent's wire format).

    The id must be that of a JSON Schema in the registry. Values are checked by the declared types of the fields, not
    by the schema, whose rules hold where messages are written.

    Args:
        registry: as for AvroFormat.

    Raises:
        DefinitionError: the registry is no place, or holds a password.

    Example:
        >>> from feature_store import JsonSchemaFormat
        >>> JsonSchemaFormat(registry="env:SCHEMA_REGISTRY_URL").kind
        'json_schema'
    """

    kind: ClassVar[str] = "json_schema"
    decoder: ClassVar[str] = "feature_store.streaming.formats.json_schema_messages:JsonSchemaDecoder"

    registry: RegistryText

    def __init__(self, *, registry: str) -> None:
        if registry is None:
            raise DefinitionError("registry", expected="env:NAME or a URL", got="None")
        super().__init__(registry=registry)

    def facts(self) -> dict[str, str]:
        """See MessageFormat."""
        return {"schema registry": self.registry or ""}
