"""Schemas of a Schema Registry, by id. This module is the door of confluent-kafka's client of it."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from feature_store._extras import requires_extra
from feature_store._formatting import counted
from feature_store._redaction import hide, hide_url, with_quoted_password
from feature_store.definitions.schema_registry import VARIABLE
from feature_store.errors import StreamError
from feature_store.streaming.formats.wire import UnknownSchemaError

with requires_extra("schemas", "a Schema Registry"):
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
    from confluent_kafka.schema_registry.error import SchemaRegistryError

# The variable with `user:password`, where the URL has none.
USER_INFO = "SCHEMA_REGISTRY_USER_INFO"
# A worker tries again by itself, so that a call need not.
_SETTINGS: dict[str, Any] = {"timeout": 5, "max.retries": 1, "retries.wait.ms": 100, "retries.max.wait.ms": 500}
# Seconds until an id that the registry does not know is asked for again.
_ASK_AGAIN_S = 10.0
_REFUSED = {401: "it refuses the user and password", 403: "the user may not read this schema"}


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """A schema that messages were written with.

    Attributes:
        text: the schema.
        kind: `AVRO`, `JSON` or `PROTOBUF`.
        referenced: the schemas that it refers to, each after those that it refers to itself.
    """

    text: str
    kind: str
    referenced: tuple[str, ...] = ()


@dataclass(slots=True)
class SchemaRegistry:
    """Schemas by id. A schema never changes, so each is read once in a process.

    Args:
        url: the registry's URL. It may have a user and a password.
        shown: how errors name the registry.
    """

    url: str = field(repr=False)
    shown: str
    _client: Any = field(init=False, repr=False)
    _known: dict[int, WriterSchema] = field(init=False, repr=False, default_factory=dict)
    _unknown: dict[int, float] = field(init=False, repr=False, default_factory=dict)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        split = urlsplit(self.url)
        user_info = os.environ.get(USER_INFO, "")
        about: dict[str, Any] = {"url": self.url, **_SETTINGS}
        if user_info and split.username is None:
            hide(user_info.partition(":")[2])
            about["basic.auth.user.info"] = user_info
        try:
            self._client = SchemaRegistryClient(about)
        except (ValueError, TypeError) as error:
            raise StreamError(self._where, expected="a URL of http or https", got=str(error)) from None

    @property
    def _where(self) -> str:
        return f"Schema Registry at {self.shown}"

    def schema(self, schema_id: int, kind: str) -> WriterSchema:
        """The schema of an id.

        Args:
            schema_id: the id.
            kind: the type that it must have: `AVRO`, `JSON` or `PROTOBUF`.

        Raises:
            UnknownSchemaError: the registry has no schema of that id.
            ValueError: the schema has another type.
            StreamError: the registry cannot be reached, or refuses the user.
        """
        with self._lock:
            if self._unknown.get(schema_id, 0.0) > time.monotonic():
                raise UnknownSchemaError(f"the Schema Registry has no schema {schema_id}")
            if schema_id not in self._known:
                self._known[schema_id] = self._read(schema_id)
            found = self._known[schema_id]
        if found.kind != kind:
            raise ValueError(f"expected a schema of the type {kind}, got {found.kind}")
        return found

    def check(self) -> str:
        """How the registry answers, in words.

        Raises:
            StreamError: the registry cannot be reached, or refuses the user.
        """
        subjects = self._asked(self._client.get_subjects)
        return f"the {self._where} answers, with {counted(len(subjects), 'subject')}"

    def _read(self, schema_id: int) -> WriterSchema:
        try:
            schema: Schema = self._asked(lambda: self._client.get_schema(schema_id))
        except UnknownSchemaError:
            self._unknown[schema_id] = time.monotonic() + _ASK_AGAIN_S
            raise UnknownSchemaError(f"the Schema Registry has no schema {schema_id}") from None
        referenced: dict[tuple[str, int], str] = {}
        self._take_references(schema, referenced)
        return WriterSchema(str(schema.schema_str), str(schema.schema_type), tuple(referenced.values()))

    def _take_references(self, schema: Schema, found: dict[tuple[str, int], str]) -> None:
        for reference in schema.references or ():
            key = (str(reference.subject), int(reference.version or 0))
            if key not in found:
                other = self._asked(lambda key=key: self._client.get_version(*key)).schema
                self._take_references(other, found)
                found[key] = str(other.schema_str)

    def _asked(self, ask: Any) -> Any:
        """The answer of the client. Its errors are mapped: those of its HTTP library have no common base class."""
        hint = "messages wait in Kafka until it answers; is it running, and is its URL right?"
        try:
            return ask()
        except SchemaRegistryError as error:
            status = error.http_status_code
            if status == 404:
                raise UnknownSchemaError("the Schema Registry does not have it") from None
            if status in _REFUSED:
                hint = f"put the user and password into the URL, or into the environment variable {USER_INFO}"
                raise StreamError(self._where, problem=_REFUSED[status], hint=hint) from None
            raise StreamError(self._where, got=f"HTTP {status}: {error.error_message}", hint=hint) from None
        except Exception as error:
            raise StreamError(self._where, got=f"{type(error).__name__}: {error}", hint=hint) from None


def registry_at(place: str) -> SchemaRegistry:
    """The registry at a place: `env:NAME`, or a URL. A process has one client of each.

    Raises:
        StreamError: the environment variable is not set, or holds no URL.
    """
    if not place.startswith(VARIABLE):
        return _registry(place, place)
    name = place.removeprefix(VARIABLE)
    url = os.environ.get(name, "")
    if not url:
        hint = f"set {name} to the registry's URL in every process that reads the topic, executors of Spark included"
        raise StreamError("Schema Registry", problem=f"the environment variable {name} is not set", hint=hint)
    hide_url(url, f"${{{name}}}")
    return _registry(with_quoted_password(url), f"${{{name}}}")


@cache
def _registry(url: str, shown: str) -> SchemaRegistry:
    return SchemaRegistry(url, shown)
