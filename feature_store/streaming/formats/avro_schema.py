"""Compiles an Avro schema to readers of its fields.

This module is the door of fastavro in streams, which checks schemas and resolves the names in them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from decimal import Context, Decimal
from typing import Any

from feature_store._extras import requires_extra
from feature_store.definitions.dtypes import from_microseconds
from feature_store.streaming.formats import avro_columns as columns
from feature_store.streaming.formats.avro_columns import Read

with requires_extra("avro", "messages in Avro"):
    import fastavro
    from fastavro.schema import SchemaParseException

# The microseconds of one unit of each logical type of a time.
_TIMES = {
    "timestamp-millis": 1_000,
    "timestamp-micros": 1,
    "timestamp-nanos": 0.001,
    "local-timestamp-millis": 1_000,
    "local-timestamp-micros": 1,
    "local-timestamp-nanos": 0.001,
}
_EXACT = Context(prec=100)
_FIRST_DAY = date(1970, 1, 1).toordinal()
_PLAIN: dict[str, Read] = {
    "null": columns.null,
    "boolean": columns.boolean,
    "int": columns.whole(),
    "long": columns.whole(),
    "float": columns.number("<f4"),
    "double": columns.number("<f8"),
    "string": columns.text,
    "bytes": columns.binary(None),
}


def readers_of(text: str, referenced: Iterable[str] = ()) -> list[tuple[str, Read]]:
    """The name and the reader of each field of a schema, in their order in the bytes.

    Args:
        text: the schema of a record, as JSON.
        referenced: the schemas that it refers to by name, in an order in which each refers only to earlier ones.

    Raises:
        ValueError: it is not a schema of a record. The text says why.
    """
    named: dict[str, Any] = {}
    try:
        for other in referenced:
            fastavro.parse_schema(json.loads(other), named)
        schema = fastavro.parse_schema(json.loads(text), named)
    except (SchemaParseException, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the schema is not one of Avro: {error or type(error).__name__}") from None
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise ValueError("the schema is not one of a record")
    compiler = _Compiler(named)
    return [(field["name"], compiler.reader(field["type"])) for field in schema["fields"]]


class _Compiler:
    """Compiles types, each named one once.

    Args:
        named: the named types, by their full name.
    """

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._records: dict[str, Read] = {}

    def reader(self, schema: Any) -> Read:
        """The reader of a type."""
        if isinstance(schema, list):
            return columns.union([self.reader(branch) for branch in schema])
        if isinstance(schema, str):
            return _PLAIN[schema] if schema in _PLAIN else self.reader(self._named[schema])
        if (logical := _logical(schema)) is not None:
            return logical
        return self._complex(schema)

    def _complex(self, schema: Mapping[str, Any]) -> Read:
        kind = schema["type"]
        if kind in ("record", "error"):
            return self._record(schema)
        if kind == "enum":
            return columns.enum(schema["symbols"])
        if kind == "fixed":
            return columns.binary(schema["size"])
        if kind == "array":
            return columns.blocks([self.reader(schema["items"])], "an array")
        if kind == "map":
            return columns.blocks([columns.text, self.reader(schema["values"])], "a map")
        return self.reader(kind)

    def _record(self, schema: Mapping[str, Any]) -> Read:
        name = schema["name"]
        if name not in self._records:
            found: list[Read] = []
            self._records[name] = columns.record(lambda: found)
            found += [self.reader(field["type"]) for field in schema["fields"]]
        return self._records[name]


def _logical(schema: Mapping[str, Any]) -> Read | None:
    """The reader of a logical type; None: it is none, or has the values of the type below it."""
    kind, logical = schema["type"], schema.get("logicalType")
    size = schema["size"] if kind == "fixed" else None
    if logical in _TIMES and kind == "long":
        return columns.whole(_TIMES[logical])
    if logical == "date" and kind == "int":
        return columns.whole(convert=_dates)
    if logical == "decimal" and kind in ("bytes", "fixed"):
        return columns.binary(size, _decimal(schema.get("scale", 0)))
    if logical == "uuid" and kind == "fixed":
        return columns.binary(size, _uuid)
    return None


def _decimal(scale: int) -> Callable[[bytes], Decimal]:
    return lambda value: Decimal(int.from_bytes(value, "big", signed=True)).scaleb(-scale, _EXACT)


def _uuid(value: bytes) -> str:
    return str(uuid.UUID(bytes=value)) if len(value) == 16 else ""


def _dates(days: Sequence[int]) -> list[Any]:
    """The dates of days since 1970; a day that no date has stays a number, which fits no column of dates."""
    most = date.max.toordinal()
    return [date.fromordinal(day + _FIRST_DAY) if 1 <= day + _FIRST_DAY <= most else day for day in days]


def as_datetimes(values: Sequence[int], unit_us: float) -> list[Any]:
    """Times as datetimes; a time beyond the years 1 to 9999 stays a number."""
    found: list[Any] = []
    for value in values:
        try:
            found.append(from_microseconds(round(value * unit_us)))
        except OverflowError:
            found.append(value)
    return found
