"""sum_per_category: the sum of the values of each category of a given list. Another column has the category."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from feature_store.functions._arrays import Column, StateArrays, Values, WindowMask, sizes_of, values_of
from feature_store.functions._contract import ColumnType, Function, Part, State, StateSpec
from feature_store.functions._parameters import Options, Parameter, checked
from feature_store.functions._ranges import RangeStates
from feature_store.functions._sorted_values import SortedValues
from feature_store.functions.count_per_category import CATEGORIES, places_of
from feature_store.functions.sum import Sum


def _column(value: Any) -> str:
    if not isinstance(value, str) or not value.isidentifier():
        raise ValueError
    return value


_PARAMETERS = {
    "by": Parameter("a column of the events: texts, integers or booleans", _column, is_column=True),
    "categories": CATEGORIES,
}
_VALUE = np.dtype([("value", "<f8"), ("place", np.intp)])


class CategorySums(State):
    """A sum of each category: 8 bytes each."""

    kind = "category_sums"
    is_exact = False
    lua = """
  local format = '<' .. string.rep('d', #a[i] / 8)
  local sums, more = { unpack_bytes(format, a[i]) }, { unpack_bytes(format, b[i]) }
  sums[#sums] = nil -- the place after the last byte
  for k = 1, #sums do
    sums[k] = sums[k] + more[k]
  end
  a[i] = pack_bytes(format, unpack(sums))
"""

    def __init__(self, part: Part, column: ColumnType) -> None:
        super().__init__(part, column)
        options = checked(_PARAMETERS, self.options)
        self._by, self._categories = options["by"], tuple(options["categories"])
        self._sum = Sum(Part("sum", part.column, part.dtype), column)

    @property
    def fields(self) -> dict[str, Any]:
        """The sums."""
        return {"": ("<f8", (len(self._categories),))}

    @property
    def struct(self) -> str:
        """The bytes of the sums."""
        return f"c{8 * len(self._categories)}"

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of values and the column of categories."""
        return self.part.column, self._by

    @property
    def reads(self) -> Hashable:
        """Both columns and the categories."""
        return self.part.column, self._by, self._categories

    def take(self, columns: Mapping[str, Values]) -> Values:
        """The value and the index of its category. Events of other categories have no value."""
        values, are_values = values_of(*columns[self.part.column])
        places, have_places = places_of(self._categories, *columns[self._by])
        taken = np.empty(len(values), _VALUE)
        taken["value"], taken["place"] = values, places
        return taken, are_values & have_places

    def update(self, values: Column, at: Column, starts: Column) -> StateArrays:
        """The sums of groups."""
        count = len(self._categories)
        group = np.repeat(np.arange(len(starts)), sizes_of(starts, len(values)))
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.bincount(group * count + values["place"], values["value"], len(starts) * count)
        return {"": sums.reshape(len(starts), count)}

    def merge(self, a: StateArrays, b: StateArrays) -> StateArrays:
        """Sums."""
        with np.errstate(over="ignore", invalid="ignore"):
            return {"": a[""] + b[""]}

    def fold(self, states: StateArrays, window: WindowMask) -> StateArrays:
        """Sums."""
        return {"": np.where(window.mask[:, :, None], states[""], 0.0).sum(axis=1)}

    def of_ranges(self, events: SortedValues, starts: Column, ends: Column) -> StateArrays:
        """The sums of ranges, category by category."""
        sums = np.empty((len(starts), len(self._categories)))
        for place in range(len(self._categories)):
            own = events.where(events.values["place"] == place, np.ascontiguousarray(events.values["value"]))
            sums[:, place] = RangeStates(own).states(self._sum, own.bound(starts), own.bound(ends))[""]
        return {"": sums}


class SumPerCategory(Function):
    """See `summary`."""

    name = "sum_per_category"
    summary = "the sum of the values of each category of the column `by`, in the order of `categories`"
    notes = (
        "Exact but for rounding, as `sum`. Values of other categories, or without one, count nowhere. All 0 without a "
        "value. An array of fixed length: in a matrix it takes a column for each category."
    )
    takes = "numbers"
    parameters: ClassVar[Mapping[str, Parameter]] = _PARAMETERS

    def states(self, options: Options) -> tuple[StateSpec, ...]:
        """A sum of each category."""
        return (StateSpec("category_sums", options=options),)

    def dtype(self, column: str, options: Options) -> str:
        """An array of sums."""
        return f"Array(Float64, {len(options['categories'])})"

    def empty(self, options: Options) -> list[float]:
        """Zeros."""
        return [0.0] * len(options["categories"])

    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """(n, categories) sums; none is null."""
        sums = states[0][""]
        return sums, np.zeros(len(sums), bool)
