"""The rows of batch views: write them, copy them between layouts, delete a generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.definitions.dtypes import MIN_TIMESTAMP_US, DType
from feature_store.online import keys
from feature_store.online.batch import RowBatch, Values
from feature_store.online.codec import decode_variable, object_column, unbiased
from feature_store.online.layout import ABSENT, RowLayout
from feature_store.online.progress import StoredProgress, finished_intervals
from feature_store.online.rows import StoredRows
from feature_store.online.writer import ViewWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from feature_store._intervals import Interval
    from feature_store.online.keyspace import Keyspace
    from feature_store.online.layout import FieldLayout, SegmentLayout
    from feature_store.online.publication import PlanStore
    from feature_store.registry.serving_plan import RowGroupPlan

# Kinds of keys of a row group: progress first, so that no job continues a generation that is half deleted.
_KINDS = (b"p", b"r", b"v")


class RowStore:
    """The row groups of a project.

    Args:
        keyspace: the project's keys.
        plans: the published plans.
    """

    def __init__(self, keyspace: Keyspace, plans: PlanStore) -> None:
        self._keyspace, self._plans = keyspace, plans

    def writer(self, view: str) -> ViewWriter:
        """See `OnlineStore.writer`."""
        return ViewWriter(self._keyspace.topology, self._plans.required(), view)

    def filler(self, view: str, group: RowGroupPlan, copied: RowGroupPlan | None = None) -> ViewWriter:
        """See `OnlineStore.filler`."""
        return ViewWriter(self._keyspace.topology, self._plans.required(), view, only=(group,), copied=copied)

    def progress(self, view: str, filled: RowGroupPlan | None) -> StoredProgress:
        """See `OnlineStore.progress`."""
        return StoredProgress(self._keyspace, self._plans, view, filled)

    def finished_intervals(self) -> dict[str, list[Interval]]:
        """See `OnlineStore.finished_intervals`."""
        return finished_intervals(self._keyspace, self._plans)

    def copy(self, old: RowGroupPlan, new: RowGroupPlan) -> int:
        """See `OnlineStore.copy_rows`."""
        kept = {segment.view for segment in old.segments} & {segment.view for segment in new.segments}
        # A script names the keys of one bucket, so it can look at the old row only if both rows are in the same bucket.
        stays = old.buckets == new.buckets
        writers = {view: self.filler(view, new, copied=old if stays else None) for view in sorted(kept)}
        try:
            return sum(
                self._copy(bucket, old, names, writers) if stays else self._move(bucket, old, new, names, writers)
                for bucket, names in self._names(old)
            )
        finally:
            for writer in writers.values():
                writer.close()

    def drop(self, group: RowGroupPlan) -> int:
        """See `OnlineStore.drop_rows`."""
        return sum(
            self._keyspace.unlink_starting(bucket, keys.group_prefix(self._keyspace.project, bucket, kind, group))
            for kind in _KINDS
            for bucket in range(group.buckets)
        )

    def batches(self, group: RowGroupPlan) -> Iterator[dict[str, RowBatch]]:
        """All rows of a generation: for each step of SCAN, one batch per view."""
        for bucket, names in self._names(group):
            yield self._batches(bucket, group, names)

    # -- small parts --------------------------------------------------------------------------------------------

    def _names(self, group: RowGroupPlan) -> Iterator[tuple[int, list[bytes]]]:
        """The keys of all rows of a generation, one step of SCAN at a time, and their bucket."""
        for bucket in range(group.buckets):
            for names in self._keyspace.scan(bucket, keys.row_prefix(self._keyspace.project, bucket, group)):
                yield bucket, names

    def _copy(self, bucket: int, old: RowGroupPlan, names: list[bytes], writers: Mapping[str, ViewWriter]) -> int:
        batches = self._batches(bucket, old, names)
        return sum(writer.write_adapted(batches[view]) for view, writer in writers.items())

    def _move(
        self,
        bucket: int,
        old: RowGroupPlan,
        new: RowGroupPlan,
        names: list[bytes],
        writers: Mapping[str, ViewWriter],
    ) -> int:
        """Copy rows into other buckets. Rows of entities that are deleted meanwhile are deleted again.

        A writer or an erasure changes the old row before the new one. So when the old row is still there after the
        copy, an erasure that follows finds the copy too. Else the copy is deleted, and what was written since is
        copied.
        """
        copied, prefix = 0, keys.row_prefix(self._keyspace.project, bucket, old)
        while names:
            before = self._views_of(bucket, old, names)
            copied += self._copy(bucket, old, names, writers)
            after = self._views_of(bucket, old, names)
            names = [name for name, had, has in zip(names, before, after, strict=True) if had - has]
            for name in names:
                self._delete(new, name[len(prefix) :])
        return copied

    def _views_of(self, bucket: int, group: RowGroupPlan, names: list[bytes]) -> list[set[str]]:
        """The views that each row holds; none for a row that is absent."""
        layout = RowLayout(group)
        at, rows = self._rows(bucket, layout, names)
        found: list[set[str]] = [set() for _ in names]
        for view, segment in layout.segments.items():
            for i in np.flatnonzero(_times(rows, segment)[:, 0] != ABSENT).tolist():
                found[at[i]].add(view)
        return found

    def _delete(self, group: RowGroupPlan, entity: bytes) -> None:
        project, bucket = self._keyspace.project, keys.buckets_of([entity], group.buckets)[0]
        views = [keys.variable_prefix(project, bucket, group, segment.view) for segment in group.segments]
        self._keyspace.unlink(bucket, [prefix + entity for prefix in (keys.row_prefix(project, bucket, group), *views)])

    def _rows(self, bucket: int, layout: RowLayout, names: list[bytes]) -> tuple[list[int], StoredRows]:
        """The rows that are there, and the index of each among the names."""
        with self._keyspace.commands(bucket) as redis:
            values = redis.mget(names)
        there = [i for i, value in enumerate(values) if value is not None]
        shown = list(map(repr, names))
        return there, StoredRows.from_values(layout, [values[i] for i in there], shown.__getitem__)

    def _batches(self, bucket: int, group: RowGroupPlan, names: list[bytes]) -> dict[str, RowBatch]:
        """The rows of some keys of a bucket, one batch per view."""
        layout, start = RowLayout(group), len(keys.row_prefix(self._keyspace.project, bucket, group))
        there, rows = self._rows(bucket, layout, names)
        chosen = [names[i][start:] for i in there]
        return {view: self._batch(bucket, layout, one, rows, chosen) for view, one in layout.segments.items()}

    def _batch(
        self, bucket: int, layout: RowLayout, segment: SegmentLayout, rows: StoredRows, entity: list[bytes]
    ) -> RowBatch:
        times = _times(rows, segment)
        there = np.flatnonzero(times[:, 0] != ABSENT)
        # Without a stored created timestamp, the earliest one: every row that has a created timestamp is newer.
        created = unbiased(times[there, 1]) if segment.created else np.full(len(there), MIN_TIMESTAMP_US)
        decoded = list(zip(*(keys.decode([d for _, d in layout.join_keys], entity[i]) for i in there), strict=True))
        prefix = keys.variable_prefix(self._keyspace.project, bucket, layout.group, segment.view)
        variables: list[bytes | None] = []
        if segment.variable_fields and len(there):
            with self._keyspace.commands(bucket) as redis:
                variables = redis.mget([prefix + entity[i] for i in there])
        return RowBatch(
            keys={
                name: _key_column(dtype, decoded[i] if decoded else ())
                for i, (name, dtype) in enumerate(layout.join_keys)
            },
            event_ts=unbiased(times[there, 0]),
            created_ts=created,
            columns={field.name: _values(rows, segment, field, there, variables) for field in segment.fields.values()},
        )


def _times(rows: StoredRows, segment: SegmentLayout) -> np.ndarray[Any, Any]:
    return rows.part(segment.offset, segment.times_bytes).copy().view(">u8")


def _key_column(dtype: DType, values: Any) -> np.ndarray[Any, Any]:
    return object_column(values) if dtype.width is None else np.array(values, dtype.numpy)


def _values(
    rows: StoredRows,
    segment: SegmentLayout,
    field: FieldLayout,
    there: np.ndarray[Any, Any],
    variables: list[bytes | None],
) -> Values:
    is_null = rows.status(segment, [field], 1)[there, 0] != 0
    if field.slot < 0:
        return Values(rows.values(segment, field)[there], is_null)
    listed = [
        None if null or value is None else decode_variable(value, segment, field)
        for value, null in zip(variables, is_null.tolist(), strict=True)
    ]
    return Values(object_column(listed), is_null)
