"""The tiles of one stream view in an answer, and their windows at the time of the request."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.errors import CorruptRowError
from feature_store.online.buffers import BUFFERS
from feature_store.online.layout import FINGERPRINT_BYTES
from feature_store.online.status import Status

if TYPE_CHECKING:
    from feature_store.aggregates.read import WindowBlock, WindowReader
    from feature_store.aggregates.windows import Window
    from feature_store.functions import Column, Mask
    from feature_store.online.rows import StoredRows
    from feature_store.online.tile_layout import TileValueLayout


class StoredTiles:
    """The windows of n entities in one stream view.

    Args:
        layout: the layout of the stored values.
        rows: the stored values of n entities.
        reader: reads all windows of a service at once.
        now_us: the time that windows end at, microseconds since 1970.
    """

    def __init__(self, layout: TileValueLayout, rows: StoredRows, reader: WindowReader, now_us: int) -> None:
        self._layout, self._rows, self._reader, self._now_us = layout, rows, reader, now_us

    @property
    def _bytes(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(n, size) uint8, a view of the reply."""
        return self._rows.part(FINGERPRINT_BYTES, self._layout.size - FINGERPRINT_BYTES)

    @cached_property
    def blocks(self) -> list[WindowBlock]:
        """The windows, in blocks of windows that are computed together."""
        scratch = BUFFERS.take(self._reader.scratch_bytes(self._rows.count))
        blocks = self._reader.blocks(self._bytes, self._now_us, np.frombuffer(scratch, np.uint8))
        BUFFERS.give_back(scratch)
        return blocks

    @cached_property
    def _windows(self) -> dict[str, tuple[Column, Mask]]:
        return {name: values for block in self.blocks for name, values in block.features()}

    @cached_property
    def event_times(self) -> Column:
        """The time of each entity's newest event: (n,) int64, microseconds since 1970; 0 without an event.

        Raises:
            CorruptRowError: a stored time is not a number of 64 bits.
        """
        try:
            with np.errstate(invalid="raise"):
                newest: Column = self._layout.tiles.newest_in(self._bytes).astype(np.int64)
        except FloatingPointError:
            raise CorruptRowError(
                f"tiles of {self._layout.name}",
                expected="the time of the newest event, microseconds since 1970",
                got="no number of 64 bits",
                hint="something else wrote this key: delete the entity and backfill the view",
            ) from None
        return newest

    def values(self, window: Window) -> Column:
        """(n,) of the feature's numpy dtype, object for lists. Undefined where the status is not PRESENT."""
        return self._windows[window.name][0]

    def status(self, window: Window) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(n,) Status codes: an entity without any event is MISSING; a mean of no events is NULL."""
        status = np.zeros(self._rows.count, np.uint8)
        status[self._windows[window.name][1]] = Status.NULL
        status[self.missing] = Status.MISSING
        return status

    def absent(self, window: Window) -> Mask:
        """(n,) bool, True for an entity without a value, MISSING or NULL."""
        absent: Mask = self._windows[window.name][1] | self.missing
        return absent

    @cached_property
    def missing(self) -> Mask:
        """(n,) bool, True for an entity without any event."""
        missing: Mask = self.event_times == 0
        return missing
