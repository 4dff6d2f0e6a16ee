"""What executors do in a point-in-time join. Tasks are plain data, sent to them pickled.

    Scan     takes a block of labels: checks their times and entity keys, and tells of keys that very many have
    Send     takes a block of labels, or a piece of a view's source, and packs the rows for the parts of their keys
    See      takes a part: its labels, then the rows of each view; packs what each label sees for the block of the label
    Finish   takes a block: its labels again, and what they see; makes the rows of the training set, and a file of them

A part holds all rows of some entities of one kind. Its labels come first, so that rows that none of them sees are
dropped as they come, some at a time: what is held is not more than the labels see. Of events, all those of the labels'
entities are held. Labels of one key that are too many for a part are spread over several, and the rows of that key are
sent to each of them.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.arrow.chunks import dictionary_columns
from feature_store.arrow.labels import label_times, label_values, refuse_corrupt
from feature_store.arrow.plain import as_kept
from feature_store.arrow.reading import reading
from feature_store.arrow.rows import (
    CREATED_TS,
    EVENT_TS,
    SEQUENCE,
    check,
    check_events,
    checked_schema,
    one_array,
    within,
)
from feature_store.arrow.time_range import TimeRange
from feature_store.arrow.types import storage_type
from feature_store.definitions.dtypes import MIN_TIMESTAMP_US
from feature_store.engines.as_of import NONE, as_of, sort_rows
from feature_store.engines.entity_codes import EntityCodes
from feature_store.engines.spark.entities import hashes_of
from feature_store.engines.spark.packed import Packed, received, split, to_arrow, unpack
from feature_store.engines.spark.tasks import hidden, numbers_of
from feature_store.engines.windows import windows_of_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from feature_store.arrow.rows import SourceColumns
    from feature_store.arrow.sources.source import Piece
    from feature_store.definitions.dtypes import DType
    from feature_store.definitions.feature_view import FeatureView
    from feature_store.definitions.stream_view import StreamFeatureView
    from feature_store.engines import join
    from feature_store.engines.spark.tasks import BadRows

    Numbers = NDArray[np.int64]
    Keys = tuple[tuple[str, DType], ...]  # join keys with their types

# Tags: that a block is there, counts of bad rows, labels, and from here on the rows of view 0, 1, …
_BLOCK, _BAD, _LABELS, _VIEWS = -2, -1, 0, 1
# Names of columns that no join key or field can have.
_TIME, _NUMBER = "label time", "label number"
# A key that a smaller share of a block's labels has is not told of: the driver hears of 500 keys of a block at most,
# and of 4096 parts one gets eight times its share for such a key.
_MANY = 0.002


class Block(NamedTuple):
    """Neighbouring labels.

    Attributes:
        piece: the row groups that hold them.
        skipped: rows of the piece before the first.
        rows: how many.
        first: the number of the first.
    """

    piece: Piece
    skipped: int
    rows: int
    first: int


class LabelFiles(NamedTuple):
    """The labels.

    Attributes:
        where: what they are, for errors.
        schema: of all their columns.
        timestamp: the column of their times.
        blocks: all of them, in order.
    """

    where: str
    schema: pa.Schema
    timestamp: str
    blocks: tuple[Block, ...]

    def read(self, block: Block, columns: Sequence[str]) -> pa.Table:
        """Columns of a block, and the times.

        Raises:
            DataError: the file cannot be read.
        """
        names = list(dict.fromkeys([*columns, self.timestamp]))
        schema = pa.schema([self.schema.field(name) for name in names])
        batches: list[pa.RecordBatch] = []
        place, until = 0, block.skipped + block.rows
        for batch in block.piece.batches(names):
            first, last = max(block.skipped - place, 0), min(until - place, len(batch))
            if first < last:
                batches.append(batch.slice(first, last - first))
            place += len(batch)
            if place >= until:
                break
        with reading(self.where):
            rows = pa.Table.from_batches(batches)
            refuse_corrupt(rows, self.where, first=block.first)
            return as_kept(rows, schema)

    def times(self, block: Block, rows: pa.Table) -> Numbers:
        """The times of a block, (rows,) microseconds.

        Raises:
            DataError: a label has none.
        """
        return label_times(rows[self.timestamp], f"{self.where}: column {self.timestamp}", first=block.first)


class Kind(NamedTuple):
    """Entities of one kind, which some of the views are of.

    Attributes:
        keys: their join keys.
        first, parts: their parts are `[first, first + parts)`.
        views: the numbers of the views.
        spread: over how many parts the labels of a key are spread, by the key's hash; of others over one.
    """

    keys: Keys
    first: int
    parts: int
    views: tuple[int, ...]
    spread: Mapping[int, int]

    @property
    def names(self) -> list[str]:
        """The join keys."""
        return [name for name, _ in self.keys]

    def of_labels(self, rows: pa.RecordBatch) -> Numbers:
        """(n,) the part of each label."""
        parts, copies = self._parts_and_copies(rows)
        numbers: Numbers = rows[_NUMBER].to_numpy()
        return self.first + (parts + numbers % copies) % self.parts

    def of_rows(self, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, Numbers]:
        """(m,) rows, those of spread keys once for each part that may have labels of the key; and (m,) their parts."""
        parts, copies = self._parts_and_copies(rows)
        if (copies == 1).all():
            return rows, self.first + parts
        places = np.repeat(np.arange(len(rows)), copies)
        copy = np.arange(len(places)) - np.repeat(np.cumsum(copies) - copies, copies)
        return rows.take(pa.array(places)), self.first + (parts[places] + copy) % self.parts

    def _parts_and_copies(self, rows: pa.RecordBatch) -> tuple[Numbers, Numbers]:
        """(n,) the first part of each row's key, counted from 0, and (n,) over how many parts the key is spread."""
        hashes = hashes_of(rows, self.names)
        parts = (hashes % np.uint64(self.parts)).astype(np.int64)
        if not self.spread:
            return parts, np.ones(len(rows), np.int64)
        spread = np.array(sorted(self.spread), np.uint64)
        copies = np.array([self.spread[key] for key in spread.tolist()])
        places = np.minimum(np.searchsorted(spread, hashes), len(spread) - 1)
        return parts, np.where(spread[places] == hashes, copies[places], 1)


class Source(NamedTuple):
    """A view's source, and what is wanted of it.

    Attributes:
        number: the view's.
        view: whose.
        columns: what is read and checked.
        fields: the wanted features.
        pieces: what is read of it.
        reach: event times that labels may see, in microseconds.
        bad: takes the rows that do not fit.
    """

    number: int
    view: FeatureView | StreamFeatureView
    columns: SourceColumns
    fields: tuple[str, ...]
    pieces: tuple[Piece, ...]
    reach: tuple[int, int]
    bad: BadRows

    @property
    def types(self) -> list[DType]:
        """Of the wanted features."""
        return [self.view.field(name).dtype for name in self.fields]

    @property
    def sent(self) -> pa.Schema:
        """What is sent of each row."""
        schema = checked_schema(self.columns)
        values = self.view.event_columns if self.view.aggregations else self.fields
        names = dict.fromkeys([*self.view.join_keys, *values, EVENT_TS, CREATED_TS, SEQUENCE])
        return pa.schema([schema.field(name) for name in names])


@dataclass(frozen=True)
class Scan:
    """Looks at blocks of labels; see the module."""

    labels: LabelFiles
    kinds: tuple[Keys, ...]

    RESULT = "first_us long, last_us long, many string"

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Of each block its earliest and latest time, and keys with many labels: `[[kind, hash, labels], …]`."""
        for number in numbers_of(batches):
            block = self.labels.blocks[number]
            rows = self.labels.read(block, [name for keys in self.kinds for name, _ in keys])
            times = self.labels.times(block, rows)
            many = [
                [i, key, count]
                for i, keys in enumerate(self.kinds)
                for key, count in _frequent(_keyed(self.labels, block, rows, keys), keys)
            ]
            columns = [[int(times.min())], [int(times.max())], [json.dumps(many)]]
            yield pa.record_batch(columns, ["first_us", "last_us", "many"])


@dataclass(frozen=True)
class Send:
    """Packs blocks of labels, and pieces of sources, for parts; see the module.

    Attributes:
        labels: the first tasks take a block each.
        sources: the others a piece each, of one after the other.
        kinds: of the views' entities.
    """

    labels: LabelFiles
    sources: tuple[Source, ...]
    kinds: tuple[Kind, ...]

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Packed rows, and counts of bad ones."""
        blocks = self.labels.blocks
        pieces = [(source, i) for source in self.sources for i, _ in enumerate(source.pieces)]
        for number in numbers_of(batches):
            if number < len(blocks):
                yield from self._labels(blocks[number])
                yield to_arrow([Packed(self.kinds[0].first, _BLOCK, np.int64(number).tobytes())])
            else:
                yield from self._piece(*pieces[number - len(blocks)])

    def _labels(self, block: Block) -> Iterator[pa.RecordBatch]:
        rows = self.labels.read(block, [name for kind in self.kinds for name in kind.names])
        for kind in self.kinds:
            keyed = _keyed(self.labels, block, rows, kind.keys)
            yield to_arrow(list(split(keyed, kind.of_labels(keyed), _LABELS)))

    def _piece(self, source: Source, number: int) -> Iterator[pa.RecordBatch]:
        piece, columns, keys = source.pieces[number], source.columns, source.view.join_keys
        kind = next(kind for kind in self.kinds if source.number in kind.views)
        bad_rows = source.bad.file(number)
        place = piece.first
        for batch in piece.batches(columns.names, TimeRange(columns.event_timestamp, *source.reach)):
            reached = within(batch, columns, *source.reach)
            good, bad = (check_events if source.view.aggregations else check)(reached, columns, keys, place)
            bad_rows.add(bad)
            place += len(reached)
            if len(good):
                yield to_arrow(list(split(*kind.of_rows(good.select(source.sent.names)), _VIEWS + source.number)))
        bad_rows.close()
        counts = np.array([source.number, bad_rows.rows], np.int64)
        yield to_arrow([Packed(kind.first, _BAD, counts.tobytes())])


@dataclass(frozen=True)
class See:
    """Finds what the labels of parts see; see the module.

    Attributes:
        sources: of all views.
        kinds: of their entities.
        starts: the numbers of the first labels of all blocks.
        chunk_rows: rows of a view whose keys are looked up together: hashing the labels' keys begins anew each time.
    """

    sources: tuple[Source, ...]
    kinds: tuple[Kind, ...]
    starts: tuple[int, ...]
    chunk_rows: int

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Packed rows for blocks. What comes in is sorted by tag."""
        labels: _Labels | None = None
        seen: set[int] = set()
        for tag, values in itertools.groupby(received(batches), key=lambda value: value[1]):
            if tag == _BLOCK:
                yield to_arrow([Packed(int(np.frombuffer(value, np.int64)[0]), _BLOCK, b"") for _, _, value in values])
            elif tag == _BAD:
                yield to_arrow([Packed(0, _BAD, value.to_pybytes()) for _, _, value in values])
            elif tag == _LABELS:
                labels = self._labels(list(values))
            elif labels is not None:
                source = self.sources[tag - _VIEWS]
                seen.add(source.number)
                yield from self._sent(source, labels, (unpack(value, source.sent) for _, _, value in values))
        if labels is not None:  # they see that there is nothing of the other views
            for number in labels.kind.views:
                if number not in seen:
                    yield from self._sent(self.sources[number], labels, iter(()))

    def _labels(self, values: list[tuple[int, int, pa.Buffer]]) -> _Labels:
        part = values[0][0]
        kind = next(kind for kind in self.kinds if kind.first <= part < kind.first + kind.parts)
        return _Labels(kind, [unpack(value, _label_schema(kind.keys)) for _, _, value in values])

    def _sent(self, source: Source, labels: _Labels, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        view = _Windows(source, labels) if source.view.aggregations else _Rows(source, labels)
        for chunk in _chunks(rows, self.chunk_rows):
            view.add(chunk)
        for batch in view.seen().to_batches():
            blocks = np.searchsorted(self.starts, batch[_NUMBER].to_numpy(), side="right") - 1
            yield to_arrow(list(split(batch, blocks, _VIEWS + source.number)))


@dataclass(frozen=True)
class Finish:
    """Makes the rows of the training set of blocks; see the module.

    Attributes:
        labels: all of them.
        sources: of all views.
        finish: see engines.join.Finish.
        folder: where the files go.
    """

    labels: LabelFiles
    sources: tuple[Source, ...]
    finish: join.Finish
    folder: Path

    RESULT = "rows long, missing array<long>, bad array<long>"

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Of each block how many rows it has, per feature how many have no value, and per view the bad rows told of."""
        blocks: dict[int, list[list[pa.RecordBatch]]] = {}
        bad = np.zeros(len(self.sources), np.int64)
        for number, tag, value in received(batches):
            seen = blocks.setdefault(number, [[] for _ in self.sources])
            if tag == _BAD:
                view, count = np.frombuffer(value, np.int64).tolist()
                bad[view] += count
            elif tag >= _VIEWS:
                source = self.sources[tag - _VIEWS]
                seen[source.number].append(unpack(value, _seen_schema(source)))
        for number, seen in blocks.items():
            yield self._made(number, seen, bad)
            bad[:] = 0

    def run_alone(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same without any views."""
        for number in numbers_of(batches):
            yield self._made(number, [], np.zeros(0, np.int64))

    def _made(self, number: int, seen: list[list[pa.RecordBatch]], bad: Numbers) -> pa.RecordBatch:
        block = self.labels.blocks[number]
        rows = self.labels.read(block, self.labels.schema.names)
        (labels,) = rows.combine_chunks().to_batches()
        joined = [
            column
            for source, of_view in zip(self.sources, seen, strict=True)
            for column in _seen_by_block(source, of_view, block)
        ]
        batch, missing = self.finish(labels, joined, block.first)
        write_part(self.folder, number, pa.Table.from_batches([batch]))
        numbers = pa.list_(pa.int64())
        counts = {
            "rows": pa.array([len(rows)], pa.int64()),
            "missing": pa.array([np.asarray(missing, np.int64)], numbers),
            "bad": pa.array([bad], numbers),
        }
        return pa.record_batch(counts)


def write_part(folder: Path, number: int, rows: pa.Table) -> None:
    """Write rows of a training set to a file, which is there whole or not at all. Files sort by their numbers.

    Raises:
        DataError: it cannot be written.
    """
    path = folder / f"part-{number:08d}.parquet"
    unfinished = hidden(path)
    with reading(f"training set {path}"):
        pq.write_table(rows, unfinished, use_dictionary=dictionary_columns(rows.schema))
        unfinished.rename(path)


# -- what labels see ------------------------------------------------------------------------------------------------


class _Labels:
    """The labels of a part."""

    def __init__(self, kind: Kind, batches: list[pa.RecordBatch]) -> None:
        rows = pa.Table.from_batches(batches)
        self.kind = kind
        self.entities = EntityCodes([rows[name] for name in kind.names])
        self.times: Numbers = rows[_TIME].to_numpy()
        self.numbers: Numbers = rows[_NUMBER].to_numpy()

    def concerned(self, rows: pa.Table) -> tuple[pa.Table, NDArray[np.int32]]:
        """The rows of the labels' entities, and (n,) their entities' numbers."""
        codes = self.entities.of([rows[name] for name in self.kind.names])
        kept = (codes >= 0) & (rows[EVENT_TS].to_numpy() <= self.times.max())
        return rows.filter(pa.array(kept)), codes[kept]


class _Rows:
    """Of rows of features, which come some at a time: those that labels see."""

    def __init__(self, source: Source, labels: _Labels) -> None:
        self._source, self._labels = source, labels
        count = len(labels.times)
        self._kept = _seen_schema(source).remove(0).empty_table()
        self._row = np.full(count, NONE, np.int64)  # of each label, in what is kept
        self._order = [np.full(count, MIN_TIMESTAMP_US, np.int64) for _ in range(3)]  # event, creation, place

    def add(self, rows: pa.Table) -> None:
        """Take more rows into account. A row that was seen is seen no more by labels that see a later one of these."""
        labels = self._labels
        rows, codes = _by_place(*labels.concerned(rows))
        event_ts, created_ts, places = (rows[name].to_numpy() for name in (EVENT_TS, CREATED_TS, SEQUENCE))
        has_created = self._source.columns.created_timestamp is not None
        order, sorted_rows = sort_rows(codes, event_ts, created_ts if has_created else None, labels.entities.count)
        found = as_of(sorted_rows, labels.entities.of_labels, labels.times)
        seeing = np.flatnonzero(found != NONE)
        chosen = order[found[seeing]]
        new = [column[chosen] for column in (event_ts, created_ts, places)]
        later = _follows(new, [column[seeing] for column in self._order])
        seeing, chosen = seeing[later], chosen[later]
        for column, values in zip(self._order, new, strict=True):
            column[seeing] = values[later]
        self._row[seeing] = len(self._kept) + chosen
        self._keep(pa.concat_tables([self._kept, rows.select(self._kept.schema.names)]))

    def seen(self) -> pa.Table:
        """The rows that labels see, of each label that sees one."""
        ttl_us = self._source.view.ttl_us
        there = self._row != NONE
        if ttl_us is not None:
            # As `as_of` does: the latest visible row decides, and no older one takes its place when it has expired.
            there &= self._order[0] >= self._labels.times - min(ttl_us, 1 << 62)
        columns = self._kept.take(pa.array(self._row[there])).columns
        return pa.table([pa.array(self._labels.numbers[there]), *columns], schema=_seen_schema(self._source))

    def _keep(self, rows: pa.Table) -> None:
        """Of these rows those that are seen."""
        there = self._row != NONE
        used, again = np.unique(self._row[there], return_inverse=True)
        self._kept = rows.take(pa.array(used)).combine_chunks()
        self._row[there] = again


class _Windows:
    """Of events: the windows at the labels' times."""

    def __init__(self, source: Source, labels: _Labels) -> None:
        self._source, self._labels = source, labels
        self._events: list[pa.Table] = [source.sent.empty_table()]
        self._codes: list[NDArray[np.int32]] = [np.array([], np.int32)]

    def add(self, rows: pa.Table) -> None:
        """Take more events into account."""
        events, codes = self._labels.concerned(rows)
        self._events.append(events)
        self._codes.append(codes)

    def seen(self) -> pa.Table:
        """The windows of each label."""
        source, labels = self._source, self._labels
        events, codes = _by_place(pa.concat_tables(self._events), np.concatenate(self._codes))
        entities = labels.entities.of_labels
        windows = windows_of_labels(source.view, events, codes, entities, labels.times, source.fields)
        return pa.table([pa.array(labels.numbers), *windows], schema=_seen_schema(source))


def _seen_by_block(source: Source, batches: list[pa.RecordBatch], block: Block) -> list[pa.Array]:
    """Per field of a view, (rows,) what the labels of a block see, from what some of them do in any order."""
    seen = pa.Table.from_batches(batches, _seen_schema(source))
    columns = [one_array(seen[name]) for name in source.fields]
    row = np.full(block.rows, NONE, np.int64)  # of each label, in what is seen
    row[seen[_NUMBER].to_numpy() - block.first] = np.arange(len(seen))
    if source.view.aggregations and len(seen) < block.rows:
        # A label without an entity has none of the events: the windows of that are one more row.
        nobody = np.array([-1], np.int32), np.array([0], np.int64)
        none = windows_of_labels(source.view, source.sent.empty_table(), np.array([], np.int32), *nobody, source.fields)
        columns = [pa.concat_arrays(pair) for pair in zip(columns, none, strict=True)]
        row[row == NONE] = len(seen)
    taken = pa.array(row, mask=row == NONE)
    return [column.take(taken) for column in columns]


def _by_place(rows: pa.Table, codes: NDArray[np.int32]) -> tuple[pa.Table, NDArray[np.int32]]:
    """Rows and their codes in the order of the source: they come in another whenever a task is run again."""
    order = np.argsort(rows[SEQUENCE].to_numpy(), kind="stable")
    return rows.take(pa.array(order)), codes[order]


def _follows(rows: Sequence[Numbers], others: Sequence[Numbers]) -> NDArray[np.bool_]:
    """Whether rows come after others, by event time, creation time, place."""
    follows = np.zeros(len(rows[0]), bool)
    for row, other in zip(reversed(rows), reversed(others), strict=True):
        follows = (row > other) | (row == other) & follows
    return follows


def _frequent(labels: pa.RecordBatch, keys: Keys) -> list[tuple[int, int]]:
    """Hashes of keys that a large share of labels have, and how many have each."""
    hashes, counts = np.unique(hashes_of(labels, [name for name, _ in keys]), return_counts=True)
    chosen = counts > _MANY * len(labels)
    return list(zip(hashes[chosen].tolist(), counts[chosen].tolist(), strict=True))


def _chunks(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Batches put together to at least so many rows."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= rows:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def _keyed(labels: LabelFiles, block: Block, rows: pa.Table, keys: Keys) -> pa.RecordBatch:
    """The labels of a block that have an entity: keys, times and numbers."""
    columns = [
        one_array(label_values(rows[name], dtype, f"{labels.where}: column {name}", first=block.first))
        for name, dtype in keys
    ]
    times = pa.array(labels.times(block, rows))
    numbers = pa.array(np.arange(block.first, block.first + block.rows))
    batch = pa.RecordBatch.from_arrays([*columns, times, numbers], schema=_label_schema(keys))
    there = ~np.logical_or.reduce([column.is_null().to_numpy(zero_copy_only=False) for column in columns])
    return batch if there.all() else batch.filter(pa.array(there))


def _label_schema(keys: Keys) -> pa.Schema:
    fields = [pa.field(name, storage_type(dtype)) for name, dtype in keys]
    return pa.schema([*fields, pa.field(_TIME, pa.int64()), pa.field(_NUMBER, pa.int64())])


def _seen_schema(source: Source) -> pa.Schema:
    fields = [pa.field(name, storage_type(dtype)) for name, dtype in zip(source.fields, source.types, strict=True)]
    return pa.schema([pa.field(_NUMBER, pa.int64()), *fields])
