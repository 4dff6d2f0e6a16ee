"""min and max: the smallest and the greatest value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from feature_store.functions._arrays import Column, StateArrays, Values, WindowMask
from feature_store.functions._contract import Function, State
from feature_store.functions._parameters import Options
from feature_store.functions._ranges import reduced
from feature_store.functions._sorted_values import SortedValues


class _Extreme(State):
    """The smallest or greatest value of a tile: 8 bytes. A count beside it tells an infinite value from no value."""

    choose: ClassVar[np.ufunc]
    nothing: ClassVar[float]
    struct = "d"

    @property
    def fields(self) -> dict[str, Any]:
        """The value."""
        return {"": "<f8"}

    def zero(self, count: int) -> StateArrays:
        """The extreme of no values, which is infinite."""
        return {"": np.full(count, self.nothing)}

    def update(self, values: Column, at: Column, starts: Column) -> StateArrays:
        """The extremes of groups."""
        return {"": self.choose.reduceat(values.astype(np.float64), starts)}

    def merge(self, a: StateArrays, b: StateArrays) -> StateArrays:
        """The extreme of two extremes."""
        return {"": self.choose(a[""], b[""])}

    def fold(self, states: StateArrays, window: WindowMask) -> StateArrays:
        """The extremes of windows."""
        return {"": self.choose.reduce(window.chosen(states[""], self.nothing), axis=0)}

    def of_short_ranges(self, events: SortedValues, starts: Column, ends: Column) -> StateArrays:
        """The extremes of ranges."""
        return {"": reduced(self.choose, self.nothing, events.and_one_more, starts, ends)}


class Least(_Extreme):
    """See _Extreme."""

    kind = "min"
    choose = np.minimum
    nothing = np.inf
    lua = """
  if b[i] < a[i] then
    a[i] = b[i]
  end
"""


class Greatest(_Extreme):
    """See _Extreme."""

    kind = "max"
    choose = np.maximum
    nothing = -np.inf
    lua = """
  if b[i] > a[i] then
    a[i] = b[i]
  end
"""


class _Extremum(Function):
    notes = "Null without a value."
    takes = "numbers"

    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """The extremes; null without a value."""
        count, extreme = states
        return extreme[""], count[""] == 0


class Min(_Extremum):
    """See `summary`."""

    name = "min"
    summary = "the least value"
    kinds = ("count", "min")


class Max(_Extremum):
    """See `summary`."""

    name = "max"
    summary = "the greatest value"
    kinds = ("count", "max")
