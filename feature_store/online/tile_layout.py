"""The layout of a stream view's stored value: a fingerprint, then the bytes that `aggregates/tiles.py` documents.

value       fingerprint                           4 bytes   CRC-32 of the layout's text, big-endian
            record                                          newest event time, head tile of each ring
            slots of ring 0, slots of ring 1 …              the tiles before the heads
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from feature_store.aggregates.tiles import TilesLayout
from feature_store.online import keys
from feature_store.online.layout import FINGERPRINT_BYTES, ValueLayout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.functions import State
    from feature_store.registry.serving_plan import TilesPlan

# A letter, its size and its repetition: `c8`, `I4`, `d`.
_DIRECTIVE = re.compile(r"[a-zA-Z][0-9]*")


class TileValueLayout(ValueLayout):
    """The layout of a stream view's values. An empty value has no event.

    Attributes:
        plan: the stream view of the serving plan.
        tiles: the layout of the bytes after the fingerprint.
    """

    def __init__(self, plan: TilesPlan) -> None:
        self.plan = plan
        self.tiles = TilesLayout(plan.windows)
        super().__init__(plan.view, plan.join_keys, _text(plan), FINGERPRINT_BYTES + self.tiles.value.itemsize)

    @property
    def views(self) -> list[str]:
        """See ValueLayout."""
        return [self.plan.view]

    def prefix(self, project: str, bucket: int) -> bytes:
        """See ValueLayout."""
        return keys.tiles_prefix(project, bucket, self.plan)

    @cached_property
    def record_format(self) -> str:
        """The format of a record for Redis's struct library."""
        return "<d" + "".join(map(_tile_format, self.tiles.states))

    @cached_property
    def rings_text(self) -> str:
        """The rings as lua/merge.lua reads them."""
        return "".join(
            f"{ring.slots} {' '.join(map(_merge, states))}|<{_tile_format(states)};"
            for ring, states in zip(self.plan.windows.rings, self.tiles.states, strict=True)
        )

    @property
    def states(self) -> list[State]:
        """The states of all rings."""
        return [state for states in self.tiles.states for state in states]

    @property
    def longest_ring(self) -> int:
        """The index of the ring with the longest reach."""
        return self.plan.windows.longest_ring


def _merge(state: State) -> str:
    text = f"{state.kind}:{lua_values(state)}"
    return f"{text}:{state.lua_argument}" if state.lua_argument else text


def _tile_format(states: Sequence[State]) -> str:
    return "I4" + "".join(state.struct for state in states)


def lua_values(state: State) -> int:
    """How many Lua values a state unpacks to."""
    return len(_DIRECTIVE.findall(state.struct))


def _text(plan: TilesPlan) -> str:
    rings = [f"{ring.hop_us} {ring.slots} {[str(part) for part in ring.parts]}" for ring in plan.windows.rings]
    return f"{plan.view} {plan.generation} {plan.topic}: {'; '.join(rings)}"
