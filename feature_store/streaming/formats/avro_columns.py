"""Decodes many Avro records of one schema at once, field by field.

A field of all records is read in one step of numpy: each record has a cursor in the joined bytes, and all cursors move
together. docs/decisions/0023-decoding-avro.md has the measurements.

A record that ends within a field, or holds what its schema does not allow, is bad with a reason. Its cursor stays at
its end, where every further read fails as well, so that no record reads the bytes of the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_ENDS_EARLY = "its bytes end within {}"
# The longest varint of 64 bits, in bytes, and the most that its last byte may hold.
_VARINT, _LAST = 10, 1
_PADDING = 16
_TOP_BITS = np.uint64(0x8080808080808080)
_EVEN_7, _EVEN_14, _EVEN_28 = np.uint64(0x007F007F007F007F), np.uint64(0x00003FFF00003FFF), np.uint64(0x0FFFFFFF)
# Records within records that are read at most. A schema that names itself can be nested without end.
_DEEPEST = 64


class Cursors:
    """A cursor for each record.

    Args:
        joined: the bytes of all records.
        starts: (n,) where each record begins.
        ends: (n,) where it ends.

    Attributes:
        at: (n,) the cursors.
        bad: the reason for each bad record, by its place.
        takes: whether values are taken. If not, they are passed: only the cursors move.
    """

    takes = True

    def __init__(self, joined: bytes, starts: Array, ends: Array) -> None:
        # A varint of a record at the end is read beyond it before its end is checked.
        self._joined = joined
        self._bytes = np.frombuffer(joined + bytes(_PADDING), np.uint8)
        self._words = self._overlapping(np.dtype("<u8"))
        self.at, self._ends = starts.astype(np.int64), ends.astype(np.int64)
        self.bad: dict[int, str] = {}

    def fail(self, rows: Array, reason: str) -> None:
        """Note that records are bad. The first reason of a record counts."""
        self.at[rows] = self._ends[rows]
        for row in rows.tolist():
            self.bad.setdefault(row, reason)

    def advance(self, rows: Array, sizes: Array | int, what: str) -> Array:
        """Move cursors. Returns where they were; cursors that would pass the end of their record fail."""
        before = self.at[rows]
        # Compared as a difference, which no size can overflow.
        over = sizes > self._ends[rows] - before
        self.at[rows] = before + np.where(over, 0, sizes)
        if over.any():
            self.fail(rows[over], _ENDS_EARLY.format(what))
        return before

    def longs(self, rows: Array, what: str = "a number") -> Array:
        """The next varint of each record, as (n,) int64; 0 for a bad record.

        The eight bytes at a cursor are one word. The first byte without the top bit ends the varint; the 7 bits of each
        byte are joined in three steps. Measured on 5,000 varints of 6 bytes: 0.2 ms, byte by byte 1.1 ms.
        """
        at = self.at[rows]
        word = self._words[at]
        last = ~word & _TOP_BITS
        last &= -last
        taken = last | (last - np.uint64(1))
        sizes = (np.bitwise_count(taken) >> 3).astype(np.int64)
        found = word & taken & ~_TOP_BITS
        found = (found & _EVEN_7) | ((found & ~_EVEN_7) >> np.uint64(1))
        found = (found & _EVEN_14) | ((found & ~_EVEN_14) >> np.uint64(2))
        found = (found & _EVEN_28) | ((found & ~_EVEN_28) >> np.uint64(4))
        longer = np.flatnonzero(last == 0)
        if len(longer):
            found[longer], sizes[longer] = self._long_varints(at[longer])
        self.advance(rows, sizes, what)
        zigzag = (found >> np.uint64(1)).astype(np.int64) ^ -(found & np.uint64(1)).astype(np.int64)
        # A cursor that did not move is that of a bad record.
        return np.where(self.at[rows] > at, zigzag, 0)

    def _long_varints(self, at: Array) -> tuple[Array, Array]:
        """Varints of nine and ten bytes: their values, and their sizes. A longer one has a size beyond every record."""
        last = self._bytes[at[:, None] + np.arange(_VARINT)].astype(np.uint64)
        sizes = np.where(last[:, -2] < 0x80, _VARINT - 1, _VARINT)
        last[sizes < _VARINT, -1] = 0
        found = np.bitwise_or.reduce(
            (last & np.uint64(0x7F)) << (np.uint64(7) * np.arange(_VARINT, dtype=np.uint64)), 1
        )
        return found, np.where(last[:, -1] > _LAST, np.iinfo(np.int64).max, sizes)

    def fixed(self, rows: Array, code: str, what: str) -> Array:
        """The next value of fixed size of each record."""
        dtype = np.dtype(code)
        begins = self.advance(rows, dtype.itemsize, what)
        return self._overlapping(dtype)[begins]

    def _overlapping(self, dtype: np.dtype[Any]) -> Array:
        """A value of a type at each byte, of which each shares bytes with the next ones."""
        return np.ndarray(len(self._joined) + 1, dtype, self._bytes, strides=(1,))

    def chunks(self, rows: Array, what: str) -> tuple[Array, Array]:
        """The places of the next bytes of each record, which their length precedes: begins and ends."""
        sizes = self.longs(rows, what)
        if (sizes < 0).any():
            self.fail(rows[sizes < 0], f"{what} has a negative length")
            sizes = np.maximum(sizes, 0)
        begins = self.advance(rows, sizes, what)
        return begins, self.at[rows]

    def slices(self, begins: Array, ends: Array) -> list[bytes]:
        """The bytes at some places."""
        joined = self._joined
        return [joined[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """Pass values within the block."""
        takes, self.takes = self.takes, False
        yield
        self.takes = takes

    def finish(self) -> None:
        """Check that each record ends where its message ends."""
        left = np.flatnonzero(self.at < self._ends)
        if len(left):
            self.fail(left, "bytes follow the record")


@dataclass(frozen=True, slots=True)
class Run:
    """Values of a field that have one type.

    Attributes:
        rows: the records that have the values.
        values: the values, as many; None: all are null.
        unit_us: for times as integers, the microseconds of one unit; 0: the values are no times.
        refused: the reason why the values are none of a column, such as a record within the record; empty: they are.
    """

    rows: Array
    values: list[Any] | None
    unit_us: float = 0
    refused: str = ""


# Reads a value of a type in some records, and returns its runs.
Read = Callable[[Cursors, Array, int], list[Run]]


def read_records(
    fields: Sequence[tuple[str, Read]], cursors: Cursors, rows: Array, wanted: Container[str]
) -> Mapping[str, list[Run]]:
    """The fields of all records that are wanted, by name."""
    found = {}
    for name, read in fields:
        cursors.takes = name in wanted
        runs = read(cursors, rows, 0)
        if cursors.takes:
            found[name] = runs
    cursors.finish()
    return found


# -- the types of Avro ----------------------------------------------------------------------------------------------


def null(cursors: Cursors, rows: Array, depth: int) -> list[Run]:
    """Null takes no bytes."""
    return [Run(rows, None)]


def whole(unit_us: float = 0, convert: Callable[[list[int]], list[Any]] | None = None) -> Read:
    """A reader of int and long: a varint."""

    def read(cursors: Cursors, rows: Array, depth: int) -> list[Run]:
        found = cursors.longs(rows)
        if not cursors.takes:
            return []
        return [Run(rows, found.tolist() if convert is None else convert(found.tolist()), unit_us)]

    return read


def number(code: str) -> Read:
    """A reader of float and double, little-endian."""

    def read(cursors: Cursors, rows: Array, depth: int) -> list[Run]:
        found = cursors.fixed(rows, code, "a number")
        return [Run(rows, found.tolist())] if cursors.takes else []

    return read


def boolean(cursors: Cursors, rows: Array, depth: int) -> list[Run]:
    """A byte, 0 or 1."""
    found = cursors.fixed(rows, "u1", "a boolean")
    if (found > 1).any():
        cursors.fail(rows[found > 1], "a boolean is neither 0 nor 1")
    return [Run(rows, (found == 1).tolist())]


def text(cursors: Cursors, rows: Array, depth: int) -> list[Run]:
    """UTF-8, after its length."""
    places = cursors.chunks(rows, "a string")
    if not cursors.takes:
        return []
    found = cursors.slices(*places)
    try:
        return [Run(rows, [value.decode() for value in found])]
    except UnicodeDecodeError:
        values = [_decoded(value) for value in found]
        wrong = np.array([value is None for value in values])
        cursors.fail(rows[wrong], "a string is not UTF-8")
        return [Run(rows, ["" if value is None else value for value in values])]


def binary(size: int | None, convert: Callable[[bytes], Any] | None = None) -> Read:
    """A reader of bytes after their length, or of `size` bytes."""

    def read(cursors: Cursors, rows: Array, depth: int) -> list[Run]:
        if size is None:
            places = cursors.chunks(rows, "bytes")
        else:
            begins = cursors.advance(rows, size, "bytes")
            places = begins, cursors.at[rows]
        if not cursors.takes:
            return []
        found: list[Any] = cursors.slices(*places)
        return [Run(rows, found if convert is None else [convert(value) for value in found])]

    return read


def enum(symbols: Sequence[str]) -> Read:
    """A reader of the index of a symbol."""

    def read(cursors: Cursors, rows: Array, depth: int) -> list[Run]:
        places = cursors.longs(rows)
        outside = (places < 0) | (places >= len(symbols))
        if outside.any():
            cursors.fail(rows[outside], f"an enum of {len(symbols)} symbols has another one")
            places = np.where(outside, 0, places)
        return [Run(rows, [symbols[place] for place in places.tolist()])]

    return read


def union(branches: Sequence[Read]) -> Read:
    """A reader of the index of a branch, then its value."""

    def read(cursors: Cursors, rows: Array, depth: int) -> list[Run]:
        places = cursors.longs(rows)
        outside = (places < 0) | (places >= len(branches))
        if outside.any():
            cursors.fail(rows[outside], f"a union of {len(branches)} types has another one")
        chosen = [(branch, rows[places == i]) for i, branch in enumerate(branches)]
        return [run for branch, mine in chosen if len(mine) for run in branch(cursors, mine, depth)]

    return read


def record(fields: Callable[[], Sequence[Read]]) -> Read:
    """A reader that passes a record within a record.

    Args:
        fields: the readers of its fields, asked for when one is read: a record may hold records of its own type.
    """

    def read(cursors: Cursors, rows: Array, depth: int) -> list[Run]:
        if depth == _DEEPEST:
            cursors.fail(rows, f"records are nested more than {_DEEPEST} deep")
        elif len(rows):
            with cursors.passing():
                for field in fields():
                    field(cursors, rows, depth + 1)
        return [Run(rows, None, refused="a record")]

    return read


def blocks(item: Sequence[Read], what: str) -> Read:
    """A reader that passes an array or a map: blocks of items, each after its count.

    Args:
        item: the readers of an item: of an array its value, of a map its key and value.
        what: `an array` or `a map`.
    """

    def read(cursors: Cursors, rows: Array, depth: int) -> list[Run]:
        open_ = rows if depth < _DEEPEST else rows[:0]
        if depth == _DEEPEST:
            cursors.fail(rows, f"arrays and maps are nested more than {_DEEPEST} deep")
        while len(open_):
            counts = cursors.longs(open_, what)
            sized = counts < 0
            if sized.any():
                # A negative count is followed by the size of the block in bytes.
                _pass_block(cursors, open_[sized], what)
            with cursors.passing():
                _pass_items(cursors, open_[counts > 0], counts[counts > 0], item, depth)
            open_ = open_[counts != 0]
        return [Run(rows, None, refused=what)]

    return read


def _pass_block(cursors: Cursors, rows: Array, what: str) -> None:
    sizes = cursors.longs(rows, what)
    if (sizes < 0).any():
        cursors.fail(rows[sizes < 0], f"a block of {what} has a negative size")
    cursors.advance(rows, np.maximum(sizes, 0), what)


def _pass_items(cursors: Cursors, rows: Array, left: Array, item: Sequence[Read], depth: int) -> None:
    while len(rows):
        before = cursors.at[rows]
        for read in item:
            read(cursors, rows, depth + 1)
        left = left - 1
        # Items without bytes, such as nulls, need not be counted to the end; nor do those of a bad record.
        more = (left > 0) & (cursors.at[rows] > before)
        rows, left = rows[more], left[more]


def _decoded(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
