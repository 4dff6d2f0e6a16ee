"""Spans of event time, as readers leave out rows by them."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds

from feature_store.arrow.conversions import TO_MICROSECONDS
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, from_microseconds

_DAY_US = 86_400_000_000


class TimeRange(NamedTuple):
    """Event times `[start_us, end_us)`, microseconds since 1970, of a column.

    A reader that is given a range may leave out rows whose time is outside. It must not leave out rows whose time is
    null, nor rows of a column that holds no times: the check of rows sets them aside with the reason.
    """

    column: str
    start_us: int
    end_us: int

    def filter(self, field: pa.Field) -> Any:
        """An expression for the rows to read, or None for all of them.

        Args:
            field: the column, as the data have it.
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
    """A time in a column's own unit, rounded outward: the check of rows compares exactly."""
    if pa.types.is_date(wanted):
        day = min(time_us + (_DAY_US - 1 if up else 0), MAX_TIMESTAMP_US)
        return pa.scalar(from_microseconds(day).date(), wanted)
    times, parts = TO_MICROSECONDS[wanted.unit]
    raw = (-(-time_us // times) if up else time_us // times) * parts
    return pa.scalar(max(min(raw, (1 << 63) - 1), -(1 << 63)), wanted)
