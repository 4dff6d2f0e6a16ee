"""The stored values of one entity, field by field: times, and the tiles that windows are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.aggregates.tiles import state_in
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, from_microseconds
from feature_store.errors import CorruptRowError
from feature_store.functions import WindowMask
from feature_store.online.codec import unbiased
from feature_store.online.layout import FINGERPRINT_BYTES, TIME_BYTES, RowLayout
from feature_store.online.rows import StoredRows
from feature_store.online.tile_layout import TileValueLayout

if TYPE_CHECKING:
    from datetime import datetime

    from feature_store.aggregates.windows import Window

_STORED_TIME = np.dtype(">u8")


@dataclass(frozen=True)
class Tile:
    """One hop of a window.

    Attributes:
        start_us, end_us: `[start, end)`, microseconds since 1970.
        value: the feature's value over the hop's events alone; None when they have no value.
    """

    start_us: int
    end_us: int
    value: Any

    @property
    def start(self) -> datetime:
        """`start_us`, UTC."""
        return from_microseconds(self.start_us)

    @property
    def end(self) -> datetime:
        """`end_us`, UTC."""
        return from_microseconds(self.end_us)


@dataclass(frozen=True)
class StoredValue:
    """One stored value.

    Attributes:
        key: the Redis key, quoted as `redis-cli` shows it.
        generation: the generation of the layout.
        size: size of the value in bytes; 0 when there is no value.
        event_us: the event time of the view's segment, or of its newest event, microseconds since 1970; None when
            nothing is stored.
        created_us: the created timestamp of the view's segment, microseconds since 1970; None when it is not stored.
        windows: per feature of a stream view, the tiles of its window at `now` that have events, oldest first.
    """

    key: str
    generation: int
    size: int
    event_us: int | None
    created_us: int | None
    windows: dict[str, tuple[Tile, ...]]


def inspect_row(layout: RowLayout, view: str, key: bytes, value: bytes | None) -> StoredValue:
    """A view's segment of a row.

    Raises:
        CorruptRowError: the value has another size or fingerprint than the layout.
    """
    segment = layout.segments[view]
    rows = StoredRows.from_values(layout, [value], lambda _: repr(key))
    event = int(rows.event_times(segment)[0])
    created_us = None
    if event and segment.created:
        stored = np.frombuffer(rows.part(segment.offset + TIME_BYTES, TIME_BYTES)[0].tobytes(), _STORED_TIME)
        created_us = int(unbiased(stored)[0])
    return StoredValue(
        _shown(key),
        layout.group.generation,
        len(value or b""),
        int(unbiased(rows.event_times(segment))[0]) if event else None,
        created_us,
        {},
    )


def inspect_tiles(layout: TileValueLayout, key: bytes, value: bytes | None, now_us: int) -> StoredValue:
    """A stream view's tiles.

    Args:
        layout: the layout of the value.
        key: the Redis key.
        value: the stored value; None when there is none.
        now_us: the time at which windows end, microseconds since 1970.

    Raises:
        CorruptRowError: the value has another size or fingerprint than the layout, or no valid time.
    """
    if value is None:
        return StoredValue(_shown(key), layout.plan.generation, 0, None, None, {})
    if len(value) != layout.size or not value.startswith(layout.fingerprint):
        raise CorruptRowError(_shown(key), expected=f"{layout.size} bytes of its layout", got=f"{len(value)} bytes")
    held = np.frombuffer(value[FINGERPRINT_BYTES:], layout.tiles.value)
    newest = float(held["record"]["newest"][0])
    if not abs(newest) <= MAX_TIMESTAMP_US:
        raise CorruptRowError(_shown(key), expected="the time of its newest event", got=str(newest))
    windows = {window.name: _tiles(layout, held, window, now_us) for window in layout.plan.windows.features}
    return StoredValue(_shown(key), layout.plan.generation, len(value), int(newest) if newest else None, None, windows)


def _tiles(layout: TileValueLayout, held: np.ndarray[Any, Any], window: Window, now_us: int) -> tuple[Tile, ...]:
    ring = layout.plan.windows.rings[window.ring]
    tiles = np.concatenate([held["record"][f"ring{window.ring}"], held[f"slots{window.ring}"][0]])
    numbers = tiles["number"].astype(np.int64) - 1  # as stored, 0 is no tile
    first, last = max((now_us - window.window_us) // ring.hop_us, 0), now_us // ring.hop_us
    chosen = np.flatnonzero((numbers >= first) & (numbers <= last))
    chosen = chosen[np.argsort(numbers[chosen])]
    if not len(chosen):
        return ()
    inside, each = tiles[chosen][:, None], WindowMask(np.ones((len(chosen), 1), bool))
    kept = layout.tiles.states[window.ring]
    values, nulls = window.value_of(
        [kept[place].fold(state_in(inside, place, kept[place]), each) for place in window.parts], now_us
    )
    return tuple(
        Tile(number * ring.hop_us, (number + 1) * ring.hop_us, None if null else _plain(value))
        for number, value, null in zip(numbers[chosen].tolist(), values, nulls.tolist(), strict=True)
    )


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _shown(key: bytes) -> str:
    return repr(key)[2:-1]
