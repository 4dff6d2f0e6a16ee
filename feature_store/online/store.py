"""The online store as its owners see it: publish plans, write, move rows between layouts, delete, look at it."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feature_store.definitions.dtypes import MIN_TIMESTAMP_US, DType
from feature_store.errors import NotFoundError, NotPublishedError, PermissionDeniedError, StaleWriteError
from feature_store.online import fence_marks, keys
from feature_store.online.batch import RowBatch, Values
from feature_store.online.codec import decode_variable, object_column, unbiased
from feature_store.online.conversation import PublishedPlan
from feature_store.online.entity_rows import entity_keys
from feature_store.online.layout import ABSENT, FINGERPRINT_BYTES, RowLayout, decode_time
from feature_store.online.progress import StoredProgress, finished_intervals
from feature_store.online.publication import Found, Publications
from feature_store.online.redis.endpoint import Endpoint
from feature_store.online.remains import Remains
from feature_store.online.rows import StoredRows
from feature_store.online.tile_layout import TileValueLayout
from feature_store.online.tile_writer import TileWriter
from feature_store.online.writer import ViewWriter, WriteCounts, layout_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import redis

    from feature_store._intervals import Interval
    from feature_store.errors import FencesLostError
    from feature_store.online.inspection import StoredValue
    from feature_store.online.layout import FieldLayout, SegmentLayout
    from feature_store.registry.serving_plan import RowGroupPlan, SegmentPlan, ServingPlan, TilesPlan

NEWEST = files("feature_store.online").joinpath("lua/newest.lua").read_text()
# Keys per SCAN and per UNLINK or MGET: what Redis does in well under a millisecond.
_KEYS_PER_STEP = 1000
# Values of a row group or stream view whose times are looked at. Of more, the newest of so many is the newest but for a
# little: of a million users of whom one in a thousand was seen in the last minute, 200 are among them.
_TIMES_LOOKED_AT = 200_000


class Newest(NamedTuple):
    """The newest event time that is stored of a view.

    Attributes:
        event_us: microseconds since 1970; None: nothing is stored.
        rows: how many values were looked at.
        whole: whether those are all.
    """

    event_us: int | None
    rows: int
    whole: bool


@dataclass
class _Search:
    """A search for the newest times of one layout's values.

    Attributes:
        layout: of the values.
        form: how Redis's struct library reads a stored time, as lua/newest.lua wants it.
        places: where the time is in a value, by view.
        newest: the greatest so far, as they are stored.
        rows, whole: as of `Newest`.
    """

    layout: RowLayout | TileValueLayout
    form: str
    places: dict[str, int]
    newest: dict[str, bytes] = field(default_factory=dict)
    rows: int = 0
    whole: bool = True

    @classmethod
    def of_rows(cls, group: RowGroupPlan) -> _Search:
        layout = RowLayout(group)
        return cls(layout, ">I4I4", {view: segment.offset for view, segment in layout.segments.items()})

    @classmethod
    def of_tiles(cls, tiles: TilesPlan) -> _Search:
        return cls(TileValueLayout(tiles), "<d", {tiles.view: FINGERPRINT_BYTES})

    def add(self, rows: int, answers: list[bytes]) -> None:
        """Take in the greatest times of so many more values, one for each place."""
        self.rows += rows
        for view, stored in zip(self.places, answers, strict=True):
            self.newest[view] = max(self.newest.get(view, bytes(8)), stored, key=self._number)

    def found(self) -> dict[str, Newest]:
        """What was found, by view."""
        return {view: Newest(self._time(self.newest.get(view)), self.rows, self.whole) for view in self.places}

    def _time(self, stored: bytes | None) -> int | None:
        number = self._number(stored or bytes(8))
        if number == ABSENT:
            return None
        return int(number) if self.form == "<d" else decode_time(int(number))

    def _number(self, stored: bytes) -> float:
        """A time as it is stored: a double of tiles, a biased integer of rows."""
        return float(struct.unpack("<d", stored)[0]) if self.form == "<d" else int.from_bytes(stored, "big")


class OnlineStore:
    """One project's part of a Redis.

    Args:
        url: as of `OnlineClient`.
        project: its name.
        timeout_s: seconds to wait to connect, and for each answer.

    Raises:
        ConfigError: the URL cannot be read.
    """

    def __init__(self, url: str | redis.ConnectionPool, project: str, *, timeout_s: float = 5.0) -> None:
        self._url, self._timeout_s = url, timeout_s
        self._endpoint = Endpoint(url, timeout_s)
        self._project = project
        self._redis: Any = self._endpoint.client()
        self._publications = Publications(self._endpoint, self._redis, project)
        self._layouts: dict[str, RowLayout] = {}

    @property
    def project(self) -> str:
        """The project's name."""
        return self._project

    @property
    def shown_url(self) -> str:
        """Where the store is, without a password."""
        return self._endpoint.shown

    # -- the plan -----------------------------------------------------------------------------------------------

    def find_published(self) -> Found:
        """What Redis holds of a publication, complete or not.

        Raises:
            NotPublishedError: the plan is of another version of the library.
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
        """
        return self._publications.find()

    def published(self) -> PublishedPlan | None:
        """The plan that is published, or None.

        Raises:
            DamagedPlanError: what is published is incomplete, or cannot be read.
            NotPublishedError, StoreConnectionError, StoreTimeoutError: as `find_published`.
        """
        found = self._publications.find()
        if found.problem is not None:
            raise found.problem
        return None if found.is_empty else found.published

    def require_published(self) -> PublishedPlan:
        """The plan that is published.

        Raises:
            NotPublishedError: none is.
        """
        published = self.published()
        if published is None:
            raise NotPublishedError(
                f"project {self._project}",
                expected="a published serving plan",
                got=f"none in Redis at {self.shown_url}",
                hint="run `feature-store apply`",
            )
        return published

    def server_id(self) -> bytes:
        """The id of the Redis process that answers: another after a restart or a failover."""
        with self._endpoint.errors():
            found: str = self._redis.info("server")["run_id"]
        return found.encode()

    def now_us(self) -> int:
        """Redis's clock, microseconds since 1970."""
        with self._endpoint.errors():
            seconds, microseconds = self._redis.time()
        return int(seconds) * 1_000_000 + int(microseconds)

    def publish(
        self, plan: ServingPlan, *, over: PublishedPlan | Found | None, written_to: bytes = b""
    ) -> PublishedPlan:
        """Publish a plan in the place of another, at once for all readers and writers.

        Args:
            plan: the plan.
            over: what the caller has found published, complete or not; None: nothing.
            written_to: `server_id` of before rows of the plan were copied or filled; empty: there are none.

        Raises:
            ConflictError: something else than `over` is published.
            LostWriteError: another server answers, which may lack rows that the other acknowledged.
        """
        return self._publications.publish(plan, over=over, has_tiles=self._has_tiles, written_to=written_to)

    def remaining(self, target: ServingPlan) -> ServingPlan:
        """A plan that goes on with what is stored, where the plan that named it is lost; see online/remains.py.

        Args:
            target: what is to be served, compiled as if nothing were stored.

        Raises:
            ConfigError: keys are stored under more buckets than the plan has.
        """
        return Remains(self._endpoint, self._redis, self._project, self._scan).adopted(target)

    def _has_tiles(self, tiles: TilesPlan, bucket: int) -> bool:
        return any(self._scan(keys.tiles_prefix(self._project, bucket, tiles) + b"*"))

    # -- rows ---------------------------------------------------------------------------------------------------

    def writer(self, view: str) -> ViewWriter:
        """A writer of a view's rows, bound to the plan that is published now.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or no such view in it.
        """
        return ViewWriter(self._endpoint, self.require_published(), view)

    def destination(self, view: str) -> Destination:
        """Where a job writes a view's rows, now under the plan that is published.

        Raises:
            NotPublishedError, NotFoundError: as `writer`.
        """
        segment = self.require_published().plan.group_of(view).segment(view)
        return Destination(self._url, self._project, segment, timeout_s=self._timeout_s)

    def filling(self, view: str, group: RowGroupPlan) -> Destination:
        """Where a job writes a view's rows of one row group alone: the next generation, while it is filled.

        Raises:
            NotPublishedError: there is no plan.
        """
        epoch = self.require_published().epoch
        return Destination(self._url, self._project, group.segment(view), group, epoch, timeout_s=self._timeout_s)

    def filler(self, view: str, group: RowGroupPlan, copied: RowGroupPlan | None = None) -> ViewWriter:
        """A writer of a view's rows to one row group alone: the next generation, while it is filled.

        Rows that are read from another row group (`copied`) are not written when it has them no more: what is deleted
        while it is copied stays deleted.

        Raises:
            NotPublishedError: there is no plan.
        """
        return ViewWriter(self._endpoint, self.require_published(), view, only=(group,), copied=copied)

    def progress(self, view: str, filled: RowGroupPlan | None = None) -> StoredProgress:
        """How far a batch view is materialized, in the row group that is served or in one that is being filled.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or no such view in it.
        """
        return StoredProgress(self, self._endpoint, view, filled)

    def finished_intervals(self) -> dict[str, list[Interval]]:
        """Per batch view of the published plan the intervals `[start, end)` that are materialized, in microseconds,
        sorted, none touching another.

        Raises:
            NotPublishedError: there is no plan.
            CorruptRowError: what is stored cannot be read.
        """
        return finished_intervals(self, self._endpoint)

    def tile_writer(self, view: str) -> TileWriter:
        """A writer of a stream view's tiles, bound to the plan that is published now.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or no such stream view in it.
        """
        published = self.require_published()
        tiles = published.plan.tiles_of(view)
        if tiles is None:
            known = ", ".join(tiles.view for tiles in published.plan.tiles)
            raise NotFoundError(view, expected=f"a stream view: {known or 'none is applied'}", got=repr(view))
        return TileWriter(self._endpoint, published, tiles)

    def tile_filler(self, tiles: TilesPlan) -> TileWriter:
        """A writer of a generation of a stream view that is being filled.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or it is not being filled.
        """
        published = self.require_published()
        for begun in published.plan.filling_tiles:
            if begun == tiles:
                return TileWriter(self._endpoint, published, begun)
        raise _not_filling(tiles)

    def copy_rows(self, old: RowGroupPlan, new: RowGroupPlan) -> int:
        """Copy all that two layouts of a row group share; what only the new one has is null. Returns the rows copied.

        Rows that are newer in the new layout stay. The old ones stay too.
        """
        copied = 0
        kept = {segment.view for segment in old.segments} & {segment.view for segment in new.segments}
        writers = {view: self.filler(view, new, copied=old) for view in sorted(kept)}
        try:
            for batches in self._read_all(old):
                for view, writer in writers.items():
                    copied += writer.write_adapted(batches[view])
        finally:
            for writer in writers.values():
                writer.close()
        return copied

    def drop_rows(self, group: RowGroupPlan) -> int:
        """Delete a row group: first how far it is materialized, so that what is left of it is never gone on with.
        Returns how many keys."""
        buckets = range(self.require_published().plan.buckets)
        return sum(
            self._unlink_all(
                b"%b%b:%b:%d:*" % (keys.tag(self._project, bucket), kind, group.name.encode(), group.generation)
            )
            for kind in (b"p", b"r", b"v")
            for bucket in buckets
        )

    def drop_tiles(self, tiles: TilesPlan) -> int:
        """Delete a generation of a stream view: its fences first, so that what is left of it is never gone on with.
        Returns how many keys."""
        deleted = 0
        for bucket in range(self.require_published().plan.buckets):
            name = (self._project, bucket, tiles)
            deleted += self._unlink([keys.fences_key(*name), keys.merges_key(*name)])
            deleted += self._unlink_all(keys.tiles_prefix(self._project, bucket, tiles) + b"*")
        return deleted

    def begin_tiles_anew(self, tiles: TilesPlan) -> None:
        """Delete what a generation that is being filled holds, so that it can be filled from the beginning.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or it is not being filled.
        """
        published = self.require_published()
        begun = next((one for one in published.plan.filling_tiles if one == tiles), None)
        if begun is None:
            raise _not_filling(tiles)
        self.drop_tiles(begun)
        for bucket in range(published.plan.buckets if begun.mark else 0):
            fence_marks.mark(self._endpoint, self._redis, self._project, begun, bucket)

    def lost_fences(self, tiles: TilesPlan) -> FencesLostError | None:
        """The error for a generation whose fences are not those that it began with; None: they are.

        Raises:
            NotPublishedError, StoreConnectionError, StoreTimeoutError: as their names say.
        """
        buckets = self.require_published().plan.buckets
        return fence_marks.lost(self._endpoint, self._redis, self._project, tiles, buckets)

    def topic_id_of(self, tiles: TilesPlan) -> str:
        """The id of the topic whose events a generation holds; empty: none is noted.

        Raises:
            StoreConnectionError, StoreTimeoutError: as their names say.
        """
        return fence_marks.topic_id(self._endpoint, self._redis, self._project, tiles)

    def note_topic_id(self, tiles: TilesPlan, topic_id: str) -> None:
        """Note the id of the topic whose events are merged into a generation from now on, unless one is noted.

        Raises:
            StoreConnectionError, StoreTimeoutError: as their names say.
        """
        fence_marks.note_topic_id(self._endpoint, self._redis, self._project, tiles, topic_id)

    def delete(self, entity: str, join_keys: Mapping[str, Any]) -> int:
        """Delete everything stored of one entity, in composite keys too. Returns how many keys were deleted.

        What sources still hold of it comes back when they are read again: by a materialize of that time, by a backfill
        (also one that is under way), by an apply that fills a changed view.

        Args:
            entity: the entity's name.
            join_keys: `{join key: value}`.

        Raises:
            NotFoundError: no stored view is of that entity.
            RequestError: the join key is missing, null or of a wrong type.
        """
        published, deleted = self.require_published(), 0
        while True:
            deleted += self._delete(published.plan, entity, join_keys)
            # A plan that was published meanwhile may name generations to which the entity was copied before it went.
            before, published = published, self.require_published()
            if published.epoch == before.epoch:
                return deleted

    def _delete(self, plan: ServingPlan, entity: str, join_keys: Mapping[str, Any]) -> int:
        # The served generations first: rows are copied from them only as long as they are there.
        stored = [
            *(self._stored_rows(group) for group in (*plan.groups, *plan.filling, *plan.retired)),
            *(self._stored_tiles(tiles) for tiles in (*plan.tiles, *plan.filling_tiles, *plan.retired_tiles)),
        ]
        chosen = [item for item in stored if entity in item.entities]
        if not chosen:
            known = sorted({name for item in stored for name in item.entities})
            raise NotFoundError(
                f"project {self._project}", expected=f"an entity with features: {', '.join(known)}", got=repr(entity)
            )
        return sum(self._delete_in(plan.buckets, item, entity, join_keys) for item in chosen)

    def teardown(self) -> int:
        """Delete all that this project has in Redis, and nothing else. Returns how many keys were deleted."""
        return self._unlink_all(b"{%b:*" % self._project.encode())

    def statistics(self) -> dict[str, dict[str, int]]:
        """Per row group and stream view of the published plan: `rows`, `row_bytes`, and the `bytes` that Redis uses,
        estimated from a sample of its keys."""
        plan = self.require_published().plan
        layouts: list[RowLayout | TileValueLayout] = [
            *(RowLayout(group) for group in plan.groups),
            *(TileValueLayout(tiles) for tiles in plan.tiles),
        ]
        return {layout.name: self._statistics(layout, plan.buckets) for layout in layouts}

    def _statistics(self, layout: RowLayout | TileValueLayout, buckets: int) -> dict[str, int]:
        count, sampled, memory = 0, 0, 0
        for bucket in range(buckets):
            for names in self._scan(layout.prefix(self._project, bucket) + b"*"):
                count += len(names)
                for name in names[: max(0, 100 - sampled)]:
                    with self._endpoint.errors():
                        memory += self._redis.memory_usage(name) or 0
                    sampled += 1
        return {"rows": count, "row_bytes": layout.size, "bytes": memory * count // max(sampled, 1)}

    def newest_event_times(self, *, limit: int = _TIMES_LOOKED_AT) -> dict[str, Newest]:
        """Per view of the published plan, the newest event time that is stored.

        Redis looks at the times itself, in one walk over its keys, and sends no values. Measured, of a million rows:
        3.4 s of Redis's time for all of them, in steps of 3 ms; 0.8 s for 100,000, most of it the walk.

        Args:
            limit: how many values of a row group or stream view are looked at; of more, so many that SCAN finds first,
                which is in no order.
        """
        plan = self.require_published().plan
        searches = [*(_Search.of_rows(group) for group in plan.groups), *(_Search.of_tiles(one) for one in plan.tiles)]
        for bucket in range(plan.buckets):
            prefixes = {search.layout.prefix(self._project, bucket): search for search in searches}
            for names in self._scan(keys.tag(self._project, bucket) + b"*"):
                if all(search.rows == limit for search in searches):
                    break
                for prefix, search in prefixes.items():
                    self._look_at([name for name in names if name.startswith(prefix)], search, limit)
        return {view: newest for search in searches for view, newest in search.found().items()}

    def _look_at(self, names: list[bytes], search: _Search, limit: int) -> None:
        chosen = names[: limit - search.rows]
        search.whole &= len(chosen) == len(names)
        if chosen:
            with self._endpoint.errors():
                answers = self._redis.eval(NEWEST, len(chosen), *chosen, search.form, *search.places.values())
            search.add(len(chosen), answers)

    def sample_keys(self, view: str, count: int) -> list[tuple[int | str, ...]]:
        """The entity keys of up to `count` entities that the store holds of a view, some of the first it finds.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or no such view in it.
        """
        plan = self.require_published().plan
        tiles = plan.tiles_of(view)
        layout = TileValueLayout(tiles) if tiles is not None else RowLayout(plan.group_of(view))
        dtypes = [dtype for _, dtype in layout.join_keys]
        found: list[tuple[int | str, ...]] = []
        for bucket in range(plan.buckets):
            prefix = layout.prefix(self._project, bucket)
            for names in self._scan(prefix + b"*"):
                found += [keys.decode(dtypes, name[len(prefix) :]) for name in names[: count - len(found)]]
                if len(found) == count:
                    return found
        return found

    def inspect(self, views: Sequence[str], join_keys: Mapping[str, Any], now_us: int) -> dict[str, StoredValue]:
        """What is stored of one entity in some views, taken apart.

        Args:
            views: batch or stream views.
            join_keys: `{join key: value}`, of all of them.
            now_us: when windows end, microseconds since 1970.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or no such view in it.
            RequestError: a join key is missing, null or of a wrong type.
            CorruptRowError: a value has not the bytes that its layout demands.
        """
        from feature_store.online.inspection import inspect_row, inspect_tiles

        plan = self.require_published().plan
        rows: dict[str, tuple[RowLayout, bytes, bytes | None]] = {}
        found = {}
        for view in views:
            tiles = plan.tiles_of(view)
            if tiles is not None:
                windows = TileValueLayout(tiles)
                found[view] = inspect_tiles(windows, *self._value_of(windows, join_keys, plan.buckets), now_us)
                continue
            group = plan.group_of(view)
            if group.name not in rows:
                layout = self._layout_of(group)
                rows[group.name] = layout, *self._value_of(layout, join_keys, plan.buckets)
            layout, key, value = rows[group.name]
            found[view] = inspect_row(layout, view, key, value)
        return found

    def _layout_of(self, group: RowGroupPlan) -> RowLayout:
        """Of a row group of the plan that was parsed last: made once, in 5 ms where it has 30 views."""
        layout = self._layouts.get(group.name)
        if layout is None or layout.group is not group:
            layout = self._layouts[group.name] = RowLayout(group)
        return layout

    def _value_of(
        self, layout: RowLayout | TileValueLayout, join_keys: Mapping[str, Any], buckets: int
    ) -> tuple[bytes, bytes | None]:
        entity = entity_keys(layout.join_keys, join_keys, 1).each()[0]
        key = layout.prefix(self._project, keys.buckets_of([entity], buckets)[0]) + entity
        with self._endpoint.errors():
            return key, self._redis.get(key)

    def info(self) -> dict[str, Any]:
        """What Redis says of itself."""
        with self._endpoint.errors():
            answer: dict[str, Any] = self._redis.info()
        return answer

    def evicted_keys(self) -> int:
        """How many keys Redis has dropped for want of memory since it started; 0 where it does not tell.

        Raises:
            StoreConnectionError, StoreTimeoutError: as their names say.
        """
        try:
            with self._endpoint.errors():
                return int(self._redis.info("stats").get("evicted_keys", 0))
        except PermissionDeniedError:
            return 0

    def config(self, name: str) -> str | None:
        """A setting of Redis, or None where the server does not tell."""
        import redis

        try:
            with self._endpoint.errors():
                return next(iter(self._redis.config_get(name).values()), None)
        except Exception as error:
            if isinstance(error.__cause__, redis.ResponseError):
                return None
            raise

    def ping_us(self) -> float:
        """The round trip to Redis, in microseconds: the median of 20."""
        import time

        times = []
        for _ in range(20):
            start = time.perf_counter()
            with self._endpoint.errors():
                self._redis.ping()
            times.append((time.perf_counter() - start) * 1e6)
        return sorted(times)[10]

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
        self._endpoint.pool.disconnect()

    # -- small parts --------------------------------------------------------------------------------------------

    def _read_all(self, group: RowGroupPlan) -> Iterator[dict[str, RowBatch]]:
        """All rows of a group, as batches per view, a step of keys at a time."""
        layout = RowLayout(group)
        for bucket in range(self.require_published().plan.buckets):
            prefix = keys.row_prefix(self._project, bucket, group)
            for names in self._scan(prefix + b"*"):
                entity = [name[len(prefix) :] for name in names]
                with self._endpoint.errors():
                    values = self._redis.mget(names)
                there = [i for i, value in enumerate(values) if value is not None]
                rows = StoredRows.from_values(layout, [values[i] for i in there], lambda i, names=names: repr(names[i]))  # type: ignore[misc]
                chosen = [entity[i] for i in there]
                yield {
                    view: self._batch(bucket, layout, segment, rows, chosen)
                    for view, segment in layout.segments.items()
                }

    def _batch(
        self, bucket: int, layout: RowLayout, segment: SegmentLayout, rows: StoredRows, entity: list[bytes]
    ) -> RowBatch:
        times = rows.part(segment.offset, segment.times_bytes).copy().view(">u8")
        there = np.flatnonzero(times[:, 0] != ABSENT)
        # Where it is not known when rows were created, whatever knows it is newer.
        created = unbiased(times[there, 1]) if segment.created else np.full(len(there), MIN_TIMESTAMP_US)
        decoded = list(zip(*(keys.decode([d for _, d in layout.join_keys], entity[i]) for i in there), strict=True))
        prefix = keys.variable_prefix(self._project, bucket, layout.group, segment.view)
        variables: list[bytes | None] = []
        if segment.variable_fields and len(there):
            with self._endpoint.errors():
                variables = self._redis.mget([prefix + entity[i] for i in there])
        return RowBatch(
            keys={
                name: _key_column(dtype, decoded[i] if decoded else ())
                for i, (name, dtype) in enumerate(layout.join_keys)
            },
            event_ts=unbiased(times[there, 0]),
            created_ts=created,
            columns={field.name: _values(rows, segment, field, there, variables) for field in segment.fields.values()},
        )

    def _stored_rows(self, group: RowGroupPlan) -> _Stored:
        def prefixes(bucket: int) -> list[bytes]:
            views = [keys.variable_prefix(self._project, bucket, group, segment.view) for segment in group.segments]
            return [keys.row_prefix(self._project, bucket, group), *views]

        return _Stored(group.entities, group.join_keys, prefixes)

    def _stored_tiles(self, tiles: TilesPlan) -> _Stored:
        return _Stored(
            tiles.entities, tiles.join_keys, lambda bucket: [keys.tiles_prefix(self._project, bucket, tiles)]
        )

    def _delete_in(self, buckets: int, stored: _Stored, entity: str, join_keys: Mapping[str, Any]) -> int:
        place = stored.entities.index(entity)
        dtypes = [DType.parse(dtype) for _, dtype in stored.join_keys]
        name = stored.join_keys[place][0]
        wanted = entity_keys(
            [(name, dtypes[place])], {name: join_keys.get(name)} if name in join_keys else {}, 1
        ).each()[0]
        if len(dtypes) == 1:
            bucket = keys.buckets_of([wanted], buckets)[0]
            return self._unlink([prefix + wanted for prefix in stored.prefixes(bucket)])
        value = keys.decode([dtypes[place]], wanted)[0]
        deleted = 0
        for bucket in range(buckets):
            for prefix in stored.prefixes(bucket):
                for names in self._scan(prefix + b"*"):
                    deleted += self._unlink([n for n in names if keys.decode(dtypes, n[len(prefix) :])[place] == value])
        return deleted

    def _scan(self, pattern: bytes) -> Iterator[list[bytes]]:
        cursor = 0
        while True:
            with self._endpoint.errors():
                cursor, names = self._redis.scan(cursor, match=pattern, count=_KEYS_PER_STEP)
            if names:
                yield names
            if cursor == 0:
                return

    def _unlink(self, names: list[bytes]) -> int:
        if not names:
            return 0
        with self._endpoint.errors():
            count: int = self._redis.unlink(*names)
        return count

    def _unlink_all(self, pattern: bytes) -> int:
        return sum(self._unlink(names) for names in self._scan(pattern))


class _Stored(NamedTuple):
    """What is stored under entity keys: a row group, or a stream view; `prefixes` of a bucket start its keys."""

    entities: tuple[str, ...]
    join_keys: tuple[tuple[str, str], ...]
    prefixes: Callable[[int], list[bytes]]


@dataclass(frozen=True)
class Destination:
    """Where a job's rows go, as plain data that other processes can be given; each opens a writer of its own.

    Attributes:
        url: of Redis; never shown, since it may hold a password.
        project: the project's name.
        segment: the layout of the view's rows when the job began.
        group: the row group that is filled; None: all that hold the view, under whatever plan is published.
        epoch: of the plan that says that `group` is filled.
        timeout_s: seconds to wait to connect, and for each answer.
    """

    url: str | redis.ConnectionPool = field(repr=False)
    project: str
    segment: SegmentPlan
    group: RowGroupPlan | None = None
    epoch: bytes = b""
    timeout_s: float = 5.0

    @contextlib.contextmanager
    def open(self) -> Iterator[ViewWriter | FollowingWriter]:
        """A writer, on a connection of its own.

        Raises:
            StaleWriteError: another layout is published by now, or nobody fills the row group any more.
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
        """
        store = OnlineStore(self.url, self.project, timeout_s=self.timeout_s)
        with contextlib.closing(store), contextlib.closing(self._writer(store)) as writer:
            yield writer

    def _writer(self, store: OnlineStore) -> ViewWriter | FollowingWriter:
        if self.group is None:
            return FollowingWriter(store, self.segment)
        published = store.require_published()
        if published.epoch != self.epoch:
            raise _stale(self.segment)
        return store.filler(self.segment.view, self.group)


class FollowingWriter:
    """Writes rows of a view under whatever plan is published, for jobs that outlive one, as long as its layout stays.

    Args:
        store: the online store.
        segment: the layout of the view's rows.

    Raises:
        StaleWriteError: another layout is published.
    """

    def __init__(self, store: OnlineStore, segment: SegmentPlan) -> None:
        self._store, self._segment = store, segment
        self._writer = self._opened()

    def write(self, batch: RowBatch) -> WriteCounts:
        """As ViewWriter.write.

        Raises:
            StaleWriteError: another layout of the view was published: the batch is of definitions that are no more.
        """
        while True:
            try:
                return self._writer.write(batch)
            except StaleWriteError:
                self._writer.close()
                self._writer = self._opened()

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    def _opened(self) -> ViewWriter:
        writer = self._store.writer(self._segment.view)
        if writer.layout != layout_of(self._segment):
            writer.close()
            raise _stale(self._segment)
        return writer


def _not_filling(tiles: TilesPlan) -> NotFoundError:
    return NotFoundError(tiles.view, expected="a generation that is being filled", got=f"generation {tiles.generation}")


def _stale(segment: SegmentPlan) -> StaleWriteError:
    return StaleWriteError(
        f"write {segment.view}",
        expected="the layout that the job began with",
        got="another, published meanwhile",
        hint="run the job again",
    )


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
