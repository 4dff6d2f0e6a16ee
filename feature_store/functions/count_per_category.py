"""count_per_category: the number of values of each category of a given list."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from feature_store.functions._arrays import Column, StateArrays, Values, WindowMask, sizes_of
from feature_store.functions._contract import MOST_COUNTED, ColumnType, Function, Part, State, StateSpec
from feature_store.functions._parameters import Options, Parameter, checked
from feature_store.functions._sorted_values import SortedValues

MOST_CATEGORIES, _MOST_CHARACTERS = 64, 100


def _categories(value: Any) -> list[Any]:
    """A list of different texts, integers or booleans, all of one type."""
    listed = [item.item() if isinstance(item, np.generic) else item for item in value]
    kinds = {type(item) for item in listed}
    fits = len(kinds) == 1 and kinds <= {str, int, bool} and len(set(listed)) == len(listed) <= MOST_CATEGORIES
    if isinstance(value, (str, bytes)) or not fits:
        raise ValueError
    if any(isinstance(item, str) and len(item) > _MOST_CHARACTERS for item in listed):
        raise ValueError
    if any(isinstance(item, int) and not -(2**63) <= item < 2**63 for item in listed):
        raise ValueError
    return listed


CATEGORIES = Parameter(
    f"1 to {MOST_CATEGORIES} different texts of at most {_MOST_CHARACTERS} characters, integers or booleans",
    _categories,
)


class CategoryCounts(State):
    """A count of each category: 4 bytes each. Counts stop at 2**32 - 1."""

    kind = "category_counts"
    lua = """
  local format = '<' .. string.rep('I4', #a[i] / 4)
  local counts, more = { unpack_bytes(format, a[i]) }, { unpack_bytes(format, b[i]) }
  counts[#counts] = nil -- the place after the last byte
  for k = 1, #counts do
    local sum = counts[k] + more[k]
    counts[k] = sum < 4294967295 and sum or 4294967295
  end
  a[i] = pack_bytes(format, unpack(counts))
"""

    def __init__(self, part: Part, column: ColumnType) -> None:
        super().__init__(part, column)
        self._categories = tuple(checked({"categories": CATEGORIES}, self.options)["categories"])

    @property
    def fields(self) -> dict[str, Any]:
        """The counts."""
        return {"": ("<u4", (len(self._categories),))}

    @property
    def struct(self) -> str:
        """The bytes of the counts."""
        return f"c{4 * len(self._categories)}"

    @property
    def reads(self) -> Hashable:
        """The column and the categories."""
        return self.part.column, self._categories

    def take(self, columns: Mapping[str, Values]) -> Values:
        """The index of each event's category. Events of other categories have no value."""
        return places_of(self._categories, *columns[self.part.column])

    def update(self, values: Column, at: Column, starts: Column) -> StateArrays:
        """The counts of groups."""
        count = len(self._categories)
        group = np.repeat(np.arange(len(starts)), sizes_of(starts, len(values)))
        counts = np.bincount(group * count + values, minlength=len(starts) * count)
        return {"": np.minimum(counts, MOST_COUNTED).reshape(len(starts), count)}

    def merge(self, a: StateArrays, b: StateArrays) -> StateArrays:
        """Sums."""
        return {"": np.minimum(a[""].astype(np.int64) + b[""], MOST_COUNTED)}

    def fold(self, states: StateArrays, window: WindowMask) -> StateArrays:
        """Sums, which do not stop at 2**32 - 1."""
        return {"": np.where(window.mask[:, :, None], states[""], 0).sum(axis=1, dtype=np.int64)}

    def of_ranges(self, events: SortedValues, starts: Column, ends: Column) -> StateArrays:
        """Differences of running counts."""
        counts = np.empty((len(starts), len(self._categories)), np.int64)
        for place in range(len(self._categories)):
            running = np.concatenate([[0], np.cumsum(events.values == place)])
            counts[:, place] = running[ends] - running[starts]
        return {"": counts}


class CountPerCategory(Function):
    """See `summary`."""

    name = "count_per_category"
    summary = "the number of values of each given category, in the given order"
    notes = (
        "Exact. Values of other categories are not counted. All 0 without a value. An array of fixed length: "
        "in a matrix it takes a column for each category."
    )
    takes = "categories"
    parameters: ClassVar[Mapping[str, Parameter]] = {"categories": CATEGORIES}

    def states(self, options: Options) -> tuple[StateSpec, ...]:
        """A count of each category."""
        return (StateSpec("category_counts", options={"categories": options["categories"]}),)

    def dtype(self, column: str, options: Options) -> str:
        """An array of counts."""
        return f"Array(Int64, {len(options['categories'])})"

    def empty(self, options: Options) -> list[int]:
        """Zeros."""
        return [0] * len(options["categories"])

    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """(n, categories) counts; none is null."""
        counts = states[0][""].astype(np.int64)
        return counts, np.zeros(len(counts), bool)


def places_of(categories: tuple[Any, ...], values: Column, nulls: Column) -> Values:
    """(n,) intp, the index of each value's category, and (n,) bool, True for a value that has a category."""
    index = {category: place for place, category in enumerate(categories)}
    places = np.fromiter((index.get(value, -1) for value in values.tolist()), np.intp, len(values))
    return places, (places >= 0) & ~nulls
