"""Finds the latest row of each entity, and the part that each entity belongs to. Only numpy, no I/O."""

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

_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 ÷ the golden ratio: spreads similar numbers over all bits


def latest_rows(rows: pa.RecordBatch, keys: Sequence[str]) -> pa.RecordBatch:
    """For each entity, the row with the greatest (event time, creation time, place in the source)."""
    entities, count = entities_of(rows, keys)
    if count == len(rows):
        return rows
    # `sort_rows` needs rows in source order. The rows of one task are in this order, those of several tasks are not.
    by_place = np.argsort(rows.column(SEQUENCE).to_numpy(), kind="stable")
    events, created = (rows.column(name).to_numpy()[by_place] for name in (EVENT_TS, CREATED_TS))
    order, sorted_rows = sort_rows(entities[by_place], events, created, count)
    last = by_place[order[sorted_rows.offsets[1:] - 1]]
    last.sort()
    return rows.take(pa.array(last))


def parts_of(rows: pa.RecordBatch, keys: Sequence[str], parts: int) -> NDArray[np.int64]:
    """(n,) int64, the part of each row's entity, in [0, parts). Every process computes the same part."""
    return (hashes_of(rows, keys) % np.uint64(parts)).astype(np.int64)


def hashes_of(rows: pa.RecordBatch, keys: Sequence[str]) -> NDArray[np.uint64]:
    """(n,) uint64, a hash of each row's entity key. Every process computes the same hash; collisions are rare."""
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
    """(n,) int64, a number for each row's entity, counted from 0, and the number of entities."""
    first, *others = keys
    numbers, count = _numbered(rows.column(first))
    for key in others:
        more, further = _numbered(rows.column(key))
        numbers, count = _numbered(pa.array(numbers * further + more))  # both below the number of rows
    return numbers, count


def _numbered(column: Any) -> tuple[NDArray[np.int64], int]:
    encoded = pc.dictionary_encode(column)
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)
