"""Packed batches: what tasks exchange. A whole Arrow batch is one value, beside it the number of the part it goes to.

Spark moves thousands of large rows instead of millions of small ones, and takes none of them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SCHEMA = "part int, tag int, packed binary"
_TYPES = pa.schema([("part", pa.int32()), ("tag", pa.int32()), ("packed", pa.binary())])


class Packed(NamedTuple):
    """A value on its way.

    Attributes:
        part: where it goes.
        tag: what it is; sender and receiver agree.
        value: bytes.
    """

    part: int
    tag: int
    value: bytes


def to_arrow(values: Sequence[Packed]) -> pa.RecordBatch:
    """Values as a task sends them."""
    columns = zip(*values, strict=True) if values else [()] * len(_TYPES)
    return pa.record_batch([pa.array(column, kind) for column, kind in zip(columns, _TYPES.types, strict=True)], _TYPES)


def received(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, int, pa.Buffer]]:
    """Part, tag and bytes of each value that a task gets."""
    for batch in batches:
        for part, tag, value in zip(batch["part"].to_pylist(), batch["tag"].to_pylist(), batch["packed"], strict=True):
            yield part, tag, value.as_buffer()


def split(rows: pa.RecordBatch, parts: NDArray[np.int64], tag: int) -> Iterator[Packed]:
    """Rows packed for the part that each belongs to; within a part they keep their order."""
    if not len(rows):
        return
    order = np.argsort(parts, kind="stable")
    found, starts = np.unique(parts[order], return_index=True)
    ordered = rows.take(pa.array(order))
    for part, start, end in zip(found.tolist(), starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
        yield Packed(part, tag, ordered.slice(start, end - start).serialize().to_pybytes())


def unpack(value: pa.Buffer, schema: pa.Schema) -> pa.RecordBatch:
    """Rows that were packed."""
    return pa.ipc.read_record_batch(value, schema)
