"""sum: the sum of the values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from feature_store.functions._arrays import Column, StateArrays, Values, WindowMask
from feature_store.functions._contract import Function, State
from feature_store.functions._parameters import Options
from feature_store.functions._ranges import reduced
from feature_store.functions._sorted_values import SortedValues


class Sum(State):
    """The sum of a tile's values: 8 bytes."""

    kind = "sum"
    is_exact = False
    struct = "d"
    lua = """
  a[i] = a[i] + b[i]
"""

    @property
    def fields(self) -> dict[str, Any]:
        """The sum."""
        return {"": "<f8"}

    def update(self, values: Column, at: Column, starts: Column) -> StateArrays:
        """The sums of groups."""
        with np.errstate(over="ignore", invalid="ignore"):
            return {"": np.add.reduceat(values.astype(np.float64), starts)}

    def merge(self, a: StateArrays, b: StateArrays) -> StateArrays:
        """Sums."""
        with np.errstate(over="ignore", invalid="ignore"):
            return {"": a[""] + b[""]}

    def fold(self, states: StateArrays, window: WindowMask) -> StateArrays:
        """Sums."""
        return {"": sum_of_tiles(states[""], window)}

    def of_short_ranges(self, events: SortedValues, starts: Column, ends: Column) -> StateArrays:
        """The sums of ranges."""
        with np.errstate(over="ignore", invalid="ignore"):
            return {"": reduced(np.add, 0.0, events.and_one_more, starts, ends)}


class SumFunction(Function):
    """See `summary`."""

    name = "sum"
    summary = "the sum of the values"
    notes = "Integers beyond 2**53 are rounded. A sum of nothing is 0. The sum of inf and -inf is NaN."
    takes = "numbers"
    kinds = ("sum",)
    default = 0

    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """The sums; none is null."""
        values = states[0][""]
        return values, np.zeros(len(values), bool)


def sum_of_tiles(values: Column, window: WindowMask) -> Column:
    """(n, k) numbers of tiles, summed along k where the tile lies in the window."""
    # 17 µs for 200 entities × 50 tiles, where where() and sum() take 40 µs.
    total: Column = np.vecdot(values, window.weights)
    if not np.isfinite(total).all():  # a tile outside the window may be infinite, and 0 × inf is NaN
        total = np.where(window.mask, values, 0.0).sum(axis=1)
    return total
