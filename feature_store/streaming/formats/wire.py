"""Confluent's wire format: a zero byte and the id of a schema, 4 bytes big-endian, before each value."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class UnknownSchemaError(ValueError):
    """The registry has no schema of an id. It may have it later."""


# The bytes before the value.
PREFIX = 5
_MAGIC = 0


def schema_ids(joined: bytes, starts: Array, ends: Array, rejected: dict[int, str]) -> Array:
    """The ids of the schemas of values, as (n,) int64; -1: the value is rejected, with the reason in `rejected`.

    Args:
        joined: the bytes of all values.
        starts, ends: (n,) where each value begins and ends.
        rejected: the reasons, by place. Values that it has are not read.
    """
    found = np.frombuffer(joined + bytes(PREFIX), np.uint8)[starts[:, None] + np.arange(PREFIX)]
    ids = found[:, 1:].copy().view(">u4")[:, 0].astype(np.int64)
    wrong = (ends - starts < PREFIX) | (found[:, 0] != _MAGIC)
    for place in np.flatnonzero(wrong).tolist():
        rejected.setdefault(place, _no_prefix(joined[starts[place] : min(ends[place], starts[place] + PREFIX)]))
    return np.where(wrong, -1, ids)


def schema_id(value: bytes) -> int:
    """The id of the schema of one value.

    Raises:
        ValueError: the value does not begin with a zero byte and an id.
    """
    if len(value) < PREFIX or value[0] != _MAGIC:
        raise ValueError(_no_prefix(value[:PREFIX]))
    return int.from_bytes(value[1:PREFIX], "big")


def _no_prefix(begin: bytes) -> str:
    return f"expected a zero byte and the id of a schema in the registry, got {begin.hex(' ') or 'no bytes'}"
