"""The bytes that a stream view stores of one entity: packed, little-endian, without padding.

    value     record | slots of ring 0 | slots of ring 1 | …
    record    newest f8                             the greatest event time, microseconds since 1970
              head of ring 0 | head of ring 1 | …   the newest tile of each ring
    slots     the tiles before the head: tile t is in slot t % slots
    tile      number u4                             the tile's number + 1; 0: no tile
              its parts, in order

`State.fields` describes the bytes of a part, in the files of feature_store/functions/.

A *delta* holds the tiles that a batch of events adds to one entity. It has the layout of a record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from feature_store.aggregates.states import state_for
from feature_store.aggregates.windows import Ring, Windows
from feature_store.functions import Column, State, StateArrays

NUMBER_BYTES = 4


class TilesLayout:
    """The layout of the tiles of one entity.

    Attributes:
        windows: the rings and features.
        states: for each ring, the states of its parts.
        tiles: for each ring, the numpy type of a tile: `number`, then the fields `i` or `i name` of each part i.
        record: the numpy type of a record: `newest`, then per ring `ring0`, `ring1`, …
        value: the numpy type of a value: `record`, then per ring `slots0`, `slots1`, …
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.states = [states_of(ring) for ring in windows.rings]
        self.tiles = [_tile(states) for states in self.states]
        rings = [(f"ring{i}", tile) for i, tile in enumerate(self.tiles)]
        self.record: np.dtype[Any] = np.dtype([("newest", "<f8"), *rings])
        slots = [
            (f"slots{i}", tile, (ring.slots,))
            for i, (tile, ring) in enumerate(zip(self.tiles, windows.rings, strict=True))
        ]
        self.value: np.dtype[Any] = np.dtype([("record", self.record), *slots])
        # A value starts with the record, so a place in the record is also one in the value.
        self._places = [(_place(self.record, f"ring{i}"), _place(self.value, f"slots{i}")) for i in range(len(rings))]

    def bytes_of(self, rings: Sequence[int]) -> int:
        """Bytes of all tiles of these rings in one value."""
        return sum((1 + self.windows.rings[ring].slots) * self.tiles[ring].itemsize for ring in rings)

    def tiles_in(self, values: Column, rings: Sequence[int], scratch: Column) -> Column:
        """The tiles of rings of one shape in (n, value) uint8, each ring's head first: (n, rings, 1 + slots).

        The tiles are copied to `scratch`, which has at least n × `bytes_of(rings)` uint8: numpy is slow on unaligned
        views, such as slices of a reply.
        """
        tile, slots = self.tiles[rings[0]], self.windows.rings[rings[0]].slots
        shape = len(values), len(rings), (1 + slots) * tile.itemsize
        tiles = scratch[: math.prod(shape)].reshape(shape)
        for i, ring in enumerate(rings):
            head, after = self._places[ring]
            tiles[:, i, : tile.itemsize] = values[:, head : head + tile.itemsize]
            tiles[:, i, tile.itemsize :] = values[:, after : after + slots * tile.itemsize]
        viewed: Column = tiles.view(tile)
        return viewed

    def newest_in(self, values: Column) -> Column:
        """The greatest event times in (n, value) uint8: (n,) float64."""
        newest: Column = np.ascontiguousarray(values[:, :8]).view("<f8")[:, 0]
        return newest


def field_name(index: int, name: str) -> str:
    """The name of an array of part `index` in a tile."""
    return f"{index} {name}" if name else str(index)


def states_of(ring: Ring) -> list[State]:
    """The states of a ring's parts."""
    return [state_for(part) for part in ring.parts]


def state_bytes(state: State) -> int:
    """The bytes of a state in a tile."""
    return _tile([state]).itemsize - NUMBER_BYTES


def state_in(tiles: Column, index: int, state: State) -> StateArrays:
    """The state of part `index` in an array of tiles."""
    return {name: tiles[field_name(index, name)] for name in state.fields}


def put_state(tiles: Column, index: int, arrays: StateArrays, places: Any = ...) -> None:
    """Write the state of part `index` into an array of tiles."""
    for name, values in arrays.items():
        tiles[field_name(index, name)][places] = values


def _place(record: np.dtype[Any], name: str) -> int:
    assert record.fields is not None
    return record.fields[name][1]


def _tile(states: Sequence[State]) -> np.dtype[Any]:
    fields: list[Any] = [("number", "<u4")]
    for i, state in enumerate(states):
        for name, form in state.fields.items():
            fields.append((field_name(i, name), *form) if isinstance(form, tuple) else (field_name(i, name), form))
    return np.dtype(fields)
