"""Plain columns: converts Arrow's many encodings to the few that all of its kernels support.

A column of a source, of pushed rows or of labels may be dictionary-encoded, run-end-encoded, a view or an extension
type. Kernels such as `filter`, `take` and `cast` support only some of these, and that differs between releases of
Arrow. All code that takes columns from outside calls `plain_batch` or `plain_table`; all code that tests a type calls
`plain_type` first.

| Arrow type | plain type |
|---|---|
| string_view, binary_view | string, binary |
| dictionary, run_end_encoded | the plain type of the values |
| list_view, large_list_view | list |
| list, large_list, fixed_size_list, struct | the same, with plain children |
| extension: json, bool8, fixed_shape_tensor | string, bool, fixed_size_list |
| extension: uuid | string, `00000000-0000-0000-0000-000000000000` |
| all others | the same |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_UUID_DIGITS = 36
# The places of the 32 hexadecimal digits in the text of a UUID. The other places are dashes.
_UUID_PLACES = np.array([i for i in range(_UUID_DIGITS) if i not in (8, 13, 18, 23)])


class _Kind(NamedTuple):
    """A kind of types, and how to make its types and values plain."""

    holds: Callable[[pa.DataType], bool]
    as_type: Callable[[Any], pa.DataType]
    as_values: Callable[[Any], pa.Array]


def plain_type(found: pa.DataType) -> pa.DataType:
    """The plain type of a type."""
    kind = _kind(found)
    return found if kind is None else kind.as_type(found)


def plain(values: pa.Array) -> pa.Array:
    """A column in its plain type. Returns the same object if the column is already plain."""
    kind = _kind(values.type)
    return values if kind is None or kind.as_type(values.type) == values.type else kind.as_values(values)


def plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch of plain columns. Returns the same object if all columns are already plain."""
    arrays = [plain(column) for column in batch.columns]
    if all(one is other for one, other in zip(arrays, batch.columns, strict=True)):
        return batch
    return pa.RecordBatch.from_arrays(arrays, schema=plain_schema(batch.schema))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of `plain_batch`."""
    return pa.schema([field.with_type(plain_type(field.type)) for field in schema], schema.metadata)


def plain_table(table: pa.Table) -> pa.Table:
    """A table of plain columns, except that dictionaries stay, with plain values.

    Dictionaries are the categories of pandas and polars, and the caller gets them back.
    """
    columns = [pa.chunked_array([_kept(chunk) for chunk in column.chunks], _kept_type(column.type)) for column in table]
    return pa.Table.from_arrays(columns, schema=kept_schema(table.schema))


def kept_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of `plain_table`."""
    return pa.schema([field.with_type(_kept_type(field.type)) for field in schema], schema.metadata)


def as_kept(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table of plain columns converted to a schema from `kept_schema`: its dictionaries are restored."""
    columns = [_encoded(column, field.type) for column, field in zip(table.columns, schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema)


def _encoded(values: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if not pa.types.is_dictionary(wanted):
        return values.cast(wanted)
    encoded = values.cast(wanted.value_type).dictionary_encode()
    chunks = [
        pa.DictionaryArray.from_arrays(chunk.indices.cast(wanted.index_type), chunk.dictionary, ordered=wanted.ordered)
        for chunk in encoded.chunks
    ]
    return pa.chunked_array(chunks, wanted)


def _kept(values: pa.Array) -> pa.Array:
    if not pa.types.is_dictionary(values.type):
        return plain(values)
    return pa.DictionaryArray.from_arrays(values.indices, plain(values.dictionary), ordered=values.type.ordered)


def _kept_type(found: pa.DataType) -> pa.DataType:
    if not pa.types.is_dictionary(found):
        return plain_type(found)
    return pa.dictionary(found.index_type, plain_type(found.value_type), found.ordered)


def _kind(found: pa.DataType) -> _Kind | None:
    return next((kind for kind in _KINDS if kind.holds(found)), None)


# -- per kind of type -------------------------------------------------------------------------------------------------


def _is_view_of_lists(found: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(found) or pa.types.is_large_list_view(found))


def _is_list(found: pa.DataType) -> bool:
    lists = pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)
    return bool(lists)


def _is_extension(name: str) -> Callable[[pa.DataType], bool]:
    return lambda found: isinstance(found, pa.BaseExtensionType) and found.extension_name == name


def _list_type(found: pa.DataType) -> pa.DataType:
    value = found.value_field.with_type(plain_type(found.value_type))
    if pa.types.is_fixed_size_list(found):
        return pa.list_(value, found.list_size)
    return pa.large_list(value) if pa.types.is_large_list(found) else pa.list_(value)


def _struct_type(found: pa.DataType) -> pa.DataType:
    return pa.struct([found.field(i).with_type(plain_type(found.field(i).type)) for i in range(found.num_fields)])


def _of_dictionary(values: pa.Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(values.indices, plain(values.dictionary)).dictionary_decode()


def _of_run_ends(values: pa.Array) -> pa.Array:
    ends = values.run_ends.to_numpy()
    places = np.searchsorted(ends, np.arange(values.offset, values.offset + len(values)), side="right")
    return plain(values.values).take(pa.array(places))


def _of_list_views(values: pa.Array) -> pa.Array:
    nulls = values.is_null()
    lengths = pc.list_value_length(values).fill_null(0).to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    elements = plain(pc.list_flatten(values))  # in the order of the lists; null lists have none
    return pa.ListArray.from_arrays(pa.array(offsets), elements, type=_list_type(values.type), mask=nulls)


def _of_lists(values: pa.Array) -> pa.Array:
    wanted = _list_type(values.type)
    if pa.types.is_fixed_size_list(wanted):
        size = wanted.list_size
        elements = plain(values.values.slice(values.offset * size, len(values) * size))
        return pa.FixedSizeListArray.from_arrays(elements, type=wanted, mask=values.is_null())
    kind = pa.LargeListArray if pa.types.is_large_list(wanted) else pa.ListArray
    made = kind.from_arrays(_unsliced(values.offsets), plain(values.values), type=wanted)
    if not values.null_count:
        return made
    lengths = pc.list_value_length(values).fill_null(0).to_numpy().astype(np.int64)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)])).cast(values.offsets.type)
    return kind.from_arrays(offsets, plain(pc.list_flatten(values)), type=wanted, mask=values.is_null())


def _unsliced(offsets: pa.Array) -> pa.Array:
    return pa.array(offsets.to_numpy())


def _of_struct(values: pa.Array) -> pa.Array:
    wanted = _struct_type(values.type)
    children = [plain(values.field(i)) for i in range(wanted.num_fields)]
    mask = values.is_null() if values.null_count else None
    return pa.StructArray.from_arrays(children, fields=list(wanted), mask=mask)


def _of_storage(values: pa.Array) -> pa.Array:
    return plain(values.storage)


def _of_bool8(values: pa.Array) -> pa.Array:
    return pc.not_equal(values.storage, pa.scalar(0, pa.int8()))


def _of_uuids(values: pa.Array) -> pa.Array:
    storage = values.storage
    raw = np.frombuffer(storage.buffers()[1] or b"", np.uint8)[
        storage.offset * 16 : (storage.offset + len(storage)) * 16
    ]
    digits = np.frombuffer(raw.tobytes().hex().encode(), np.uint8).reshape(len(storage), 32)
    text = np.full((len(storage), _UUID_DIGITS), ord("-"), np.uint8)
    text[:, _UUID_PLACES] = digits
    offsets = np.arange(0, _UUID_DIGITS * (len(storage) + 1), _UUID_DIGITS, dtype=np.int32)
    made = pa.StringArray.from_buffers(len(storage), pa.py_buffer(offsets), pa.py_buffer(text))
    return pc.if_else(values.is_null(), pa.scalar(None, pa.string()), made) if values.null_count else made


_KINDS = (
    _Kind(pa.types.is_string_view, lambda _: pa.string(), lambda values: values.cast(pa.string())),
    _Kind(pa.types.is_binary_view, lambda _: pa.binary(), lambda values: values.cast(pa.binary())),
    _Kind(pa.types.is_dictionary, lambda found: plain_type(found.value_type), _of_dictionary),
    _Kind(pa.types.is_run_end_encoded, lambda found: plain_type(found.value_type), _of_run_ends),
    _Kind(_is_view_of_lists, _list_type, _of_list_views),
    _Kind(_is_list, _list_type, _of_lists),
    _Kind(pa.types.is_struct, _struct_type, _of_struct),
    _Kind(_is_extension("arrow.json"), lambda found: plain_type(found.storage_type), _of_storage),
    _Kind(_is_extension("arrow.bool8"), lambda _: pa.bool_(), _of_bool8),
    _Kind(_is_extension("arrow.fixed_shape_tensor"), lambda found: plain_type(found.storage_type), _of_storage),
    _Kind(_is_extension("arrow.uuid"), lambda _: pa.string(), _of_uuids),
)
