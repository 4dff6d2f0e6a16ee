"""The number of rows in a batch. Batches take about 16 MB of memory for any width of row."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_store.arrow.plain import plain_batch, plain_schema

# Large enough to keep a reader busy, small enough to hold a few batches in memory.
BATCH_BYTES, MOST_BATCH_ROWS = 16 << 20, 128 * 1024
# Assumed sizes of types without a fixed width: a short text, an embedding.
_TEXT_BYTES, _NESTED_BYTES = 32, 512


def batch_rows(row_bytes: int) -> int:
    """The number of rows in a batch, if a row takes `row_bytes` bytes of memory."""
    return max(1, min(MOST_BATCH_ROWS, BATCH_BYTES // row_bytes))


def schema_row_bytes(schema: pa.Schema) -> int:
    """The approximate size in memory of a row of a schema, in bytes."""
    return max(1, sum(_width(field.type) for field in schema))


def group_row_bytes(metadata: Any, groups: Sequence[int], schema: pa.Schema) -> int:
    """The approximate size in memory of a row of a Parquet file in bytes, from the metadata of some row groups.

    The result is too small if repeated values are stored once: see `columns_of_repeats`.

    Args:
        metadata: the metadata of the file.
        groups: the numbers of the row groups.
        schema: the schema of the columns that are read.
    """
    names = set(schema.names)
    rows = stored = 0
    for number in groups:
        group = metadata.row_group(number)
        rows += group.num_rows
        columns = (group.column(i) for i in range(group.num_columns))
        stored += sum(one.total_uncompressed_size for one in columns if _top(one.path_in_schema, names) in names)
    return max(schema_row_bytes(schema), stored // rows if rows else 0)


def columns_of_repeats(metadata: Any, group: int, schema: pa.Schema) -> list[str]:
    """The columns without a fixed width that a row group stores as a dictionary, so that repeated values occur once."""
    wide = {field.name for field in schema if not pa.types.is_primitive(field.type)}
    columns = (metadata.row_group(group).column(i) for i in range(metadata.num_columns))
    repeated = {_top(one.path_in_schema, wide) for one in columns if one.has_dictionary_page}
    return [name for name in schema.names if name in repeated & wide]


def plain_pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch as plain batches of about 16 MB each.

    It is split before it is made plain, since 100 MB of indices into a dictionary of long texts can become many
    gigabytes of texts.
    """
    if plain_schema(batch.schema) == batch.schema:
        yield from split(batch)
        return
    sizes = sum((_plain_sizes(column) for column in batch.columns), np.zeros(len(batch), np.int64))
    pieces = np.cumsum(sizes) // BATCH_BYTES
    starts = [0, *(np.flatnonzero(np.diff(pieces)) + 1).tolist(), len(batch)]
    for start, end in itertools.pairwise(starts):
        yield from split(plain_batch(batch.slice(start, end - start)))


def split(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in pieces of about 16 MB. A row that is larger is a piece of its own."""
    parts = min(len(batch), -(-batch.nbytes // BATCH_BYTES))
    if parts <= 1:
        yield batch
        return
    middle = len(batch) // 2
    yield from split(batch.slice(0, middle))
    yield from split(batch.slice(middle))


def _plain_sizes(values: pa.Array) -> NDArray[np.int64]:
    """(n,) int64, the approximate size of each value in its plain type, in bytes."""
    if pa.types.is_dictionary(values.type):
        if not len(values.dictionary):
            return np.zeros(len(values), np.int64)
        found: NDArray[np.int64] = _plain_sizes(values.dictionary)[values.indices.fill_null(0).to_numpy()]
        return found
    if pa.types.is_run_end_encoded(values.type):
        mean = values.values.nbytes // max(1, len(values.values))
        return np.full(len(values), mean, np.int64)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        lengths: NDArray[np.int64] = pc.binary_length(values).fill_null(0).to_numpy().astype(np.int64)
        return lengths
    return np.full(len(values), values.nbytes // max(1, len(values)), np.int64)


def _top(path: str, names: set[str]) -> str:
    """The column of a leaf path such as `words.list.element`. Column names may contain dots."""
    while path not in names and "." in path:
        path = path.rpartition(".")[0]
    return path


def _width(found: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(found):
        return int(found.list_size) * _width(found.value_type)
    if pa.types.is_primitive(found):
        return found.bit_width // 8 or 1
    return _NESTED_BYTES if pa.types.is_nested(found) else _TEXT_BYTES
