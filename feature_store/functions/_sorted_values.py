"""Values of one column, sorted by entity and time. In this order, windows are ranges."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from feature_store.functions._arrays import Column, Mask
from feature_store.functions._order import starts_of, with_ties


class SortedValues:
    """Values of one column that pass a filter, sorted by entity and time.

    Args:
        values: (n,) the values of all events.
        at: (n,) int64, the events' times, microseconds since 1970.
        held: (n,) bool, True for an event that has a value and passes the filter.
        keys: (n,) int64, equal for events of one entity and time.

    Attributes:
        places: the indexes of these m values among all n events.
        values: (m,) the values as the state takes them.
        at: (m,) int64, the times of their events, microseconds since 1970.
    """

    def __init__(self, values: Column, at: Column, held: Mask, keys: Column) -> None:
        all_held = held.all()
        self.places = slice(None) if all_held else np.flatnonzero(held)  # a slice copies nothing
        self.values, self.at, self._keys = values[self.places], at[self.places], keys[self.places]
        self._before = None if all_held else np.concatenate([[0], np.cumsum(held)])

    def bound(self, places: Column) -> Column:
        """Bounds of ranges among all events as bounds among these values."""
        return places if self._before is None else self._before[places]

    def where(self, chosen: Mask, values: Column | None = None) -> SortedValues:
        """Some of these values. Their `bound` takes bounds among these values."""
        return SortedValues(self.values if values is None else values, self.at, chosen, self._keys)

    @cached_property
    def and_one_more(self) -> Column:
        """(m + 1,) the values and one more value, in no range: `reduceat` needs an index after each range."""
        return np.append(self.values, np.zeros(1, self.values.dtype))

    @cached_property
    def in_order(self) -> tuple[Column, Column]:
        """(m,) values and times. Values of equal times are sorted by their bytes."""
        order = with_ties(self.values, self._keys, starts_of(self._keys)[:1])
        return self.values[order], self.at[order]
