"""The order of events: by entity, by time, and at equal times by the bytes of a value."""

from __future__ import annotations

import numpy as np

from feature_store.functions._arrays import Column

# numpy sorts 16-bit numbers by radix: 20,000 of them in 0.09 ms, where int64 numbers take 1.3 ms.
_DIGIT_BITS = 16


def by_entity_and_time(entities: Column, event_us: Column) -> Column:
    """The indexes of events, sorted by entity and then by time: (n,) intp.

    Args:
        entities: (n,) intp, from 0.
        event_us: (n,) int64. Logs are nearly sorted by time, for which a stable sort takes little time.
    """
    order = np.argsort(event_us, kind="stable")
    most = int(entities.max()) if len(entities) else 0
    for shift in range(0, max(most.bit_length(), 1), _DIGIT_BITS):
        digit = (entities >> shift).astype(np.uint16)  # the lower bits alone
        order = order[np.argsort(digit[order], kind="stable")]
    return order


def starts_of(*keys: Column) -> Column:
    """The indexes where sorted rows begin a new group, because a key differs from the row before."""
    if not len(keys[0]):
        return np.zeros(0, np.intp)
    differs = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    starts: Column = np.concatenate([[0], np.flatnonzero(differs) + 1])
    return starts


def with_ties(values: Column, at: Column, starts: Column) -> Column:
    """The order by group, time and bytes of values that are sorted by group and time. Groups begin at `starts`."""
    order = np.arange(len(values))
    tied = at[1:] == at[:-1]  # with the value before
    tied[starts[1:] - 1] = False
    if tied.any():
        with_one_before = np.concatenate([[False], tied])
        places = np.flatnonzero(with_one_before | np.concatenate([tied, [False]]))
        run = np.cumsum(~with_one_before)[places]
        order[places] = places[np.lexsort((*words_of(values[places]), run))]
    return order


def words_of(values: Column) -> tuple[Column, ...]:
    """The bytes of values as unsigned little-endian numbers, in words, the least significant first."""
    if values.dtype.itemsize in (1, 2, 4, 8):
        return (bits_of(values),)
    size = values.dtype.itemsize
    padded = np.zeros((len(values), -(-size // 8) * 8), np.uint8)
    padded[:, :size] = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), size)
    return tuple(padded.view("<u8").T)


def bits_of(values: Column) -> Column:
    """The bytes of values as unsigned numbers: a total order that is the same in numpy and Lua."""
    bits: Column = np.ascontiguousarray(values).view(f"<u{values.dtype.itemsize}")
    return bits
