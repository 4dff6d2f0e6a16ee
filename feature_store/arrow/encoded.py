"""Columns of text whose values are parsed as the declared types, such as the columns of a CSV file.

The Arrow type of the column says how its values are read, so that no reader has to be told. `types.fit` parses the
values, and a value that does not parse is a bad row like any other. The type exists in memory only: `stored_batch`
gives the text that files hold.
"""

from __future__ import annotations

from typing import Self

import pyarrow as pa

from feature_store.arrow.json_text import plain_text


class EncodedType(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """The base of types of encoded text. A column of such a type holds strings, which need not be UTF-8.

    A subclass sets `encoding`, the name of its type.
    """

    encoding: str

    def __init__(self) -> None:
        super().__init__(pa.string(), f"feature_store.{self.encoding}")

    def plain_text(self, texts: pa.StringArray) -> pa.StringArray:
        """The values as users see them, in SQL and in quarantine files."""
        return texts

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Self:
        del storage_type, serialized
        return cls()


class CsvText(EncodedType):
    """Values of a CSV file."""

    encoding = "csv"


class JsonText(EncodedType):
    """Values of JSON.

    Args:
        unit_us: the unit of numeric times, in microseconds.
    """

    encoding = "json"

    def __init__(self, unit_us: int = 1) -> None:
        self.unit_us = unit_us  # before super(), which compares types by what is serialized
        super().__init__()

    def plain_text(self, texts: pa.StringArray) -> pa.StringArray:
        """Strings without quotes; numbers, objects and arrays as JSON."""
        return plain_text(texts)

    def __arrow_ext_serialize__(self) -> bytes:
        return str(self.unit_us).encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Self:
        del storage_type
        return cls(int(serialized))


CSV = CsvText()
pa.register_extension_type(CSV)
pa.register_extension_type(JsonText())


def encoded_batch(batch: pa.RecordBatch, encoding: EncodedType) -> pa.RecordBatch:
    """Columns of strings as columns of encoded text."""
    arrays = [pa.ExtensionArray.from_storage(encoding, column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def stored_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with the text of its encoded columns. Returns the same object if it has none."""
    schema = stored_schema(batch.schema)
    if schema is batch.schema:
        return batch
    arrays = [column.type.plain_text(column.storage) if is_encoded(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of `stored_batch`."""
    if not any(map(is_encoded, schema.types)):
        return schema
    return pa.schema([field.with_type(pa.string()) if is_encoded(field.type) else field for field in schema])


def is_encoded(found: pa.DataType) -> bool:
    """Whether a column type is one of encoded text."""
    return isinstance(found, EncodedType)


def with_text_encoded(schema: pa.Schema, encoding: EncodedType) -> pa.Schema:
    """The schema with encoded text in place of strings."""
    return pa.schema([field.with_type(encoding) if pa.types.is_string(field.type) else field for field in schema])


def encoding_of(schema: pa.Schema) -> EncodedType | None:
    """The type of a schema's encoded columns. None: it has none."""
    return next((found for found in schema.types if isinstance(found, EncodedType)), None)
