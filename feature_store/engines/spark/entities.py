"""The latest row of each entity among checked rows, and the part that an entity belongs to: numpy, no I/O."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_store.arrow.rows import CREATED_TS, EVENT_TS, SEQUENCE
from feature_store.engines.as_of import sort_rows

_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 ÷ the golden ratio: spreads neighbours over all bits


def latest_rows(rows: pa.RecordBatch, keys: Sequence[str]) -> pa.RecordBatch:
    """Of each entity the row with the greatest (event time, creation time, place in the source)."""
    entities, count = entities_of(rows, keys)
    if count == len(rows):
        return rows
    # `sort_rows` takes the rows in the order of the source, in which the batches of one task are, those of several not.
    by_place = np.argsort(rows.column(SEQUENCE).to_numpy(), kind="stable")
    events, created = (rows.column(name).to_numpy()[by_place] for name in (EVENT_TS, CREATED_TS))
    order, sorted_rows = sort_rows(entities[by_place], events, created, count)
    last = by_place[order[sorted_rows.offsets[1:] - 1]]
    last.sort()
    return rows.take(pa.array(last))


def parts_of(rows: pa.RecordBatch, keys: Sequence[str], parts: int) -> NDArray[np.int64]:
    """The part that each row's entity belongs to, in [0, parts): the same in every process."""
    return (hashes_of(rows, keys) % np.uint64(parts)).astype(np.int64)


def hashes_of(rows: pa.RecordBatch, keys: Sequence[str]) -> NDArray[np.uint64]:
    """A number for each row's entity, the same in every process; others hardly have the same."""
    mixed = np.zeros(len(rows), np.uint64)
    for key in keys:
        column = rows.column(key)
        if pa.types.is_string(column.type):
            numbers = np.array([zlib.crc32(text) for text in column.cast(pa.binary()).to_pylist()], np.uint64)
        else:
            numbers = column.to_numpy().astype(np.int64).view(np.uint64)
        mixed = (mixed ^ numbers) * _MIX
        mixed ^= mixed >> np.uint64(32)
    return mixed


def entities_of(rows: pa.RecordBatch, keys: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """A number for each row, the same for the same key, from 0 to how many there are."""
    first, *others = keys
    numbers, count = _numbered(rows.column(first))
    for key in others:
        more, further = _numbered(rows.column(key))
        numbers, count = _numbered(pa.array(numbers * further + more))  # both below the number of rows
    return numbers, count


def _numbered(column: Any) -> tuple[NDArray[np.int64], int]:
    encoded = pc.dictionary_encode(column)
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)
