"""States of ranges of sorted values: how windows are computed at the times of labels.

A state that knows no faster way is computed by a segment tree of merged states (de Berg et al., Computational
Geometry, 10.3), which answers any range in O(log length), for all ranges at once. Differences of prefix sums would be
faster for sums, but they cancel digits and spread NaN.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from feature_store.functions._order import starts_of, with_ties

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store.functions._contract import Column, Mask, State, StateArrays

# Pairs of ranges and values that are looked at together: some 100 MB.
PAIRS = 1 << 21
# Values per range up to which they are taken one by one, at 1 ns each; a tree takes 130 ns a range, and 40 ns a value
# to build.
SHORT = 100


class SortedValues:
    """Values of one column and filter, sorted by entity and time.

    Attributes:
        places: where they are among all events: an index of an array of these.
        values: (n,), as the state takes them.
        at: (n,) int64, the events' times, microseconds since 1970.
    """

    def __init__(self, values: Column, at: Column, held: Mask, keys: Column) -> None:
        """Those of `values` where `held`; `keys` are the same for events of one entity and time."""
        all_held = held.all()
        self.places = slice(None) if all_held else np.flatnonzero(held)  # a slice copies nothing
        self.values, self.at, self._keys = values[self.places], at[self.places], keys[self.places]
        self._before = None if all_held else np.concatenate([[0], np.cumsum(held)])
        self._trees: dict[State, _Tree] = {}

    def bound(self, places: Column) -> Column:
        """Bounds of ranges of all events as bounds of ranges of these."""
        return places if self._before is None else self._before[places]

    def where(self, chosen: Mask, values: Column | None = None) -> SortedValues:
        """Some of the values. Their bounds are those of these values."""
        return SortedValues(self.values if values is None else values, self.at, chosen, self._keys)

    def states(self, state: State, starts: Column, ends: Column) -> StateArrays:
        """The states of m ranges."""
        found = state.of_ranges(self, starts, ends)
        if found is None and (ends - starts).sum() <= SHORT * len(starts):
            found = state.of_short_ranges(self, starts, ends)
        return self._merged(state, starts, ends) if found is None else found

    @cached_property
    def and_one_more(self) -> Column:
        """The values and one more that is in no range: `reduceat` needs an end to each."""
        return np.append(self.values, np.zeros(1, self.values.dtype))

    @cached_property
    def in_order(self) -> tuple[Column, Column]:
        """Values and times, those of equal times by the values' bytes."""
        order = with_ties(self.values, self._keys, starts_of(self._keys)[:1])
        return self.values[order], self.at[order]

    def one_by_one(self, state: State, starts: Column, ends: Column) -> StateArrays:
        """The states of ranges, each value of each range taken by itself."""
        return updated(state, starts, ends, self.values, self.at)

    def _merged(self, state: State, starts: Column, ends: Column) -> StateArrays:
        if state not in self._trees:
            self._trees[state] = _Tree(state, self.values, self.at)
        tree = self._trees[state]
        if state.leaf == 1:
            return tree.states(starts, ends)
        # The whole leaves of a range by the tree, the values before and after them one by one.
        first, last = -(-starts // state.leaf), ends // state.leaf
        whole = first < last
        inner = tree.states(np.where(whole, first, 0), np.where(whole, last, 0))
        before = self.one_by_one(state, starts, np.where(whole, first * state.leaf, ends))
        after = self.one_by_one(state, np.where(whole, last * state.leaf, ends), ends)
        return state.merge(state.merge(before, inner), after)


def updated(
    state: State,
    starts: Column,
    ends: Column,
    values: Column,
    at: Column,
    known: Column | None = None,
    by: Column | None = None,
) -> StateArrays:
    """The states of ranges, value by value; with `known`, of the values with `known` at most the range's `by`."""
    found = state.zero(len(starts))
    for ranges, places in pairs(starts, ends):
        if known is not None and by is not None:
            is_known = known[places] <= by[ranges]
            ranges, places = ranges[is_known], places[is_known]
        first = starts_of(ranges)
        if len(first):
            for name, some in state.update(values[places], at[places], first).items():
                found[name][ranges[first]] = some
    return found


def reduced(function: np.ufunc, nothing: float, values: Column, starts: Column, ends: Column) -> Column:
    """Ranges of values reduced by a ufunc; `nothing` is the result of an empty one.

    Args:
        function: add, minimum, …
        nothing: as above.
        values: and one more, which is in no range.
        starts, ends: of each range.
    """
    # What lies between two ranges is reduced too, and thrown away.
    bounds = np.stack([starts, ends], axis=1).ravel()
    found: Column = function.reduceat(values.astype(np.float64, copy=False), bounds)[::2]
    return np.where(starts < ends, found, nothing)


def pairs(starts: Column, ends: Column) -> Iterator[tuple[Column, Column]]:
    """Every range with every place in it, some ranges at a time: (ranges, places)."""
    sizes = ends - starts
    total = np.cumsum(sizes)
    first = 0
    while first < len(starts):
        reached = total[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(total, reached + PAIRS, side="right")))
        some = sizes[first:last]
        ranges = np.repeat(np.arange(first, last), some)
        offsets = np.arange(len(ranges)) - np.repeat(np.cumsum(some) - some, some)
        yield ranges, np.repeat(starts[first:last], some) + offsets
        first = last


class _Tree:
    """A segment tree over values: node i of a level is the state of 2**level leaves."""

    def __init__(self, state: State, values: Column, at: Column) -> None:
        self._state = state
        leaves = state.update(values, at, np.arange(0, len(values), state.leaf)) if len(values) else None
        self._levels = [leaves or state.zero(0)]
        while _length(self._levels[-1]) > 1:
            below = self._levels[-1]
            even = {name: column[: len(column) // 2 * 2 : 2] for name, column in below.items()}
            odd = {name: column[1::2] for name, column in below.items()}
            self._levels.append(state.merge(even, odd))

    def states(self, starts: Column, ends: Column) -> StateArrays:
        """The states of ranges of leaves."""
        state = self._state.zero(len(starts))
        open_ = np.flatnonzero(starts < ends)
        low, high = starts[open_], ends[open_]
        for level in self._levels:
            # A node that ends a range and has no partner in it is taken; what is left are whole nodes one level up.
            for is_taken, nodes in ((low & 1 == 1, low), ((high & 1 == 1) & (high - (low & 1) > low), high - 1)):
                self._add(state, open_[is_taken], level, nodes[is_taken])
            low, high = (low + 1) >> 1, high >> 1
            going_on = low < high
            open_, low, high = open_[going_on], low[going_on], high[going_on]
            if not len(open_):
                break
        return state

    def _add(self, state: StateArrays, ranges: Column, level: StateArrays, nodes: Column) -> None:
        if not len(ranges):
            return
        own = {name: column[ranges] for name, column in state.items()}
        other = {name: column[nodes] for name, column in level.items()}
        for name, merged in self._state.merge(own, other).items():
            state[name][ranges] = merged


def _length(state: StateArrays) -> int:
    return len(next(iter(state.values())))
