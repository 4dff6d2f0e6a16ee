"""Reads Avro object container files in batches of Arrow columns, by fastavro.

Dates and times are read as the integers that the file holds, not as Python objects: a value beyond the years 1 to 9999
is then a bad row and not a bad file.

| Avro | Arrow |
|---|---|
| boolean, int, long, float, double, string, bytes | bool, int32, int64, float32, float64, string, binary |
| enum, fixed | string, binary |
| array, map, record | list, map, struct |
| union with null | the type of the other branch; other unions are refused when they are read |
| date, time-millis, time-micros | date32, time32, time64 |
| timestamp-millis, -micros, -nanos | timestamp in UTC; without a zone for local-timestamp-… |
| decimal, uuid (of a string) | decimal128 or decimal256, string |
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import pyarrow as pa

from feature_store.errors import DataError

_BATCH_ROWS = 16_384
_HEADER = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Header",
        "fields": [
            {"name": "magic", "type": {"type": "fixed", "name": "Magic", "size": 4}},
            {"name": "meta", "type": {"type": "map", "values": "bytes"}},
            {"name": "sync", "type": {"type": "fixed", "name": "Sync", "size": 16}},
        ],
    }
)
_MAGIC = b"Obj\x01"
_SCHEMA = "avro.schema"
_MOST_DIGITS_128 = 38
_PLAIN = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "bytes": pa.binary(),
    "enum": pa.string(),
    "fixed": pa.binary(),
}
# Logical types that are stored as integers.
_TIMES = {
    "date": pa.date32(),
    "time-millis": pa.time32("ms"),
    "time-micros": pa.time64("us"),
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "timestamp-nanos": pa.timestamp("ns", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms"),
    "local-timestamp-micros": pa.timestamp("us"),
    "local-timestamp-nanos": pa.timestamp("ns"),
}
_DAMAGED = (EOFError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError, struct.error, zlib.error)


class AvroFormat(NamedTuple):
    """The format of Avro object container files. Each file has its own schema."""

    def schema(self, where: str, path: str) -> pa.Schema:
        """The columns of a file.

        Raises:
            DataError: it is not an Avro file of records.
            OSError: the file cannot be read.
        """
        with _opened(where, path) as file:
            return _fields(where, path, file.schema)

    def batches(self, where: str, path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of the rows of a file. A column that the file does not have is of the type null.

        Args:
            where: names the file in errors.
            path: the file.
            columns: names of columns, each once.

        Raises:
            DataError: it is not a whole Avro file of records, or a column is a union of several types.
            OSError: the file cannot be read.
        """
        with _opened(where, path) as file:
            schema = _fields(where, path, file.schema)
            types = {name: schema.field(name).type if name in schema.names else pa.null() for name in columns or ("",)}
            for name, found in types.items():
                if _has_union(found):
                    hint = "write it as a field of one type, or of one type and null"
                    raise DataError(where, problem=f"{Path(path).name}: {name} is a union of several types", hint=hint)
            waiting: list[Any] = []
            for block in fastavro.block_reader(file.stream):
                waiting += block
                while len(waiting) >= _BATCH_ROWS:
                    yield _batch(waiting[:_BATCH_ROWS], types)
                    del waiting[:_BATCH_ROWS]
            if waiting:
                yield _batch(waiting, types)

    def rows(self, path: str) -> int:
        """The number of rows of a file.

        Raises:
            DataError: it is not a whole Avro file.
            OSError: the file cannot be read.
        """
        with _opened(f"source {path}", path) as file:
            return sum(block.num_records for block in fastavro.block_reader(file.stream))


class _Opened(NamedTuple):
    """An open file: its schema, and a stream that fastavro reads."""

    schema: Any
    stream: Any


@contextlib.contextmanager
def _opened(where: str, path: str) -> Iterator[_Opened]:
    """An open file. Errors of fastavro within the block are mapped to DataErrors."""
    try:
        with Path(path).open("rb") as file:
            header: Any = fastavro.schemaless_reader(file, _HEADER, None)
            if header["magic"] != _MAGIC:
                raise ValueError("it does not begin as an Avro object container file")
            schema = json.loads(header["meta"][_SCHEMA])
            header["meta"][_SCHEMA] = json.dumps(_without_times(schema)).encode()
            begin = io.BytesIO()
            fastavro.schemaless_writer(begin, _HEADER, header)
            yield _Opened(schema, _Joined(begin.getvalue(), file))
    except _DAMAGED as error:
        problem = f"{Path(path).name} cannot be read as Avro: {error or type(error).__name__}"
        raise DataError(where, problem=problem, hint="the file may be cut, damaged or of another format") from error


class _Joined:
    """A stream of some bytes, then the rest of a file.

    Args:
        begin: the bytes.
        rest: the file, at its place.
    """

    def __init__(self, begin: bytes, rest: Any) -> None:
        self._begin, self._rest = io.BytesIO(begin), rest

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size`."""
        found = self._begin.read(size)
        if size < 0 or len(found) < size:
            found += self._rest.read(size - len(found) if size >= 0 else -1)
        return found

    def tell(self) -> int:
        """A place in the stream."""
        place: int = self._begin.tell() + self._rest.tell()
        return place


def _without_times(schema: Any) -> Any:
    """A schema without the logical types that are stored as integers."""
    if isinstance(schema, list):
        return [_without_times(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    left_out = "logicalType" if schema.get("logicalType") in {*_TIMES, "uuid"} else None
    return {key: _without_times(value) for key, value in schema.items() if key != left_out}


def _batch(records: list[dict[str, Any]], types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    arrays = [_array([record.get(name) for record in records], found) for name, found in types.items()]
    return pa.RecordBatch.from_arrays(arrays, names=list(types))


def _array(values: list[Any], found: pa.DataType) -> pa.Array:
    if pa.types.is_date(found) or pa.types.is_time32(found):
        return pa.array(values, pa.int32()).cast(found)
    if pa.types.is_timestamp(found) or pa.types.is_time64(found):
        return pa.array(values, pa.int64()).cast(found)
    if pa.types.is_map(found):
        return pa.array([value if value is None else list(value.items()) for value in values], found)
    return pa.array(values, found)


# -- types ----------------------------------------------------------------------------------------------------------


def _fields(where: str, path: str, schema: Any) -> pa.Schema:
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise DataError(where, problem=f"{Path(path).name} does not hold records, which have columns")
    named: dict[str, Any] = {}
    return pa.schema([pa.field(field["name"], _type(field["type"], named)) for field in schema["fields"]])


def _type(schema: Any, named: dict[str, Any]) -> pa.DataType:
    """The Arrow type of an Avro type.

    Args:
        schema: the type.
        named: the Arrow types of named types that occurred before, by name.
    """
    if isinstance(schema, list):
        others = [part for part in schema if part != "null"]
        if len(others) > 1:
            return pa.dense_union([pa.field(str(i), _type(part, named)) for i, part in enumerate(others)])
        return _type(others[0], named) if others else pa.null()
    if isinstance(schema, str):
        return _PLAIN[schema] if schema in _PLAIN else named[schema.rpartition(".")[2]]
    found = _type_of(schema, named)
    if "name" in schema:
        named[schema["name"].rpartition(".")[2]] = found
    return found


def _type_of(schema: Mapping[str, Any], named: dict[str, Any]) -> pa.DataType:
    kind, logical = schema["type"], schema.get("logicalType")
    if logical in _TIMES:
        return _TIMES[logical]
    if logical == "decimal":
        precision, scale = schema["precision"], schema.get("scale", 0)
        return (pa.decimal128 if precision <= _MOST_DIGITS_128 else pa.decimal256)(precision, scale)
    if kind == "array":
        return pa.list_(_type(schema["items"], named))
    if kind == "map":
        return pa.map_(pa.string(), _type(schema["values"], named))
    if kind == "record":
        named[schema["name"].rpartition(".")[2]] = pa.null()  # a record within itself has no Arrow type
        return pa.struct([pa.field(field["name"], _type(field["type"], named)) for field in schema["fields"]])
    return _type(kind, named)


def _has_union(found: pa.DataType) -> bool:
    if pa.types.is_union(found):
        return True
    return any(_has_union(found.field(i).type) for i in range(found.num_fields))
