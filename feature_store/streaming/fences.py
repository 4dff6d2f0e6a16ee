"""Fences record which events a view's tiles hold: by bucket, lane and partition, the offset of the next event to merge.

The entities of a bucket are divided into *lanes* by a hash of their keys. Each lane has its own fences. A large batch
needs fewer merges per event; lanes let it be merged in several short calls, and Redis serves readers between them.
Measured on Zipf(1.1) over 100,000 users: batches of 5,000 events have 0.36 entities per event, batches of 250 have
0.60. One call for 5,000 events takes 20 ms, one call for a sixteenth of them 1.2 ms. A small batch is one call for all
its lanes.

If a batch has no event for a lane, the fence of the lane does not move at once. A process that starts at this fence
reads events of other lanes again, which is harmless. All fences are moved together about once a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from feature_store.errors import FenceError
from feature_store.online.tile_writer import Advances

Array = np.ndarray[Any, Any]

# Part of the stored format: with another number, the stored fences would stand for other events.
LANES = 16
# The offset that stands for "no fence yet".
NONE = -1


def fences_moved(where: str) -> FenceError:
    """The error for a consumer that finds the fences of its view at other offsets than it left them.

    Args:
        where: names the consumer in the error: `replay`, `backfill` or `stream`.
    """
    problem = "another consumer moved this view's fences, or Redis went back in time"
    return FenceError(where, problem=problem, hint="the next attempt resumes from the stored fences")


class Fences:
    """The fences of one view for some sources of events. A source is named `<topic>:<partition>`.

    A *unit* is a lane of a bucket: `bucket * LANES + lane`.

    Args:
        stored: for each bucket, the fences in the online store by field.
        sources: the sources to take.
    """

    def __init__(self, stored: Sequence[Mapping[str, int]], sources: Iterable[str]) -> None:
        self._columns = {source: column for column, source in enumerate(sources)}
        # The last column stands for all other sources.
        self._at = np.full((len(stored) * LANES, len(self._columns) + 1), NONE, np.int64)
        for source, column in self._columns.items():
            self._at[:, column] = [fences.get(field(source, lane), NONE) for fences in stored for lane in range(LANES)]
        # The offset up to which events were taken. Fences of some units may still be behind it.
        self._taken = self._at.min(axis=0, initial=np.iinfo(np.int64).max)

    @property
    def sources(self) -> list[str]:
        """The names of the sources."""
        return list(self._columns)

    def start(self, source: str) -> int | None:
        """The offset to resume at: all events before it are merged. None: the start of the source."""
        at = int(self._taken[self._columns[source]])
        return None if at == NONE else at

    def are(self, stored: Sequence[Mapping[str, int]]) -> bool:
        """Whether the fences in the online store equal these fences."""
        return np.array_equal(self._at, Fences(stored, self.sources)._at)

    def columns_of(self, sources: Sequence[str]) -> Array:
        """(n,) intp column number of each source; -1 for an unknown source."""
        return np.array([self._columns.get(source, -1) for source in sources], np.intp)

    def fronts(self, columns: Array) -> Array:
        """(n,) int64 highest fence of each source. Dead letters of messages before it have already been sent."""
        fronts: Array = self._at.max(axis=0, initial=NONE)[columns]
        return fronts

    def reaches(self, columns: Array, starts: Sequence[int]) -> Array:
        """(n,) bool, whether all events of each source before its start offset are taken."""
        reached: Array = (columns >= 0) & (self._taken[columns] >= np.array(starts, np.int64))
        return reached

    def is_new(self, units: Array, columns: Array, offsets: Array) -> Array:
        """(n,) bool, whether each event, given by unit, source and offset, is not merged yet."""
        new: Array = offsets >= self._at[units, columns]
        return new

    def advance(self, units: Array, columns: Array, ends: Mapping[int, int]) -> list[Advances]:
        """Move the fences of (unit, source) pairs to the end of their source. Returns the moves of every unit."""
        width = self._at.shape[1]
        pairs = np.unique(units * width + columns)
        return self._move(pairs // width, pairs % width, ends)

    def take(self, ends: Mapping[int, int]) -> None:
        """Record that all events of sources up to their ends are taken."""
        for column, end in ends.items():
            self._taken[column] = max(self._taken[column], end)

    def skip(self, source: str, offset: int) -> None:
        """Record that a source has nothing to merge before an offset."""
        column = self._columns[source]
        self._taken[column] = max(self._taken[column], offset)

    def catch_up(self, sources: Iterable[str]) -> list[Advances]:
        """Move all fences of sources to the offset up to which events were taken. Returns the moves of every unit."""
        wanted = np.isin(np.arange(self._at.shape[1]), self.columns_of(list(sources)))
        units, columns = np.nonzero((self._at < self._taken) & wanted)
        return self._move(units, columns, dict(enumerate(self._taken.tolist())))

    def _move(self, units: Array, columns: Array, ends: Mapping[int, int]) -> list[Advances]:
        sources = list(self._columns)
        moved: list[Advances] = [{} for _ in range(len(self._at))]
        for unit, column in zip(units.tolist(), columns.tolist(), strict=True):
            at = int(self._at[unit, column])
            moved[unit][field(sources[column], unit % LANES)] = (None if at == NONE else at, ends[column])
            self._at[unit, column] = ends[column]
        return moved


def field(source: str, lane: int) -> str:
    """The name of a lane's fence in the online store."""
    return f"{source}/{lane}"
