"""How far the rows of views are materialized, kept in Redis beside the rows.

Each bucket has one hash per row group, generation and view:

    intervals   the finished intervals, as `start,end` in microseconds since 1970, with a space between two
    job:<id>    how many chunks of a job are written
    files       in bucket 0 alone: which states of the source's files are read, see `engines/changed_files.py`

A hash is written after Redis acknowledged the rows that it records, and the same server holds both. So a server that is
emptied, restored from a snapshot, cut at the end of its append-only file or replaced by a replica that lags may lack
progress for rows that it has, but never has progress for rows that it lacks. Only times that all buckets record count.

One gap is left: rows may be lost between their acknowledgement and the record. So each record names the server process
that answered before the rows were written, and the fields that it held then. If either has changed, LostWriteError
makes the job write its rows again.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from feature_store._intervals import common, merged
from feature_store.errors import CorruptRowError, LostWriteError, StaleWriteError
from feature_store.online import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from feature_store._intervals import Interval
    from feature_store.online.keyspace import Keyspace
    from feature_store.online.publication import PlanStore
    from feature_store.registry.serving_plan import RowGroupPlan

READ = files("feature_store.online").joinpath("lua/progress_read.lua").read_text()
CHANGE = files("feature_store.online").joinpath("lua/progress.lua").read_text()
_INTERVALS, _FILES = b"intervals", b"files"
_DONE, _DIFFERENT, _STALE, _OTHER_SERVER = 1, 0, -1, -2
# Attempts to write a record while other jobs write theirs: each attempt takes a millisecond.
_ATTEMPTS = 50

Fields = dict[bytes, bytes]
# Per field, its new value; an empty value deletes the field.
Changes = dict[bytes, bytes]


class _Bucket(NamedTuple):
    """The state of a bucket: its node's process, its node's clock (microseconds since 1970), and each view's fields."""

    server: bytes
    now_us: int
    fields: list[Fields]


class StoredProgress:
    """How far one view is materialized, in the row group that holds it.

    Args:
        keyspace: the project's keys.
        plans: the published plans.
        view: a batch view.
        filled: the row group that is being filled; None for the row group that the published plan serves.

    Raises:
        NotPublishedError, NotFoundError: there is no plan, or no such view in it.
    """

    def __init__(self, keyspace: Keyspace, plans: PlanStore, view: str, filled: RowGroupPlan | None = None) -> None:
        self._keyspace, self._plans, self._view, self._filled = keyspace, plans, view, filled
        self._begin()

    def now_us(self) -> int:
        """Redis's clock, microseconds since 1970; the earliest of several servers'."""
        self._begin()
        return min(bucket.now_us for bucket in self._buckets)

    def finished_intervals(self) -> list[Interval]:
        """The intervals that are materialized. An interval that ends after Redis's clock is left out.

        Raises:
            CorruptRowError: a record cannot be read.
        """
        self._begin()
        return _finished(self._key(0), self._buckets, 0)

    def files_read(self) -> bytes:
        """The states of files that `record_interval` recorded last; empty when it recorded none."""
        self._begin()
        return self._buckets[0].fields[0].get(_FILES, b"")

    def chunks_done(self, job: str) -> int:
        """How many chunks of a job are written; 0 for an unknown job.

        Call it before rows are written: the next record covers the rows that are written after this call.
        """
        self._begin()
        return min(_chunks(self._key(0), bucket, _job(job)) for bucket in self._buckets)

    def record_chunk(self, job: str, done: int) -> None:
        """Record that `done` chunks of a job are written, those recorded before included.

        Raises:
            LostWriteError: Redis may have lost some of the chunks; call `chunks_done`, and write the others again.
            StaleWriteError: another plan was published while the row group was filled.
        """
        field, value = _job(job), b"%d" % done
        if self._change(lambda _, __: {field: value}):
            return
        # After a lost answer, redis-py sends the call again, and the second call finds the change of the first.
        self._look()
        if any(bucket.fields[0].get(field) != value for bucket in self._buckets):
            raise self._lost()

    def record_interval(self, job: str, chunks: int, interval: Interval, files_read: bytes = b"") -> None:
        """Record that a job materialized an interval, and delete the job's record.

        Args:
            job: the id of the job.
            chunks: how many chunks the job has recorded.
            interval: `(start, end)`, microseconds since 1970.
            files_read: the new result of `files_read`; empty leaves it as it is.

        Raises:
            LostWriteError, StaleWriteError: as `record_chunk`.
        """
        field, expected = _job(job), b"%d" % chunks if chunks else b""

        def changes(number: int, fields: Fields) -> Changes:
            believed = _past(_intervals(self._key(number), fields), self._buckets[number].now_us)
            changed = {_INTERVALS: _text(merged([*believed, interval])), field: b""}
            return changed | ({_FILES: files_read} if files_read and number == 0 else {})

        for _ in range(_ATTEMPTS):
            if any(
                bucket.fields[0].get(field, b"") != expected and not self._holds(number, interval)
                for number, bucket in enumerate(self._buckets)
            ):
                break
            if self._change(changes):
                return
            self._look()
        raise self._lost()

    def forget_job(self, job: str) -> None:
        """Delete the record of a job."""
        for bucket in range(len(self._buckets)):
            with self._keyspace.commands(bucket) as redis:
                redis.hdel(self._key(bucket), _job(job))

    # -- small parts --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Read all progress, under the plan that is published now and from the server that answers now."""
        published = self._plans.required()
        self._epoch, self._group = published.epoch, self._filled or published.plan.group_of(self._view)
        self._buckets = self._read_buckets(self._group.buckets)

    def _look(self) -> None:
        """Read again.

        Raises:
            LostWriteError: another server answers.
        """
        found = self._read_buckets(len(self._buckets))
        if [bucket.server for bucket in found] != [bucket.server for bucket in self._buckets]:
            raise self._lost()
        self._buckets = found

    def _read_buckets(self, count: int) -> list[_Bucket]:
        return [_read(self._keyspace, number, [self._key(number)]) for number in range(count)]

    def _holds(self, number: int, interval: Interval) -> bool:
        stored = _intervals(self._key(number), self._buckets[number].fields[0])
        return any(start <= interval[0] and interval[1] <= end for start, end in stored)

    def _change(self, changes: Callable[[int, Fields], Changes]) -> bool:
        """Make changes in every bucket. False when a bucket was changed since it was read; earlier buckets are changed.

        Raises:
            LostWriteError, StaleWriteError: as `record_chunk`.
        """
        for number, bucket in enumerate(self._buckets):
            known = bucket.fields[0]
            made = changes(number, known)
            reply = self._call(number, bucket, made)
            while reply == _STALE:
                self._follow()
                reply = self._call(number, bucket, made)
            if reply == _OTHER_SERVER:
                raise self._lost()
            if reply == _DIFFERENT:
                return False
            known |= made
            for field in [field for field, value in made.items() if not value]:
                del known[field]
        return True

    def _call(self, number: int, bucket: _Bucket, changes: Changes) -> int:
        known = bucket.fields[0]
        listed = [part for field, value in changes.items() for part in (field, known.get(field, b""), value)]
        epoch = keys.epoch_key(self._keyspace.project, number)
        with self._keyspace.commands(number) as redis:
            return int(redis.eval(CHANGE, 2, epoch, self._key(number), self._epoch, bucket.server, *listed))

    def _follow(self) -> None:
        """Go on under the plan that is published now, as long as it serves the same generation.

        Raises:
            LostWriteError: the plan serves another generation, which has no progress yet.
            StaleWriteError: another plan was published while the row group was filled.
        """
        published = self._plans.required()
        if self._filled is not None:
            raise StaleWriteError(
                f"progress of {self._view}",
                problem="another serving plan was published while the row group was filled",
                hint="apply again",
            )
        group = published.plan.group_of(self._view)
        if (group.name, group.generation) != (self._group.name, self._group.generation):
            raise self._lost()
        self._epoch = published.epoch

    def _key(self, number: int) -> bytes:
        return keys.progress_key(self._keyspace.project, number, self._group, self._view)

    def _lost(self) -> LostWriteError:
        return LostWriteError(
            f"rows of {self._view}",
            problem="Redis was restarted, replaced or emptied, or the plan changed, before the rows were recorded",
            hint="run the job again: it writes what is not recorded",
        )


def finished_intervals(keyspace: Keyspace, plans: PlanStore) -> dict[str, list[Interval]]:
    """Per batch view of the published plan, its finished intervals: see `StoredProgress.finished_intervals`.

    Raises:
        NotPublishedError: there is no plan.
        CorruptRowError: a record cannot be read.
    """
    plan = plans.required().plan
    views = [(group, segment.view) for group in plan.groups for segment in group.segments]
    buckets = [
        _read(keyspace, number, [keys.progress_key(keyspace.project, number, group, view) for group, view in views])
        for number in range(plan.buckets if views else 0)
    ]
    return {
        view: _finished(keys.progress_key(keyspace.project, 0, group, view), buckets, i)
        for i, (group, view) in enumerate(views)
    }


def _read(keyspace: Keyspace, bucket: int, names: Sequence[bytes]) -> _Bucket:
    with keyspace.commands(bucket) as redis:
        server, time, *hashes = redis.eval(READ, len(names), *names)
    return _Bucket(server, int(time), [dict(zip(found[::2], found[1::2], strict=True)) for found in hashes])


def _finished(key: bytes, buckets: Sequence[_Bucket], number: int) -> list[Interval]:
    """The intervals that all buckets record, for the view at index `number` of each bucket's fields."""
    first, *others = (_past(_intervals(key, bucket.fields[number]), bucket.now_us) for bucket in buckets)
    for other in others:
        first = common(first, other)
    return first


def _past(intervals: Sequence[Interval], now_us: int) -> list[Interval]:
    """The intervals that end at or before `now_us`.

    An interval that ends later was recorded while a clock was ahead. Rows near its end were still to come, and no
    record tells from which time on. So the whole interval is read again.
    """
    return [(start, end) for start, end in intervals if end <= now_us]


def _intervals(key: bytes, fields: Fields) -> list[Interval]:
    pairs = [pair.split(b",") for pair in fields.get(_INTERVALS, b"").split()]
    try:
        return merged((int(start), int(end)) for start, end in pairs)
    except ValueError:
        raise _corrupt(key, _INTERVALS, fields) from None


def _chunks(key: bytes, bucket: _Bucket, field: bytes) -> int:
    value = bucket.fields[0].get(field, b"0")
    if not value.isdigit():
        raise _corrupt(key, field, bucket.fields[0])
    return int(value)


def _corrupt(key: bytes, field: bytes, fields: Fields) -> CorruptRowError:
    return CorruptRowError(
        f"progress {key.decode()}",
        problem=f"its field {field.decode()} is {fields[field][:80]!r}, which this library does not write",
        hint="delete the key, and materialize: all rows are written again",
    )


def _text(intervals: Sequence[Interval]) -> bytes:
    return b" ".join(b"%d,%d" % interval for interval in intervals)


def _job(job: str) -> bytes:
    return b"job:" + job.encode()
