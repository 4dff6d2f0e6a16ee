"""Rows of one view as columns of numpy arrays. Engines produce them, and the codec encodes them for Redis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from feature_store.functions import Column


class Values(NamedTuple):
    """A column of one field.

    Attributes:
        values: (n,) of the field's numpy dtype; (n, length) for fixed-size arrays; object (str, list or 1-d array per
            row) for types without fixed width. Values are undefined where `nulls` is True.
        nulls: (n,) bool, True where there is no value; None when every row has a value.
    """

    values: Column
    nulls: Column | None = None


@dataclass(frozen=True, slots=True)
class RowBatch:
    """n checked rows of one view: no key or time is null, and every value has its declared type.

    Attributes:
        keys: per join key (n,): int32/int64, or object of str.
        event_ts: (n,) int64, microseconds since 1970.
        created_ts: (n,) int64, microseconds since 1970.
        columns: per field of the view.
    """

    keys: dict[str, Column]
    event_ts: Column
    created_ts: Column
    columns: dict[str, Values]

    def __len__(self) -> int:
        return len(self.event_ts)

    def slice(self, start: int, stop: int) -> RowBatch:
        """Rows `[start, stop)`, without copying."""
        cut = slice(start, stop)
        return RowBatch(
            keys={name: column[cut] for name, column in self.keys.items()},
            event_ts=self.event_ts[cut],
            created_ts=self.created_ts[cut],
            columns={
                name: Values(values[cut], None if nulls is None else nulls[cut])
                for name, (values, nulls) in self.columns.items()
            },
        )
