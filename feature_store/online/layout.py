"""The layout of a row: the place of every byte of a row group's value. This docstring specifies the format.

A row group's values of one entity are one Redis string, a *row* of fixed width:

    row         fingerprint                           4 bytes   CRC-32 of the layout's text, big-endian
                segment of view 1                               in the order of the plan
                segment of view 2 …

    segment     event_ts                              8 bytes   see below; all zero: the view has no row
                created_ts                            8 bytes   see below; only if the plan says `created`
                null bitmap               ceil(f/8)   bytes     field i of the schema is null: bit i % 8 of byte i // 8
                values                                          8-byte elements, then 4-, 2- and 1-byte ones;
                                                                within a width in the order of the schema;
                                                                little-endian; a null value is all zero
                                                                Timestamp: int64, microseconds since 1970
                                                                Date: int32, days since 1970
                                                                Decimal(p, s): int64, units of 10**-s

    time        microseconds since 1970 + 2**63, unsigned, big-endian: the order of the bytes is the order of time,
                before 1970 too, and no time that a datetime can hold is all zero

Fields without fixed width (String, Bytes, Array(T), arrays of String or Bytes) are not in the row. All such fields of a
view are one Redis string of their own, the *variable value*:

    variable    event_ts, created_ts            8 or 16 bytes   as in the segment that was written with it
                ends            4 × (number of fields)          where each field's bytes in the payload end; uint32,
                                                                little-endian
                payload                                         in the order of the schema; a null is empty

    in payload  String: UTF-8.   Bytes: as they are.   Array(T): its elements, little-endian.
                Array of String or Bytes: for each its length, uint32 little-endian, and its bytes

The fingerprint distinguishes a row from a row of another layout and from any other value. Rows of one layout have one
length. A reader that gets another length or fingerprint raises CorruptRowError and names the key.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.definitions.dtypes import DType
from feature_store.online import keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feature_store.registry.serving_plan import RowGroupPlan, SegmentPlan

FINGERPRINT_BYTES = 4
TIME_BYTES = 8
# Added to a time (as unsigned) so that byte order is time order. Zero encodes a time that no datetime has.
TIME_BIAS = np.uint64(1 << 63)
ABSENT = 0


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """The place of a field's value.

    Attributes:
        index: the index of the field in the view's schema and of its bit in the null bitmap.
        offset: bytes from the start of the segment to the value; -1 when the value is variable.
        slot: the index among the variable fields; -1 when the value has a fixed width.
        default: the canonical Python value that is served for an absent value; None when there is no default.
    """

    name: str
    dtype: DType
    index: int
    offset: int
    slot: int
    default: Any


class SegmentLayout:
    """The place of a view's bytes in the row.

    Attributes:
        view: the view's name.
        ttl_us: microseconds after which a row counts as expired; None when it never does.
        offset: bytes from the start of the row.
        size: bytes.
        times_bytes: bytes of the times at its start: one time, or two if created timestamps are stored.
        bitmap_bytes: bytes of the null bitmap, which follows the times.
        bitmap_type: a numpy type of that size.
        fields: by name, in the order of the schema.
    """

    def __init__(self, plan: SegmentPlan, offset: int) -> None:
        self.view, self.ttl_us, self.offset = plan.view, plan.ttl_us, offset
        self.times_bytes = TIME_BYTES * (2 if plan.created else 1)
        self.bitmap_bytes = -(-len(plan.fields) // 8)
        self.bitmap_type = np.dtype(f"V{self.bitmap_bytes}")
        self.fields: dict[str, FieldLayout] = {}
        dtypes = [DType.parse(field.dtype) for field in plan.fields]
        offsets, self.size = _place(dtypes, self.times_bytes + self.bitmap_bytes)
        slots = iter(range(len(dtypes)))
        for index, (field, dtype) in enumerate(zip(plan.fields, dtypes, strict=True)):
            slot = -1 if dtype.width is not None else next(slots)
            default = dtype.from_json(field.default)
            self.fields[field.name] = FieldLayout(field.name, dtype, index, offsets.get(index, -1), slot, default)

    @property
    def created(self) -> bool:
        """Whether created timestamps are stored."""
        return self.times_bytes > TIME_BYTES

    @cached_property
    def variable_fields(self) -> list[FieldLayout]:
        """The fields of the variable value, in the order of the schema."""
        return [field for field in self.fields.values() if field.slot >= 0]

    @cached_property
    def record(self) -> np.dtype[Any]:
        """A structured dtype with the fields `times` (big-endian uint64), `nulls` and each fixed-width field."""
        fixed = [field for field in self.fields.values() if field.offset >= 0]
        return np.dtype(
            {
                "names": ["times", "nulls", *(f"field {field.name}" for field in fixed)],
                "formats": [
                    (">u8", (self.times_bytes // TIME_BYTES,)),
                    ("u1", (self.bitmap_bytes,)),
                    *(
                        (field.dtype.code, (field.dtype.length,)) if field.dtype.length else field.dtype.code
                        for field in fixed
                    ),
                ],
                "offsets": [0, self.times_bytes, *(field.offset for field in fixed)],
                "itemsize": self.size,
            }
        )


class ValueLayout(ABC):
    """The layout of one kind of stored value: the rows of a row group, or the tiles of a stream view.

    All values of a layout have one size and start with its fingerprint.

    Args:
        name: the name of the row group or stream view, for errors.
        join_keys: `(column, type)` of the entity key, as the serving plan has them.
        text: a description of the layout. The fingerprint is computed from it.
        size: bytes of a value.

    Attributes:
        name, size: as given.
        join_keys: `(column, type)` of the entity key.
        fingerprint: the first four bytes of each value.
        empty: a value without data: every time in it is absent.
    """

    def __init__(self, name: str, join_keys: Iterable[tuple[str, str]], text: str, size: int) -> None:
        self.name, self.size = name, size
        self.join_keys = [(column, DType.parse(dtype)) for column, dtype in join_keys]
        self.fingerprint = zlib.crc32(text.encode()).to_bytes(FINGERPRINT_BYTES, "big")
        self.empty = self.fingerprint + bytes(size - FINGERPRINT_BYTES)

    @property
    @abstractmethod
    def views(self) -> list[str]:
        """The names of the views whose values the layout holds."""

    @abstractmethod
    def prefix(self, project: str, bucket: int) -> bytes:
        """The start of the values' Redis keys. The entity key follows."""


class RowLayout(ValueLayout):
    """The layout of a row group's rows.

    Attributes:
        group: the row group of the serving plan.
        segments: by view, in the order of the row.
    """

    def __init__(self, group: RowGroupPlan) -> None:
        self.group = group
        self.segments: dict[str, SegmentLayout] = {}
        size = FINGERPRINT_BYTES
        for plan in group.segments:
            self.segments[plan.view] = segment = SegmentLayout(plan, size)
            size += segment.size
        super().__init__(group.name, group.join_keys, _text(group), size)

    @property
    def views(self) -> list[str]:
        """See ValueLayout."""
        return list(self.segments)

    def prefix(self, project: str, bucket: int) -> bytes:
        """See ValueLayout."""
        return keys.row_prefix(project, bucket, self.group)


def encode_time(microseconds: int) -> int:
    """A time as the unsigned number whose big-endian bytes a row holds."""
    return microseconds + int(TIME_BIAS)


def decode_time(stored: int) -> int:
    """The inverse of `encode_time`."""
    return stored - int(TIME_BIAS)


def _place(dtypes: list[DType], start: int) -> tuple[dict[int, int], int]:
    """Offsets of the fixed-width fields by index, and the end of the segment. Fields of one width lie together, so that
    the columns of one numpy type are one block that is copied at once."""
    fixed = [(i, dtype) for i, dtype in enumerate(dtypes) if dtype.width is not None]
    offsets: dict[int, int] = {}
    for i, dtype in sorted(fixed, key=lambda item: -item[1].numpy.itemsize):
        offsets[i] = start
        start += dtype.width or 0
    return offsets, start


def _text(group: RowGroupPlan) -> str:
    return f"{group.name} {group.generation}: {'; '.join(_segment_text(segment) for segment in group.segments)}"


def _segment_text(segment: SegmentPlan) -> str:
    fields = ", ".join(f"{field.name} {field.dtype}" for field in segment.fields)
    return f"{segment.view}{'' if segment.created else ' by event time'}({fields})"
