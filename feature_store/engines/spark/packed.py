"""Packed batches, which tasks exchange. One Spark row holds a whole Arrow batch and the number of its target part.

Spark then moves thousands of large rows instead of millions of small ones, and never decodes them.
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
    """A value that one task sends to another.

    Attributes:
        part: the number of the part that the value goes to.
        tag: the kind of the value. Sender and receiver agree on the tags.
        value: the bytes.
    """

    part: int
    tag: int
    value: bytes


def to_arrow(values: Sequence[Packed]) -> pa.RecordBatch:
    """Values as an Arrow batch for Spark."""
    columns = zip(*values, strict=True) if values else [()] * len(_TYPES)
    return pa.record_batch([pa.array(column, kind) for column, kind in zip(columns, _TYPES.types, strict=True)], _TYPES)


def received(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, int, pa.Buffer]]:
    """(part, tag, bytes) of each value that a task receives."""
    for batch in batches:
        for part, tag, value in zip(batch["part"].to_pylist(), batch["tag"].to_pylist(), batch["packed"], strict=True):
            yield part, tag, value.as_buffer()


def split(rows: pa.RecordBatch, parts: NDArray[np.int64], tag: int) -> Iterator[Packed]:
    """Rows packed by part. Within a part, rows keep their order."""
    if not len(rows):
        return
    order = np.argsort(parts, kind="stable")
    found, starts = np.unique(parts[order], return_index=True)
    ordered = rows.take(pa.array(order))
    for part, start, end in zip(found.tolist(), starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
        yield Packed(part, tag, ordered.slice(start, end - start).serialize().to_pybytes())


def unpack(value: pa.Buffer, schema: pa.Schema) -> pa.RecordBatch:
    """The rows of a packed value."""
    return pa.ipc.read_record_batch(value, schema)
