"""Finds what the labels of a part see: the newest known row of a view, or the windows of its events."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.arrow.rows import CREATED_TS, EVENT_TS, SEQUENCE, one_array
from feature_store.definitions.dtypes import MIN_TIMESTAMP_US
from feature_store.engines.as_of import NONE, as_of, sort_rows
from feature_store.engines.entity_codes import EntityCodes
from feature_store.engines.spark.join_inputs import (
    LABEL_NUMBER,
    LABEL_TIME,
    EntityKind,
    LabelBlock,
    Source,
    seen_schema,
)
from feature_store.engines.windows import windows_of_labels

Numbers = NDArray[np.int64]


class PartLabels:
    """The labels of a part."""

    def __init__(self, kind: EntityKind, batches: list[pa.RecordBatch]) -> None:
        rows = pa.Table.from_batches(batches)
        self.kind = kind
        self.entities = EntityCodes([rows[name] for name in kind.names])
        self.times: Numbers = rows[LABEL_TIME].to_numpy()
        self.numbers: Numbers = rows[LABEL_NUMBER].to_numpy()

    def concerned(self, rows: pa.Table) -> tuple[pa.Table, NDArray[np.int32]]:
        """The rows of the labels' entities up to the last label time, and (n,) int32 their entities' numbers."""
        codes = self.entities.of([rows[name] for name in self.kind.names])
        kept = (codes >= 0) & (rows[EVENT_TS].to_numpy() <= self.times.max())
        return rows.filter(pa.array(kept)), codes[kept]


class SeenRows:
    """Finds the rows that labels see of a view without aggregations. The rows arrive in chunks."""

    def __init__(self, source: Source, labels: PartLabels) -> None:
        self._source, self._labels = source, labels
        count = len(labels.times)
        self._kept = seen_schema(source).remove(0).empty_table()
        self._row = np.full(count, NONE, np.int64)  # for each label, its row in `_kept`
        self._order = [np.full(count, MIN_TIMESTAMP_US, np.int64) for _ in range(3)]  # event time, creation time, place

    def add(self, rows: pa.Table) -> None:
        """Take more rows into account. A label that sees a later row among them no longer sees its earlier row."""
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
        """The row that each label sees. A label that sees no row is left out."""
        ttl_us = self._source.view.ttl_us
        there = self._row != NONE
        if ttl_us is not None:
            # As in `as_of`: if the latest visible row has expired, no older row takes its place.
            there &= self._order[0] >= self._labels.times - min(ttl_us, 1 << 62)
        columns = self._kept.take(pa.array(self._row[there])).columns
        return pa.table([pa.array(self._labels.numbers[there]), *columns], schema=seen_schema(self._source))

    def _keep(self, rows: pa.Table) -> None:
        """Keep only the rows that a label sees."""
        there = self._row != NONE
        used, again = np.unique(self._row[there], return_inverse=True)
        self._kept = rows.take(pa.array(used)).combine_chunks()
        self._row[there] = again


class SeenWindows:
    """Computes the windows at the labels' times, of a view with aggregations."""

    def __init__(self, source: Source, labels: PartLabels) -> None:
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
        return pa.table([pa.array(labels.numbers), *windows], schema=seen_schema(source))


def seen_by_block(source: Source, batches: list[pa.RecordBatch], block: LabelBlock) -> list[pa.Array]:
    """For each wanted field of a view, (rows,) the values that the labels of a block see.

    Args:
        source: the view's source.
        batches: rows with a label's number and the values that the label sees (`seen_schema`), in any order.
        block: the block.
    """
    seen = pa.Table.from_batches(batches, seen_schema(source))
    columns = [one_array(seen[name]) for name in source.fields]
    row = np.full(block.rows, NONE, np.int64)  # for each label, its row in `seen`
    row[seen[LABEL_NUMBER].to_numpy() - block.first] = np.arange(len(seen))
    if source.view.aggregations and len(seen) < block.rows:
        # A label without an entity gets the windows of no events. They are one more row.
        nobody = np.array([-1], np.int32), np.array([0], np.int64)
        none = windows_of_labels(source.view, source.sent.empty_table(), np.array([], np.int32), *nobody, source.fields)
        columns = [pa.concat_arrays(pair) for pair in zip(columns, none, strict=True)]
        row[row == NONE] = len(seen)
    taken = pa.array(row, mask=row == NONE)
    return [column.take(taken) for column in columns]


def _by_place(rows: pa.Table, codes: NDArray[np.int32]) -> tuple[pa.Table, NDArray[np.int32]]:
    """Rows and their codes in the order of the source. They arrive in a different order when a task is run again."""
    order = np.argsort(rows[SEQUENCE].to_numpy(), kind="stable")
    return rows.take(pa.array(order)), codes[order]


def _follows(rows: Sequence[Numbers], others: Sequence[Numbers]) -> NDArray[np.bool_]:
    """(n,) whether each row comes after its counterpart, by event time, then creation time, then place."""
    follows = np.zeros(len(rows[0]), bool)
    for row, other in zip(reversed(rows), reversed(others), strict=True):
        follows = (row > other) | (row == other) & follows
    return follows
