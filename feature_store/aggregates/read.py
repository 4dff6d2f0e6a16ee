"""Read the values of windows at a time from stored tiles, for many entities at once.

A window at `now` holds the tiles from `(now - window) // hop` to `now // hop`. A slot with an older tile has another
number and is left out, so windows slide even if no event arrives.

Rings of one shape are read together, such as those of an hour, a day and a week with the same aggregations. For 200
entities × 3 rings of two means this takes 0.20 ms instead of 0.23 ms; numpy's work on the tiles takes 0.16 ms of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from feature_store.aggregates.tiles import TilesLayout, state_in
from feature_store.aggregates.windows import LAST_TILE, Window, finalizer
from feature_store.functions import Column, Mask, Values, WindowMask


class WindowReader:
    """Reads features of one view. It is compiled once and used for every request.

    Args:
        layout: the layout of the view's tiles.
        features: names of features of the layout.
    """

    def __init__(self, layout: TilesLayout, features: Sequence[str]) -> None:
        wanted, plan = set(features), layout.windows
        alike: dict[object, list[Window]] = {}
        places: dict[tuple[int, int], int] = {}  # for each window of a ring, its place among the ring's windows
        for window in (window for window in plan.features if window.name in wanted):
            ring = plan.rings[window.ring]
            earlier = sum(of_ring == window.ring for of_ring, _ in places)
            nth = places.setdefault((window.ring, window.window_us), earlier)
            alike.setdefault((ring.parts, ring.slots, nth), []).append(window)
        self._alike = [_Rings(layout, windows) for windows in alike.values()]

    def scratch_bytes(self, entities: int) -> int:
        """The scratch space that `read` needs for this number of entities, in bytes."""
        return entities * max((rings.size for rings in self._alike), default=0)

    def read(self, values: Column, now_us: int, scratch: Column) -> dict[str, Values]:
        """The values of the features at a time.

        Args:
            values: (n, layout.value.itemsize) uint8; it may be a view of a larger buffer.
            now_us: the time at which windows end, microseconds since 1970.
            scratch: `scratch_bytes(n)` uint8 or more; its content is undefined afterwards.

        Returns:
            For each feature its values, as `Function.finalize` returns them, and (n,) bool, True where it is null.
        """
        features: dict[str, Values] = {}
        with np.errstate(all="ignore"):  # tiles outside the window may hold any bytes
            for rings in self._alike:
                features.update(rings.read(values, now_us, scratch))
        return features


class _Rings:
    """Rings of one shape, and the features of one window of each."""

    def __init__(self, layout: TilesLayout, windows: list[Window]) -> None:
        self._layout = layout
        lengths = {window.ring: window.window_us for window in windows}
        self._rings = list(lengths)
        self._lengths = np.array(list(lengths.values()), np.int64)
        self._hops = np.array([layout.windows.rings[ring].hop_us for ring in lengths], np.int64)
        # Features that differ only in their ring are computed together.
        alike: dict[tuple[str, str, tuple[int, ...]], dict[str, int]] = {}
        for window in windows:
            named = alike.setdefault((window.function, window.options, window.parts), {})
            named[window.name] = self._rings.index(window.ring)
        self._features = [
            (finalizer(function, options), places, named) for (function, options, places), named in alike.items()
        ]
        states = layout.states[self._rings[0]]
        self._states = {place: states[place] for _, _, places in alike for place in places}

    @property
    def size(self) -> int:
        """Bytes of the rings' tiles in one value."""
        return self._layout.bytes_of(self._rings)

    def read(self, values: Column, now_us: int, scratch: Column) -> dict[str, Values]:
        """See WindowReader.read."""
        of_entities = self._layout.tiles_in(values, self._rings, scratch)
        shape = of_entities.shape[:2]
        tiles = of_entities.reshape(shape[0] * shape[1], of_entities.shape[2])
        window = WindowMask(self._within(of_entities["number"], now_us).reshape(tiles.shape))
        states = {place: state.fold(state_in(tiles, place, state), window) for place, state in self._states.items()}
        features = {}
        for finalize, places, named in self._features:
            of_all, nulls = finalize([states[place] for place in places])
            of_all, nulls = of_all.reshape(shape + of_all.shape[1:]), nulls.reshape(shape)
            features.update({name: (of_all[:, i], nulls[:, i]) for name, i in named.items()})
        return features

    def _within(self, numbers: Column, now_us: int) -> Mask:
        """(n, rings, tiles) bool: the tiles in the windows. Stored numbers are one greater; 0 is no tile."""
        first = np.maximum((now_us - self._lengths) // self._hops, 0)
        last = np.minimum(now_us // self._hops, LAST_TILE)
        # Unsigned numbers below the first wrap around to large ones: one comparison instead of two.
        within: Mask = numbers - _column(first + 1) <= _column(last - first)
        if (first > last).any():  # a time before 1970, or after the last possible event
            within[:, first > last] = False
        return within


def _column(numbers: Column) -> Column:
    return numbers.astype(np.uint32)[:, None]
