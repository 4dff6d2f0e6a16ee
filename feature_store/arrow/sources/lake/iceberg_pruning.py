"""Finds which data files of an Iceberg table may hold rows in a range of times, by their partitions and statistics.

It takes the projection of ranges to partitions from pyiceberg, but not its scan planning: pyiceberg 0.12 fails to plan
a range of times if a partition by a transform of the time is null.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

from pyiceberg.expressions import And, GreaterThanOrEqual, IsNull, LessThan, Or, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.expressions.visitors import expression_evaluator, inclusive_projection
from pyiceberg.schema import Schema
from pyiceberg.types import DateType, TimestampType, TimestamptzType

from feature_store.arrow.time_range import TimeRange

_DAY_US = 86_400_000_000
# Type of times -> (microseconds of a unit, bytes of a bound in the statistics).
_UNITS: dict[Any, tuple[int, int]] = {DateType: (_DAY_US, 4), TimestampType: (1, 8), TimestamptzType: (1, 8)}


class Within(NamedTuple):
    """A range of times of a column.

    Attributes:
        field_id: the field id of the column.
        start, end: the range `[start, end)` in units of the column, rounded outward.
        bound_bytes: the bytes of a bound in the statistics of the column's type.
        partitions: for each partition spec, whether a partition may hold rows in the range.
    """

    field_id: int
    start: int
    end: int
    bound_bytes: int
    partitions: dict[int, Callable[[Any], bool]]

    @classmethod
    def of(cls, times: TimeRange, table: Any, schema: Any) -> Self | None:
        """A range of times of a table. None: the column does not hold times, so all files may hold rows.

        Args:
            times: the range.
            table: the table.
            schema: the schema of its rows.
        """
        field = schema.find_field(times.column)
        if type(field.field_type) not in _UNITS:
            return None
        unit_us, bound_bytes = _UNITS[type(field.field_type)]
        limit = 1 << (8 * bound_bytes - 1)
        start = max(times.start_us // unit_us, -limit)
        end = min(-(-times.end_us // unit_us), limit - 1)
        column = Reference(times.column)
        inside = And(GreaterThanOrEqual(term=column, value=literal(start)), LessThan(term=column, value=literal(end)))
        wanted = Or(IsNull(term=column), inside)
        known = set(schema.field_ids)
        partitions = {
            number: _partitions(schema, spec, wanted)
            for number, spec in table.specs().items()
            if spec.fields and all(field.source_id in known for field in spec.fields)
        }
        return cls(field.field_id, start, end, bound_bytes, partitions)

    def may_hold(self, file: Any) -> bool:
        """Whether a data file may hold rows whose time is in the range or null."""
        in_partition = self.partitions.get(file.spec_id)
        if in_partition is not None and not in_partition(file.partition):
            return False
        if (file.null_value_counts or {}).get(self.field_id, 1):
            return True
        least, most = (self._bound(bounds) for bounds in (file.lower_bounds, file.upper_bounds))
        return least is None or most is None or (least < self.end and most >= self.start)

    def _bound(self, bounds: dict[int, bytes] | None) -> int | None:
        raw = (bounds or {}).get(self.field_id, b"")
        return int.from_bytes(raw, "little", signed=True) if len(raw) == self.bound_bytes else None


def _partitions(schema: Any, spec: Any, wanted: Any) -> Callable[[Any], bool]:
    projected = inclusive_projection(schema, spec)(wanted)
    return expression_evaluator(Schema(*spec.partition_type(schema).fields), projected, case_sensitive=True)
