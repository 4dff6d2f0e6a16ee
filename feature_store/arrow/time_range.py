"""Ranges of event time, which let readers leave out rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds

from feature_store.arrow.conversions import TO_MICROSECONDS
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, from_microseconds

_DAY_US = 86_400_000_000


class TimeRange(NamedTuple):
    """Event times `[start_us, end_us)` of a column, microseconds since 1970.

    A reader may leave out rows whose time is outside the range. It must keep rows whose time is null, and all rows if
    the column does not hold times: the check of rows puts them into quarantine.
    """

    column: str
    start_us: int
    end_us: int

    def filter(self, field: pa.Field) -> Any:
        """An expression for the rows to read, or None for all of them.

        Args:
            field: the column in the data.
        """
        column = ds.field(field.name)
        if not (pa.types.is_timestamp(field.type) or pa.types.is_date(field.type)):
            return None
        inside: Any = None
        if self.start_us > MIN_TIMESTAMP_US:
            inside = column >= _bound(self.start_us, field.type)
        if self.end_us <= MAX_TIMESTAMP_US:
            below = column < _bound(self.end_us, field.type, up=True)
            inside = below if inside is None else inside & below
        return None if inside is None else inside | column.is_null()


def _bound(time_us: int, wanted: pa.DataType, *, up: bool = False) -> pa.Scalar:
    """A time in a column's unit, rounded outward. The check of rows later compares exactly."""
    if pa.types.is_date(wanted):
        day = min(time_us + (_DAY_US - 1 if up else 0), MAX_TIMESTAMP_US)
        return pa.scalar(from_microseconds(day).date(), wanted)
    times, parts = TO_MICROSECONDS[wanted.unit]
    raw = (-(-time_us // times) if up else time_us // times) * parts
    return pa.scalar(max(min(raw, (1 << 63) - 1), -(1 << 63)), wanted)
