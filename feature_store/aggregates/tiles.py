"""The bytes of a stream view's state of one entity: packed, little-endian, without padding.

    value     record | slots of ring 0 | slots of ring 1 | …
    record    newest f8                             the greatest event time, microseconds since 1970
              head of ring 0 | head of ring 1 | …   each a tile: the newest
    slots     the tiles before the head: tile t is in slot t % slots
    tile      number u4                             the tile's number + 1; 0: no tile
              its parts, in order

    part      count             count u4
              sum, min, max     f8
              moments           count u4 | mean f8 | sum of squared deviations f8
              first, last       event time f8 (0: none) | value, as its type is in a row
              last_n            n times: event time f8 (0: none) | value; newest first
              sketch            128 registers of a byte

A *delta*, what a batch of events adds to one entity, has the bytes of a record.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.aggregates.parts import ALGEBRA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.aggregates.arrays import Column
    from feature_store.aggregates.parts import State
    from feature_store.aggregates.windows import Part, Ring, Windows


class TilesLayout:
    """Where everything is in the state of one entity.

    Attributes:
        windows: what is kept.
        tiles: per ring the type of a tile: `number`, then of part i the fields `i` or `i name`.
        record: `newest`, then per ring `ring0`, `ring1`, …
        value: `record`, then per ring `slots0`, `slots1`, …
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.tiles = [_tile(ring) for ring in windows.rings]
        rings = [(f"ring{i}", tile) for i, tile in enumerate(self.tiles)]
        self.record: np.dtype[Any] = np.dtype([("newest", "<f8"), *rings])
        slots = [
            (f"slots{i}", tile, (ring.slots,))
            for i, (tile, ring) in enumerate(zip(self.tiles, windows.rings, strict=True))
        ]
        self.value: np.dtype[Any] = np.dtype([("record", self.record), *slots])
        # The record is what a value starts with, so that a place in it is one in the value.
        self._places = [(_place(self.record, f"ring{i}"), _place(self.value, f"slots{i}")) for i in range(len(rings))]

    def bytes_of(self, rings: Sequence[int]) -> int:
        """Bytes of all the tiles of rings in one value."""
        return sum((1 + self.windows.rings[ring].slots) * self.tiles[ring].itemsize for ring in rings)

    def tiles_in(self, values: Column, rings: Sequence[int], scratch: Column) -> Column:
        """The tiles of rings of one shape in (n, value) uint8, each ring's head first: (n, rings, 1 + slots).

        They are copied to `scratch`, at least n × `bytes_of(rings)` uint8, since numpy is slow on what lies askew, as
        in a reply.
        """
        tile, slots = self.tiles[rings[0]], self.windows.rings[rings[0]].slots
        shape = len(values), len(rings), (1 + slots) * tile.itemsize
        tiles = scratch[: math.prod(shape)].reshape(shape)
        for i, ring in enumerate(rings):
            head, after = self._places[ring]
            tiles[:, i, : tile.itemsize] = values[:, head : head + tile.itemsize]
            tiles[:, i, tile.itemsize :] = values[:, after : after + slots * tile.itemsize]
        found: Column = tiles.view(tile)
        return found

    def newest_in(self, values: Column) -> Column:
        """The greatest event times in (n, value) uint8: (n,) float64."""
        newest: Column = np.ascontiguousarray(values[:, :8]).view("<f8")[:, 0]
        return newest


def field_name(index: int, name: str) -> str:
    """The name that an array of part `index` has in a tile."""
    return f"{index} {name}" if name else str(index)


def state_of(tiles: Column, index: int, part: Part) -> State:
    """A part's state in an array of tiles."""
    return {name: tiles[field_name(index, name)] for name in ALGEBRA[part.kind].fields(part)}


def put_state(tiles: Column, index: int, state: State, places: Any = ...) -> None:
    """Write a part's state into an array of tiles."""
    for name, values in state.items():
        tiles[field_name(index, name)][places] = values


def _place(record: np.dtype[Any], name: str) -> int:
    assert record.fields is not None
    return record.fields[name][1]


def _tile(ring: Ring) -> np.dtype[Any]:
    fields: list[Any] = [("number", "<u4")]
    for i, part in enumerate(ring.parts):
        for name, form in ALGEBRA[part.kind].fields(part).items():
            fields.append((field_name(i, name), *form) if isinstance(form, tuple) else (field_name(i, name), form))
    return np.dtype(fields)
