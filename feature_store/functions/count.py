"""count: the number of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from feature_store.functions._arrays import Column, StateArrays, Values, WindowMask, sizes_of
from feature_store.functions._contract import MOST_COUNTED, Function, State
from feature_store.functions._parameters import Options
from feature_store.functions._sorted_values import SortedValues


class Count(State):
    """The number of values of a tile: 4 bytes. The count stops at 2**32 - 1."""

    kind = "count"
    struct = "I4"
    lua = """
  local sum = a[i] + b[i]
  a[i] = sum < 4294967295 and sum or 4294967295
"""

    @property
    def fields(self) -> dict[str, Any]:
        """The count."""
        return {"": "<u4"}

    def update(self, values: Column, at: Column, starts: Column) -> StateArrays:
        """The sizes of groups."""
        return {"": np.minimum(sizes_of(starts, len(values)), MOST_COUNTED)}

    def merge(self, a: StateArrays, b: StateArrays) -> StateArrays:
        """Sums."""
        return {"": np.minimum(a[""].astype(np.int64) + b[""], MOST_COUNTED)}

    def fold(self, states: StateArrays, window: WindowMask) -> StateArrays:
        """Sums, which do not stop at 2**32 - 1."""
        return {"": np.vecdot(states[""], window.weights)}

    def of_ranges(self, events: SortedValues, starts: Column, ends: Column) -> StateArrays:
        """The sizes of ranges."""
        return {"": ends - starts}


class CountFunction(Function):
    """See `summary`."""

    name = "count"
    summary = "the number of values"
    notes = "A tile counts up to 2**32 - 1, and so does a lifetime; any other window is the sum of its tiles."
    kinds = ("count",)
    result = "Int64"
    default = 0

    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """The counts; none is null."""
        values = states[0][""].astype(np.int64)
        return values, np.zeros(len(values), bool)
