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
    windows = [window for window in layout.windows.features if window.name in set(features)]
    parts: dict[tuple[int, int], set[int]] = {}  # functions of one window share what they are finalized from
    for window in windows:
        parts.setdefault((window.ring, window.window_us), set()).update(window.parts)
    found = {}
    with np.errstate(all="ignore"):  # of stale tiles anything can come; it is left out
        states = {key: _states(layout, values, *key, now_us, wanted) for key, wanted in parts.items()}
        for window in windows:
            of_window = [states[window.ring, window.window_us][place] for place in window.parts]
            found[window.name] = finalize(window.function, DType.parse(window.dtype), of_window)
    return found


def _states(
    layout: TilesLayout, values: Column, ring: int, window_us: int, now_us: int, parts: set[int]
) -> dict[int, State]:
    """The states of parts over a window of a ring.

    The copy of the tiles is given up before the next ring's is made: together they would be so large that the C library
    gives their memory back each time, at 0.4 ms of page faults.
    """
    plan = layout.windows.rings[ring]
    tiles = layout.tiles_in(values, ring)
    held = _within(tiles["number"], (now_us - window_us) // plan.hop_us, now_us // plan.hop_us)
    return {
        place: ALGEBRA[plan.parts[place].kind].fold(plan.parts[place], state_of(tiles, place, plan.parts[place]), held)
        for place in parts
    }


def _within(numbers: Column, first: int, last: int) -> Mask:
    """Which tiles are in `[first, last]`; stored numbers are one greater, and 0 is no tile."""
    # Unsigned, what is below the first wraps around to far above: one comparison instead of two.
    within: Mask = numbers - np.uint32((max(first, 0) + 1) & 0xFFFFFFFF) <= np.uint32(max(last - max(first, 0), 0))
    return within
