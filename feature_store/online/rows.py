"""The values that Redis returned for one row group or stream view, read where they are in the reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.errors import CorruptRowError
from feature_store.online.layout import FINGERPRINT_BYTES, TIME_BYTES
from feature_store.online.status import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from feature_store.functions import Mask
    from feature_store.online.layout import FieldLayout, SegmentLayout, ValueLayout

_STORED_TIME = np.dtype(">u8")
Buffer = bytes | bytearray | memoryview
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class StoredRows:
    """`count` values of one layout, at regular distances in a buffer.

    Args:
        layout: the layout of the values.
        buffer: the bytes that hold the values, such as a reply of Redis.
        count: how many values there are.
        at: where the first value starts in the buffer.
        stride: bytes from the start of one value to the start of the next.
    """

    __slots__ = ("at", "buffer", "count", "layout", "stride")

    def __init__(self, layout: ValueLayout, buffer: Buffer, count: int, at: int, stride: int) -> None:
        self.layout, self.buffer, self.count, self.at, self.stride = layout, buffer, count, at, stride

    @classmethod
    def from_values(
        cls, layout: ValueLayout, values: Sequence[bytes | None], key_of: Callable[[int], str]
    ) -> StoredRows:
        """Rows from single values. None stands for a row that does not exist.

        Raises:
            CorruptRowError: a value has another size or fingerprint than the layout's; `key_of(i)` names its key.
        """
        size, fingerprint = layout.size, layout.fingerprint
        there = [layout.empty if value is None else value for value in values]
        joined = b"".join(there)
        # All at once: 6 µs for 200 values, where a check of each takes 40 µs.
        marks = joined[:FINGERPRINT_BYTES] if len(there) == 1 else _marks(joined, size)
        if set(map(len, there)) - {size} or marks != fingerprint * len(there):
            raise _corrupt(layout, there, key_of)
        # numpy cannot view an empty buffer, so without values the buffer holds a row that nothing reads.
        return cls(layout, joined or layout.empty, len(there), 0, size)

    @classmethod
    def joined(
        cls, layout: ValueLayout, pieces: Sequence[tuple[StoredRows, Sequence[int] | None]], count: int
    ) -> StoredRows:
        """Rows that are put together from pieces.

        Args:
            layout: the layout of all rows.
            pieces: rows, and their indexes among the `count` rows; None when the piece is all rows.
            count: how many rows there are. A row of no piece has no data.
        """
        for rows, places in pieces:
            if places is None:
                return rows
        whole = np.empty((count, layout.size), np.uint8)
        if sum([rows.count for rows, _ in pieces]) < count:
            whole[:] = np.frombuffer(layout.empty, np.uint8)
        for rows, places in pieces:
            whole[places] = rows.part(0, layout.size)
        return cls(layout, whole.data.cast("B"), count, 0, layout.size)

    def part(self, offset: int, width: int) -> Bytes:
        """`width` bytes of each row from `offset`: (count, width) uint8, a view."""
        return np.ndarray((self.count, width), np.uint8, self.buffer, self.at + offset, (self.stride, 1))

    def event_times(self, segment: SegmentLayout) -> np.ndarray[Any, Any]:
        """The event time of each row's segment: (count,) uint64, as stored (0: absent)."""
        return self._places(_STORED_TIME, segment.offset)

    def bytes_of_first(self, start: int, end: int) -> Buffer:
        """Bytes `[start, end)` of the first row."""
        return self.buffer[self.at + start : self.at + end]

    def _places(self, dtype: np.dtype[Any], offset: int) -> np.ndarray[Any, Any]:
        return np.ndarray((self.count,), dtype, self.buffer, self.at + offset, (self.stride,))

    def all_present(self, segment: SegmentLayout, oldest: int) -> bool:
        """Whether every row has its segment, not older than `oldest` (as stored, at least 1), and without nulls."""
        if self.count == 1:  # without numpy: 0.4 µs instead of 5
            start = self.at + segment.offset
            head = self.buffer[start : start + segment.times_bytes + segment.bitmap_bytes]
            return int.from_bytes(head[:TIME_BYTES], "big") >= oldest and not any(head[segment.times_bytes :])
        # Each step takes 0.4 to 0.8 µs for 200 rows. A comparison of all rows and any() take twice as long.
        if not self.count or np.minimum.reduce(self.event_times(segment)) < oldest:
            return not self.count
        return self.has_no_nulls(segment)

    def has_no_nulls(self, segment: SegmentLayout) -> bool:
        """Whether no row has a null in a segment. Rows that are missing have none."""
        bitmaps = self._places(segment.bitmap_type, segment.offset + segment.times_bytes)
        return bitmaps.tobytes().count(0) == self.count * segment.bitmap_bytes

    def is_older(self, segment: SegmentLayout, oldest: int) -> Mask:
        """(count,) bool, True where a row has no segment, or a segment older than `oldest` (as stored, at least 1)."""
        older: Mask = self.event_times(segment) < oldest
        return older

    def status(
        self, segment: SegmentLayout, fields: Iterable[FieldLayout], oldest: int | np.ndarray[Any, Any]
    ) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The Status of each row and field: (count, len(fields)) uint8. `oldest` is for all rows, or (count,)."""
        bitmap = self.part(segment.offset + segment.times_bytes, segment.bitmap_bytes)
        indexes = np.array([field.index for field in fields], np.intp)
        # NULL is 1, so a bit of the bitmap is a status already.
        status: np.ndarray[Any, np.dtype[np.uint8]] = np.unpackbits(bitmap, axis=1, bitorder="little")[:, indexes]
        times = self.event_times(segment)
        status[times < oldest] = Status.EXPIRED
        status[times == 0] = Status.MISSING
        return status

    def values(self, segment: SegmentLayout, field: FieldLayout) -> np.ndarray[Any, Any]:
        """A field of fixed width: (count,) or (count, length) of its numpy dtype. Undefined where it is not PRESENT."""
        width = field.dtype.width or 0
        block = np.ascontiguousarray(self.part(segment.offset + field.offset, width)).view(field.dtype.numpy)
        return block if field.dtype.length is not None else block[:, 0]


def _marks(joined: bytes, size: int) -> bytes:
    """The first bytes of each value of `size` bytes."""
    count = len(joined) // size
    if not count:
        return b""
    return np.ndarray((count,), f"V{FINGERPRINT_BYTES}", joined, 0, (size,)).tobytes()


def _corrupt(layout: ValueLayout, values: Sequence[bytes], key_of: Callable[[int], str]) -> CorruptRowError:
    wrong = (
        (i, value)
        for i, value in enumerate(values)
        if len(value) != layout.size or not value.startswith(layout.fingerprint)
    )
    i, value = next(wrong)
    return CorruptRowError(
        key_of(i),
        expected=f"{layout.size} bytes that start with {layout.fingerprint.hex()}",
        got=f"{len(value)} bytes that start with {value[:FINGERPRINT_BYTES].hex()}",
        hint="something else wrote this key: delete the entity and materialize it again",
    )
