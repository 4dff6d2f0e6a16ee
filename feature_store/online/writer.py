"""Writes rows of a view. A script in Redis lets the newest row win.

A call of the script writes many rows, and several calls are under way at once: the script limits the speed, so the next
calls are sent while Redis runs one.
"""

from __future__ import annotations

import hashlib
from collections import deque
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feature_store.definitions.dtypes import DType
from feature_store.errors import NotFoundError, StaleWriteError
from feature_store.online import keys
from feature_store.online.batch import RowBatch, Values
from feature_store.online.codec import encode_segments, encode_variables, object_column
from feature_store.online.layout import RowLayout
from feature_store.online.redis.key_writer import KeyWriter
from feature_store.online.redis.resp import argument
from feature_store.online.redis.script_connection import ScriptCalls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store.online.layout import SegmentLayout
    from feature_store.online.published_plan import PublishedPlan
    from feature_store.online.redis.topology import Topology
    from feature_store.registry.serving_plan import RowGroupPlan, SegmentPlan, ServingPlan

# Redis does nothing else during a call, which takes about 5 µs a row: 1 ms here, so that readers hardly notice.
ROWS_PER_CALL = 200
CALLS_UNDER_WAY = 8
NEWEST_WINS = files("feature_store.online").joinpath("lua/newest_wins.lua").read_bytes()
_SHA = hashlib.sha1(NEWEST_WINS, usedforsecurity=False).hexdigest().encode()
_STALE = -1


class WriteCounts(NamedTuple):
    """How many rows of a batch were `written`, and how many were not because the stored row was newer (`older`)."""

    written: int = 0
    older: int = 0

    def plus(self, other: WriteCounts) -> WriteCounts:
        """The sum of both."""
        return WriteCounts(self.written + other.written, self.older + other.older)


class GroupWriter:
    """Writes one view's rows into one row group.

    Args:
        plan: the serving plan.
        group: one of its row groups, or one that is being filled.
        view: the view whose segment is written.
        copied: the row group that the rows are read from, in the same buckets. A row that it no longer has is not
            written.
    """

    def __init__(self, plan: ServingPlan, group: RowGroupPlan, view: str, copied: RowGroupPlan | None = None) -> None:
        self._plan, self._group, self._copied = plan, group, copied
        self.layout = RowLayout(group)
        self.segment = self.layout.segments[view]
        self._copied_offset = RowLayout(copied).segments[view].offset if copied is not None else 0
        self._dtypes = [dtype for _, dtype in self.layout.join_keys]
        self._width = keys.fixed_width(self._dtypes)

    def calls(self, batch: RowBatch, epoch: bytes) -> Iterator[tuple[int, int, bytes]]:
        """The calls that write a batch: `(bucket, rows, command)`.

        Raises:
            DataError: the batch does not fit the layout.
        """
        columns = [batch.keys[name] for name, _ in self.layout.join_keys]
        segments = encode_segments(self.segment, batch)
        variables = encode_variables(self.segment, batch, segments) if self.segment.variable_fields else None
        entity_keys = keys.encode(self._dtypes, columns)
        for bucket, places in self._by_bucket(entity_keys):
            for start in range(0, len(places), ROWS_PER_CALL):
                chosen = places[start : start + ROWS_PER_CALL]
                yield bucket, len(chosen), self._call(bucket, epoch, entity_keys, segments, variables, chosen)

    def _call(
        self,
        bucket: int,
        epoch: bytes,
        entity_keys: list[bytes],
        segments: np.ndarray[Any, Any],
        variables: list[bytes] | None,
        chosen: np.ndarray[Any, Any],
    ) -> bytes:
        project, count = self._plan.project, len(chosen)
        asked = [entity_keys[i] for i in chosen.tolist()]
        key_count = 1 + count * (1 + (variables is not None) + (self._copied is not None))
        parts = [
            b"*%d\r\n" % (11 + key_count + (0 if variables is None else count)),
            b"$7\r\nEVALSHA\r\n",
            argument(_SHA),
            argument(b"%d" % key_count),
            argument(keys.epoch_key(project, bucket)),
            self._key_arguments(keys.row_prefix(project, bucket, self._group), asked),
        ]
        if variables is not None:
            prefix = keys.variable_prefix(project, bucket, self._group, self.segment.view)
            parts.append(self._key_arguments(prefix, asked))
        if self._copied is not None:
            parts.append(self._key_arguments(keys.row_prefix(project, bucket, self._copied), asked))
        parts += [
            argument(epoch),
            argument(self.layout.empty),
            argument(b"%d" % self.segment.offset),
            argument(segments[chosen].tobytes()),
            argument(b"%d" % count),
            argument(b"%d" % self._keep_us()),
            argument(b"%d" % self.segment.times_bytes),
            argument(b"%d" % self._copied_offset),
        ]
        if variables is not None:
            parts += [argument(variables[i]) for i in chosen.tolist()]
        return b"".join(parts)

    def _key_arguments(self, prefix: bytes, entity_keys: list[bytes]) -> bytes:
        if self._width is None:
            return b"".join([argument(prefix + key) for key in entity_keys])
        return KeyWriter(prefix, self._width).write(len(entity_keys), b"".join(entity_keys))

    def _by_bucket(self, entity_keys: list[bytes]) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        if self._group.buckets == 1:
            yield 0, np.arange(len(entity_keys))
            return
        buckets = np.array(keys.buckets_of(entity_keys, self._group.buckets))
        for bucket in range(self._group.buckets):
            places = np.flatnonzero(buckets == bucket)
            if len(places):
                yield bucket, places

    def _keep_us(self) -> int:
        """How long after the event time a key stays, in microseconds: two ttls, so that readers see EXPIRED for one ttl
        before MISSING. 0 (for ever) unless every view of the row has a ttl, since the views share the key."""
        if not self._plan.expire_keys or any(segment.ttl_us is None for segment in self._group.segments):
            return 0
        return 2 * (self.segment.ttl_us or 0)


class ViewWriter:
    """Writes rows of one view to every generation that the serving plan serves or fills.

    Args:
        topology: the Redis servers.
        published: the published plan. A write is refused once another plan is published.
        view: the view whose rows are written.
        only: the row groups to write, in place of all row groups of the plan that hold the view.
        copied: as in `GroupWriter`.

    Raises:
        NotFoundError: the plan has no such view.
    """

    def __init__(
        self,
        topology: Topology,
        published: PublishedPlan,
        view: str,
        only: tuple[RowGroupPlan, ...] | None = None,
        copied: RowGroupPlan | None = None,
    ) -> None:
        plan = published.plan
        groups = (*plan.groups, *plan.filling) if only is None else only
        holding = [group for group in groups if any(segment.view == view for segment in group.segments)]
        if not holding:
            raise NotFoundError(f"project {plan.project}", expected="an applied feature view", got=repr(view))
        self._epoch = published.epoch
        self._targets = [GroupWriter(plan, group, view, copied) for group in holding]
        self._epoch_keys = [keys.epoch_key(plan.project, bucket) for bucket in range(plan.needed_buckets)]
        self._calls = ScriptCalls(topology, NEWEST_WINS, f"write {view}")

    @property
    def layout(self) -> tuple[bool, list[tuple[str, DType]]]:
        """The layout that a batch must have: see `layout_of`."""
        segment = self._targets[0].segment
        return segment.created, [(field.name, field.dtype) for field in segment.fields.values()]

    def write(self, batch: RowBatch) -> WriteCounts:
        """Write a batch. A row that is older than the stored row is not written. Writing again changes nothing.

        Raises:
            StaleWriteError: another plan was published meanwhile. Some rows of the batch may be written. Write the
                whole batch again with a writer of the new plan.
            DataError: the batch does not fit the view's fields.
            StoreReplyError: Redis refuses the write (it is full, a replica, …).
            StoreConnectionError, StoreTimeoutError: Redis went away or does not answer in time.
        """
        first, *others = self._targets
        counts = self._write(first, batch)
        for target in others:
            self._write(target, adapted(batch, target.segment))
        return counts

    def write_adapted(self, batch: RowBatch) -> int:
        """Write a batch of another layout of the view: see `adapted`. Returns the number of rows in the batch."""
        for target in self._targets:
            self._write(target, adapted(batch, target.segment))
        return len(batch)

    def close(self) -> None:
        """Close the connections."""
        self._calls.close()

    def __enter__(self) -> ViewWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, target: GroupWriter, batch: RowBatch) -> WriteCounts:
        under_way: deque[int] = deque()
        counts = WriteCounts()
        for bucket, rows, command in target.calls(batch, self._epoch):
            self._calls.send(self._epoch_keys[bucket], command)
            under_way.append(rows)
            if len(under_way) == CALLS_UNDER_WAY:
                counts = counts.plus(self._answer(under_way.popleft()))
        while under_way:
            counts = counts.plus(self._answer(under_way.popleft()))
        return counts

    def _answer(self, rows: int) -> WriteCounts:
        try:
            reply = self._calls.answer()
        except BaseException:
            self.close()  # the replies to the calls under way are not taken any more
            raise
        if reply == _STALE:
            self.close()
            raise StaleWriteError(
                "write",
                expected="the serving plan that the writer was made with",
                got="another, published meanwhile",
                hint="run the write again: rows that are already there stay as they are",
            )
        return WriteCounts(rows - reply, reply)


def layout_of(segment: SegmentPlan) -> tuple[bool, list[tuple[str, DType]]]:
    """The layout of a segment's batches: whether created timestamps are stored, and the fields by name and type."""
    return segment.created, [(field.name, DType.parse(field.dtype)) for field in segment.fields]


def adapted(batch: RowBatch, segment: SegmentLayout) -> RowBatch:
    """A batch in another layout of its view. A field that the batch lacks, or has in another type, is null."""
    columns: dict[str, Values] = {}
    for field in segment.fields.values():
        column = batch.columns.get(field.name)
        columns[field.name] = (
            column if column is not None and _fits(field.dtype, column) else nulls(field.dtype, len(batch))
        )
    return RowBatch(batch.keys, batch.event_ts, batch.created_ts, columns)


def nulls(dtype: DType, count: int) -> Values:
    """A column without any value."""
    if dtype.width is None:
        return Values(object_column([None] * count), np.ones(count, bool))
    shape = (count,) if dtype.length is None else (count, dtype.length)
    return Values(np.zeros(shape, dtype.numpy), np.ones(count, bool))


def _fits(dtype: DType, column: Values) -> bool:
    values: np.ndarray[Any, np.dtype[Any]] = column.values
    shape = () if dtype.width is None or dtype.length is None else (dtype.length,)
    wanted = np.dtype(object) if dtype.width is None else dtype.numpy
    return values.shape[1:] == shape and values.dtype.str == wanted.str
