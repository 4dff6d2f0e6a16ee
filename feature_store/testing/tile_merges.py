"""Merges deltas into a stored value, one tile after the other: a slow reference for lua/merge.lua."""

from __future__ import annotations

from typing import Any

import numpy as np

from feature_store.aggregates.tiles import TilesLayout, put_state, state_in


def empty(layout: TilesLayout) -> Any:
    """The value of an entity without events: all heads are 0."""
    return np.zeros(1, layout.value)


def merge(layout: TilesLayout, value: Any, records: Any) -> list[int]:
    """Merge an entity's records into its value, in place.

    Returns:
        The indexes of late records: those too old for the longest ring.
    """
    return [j for j, record in enumerate(records) if _comes_late(layout, value, record)]


def _comes_late(layout: TilesLayout, value: Any, record: Any) -> bool:
    value["record"]["newest"] = max(value["record"]["newest"][0], record["newest"])
    refused = [_refuses(layout, r, value, record[f"ring{r}"]) for r in range(len(layout.tiles))]
    return refused[layout.windows.longest_ring]


def _refuses(layout: TilesLayout, r: int, value: Any, tile: Any) -> bool:
    ring, head, slots = layout.windows.rings[r], value["record"][f"ring{r}"], value[f"slots{r}"][0]
    number, newest = int(tile["number"]), int(head["number"][0])
    if number == 0:
        return False
    if newest == 0 or number > newest:
        if newest and number - newest <= ring.slots:
            slots[(newest - 1) % ring.slots] = head[0]
        head[0] = tile
    elif number == newest:
        head[0] = _merged(layout, r, head[0], tile)
    elif newest - number <= ring.slots:
        i = (number - 1) % ring.slots
        slots[i] = _merged(layout, r, slots[i], tile) if slots["number"][i] == number else tile
    else:
        return True
    return False


def _merged(layout: TilesLayout, r: int, a: Any, b: Any) -> Any:
    a, b = np.array([a], layout.tiles[r]), np.array([b], layout.tiles[r])
    merged = a.copy()
    for i, state in enumerate(layout.states[r]):
        put_state(merged, i, state.merge(state_in(a, i, state), state_in(b, i, state)))
    return merged[0]
