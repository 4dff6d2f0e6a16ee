"""Turns events into deltas, and merges them into one view's tiles. Several calls can be under way at once."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from feature_store.aggregates.deltas import deltas
from feature_store.definitions.expression import expression
from feature_store.errors import CorruptRowError, FeatureStoreError, FenceError, FencesLostError, StaleWriteError
from feature_store.online import keys
from feature_store.online.tile_writer import Advances, Merge, TileWriter
from feature_store.streaming.decoder import EventBatch
from feature_store.streaming.fences import LANES, Fences

Array = np.ndarray[Any, Any]

# A call blocks Redis for about 12 µs per entity (two columns, three rings): 3 ms.
ENTITIES_PER_CALL = 256


class Origin(NamedTuple):
    """Where a batch of events comes from.

    Attributes:
        sources: the names of the sources (`<topic>:<partition>`).
        spans: for each source, the offsets `[start, end)` whose messages are all in the batch. A start of -1 stands
            for the beginning of the source.
        source_of: (n,) intp, for each event or message the index of its source.
        offsets: (n,) int64, for each event or message its offset in the source.
    """

    sources: Sequence[str]
    spans: Sequence[tuple[int, int]]
    source_of: Array
    offsets: Array

    def at(self, places: Array) -> Origin:
        """The origin of some of the events."""
        return self._replace(source_of=self.source_of[places], offsets=self.offsets[places])


@dataclass(slots=True)
class MergeOutcome:
    """The outcome of a batch of events in one view.

    Attributes:
        merged: the number of merged events.
        late: the indexes, among the batch's events, of late events.
        null_keys: the indexes, among the batch's events, of events with a null join key.
        before_start: the number of events that were left out because the history contains them.
        newest_us: the greatest event time of the merged events, microseconds since 1970; 0: none was merged.
    """

    merged: int = 0
    late: list[int] = field(default_factory=list)
    null_keys: list[int] = field(default_factory=list)
    before_start: int = 0
    newest_us: int = 0


class Call(NamedTuple):
    """One merge of a batch: the call, its number of events, and the number of its first record in the batch."""

    merge: Merge
    events: int
    first_record: int


class Entities(NamedTuple):
    """The distinct entities of a batch, sorted by unit.

    Attributes:
        keys: (e,) the key of each entity.
        units: (e,) the unit of each entity; see `Fences`.
        codes: (n,) the entity of each event, as an index into `keys`.
    """

    keys: list[bytes]
    units: Array
    codes: Array


@dataclass(slots=True)
class Prepared:
    """A batch that is ready to be merged into one view.

    Attributes:
        calls: the calls to send.
        places: (n,) the index of each chosen event among the batch's events.
        record_of: (n,) the number of the record that contains each event.
        outcome: the outcome as far as it is known before the answers arrive.
    """

    calls: list[Call]
    places: Array
    record_of: Array
    outcome: MergeOutcome


class ViewMerger:
    """Merges events into one generation of a view. Batches of a source must arrive in the order of its offsets.

    Args:
        writer: the writer of the generation.
        start_us: events before this time are left out, because the history contains them. None: there is no history.

    Attributes:
        fences: the fences of the sources that `load` was called with.
    """

    def __init__(self, writer: TileWriter, *, start_us: int | None) -> None:
        self._writer, self._start_us = writer, start_us
        self._windows = writer.plan.windows
        filters = [expression(text).names for text in self._windows.filters]
        self._columns = tuple(dict.fromkeys([*self._windows.columns, *(name for names in filters for name in names)]))
        self.join_keys = [name for name, _ in writer.layout.join_keys]
        self._under_way: deque[Prepared] = deque()
        self.fences = Fences([], [])

    @property
    def view(self) -> str:
        """The view's name."""
        return self._writer.plan.view

    def load(self, sources: Iterable[str]) -> None:
        """Read the fences again. No call may be under way."""
        self.fences = Fences(self._writer.fences(), sources)

    def are_fences_stored(self) -> bool:
        """Whether the stored fences are where this merger moved them. No call may be under way.

        Raises:
            StoreConnectionError: Redis cannot be reached.
            StoreTimeoutError: Redis does not answer in time.
        """
        return self.fences.are(self._writer.fences())

    def prepare(self, events: EventBatch, origin: Origin) -> Prepared:
        """The calls that merge the events which are new to the view.

        A source is left out if its span begins after the view's position in it, since the view would miss events.

        Args:
            events: events of any sources.
            origin: the origin of these events.
        """
        columns = self.fences.columns_of(origin.sources)
        taking = self.fences.reaches(columns, [start for start, _ in origin.spans])
        ends = {int(columns[i]): origin.spans[i][1] for i in np.flatnonzero(taking).tolist()}
        outcome = MergeOutcome()
        chosen = self._choose(events, origin, taking, columns, outcome)
        entities = self._entities(events, chosen)
        column_of = columns[origin.source_of[chosen]]
        new = self.fences.is_new(entities.units[entities.codes], column_of, origin.offsets[chosen])
        if not new.all():
            chosen, column_of = chosen[new], column_of[new]
            entities = entities._replace(codes=entities.codes[new])
        advances = self.fences.advance(entities.units[entities.codes], column_of, ends)
        self.fences.take(ends)
        if len(chosen):
            outcome.newest_us = int(events.event_us[chosen].max())
        return self._prepared(events, chosen, entities, advances, outcome)

    def catch_up(self, sources: Iterable[str]) -> Prepared:
        """The calls that move all fences of sources to the offset up to which events were taken."""
        moved = self.fences.catch_up(sources)
        nothing = np.zeros(0, np.intp)
        records = np.zeros(0, self._writer.layout.tiles.record)
        calls = []
        for bucket in range(self._writer.buckets):
            advances = _joined(moved[bucket * LANES : (bucket + 1) * LANES])
            if advances:
                calls.append(Call(Merge(bucket, [], nothing, records, advances), 0, 0))
        return Prepared(calls, nothing, nothing, MergeOutcome())

    @property
    def under_way(self) -> int:
        """The number of batches that wait for answers."""
        return len(self._under_way)

    def send(self, prepared: Prepared) -> None:
        """Send the calls of a batch. `settle` takes their answers.

        Raises:
            StoreConnectionError: Redis cannot be reached.
            StoreTimeoutError: Redis does not answer in time.
        """
        for call in prepared.calls:
            self._writer.send(call.merge)
        self._under_way.append(prepared)

    def settle(self) -> tuple[MergeOutcome, int]:
        """Take the answers to the first batch that is under way.

        Returns:
            The outcome of the batch, and how many of its calls the fences refused.

        Raises:
            StaleWriteError, CorruptRowError, FencesLostError: see TileWriter.answer. All answers of the batch are taken
                before the error is raised.
            StoreConnectionError: Redis cannot be reached.
            StoreTimeoutError: Redis does not answer in time.
        """
        prepared = self._under_way.popleft()
        outcome, late, refused = prepared.outcome, list[int](), 0
        error: FeatureStoreError | None = None
        for call in prepared.calls:
            try:
                late += [call.first_record + record for record in self._writer.answer()]
                outcome.merged += call.events
            except FenceError:
                refused += 1
            except (StaleWriteError, CorruptRowError, FencesLostError) as found:
                error = found
        if error is not None:
            raise error
        if late:
            outcome.late = prepared.places[np.isin(prepared.record_of, late)].tolist()
            outcome.merged -= len(outcome.late)
        return outcome, refused

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    # -- small parts --------------------------------------------------------------------------------------------

    def _choose(
        self, events: EventBatch, origin: Origin, taking: Array, columns: Array, outcome: MergeOutcome
    ) -> Array:
        """(n,) indexes of the events to merge: of sources in `taking`, with all join keys, and not in the history."""
        chosen = taking[origin.source_of]
        without_key = np.zeros(len(events), bool)
        for name in self.join_keys:
            without_key |= events.columns[name][1]
        if without_key.any():
            fronts = self.fences.fronts(columns)
            told = chosen & without_key & (origin.offsets >= fronts[origin.source_of])
            outcome.null_keys = np.flatnonzero(told).tolist()
            chosen &= ~without_key
        if self._start_us is not None:
            before = chosen & (events.event_us < self._start_us)
            outcome.before_start = int(before.sum())
            chosen &= ~before
        return np.flatnonzero(chosen)

    def _entities(self, events: EventBatch, chosen: Array) -> Entities:
        values = [events.columns[name][0][chosen] for name in self.join_keys]
        index: dict[bytes, int] = {}
        codes = [index.setdefault(key, len(index)) for key in keys.encode(self._writer.dtypes, values)]
        buckets, found = self._writer.buckets, list(index)
        hashes = np.array([zlib.crc32(key) for key in found], np.int64)
        units = hashes % buckets * LANES + hashes // buckets % LANES
        order = np.argsort(units, kind="stable")
        rank = np.empty(len(found), np.intp)
        rank[order] = np.arange(len(found))
        return Entities([found[i] for i in order.tolist()], units[order], rank[np.array(codes, np.intp)])

    def _prepared(
        self, events: EventBatch, chosen: Array, entities: Entities, advances: list[Advances], outcome: MergeOutcome
    ) -> Prepared:
        columns = {name: (events.columns[name][0][chosen], events.columns[name][1][chosen]) for name in self._columns}
        made = deltas(self._writer.layout.tiles, entities.codes, events.event_us[chosen], columns)
        counts = np.bincount(made.entities, minlength=len(entities.keys))
        events_of = np.bincount(entities.codes, minlength=len(entities.keys))
        first_record = np.concatenate([[0], np.cumsum(counts)])
        calls = []
        for bucket, first, last, moved in self._groups(entities.units, advances):
            there = np.flatnonzero(counts[first:last]) + first
            merge = Merge(
                bucket,
                [entities.keys[i] for i in there.tolist()],
                counts[there],
                made.records[first_record[first] : first_record[last]],
                moved,
            )
            calls.append(Call(merge, int(events_of[first:last].sum()), int(first_record[first])))
        return Prepared(calls, chosen, made.record_of_event, outcome)

    def _groups(self, units: Array, advances: list[Advances]) -> Iterator[tuple[int, int, int, Advances]]:
        """Groups of lanes that make short calls: (bucket, first entity, end of entities, moves of fences) of each."""
        bounds = np.searchsorted(units, np.arange(len(advances) + 1)).tolist()
        for bucket in range(self._writer.buckets):
            lanes = range(bucket * LANES, (bucket + 1) * LANES)
            count = bounds[lanes.stop] - bounds[lanes.start]
            groups = min(LANES, max(1, -(-count // ENTITIES_PER_CALL)))
            for group in range(groups):
                first, last = (lanes.start + LANES * i // groups for i in (group, group + 1))
                moved = _joined(advances[first:last])
                if moved:
                    yield bucket, bounds[first], bounds[last], moved


def _joined(advances: Iterable[Advances]) -> Advances:
    joined: Advances = {}
    for lane in advances:
        joined |= lane
    return joined
