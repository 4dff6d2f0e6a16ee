"""The tasks of a point-in-time join, which run on executors. They are plain data that Spark pickles and sends.

    ScanLabels      takes a block of labels, checks their times and entity keys, and reports keys with very many labels
    Shuffle         takes a block of labels or a piece of a view's source, and packs the rows by the parts of their keys
    JoinPartition   takes a part: its labels, then the rows of each view. It packs the values that each label sees for
                    the label's block
    AssembleBlock   takes a block: its labels again, and the values that they see. It writes the block's training rows
                    to a file

A part holds all rows of some entities with the same join keys. Its labels arrive first, so the task drops rows that no
label sees while it reads: it holds no more rows than the labels see. If the view has aggregations, the task holds all
events of the labels' entities. A key with too many labels for one part is spread over several parts, and each of them
gets all rows of the key.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.arrow.chunks import dictionary_columns
from feature_store.arrow.reading import reading
from feature_store.arrow.rows import check, check_events, within
from feature_store.arrow.time_range import TimeRange
from feature_store.engines import join
from feature_store.engines.spark.entities import hashes_of
from feature_store.engines.spark.join_inputs import (
    LABEL_NUMBER,
    EntityKind,
    Keys,
    LabelBlock,
    LabelFiles,
    Source,
    keyed_labels,
    label_schema,
    seen_schema,
)
from feature_store.engines.spark.join_seen import PartLabels, SeenRows, SeenWindows, seen_by_block
from feature_store.engines.spark.packed import Packed, received, split, to_arrow, unpack
from feature_store.engines.spark.tasks import hidden, numbers_of

Numbers = NDArray[np.int64]

# Tags of packed values: a block exists, counts of bad rows, labels. From _VIEWS on: the rows of view 0, 1, …
_BLOCK, _BAD, _LABELS, _VIEWS = -2, -1, 0, 1
# Keys with a smaller share of a block's labels are not reported. A block therefore reports at most 500 keys, and an
# unreported key makes one of 4096 parts at most about eight times as large as the average.
_MANY = 0.002


@dataclass(frozen=True)
class ScanLabels:
    """Checks blocks of labels, and reports keys with very many labels. See the module."""

    labels: LabelFiles
    kinds: tuple[Keys, ...]

    RESULT = "first_us long, last_us long, many string"

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """One row per block: its earliest and latest time, and frequent keys as JSON `[[kind, hash, labels], …]`."""
        for number in numbers_of(batches):
            block = self.labels.blocks[number]
            rows = self.labels.read(block, [name for keys in self.kinds for name, _ in keys])
            times = self.labels.times(block, rows)
            many = [
                [i, key, count]
                for i, keys in enumerate(self.kinds)
                for key, count in _frequent(keyed_labels(self.labels, block, rows, keys), keys)
            ]
            columns = [[int(times.min())], [int(times.max())], [json.dumps(many)]]
            yield pa.record_batch(columns, ["first_us", "last_us", "many"])


@dataclass(frozen=True)
class Shuffle:
    """Packs blocks of labels and pieces of sources for parts; see the module.

    Attributes:
        labels: the label rows. The first tasks take one block each.
        sources: the sources of all views. The further tasks take one piece each, source by source.
        kinds: the kinds of entities of all views.
    """

    labels: LabelFiles
    sources: tuple[Source, ...]
    kinds: tuple[EntityKind, ...]

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Packed rows, and counts of invalid rows."""
        blocks = self.labels.blocks
        pieces = [(source, i) for source in self.sources for i, _ in enumerate(source.pieces)]
        for number in numbers_of(batches):
            if number < len(blocks):
                yield from self._labels(blocks[number])
                yield to_arrow([Packed(self.kinds[0].first, _BLOCK, np.int64(number).tobytes())])
            else:
                yield from self._piece(*pieces[number - len(blocks)])

    def _labels(self, block: LabelBlock) -> Iterator[pa.RecordBatch]:
        rows = self.labels.read(block, [name for kind in self.kinds for name in kind.names])
        for kind in self.kinds:
            keyed = keyed_labels(self.labels, block, rows, kind.keys)
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
class JoinPartition:
    """Finds the values that the labels of a part see; see the module.

    Attributes:
        sources: the sources of all views.
        kinds: the kinds of their entities.
        starts: the number of the first label of each block.
        chunk_rows: the number of rows of a view whose keys are looked up together. It is large, because each look-up
            hashes the labels' keys again.
    """

    sources: tuple[Source, ...]
    kinds: tuple[EntityKind, ...]
    starts: tuple[int, ...]
    chunk_rows: int

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Packed rows for blocks. The input is sorted by tag."""
        labels: PartLabels | None = None
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
        if labels is not None:  # views without rows: their labels see nothing, or windows of no events
            for number in labels.kind.views:
                if number not in seen:
                    yield from self._sent(self.sources[number], labels, iter(()))

    def _labels(self, values: list[tuple[int, int, pa.Buffer]]) -> PartLabels:
        part = values[0][0]
        kind = next(kind for kind in self.kinds if kind.first <= part < kind.first + kind.parts)
        return PartLabels(kind, [unpack(value, label_schema(kind.keys)) for _, _, value in values])

    def _sent(self, source: Source, labels: PartLabels, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        view = SeenWindows(source, labels) if source.view.aggregations else SeenRows(source, labels)
        for chunk in _chunks(rows, self.chunk_rows):
            view.add(chunk)
        for batch in view.seen().to_batches():
            blocks = np.searchsorted(self.starts, batch[LABEL_NUMBER].to_numpy(), side="right") - 1
            yield to_arrow(list(split(batch, blocks, _VIEWS + source.number)))


@dataclass(frozen=True)
class AssembleBlock:
    """Writes the training rows of blocks; see the module.

    Attributes:
        labels: the label rows.
        sources: the sources of all views.
        finish: see engines.join.Finish.
        folder: the folder that takes the files.
    """

    labels: LabelFiles
    sources: tuple[Source, ...]
    finish: join.Finish
    folder: Path

    RESULT = "rows long, missing array<long>, bad array<long>"

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """One row for each block: its rows, the rows without a value per feature, and the invalid rows per view."""
        blocks: dict[int, list[list[pa.RecordBatch]]] = {}
        bad = np.zeros(len(self.sources), np.int64)
        for number, tag, value in received(batches):
            seen = blocks.setdefault(number, [[] for _ in self.sources])
            if tag == _BAD:
                view, count = np.frombuffer(value, np.int64).tolist()
                bad[view] += count
            elif tag >= _VIEWS:
                source = self.sources[tag - _VIEWS]
                seen[source.number].append(unpack(value, seen_schema(source)))
        for number, seen in blocks.items():
            yield self._made(number, seen, bad)
            bad[:] = 0

    def run_alone(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """As `run`, for a service whose features need no view."""
        for number in numbers_of(batches):
            yield self._made(number, [], np.zeros(0, np.int64))

    def _made(self, number: int, seen: list[list[pa.RecordBatch]], bad: Numbers) -> pa.RecordBatch:
        block = self.labels.blocks[number]
        rows = self.labels.read(block, self.labels.schema.names)
        (labels,) = rows.combine_chunks().to_batches()
        joined = [
            column
            for source, of_view in zip(self.sources, seen, strict=True)
            for column in seen_by_block(source, of_view, block)
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
    """Write rows of a training set to a file. A rename makes it appear whole. File names sort by number.

    Raises:
        DataError: the file cannot be written.
    """
    path = folder / f"part-{number:08d}.parquet"
    unfinished = hidden(path)
    with reading(f"training set {path}"):
        pq.write_table(rows, unfinished, use_dictionary=dictionary_columns(rows.schema))
        unfinished.rename(path)


def _frequent(labels: pa.RecordBatch, keys: Keys) -> list[tuple[int, int]]:
    """(hash, label count) of each key with more than the share _MANY of the labels."""
    hashes, counts = np.unique(hashes_of(labels, [name for name, _ in keys]), return_counts=True)
    chosen = counts > _MANY * len(labels)
    return list(zip(hashes[chosen].tolist(), counts[chosen].tolist(), strict=True))


def _chunks(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Batches combined into tables of at least `rows` rows; the last table may be smaller."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= rows:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)
