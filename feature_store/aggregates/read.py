"""Stored tiles → the values of windows at a time, for many entities at once.

A window at `now` holds the tiles from `(now - window) // hop` to `now // hop`. A slot that holds an older tile has
another number and is left out, so windows slide on when no event comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from feature_store.aggregates.parts import ALGEBRA, finalize
from feature_store.aggregates.tiles import state_of
from feature_store.definitions.dtypes import DType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.aggregates.parts import Column, Mask, State
    from feature_store.aggregates.tiles import TilesLayout
    from feature_store.aggregates.windows import Part, Window


def read(layout: TilesLayout, values: Column, now_us: int, features: Sequence[str]) -> dict[str, tuple[Column, Mask]]:
    """The values of features at a time.

    Args:
        layout: of the state.
        values: (n, layout.value.itemsize) uint8; a view of a larger buffer will do.
        now_us: microseconds since 1970.
        features: names of windows of the layout.

    Returns:
        Per feature (n,) values of its numpy dtype, objects (1-d arrays) for last_n, and (n,) bool: which are null.
    """
    wanted, found = set(features), {}
    spans: dict[tuple[int, int], _Span] = {}  # functions of one window share what they are finalized from
    with np.errstate(all="ignore"):  # of stale tiles anything can come; it is left out
        for window in layout.windows.features:
            if window.name in wanted:
                key = window.ring, window.window_us
                span = spans.get(key) or spans.setdefault(key, _Span(layout, values, window, now_us))
                states = [span.state(place) for place in window.parts]
                found[window.name] = finalize(window.function, DType.parse(window.dtype), states)
    return found


class _Span:
    """The tiles of one ring that one window holds at a time."""

    def __init__(self, layout: TilesLayout, values: Column, window: Window, now_us: int) -> None:
        self._parts = layout.windows.rings[window.ring].parts
        first, last = window.tiles(layout.windows.rings[window.ring].hop_us, now_us)
        self._slots, self._head = layout.slots_in(values, window.ring), layout.head_in(values, window.ring)
        self._held_slots = _within(self._slots["number"], first, last)
        self._held_head = _within(self._head["number"], first, last)
        self._states: dict[int, State] = {}

    def state(self, place: int) -> State:
        """A part's states: its slots folded, then the head merged in."""
        if place not in self._states:
            part: Part = self._parts[place]
            algebra = ALGEBRA[part.kind]
            past = algebra.fold(part, state_of(self._slots, place, part), self._held_slots)
            newest = algebra.fold(part, state_of(self._head, place, part), self._held_head)
            self._states[place] = algebra.merge(part, past, newest)
        return self._states[place]


def _within(numbers: Column, first: int, last: int) -> Mask:
    """Which tiles are in `[first, last]`; stored numbers are one greater, and 0 is no tile."""
    # Unsigned, what is below the first wraps around to far above: one comparison instead of two.
    within: Mask = numbers - np.uint32((max(first, 0) + 1) & 0xFFFFFFFF) <= np.uint32(max(last - max(first, 0), 0))
    return within
