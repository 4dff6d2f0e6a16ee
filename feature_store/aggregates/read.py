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
        values: (n, layout.value.itemsize) uint8, C-contiguous.
        now_us: microseconds since 1970.
        features: names of windows of the layout.

    Returns:
        Per feature (n,) values of its numpy dtype, objects (1-d arrays) for last_n, and (n,) bool: which are null.
    """
    stored = values.view(layout.value)[:, 0]
    wanted = set(features)
    folded: dict[tuple[int, int, int], State] = {}  # by ring, window and part: a mean and a count share theirs
    found = {}
    for window in layout.windows.features:
        if window.name not in wanted:
            continue
        states = []
        for place in window.parts:
            key = (window.ring, window.window_us, place)
            if key not in folded:
                folded[key] = _folded(layout, stored, window, place, now_us)
            states.append(folded[key])
        found[window.name] = finalize(window.function, DType.parse(window.dtype), states)
    return found


def _folded(layout: TilesLayout, stored: Column, window: Window, place: int, now_us: int) -> State:
    """A part over a window: its slots folded, then the head merged in."""
    ring = layout.windows.rings[window.ring]
    part: Part = ring.parts[place]
    algebra = ALGEBRA[part.kind]
    slots, head = stored[f"slots{window.ring}"], stored["record"][f"ring{window.ring}"][:, None]
    first, last = window.tiles(ring.hop_us, now_us)
    past = algebra.fold(part, state_of(slots, place, part), _within(slots["number"], first, last))
    newest = algebra.fold(part, state_of(head, place, part), _within(head["number"], first, last))
    return algebra.merge(part, past, newest)


def _within(numbers: Column, first: int, last: int) -> Mask:
    """Which tiles are in `[first, last]`; stored numbers are one greater, and 0 is no tile."""
    # Unsigned, what is below the first wraps around to far above: one comparison instead of two.
    within: Mask = numbers - np.uint32((max(first, 0) + 1) & 0xFFFFFFFF) <= np.uint32(max(last - max(first, 0), 0))
    return within
