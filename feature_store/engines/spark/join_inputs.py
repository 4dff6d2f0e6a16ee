"""The inputs of a join's tasks, as plain data: blocks of labels, kinds of entities, and the sources of views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.arrow.labels import label_times, label_values, refuse_corrupt
from feature_store.arrow.plain import as_kept
from feature_store.arrow.reading import reading
from feature_store.arrow.rows import CREATED_TS, EVENT_TS, SEQUENCE, SourceColumns, checked_schema, one_array
from feature_store.arrow.sources.source import Piece
from feature_store.arrow.types import storage_type
from feature_store.definitions.dtypes import DType
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.engines.spark.entities import hashes_of
from feature_store.engines.spark.tasks import BadRows

Numbers = NDArray[np.int64]
Keys = tuple[tuple[str, DType], ...]  # join keys with their types

# Names of columns that no join key or field can have.
LABEL_TIME, LABEL_NUMBER = "label time", "label number"


class LabelBlock(NamedTuple):
    """Consecutive labels.

    Attributes:
        piece: the row groups that hold them.
        skipped: the number of rows of the piece before the first label.
        rows: the number of labels.
        first: the number of the first label.
    """

    piece: Piece
    skipped: int
    rows: int
    first: int


class LabelFiles(NamedTuple):
    """The labels of a join, in files.

    Attributes:
        where: names them in errors.
        schema: the schema of all their columns.
        timestamp: the column of their times.
        blocks: the blocks, in order.
    """

    where: str
    schema: pa.Schema
    timestamp: str
    blocks: tuple[LabelBlock, ...]

    def read(self, block: LabelBlock, columns: Sequence[str]) -> pa.Table:
        """Some columns of a block, and the column of the times.

        Raises:
            DataError: the file cannot be read, or its values are corrupt.
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

    def times(self, block: LabelBlock, rows: pa.Table) -> Numbers:
        """The times of a block: (rows,) int64, microseconds since 1970.

        Raises:
            DataError: a label has no time.
        """
        return label_times(rows[self.timestamp], f"{self.where}: column {self.timestamp}", first=block.first)


class EntityKind(NamedTuple):
    """The entities with the same join keys, and the views that describe them.

    Attributes:
        keys: their join keys, with types.
        first, parts: the numbers of their parts are `[first, first + parts)`.
        views: the numbers of the views.
        spread: by the hash of a key with very many labels, the number of parts that its labels are spread over. The
            labels of another key are in one part.
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
        """(n,) int64, the part of each label."""
        parts, copies = self._parts_and_copies(rows)
        numbers: Numbers = rows[LABEL_NUMBER].to_numpy()
        return self.first + (parts + numbers % copies) % self.parts

    def of_rows(self, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, Numbers]:
        """(m,) rows and (m,) int64 parts. A row of a spread key occurs once for each part with labels of the key."""
        parts, copies = self._parts_and_copies(rows)
        if (copies == 1).all():
            return rows, self.first + parts
        places = np.repeat(np.arange(len(rows)), copies)
        copy = np.arange(len(places)) - np.repeat(np.cumsum(copies) - copies, copies)
        return rows.take(pa.array(places)), self.first + (parts[places] + copy) % self.parts

    def _parts_and_copies(self, rows: pa.RecordBatch) -> tuple[Numbers, Numbers]:
        """(n,) int64 first part of each row's key, from 0; (n,) int64 number of parts that the key is spread over."""
        hashes = hashes_of(rows, self.names)
        parts = (hashes % np.uint64(self.parts)).astype(np.int64)
        if not self.spread:
            return parts, np.ones(len(rows), np.int64)
        spread = np.array(sorted(self.spread), np.uint64)
        copies = np.array([self.spread[key] for key in spread.tolist()])
        places = np.minimum(np.searchsorted(spread, hashes), len(spread) - 1)
        return parts, np.where(spread[places] == hashes, copies[places], 1)


class Source(NamedTuple):
    """A view's source, and the features that a join takes from it.

    Attributes:
        number: the number of the view.
        view: the view.
        columns: the columns that are read and checked.
        fields: the wanted features.
        pieces: the pieces of the source that are read.
        reach: the interval of event times that labels can see, in microseconds since 1970.
        bad: takes the invalid rows.
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
        """The types of the wanted features."""
        return [self.view.field(name).dtype for name in self.fields]

    @property
    def sent(self) -> pa.Schema:
        """The schema of the rows that tasks exchange."""
        schema = checked_schema(self.columns)
        values = self.view.event_columns if self.view.aggregations else self.fields
        names = dict.fromkeys([*self.view.join_keys, *values, EVENT_TS, CREATED_TS, SEQUENCE])
        return pa.schema([schema.field(name) for name in names])


def keyed_labels(labels: LabelFiles, block: LabelBlock, rows: pa.Table, keys: Keys) -> pa.RecordBatch:
    """The labels of a block that have an entity key: keys, times and numbers.

    Raises:
        DataError: a key or a time is invalid.
    """
    columns = [
        one_array(label_values(rows[name], dtype, f"{labels.where}: column {name}", first=block.first))
        for name, dtype in keys
    ]
    times = pa.array(labels.times(block, rows))
    numbers = pa.array(np.arange(block.first, block.first + block.rows))
    batch = pa.RecordBatch.from_arrays([*columns, times, numbers], schema=label_schema(keys))
    there = ~np.logical_or.reduce([column.is_null().to_numpy(zero_copy_only=False) for column in columns])
    return batch if there.all() else batch.filter(pa.array(there))


def label_schema(keys: Keys) -> pa.Schema:
    """The schema of the labels that tasks exchange: keys, times and numbers."""
    fields = [pa.field(name, storage_type(dtype)) for name, dtype in keys]
    return pa.schema([*fields, pa.field(LABEL_TIME, pa.int64()), pa.field(LABEL_NUMBER, pa.int64())])


def seen_schema(source: Source) -> pa.Schema:
    """The schema of the rows that labels see of a source: the labels' numbers and the wanted features."""
    fields = [pa.field(name, storage_type(dtype)) for name, dtype in zip(source.fields, source.types, strict=True)]
    return pa.schema([pa.field(LABEL_NUMBER, pa.int64()), *fields])
