"""States of ranges of sorted values: the windows at the times of labels.

A state without a faster way is computed by a segment tree of merged states (de Berg et al., Computational Geometry,
10.3). The tree answers any range in O(log length), for all ranges at once. Differences of prefix sums would be faster
for sums, but they cancel digits and spread NaN.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from feature_store.functions._arrays import Column, StateArrays
from feature_store.functions._contract import State
from feature_store.functions._order import starts_of
from feature_store.functions._sorted_values import SortedValues

# Pairs of ranges and values that are computed together: about 100 MB.
PAIRS = 1 << 21
# The mean length of ranges up to which values are reduced one by one, at 1 ns each. A tree takes 130 ns for each range,
# and 40 ns for each value to build.
SHORT = 100


class RangeStates:
    """States of ranges of sorted values. The tree of a state is built once.

    Attributes:
        events: the values.
    """

    def __init__(self, events: SortedValues) -> None:
        self.events = events
        self._trees: dict[State, _Tree] = {}

    def states(self, state: State, starts: Column, ends: Column) -> StateArrays:
        """The states of m ranges.

        Args:
            state: the kind of state.
            starts, ends: (m,) bounds among the values. Ranges may overlap and may be empty.
        """
        states = state.of_ranges(self.events, starts, ends)
        if states is None and (ends - starts).sum() <= SHORT * len(starts):
            states = state.of_short_ranges(self.events, starts, ends)
        return self._merged(state, starts, ends) if states is None else states

    def _merged(self, state: State, starts: Column, ends: Column) -> StateArrays:
        values, at = self.events.values, self.events.at
        if state not in self._trees:
            self._trees[state] = _Tree(state, values, at)
        tree = self._trees[state]
        if state.leaf == 1:
            return tree.states(starts, ends)
        # The tree merges the whole leaves of a range. The values before and after them are merged one by one.
        first, last = -(-starts // state.leaf), ends // state.leaf
        whole = first < last
        inner = tree.states(np.where(whole, first, 0), np.where(whole, last, 0))
        before = updated(state, starts, np.where(whole, first * state.leaf, ends), values, at)
        after = updated(state, np.where(whole, last * state.leaf, ends), ends, values, at)
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
    """The states of ranges, value by value.

    Args:
        state: the kind of state.
        starts, ends: (m,) bounds among the values.
        values, at: (n,) values and times, as `State.update` takes them.
        known, by: (n,) and (m,) times. If given, only values with `known` at most the range's `by` count.
    """
    states = state.zero(len(starts))
    for ranges, places in pairs(starts, ends):
        if known is not None and by is not None:
            is_known = known[places] <= by[ranges]
            ranges, places = ranges[is_known], places[is_known]
        first = starts_of(ranges)
        if len(first):
            for name, some in state.update(values[places], at[places], first).items():
                states[name][ranges[first]] = some
    return states


def reduced(function: np.ufunc, nothing: float, values: Column, starts: Column, ends: Column) -> Column:
    """Ranges of values reduced by a ufunc: (m,) float64.

    Args:
        function: np.add, np.minimum, …
        nothing: the result of an empty range.
        values: the values and one more value, which is in no range: `SortedValues.and_one_more`.
        starts, ends: (m,) bounds of ranges.
    """
    # Values between two ranges are reduced too, and the result is dropped.
    bounds = np.stack([starts, ends], axis=1).ravel()
    results: Column = function.reduceat(values.astype(np.float64, copy=False), bounds)[::2]
    return np.where(starts < ends, results, nothing)


def pairs(starts: Column, ends: Column) -> Iterator[tuple[Column, Column]]:
    """Every range with every index in it, some ranges at a time: arrays (ranges, indexes) of equal length."""
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
            # A node at the end of a range without its sibling is merged here; the rest are whole nodes one level up.
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
