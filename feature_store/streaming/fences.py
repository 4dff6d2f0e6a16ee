"""Which events a view's tiles hold: per bucket, lane and partition, the offset of the next event to merge.

The entities of a bucket are divided into *lanes* by a hash of their keys. Each lane has its own fences. So a large
batch, which needs fewer merges per event, is merged in several short calls, and Redis serves readers between them.
Measured on Zipf(1.1) over 100,000 users: batches of 5,000 events have 0.36 entities per event, batches of 250 have
0.60; one call for 5,000 events takes 20 ms, one for a sixteenth of them 1.2 ms. A small batch is one call for all its
lanes.

If a batch has no event for a lane, the fence of the lane does not move at once. A process that starts at this fence
reads the events of other lanes again, which is harmless. All fences are moved together about once a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from feature_store.errors import FenceError
from feature_store.online.tile_writer import Advances

Array = np.ndarray[Any, Any]

# Part of the stored format: with another number, the stored fences would belong to other events.
LANES = 16
# As an offset: there is no fence yet.
NONE = -1


def fences_moved(where: str) -> FenceError:
    """The error of a reader whose view's fences are not where it left them.

    Args:
        where: what the reader does: `replay`, `backfill`.
    """
    problem = "another consumer moved this view's fences, or Redis went back in time"
    return FenceError(where, problem=problem, hint="the next attempt resumes from the stored fences")


class Fences:
    """The fences of one view and of some sources of events, `<topic>:<partition>`.

    A *unit* is a lane of a bucket: `bucket * LANES + lane`.

    Args:
        stored: per bucket the fences by field, as the online store has them.
        sources: which are wanted.
    """

    def __init__(self, stored: Sequence[Mapping[str, int]], sources: Iterable[str]) -> None:
        self._columns = {source: column for column, source in enumerate(sources)}
        # The last column stands for sources that are not among these.
        self._at = np.full((len(stored) * LANES, len(self._columns) + 1), NONE, np.int64)
        for source, column in self._columns.items():
            self._at[:, column] = [fences.get(field(source, lane), NONE) for fences in stored for lane in range(LANES)]
        # Up to where events were taken, whether or not all fences say so yet.
        self._taken = self._at.min(axis=0, initial=np.iinfo(np.int64).max)

    @property
    def sources(self) -> list[str]:
        """The sources."""
        return list(self._columns)

    def start(self, source: str) -> int | None:
        """The offset to go on at: all events before it are merged. None: the start of the source."""
        at = int(self._taken[self._columns[source]])
        return None if at == NONE else at

    def are(self, stored: Sequence[Mapping[str, int]]) -> bool:
        """Whether the online store has these very fences."""
        return np.array_equal(self._at, Fences(stored, self.sources)._at)

    def columns_of(self, sources: Sequence[str]) -> Array:
        """The numbers of sources: (n,) intp; -1 for one that is not among these."""
        return np.array([self._columns.get(source, -1) for source in sources], np.intp)

    def fronts(self, columns: Array) -> Array:
        """Per source, up to where some process took events: before, everything has had its dead letters. (n,) int64."""
        fronts: Array = self._at.max(axis=0, initial=NONE)[columns]
        return fronts

    def reaches(self, columns: Array, starts: Sequence[int]) -> Array:
        """Of which sources everything before an offset is taken: (n,) bool."""
        reached: Array = (columns >= 0) & (self._taken[columns] >= np.array(starts, np.int64))
        return reached

    def is_new(self, units: Array, columns: Array, offsets: Array) -> Array:
        """Which events, given by unit, source and offset, are not merged yet."""
        new: Array = offsets >= self._at[units, columns]
        return new

    def advance(self, units: Array, columns: Array, ends: Mapping[int, int]) -> list[Advances]:
        """Move the fences of (unit, source) pairs to the end of their source; returns how, per unit of all units."""
        width = self._at.shape[1]
        pairs = np.unique(units * width + columns)
        return self._move(pairs // width, pairs % width, ends)

    def take(self, ends: Mapping[int, int]) -> None:
        """Note that all events of sources up to their ends are taken."""
        for column, end in ends.items():
            self._taken[column] = max(self._taken[column], end)

    def skip(self, source: str, offset: int) -> None:
        """Note that there is nothing to merge before an offset."""
        column = self._columns[source]
        self._taken[column] = max(self._taken[column], offset)

    def catch_up(self, sources: Iterable[str]) -> list[Advances]:
        """Move all fences of sources to where events were taken; returns how, per unit."""
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
    """The name of a lane's fence in the store."""
    return f"{source}/{lane}"
