"""The layout of a stream view's stored value: a fingerprint, then what `aggregates/tiles.py` draws byte by byte.

value       fingerprint                           4 bytes   CRC-32 of the layout's text, big-endian
            record                                          newest event time, head tile of each ring
            slots of ring 0, slots of ring 1 …              the tiles before the heads
"""

from __future__ import annotations

import zlib
from functools import cached_property
from typing import TYPE_CHECKING

from feature_store.aggregates.tiles import TilesLayout
from feature_store.definitions.dtypes import DType
from feature_store.online import keys
from feature_store.online.layout import FINGERPRINT_BYTES

if TYPE_CHECKING:
    from feature_store.aggregates.windows import Part, Ring
    from feature_store.registry.serving_plan import TilesPlan


class TileValueLayout:
    """The layout of a stream view's values.

    Attributes:
        plan: the stream view.
        tiles: the layout of what follows the fingerprint.
        size: bytes of a value.
        fingerprint: its first four bytes.
        empty: a value without any event.
    """

    def __init__(self, plan: TilesPlan) -> None:
        self.plan = plan
        self.tiles = TilesLayout(plan.windows)
        self.size = FINGERPRINT_BYTES + self.tiles.value.itemsize
        self.fingerprint = zlib.crc32(_text(plan).encode()).to_bytes(FINGERPRINT_BYTES, "big")
        self.empty = self.fingerprint + bytes(self.tiles.value.itemsize)

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.plan.view

    @property
    def join_keys(self) -> list[tuple[str, DType]]:
        """The columns of the entity key and their types."""
        return [(name, DType.parse(dtype)) for name, dtype in self.plan.join_keys]

    def prefix(self, project: str, bucket: int) -> bytes:
        """What its keys start with; the entity key follows."""
        return keys.tiles_prefix(project, bucket, self.plan)

    @cached_property
    def record_format(self) -> str:
        """A record as Redis's struct library reads it."""
        return "<d" + "".join(_tile_format(ring) for ring in self.plan.windows.rings)

    @cached_property
    def rings_text(self) -> str:
        """The rings as lua/merge.lua reads them."""
        return "".join(
            f"{ring.slots} {' '.join(f'{part.kind}:{_elements(part)}' for part in ring.parts)}|<{_tile_format(ring)};"
            for ring in self.plan.windows.rings
        )

    @property
    def longest_ring(self) -> int:
        """The index of the ring with the longest reach."""
        return self.plan.windows.longest_ring


def _tile_format(ring: Ring) -> str:
    return "I4" + "".join(_format(part) for part in ring.parts)


def _format(part: Part) -> str:
    match part.kind:
        case "count":
            return "I4"
        case "moments":
            return "I4dd"
        case "first" | "last" | "last_n":
            return f"dc{DType.parse(part.dtype).width}" * part.n
        case "sketch":
            return "c128"
        case _:
            return "d"


def _elements(part: Part) -> int:
    """How many values of Lua a part unpacks to."""
    match part.kind:
        case "moments":
            return 3
        case "first" | "last" | "last_n":
            return 2 * part.n
        case _:
            return 1


def _text(plan: TilesPlan) -> str:
    rings = [f"{ring.hop_us} {ring.slots} {[str(part) for part in ring.parts]}" for ring in plan.windows.rings]
    return f"{plan.view} {plan.generation} {plan.topic}: {'; '.join(rings)}"
