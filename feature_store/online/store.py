"""The online store for those who run it: publish plans, write, move rows between layouts, delete, inspect.

`OnlineStore` delegates to four classes, which share a `Keyspace`:

    publication.PlanStore    the serving plan and its epochs
    row_store.RowStore       rows of batch views
    tile_store.TileStore     tiles of stream views, and their fences
    probe.Probe              reads of the stored values and of the state of Redis
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feature_store.online.buckets import buckets_for
from feature_store.online.destination import Destination
from feature_store.online.erasure import delete_entity
from feature_store.online.keyspace import Keyspace
from feature_store.online.probe import Probe
from feature_store.online.publication import PlanStore, Publication
from feature_store.online.redis.topology import connect
from feature_store.online.remains import Remains
from feature_store.online.row_store import RowStore
from feature_store.online.tile_store import TileStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import redis

    from feature_store._intervals import Interval
    from feature_store.errors import FencesLostError
    from feature_store.online.inspection import StoredValue
    from feature_store.online.newest import Newest
    from feature_store.online.progress import StoredProgress
    from feature_store.online.published_plan import PublishedPlan
    from feature_store.online.tile_writer import TileWriter
    from feature_store.online.writer import ViewWriter
    from feature_store.registry.serving_plan import RowGroupPlan, ServingPlan, TilesPlan

# Values of a row group or stream view whose times are compared. Beyond this number the result is an estimate: if one in
# a thousand of a million users was seen in the last minute, a sample of 200,000 holds 200 of these users.
_TIMES_COMPARED = 200_000


class OnlineStore:
    """One project's part of a Redis.

    Args:
        url: as in `OnlineClient`.
        project: the name of the project.
        timeout_s: seconds to wait to connect, and for each answer.

    Raises:
        ConfigError: the URL cannot be read.

    Example:
        >>> from feature_store.online import OnlineStore
        >>> store = OnlineStore(redis_url, "shop")
        >>> store.require_published().plan.project
        'shop'
        >>> store.close()
    """

    def __init__(self, url: str | redis.ConnectionPool, project: str, *, timeout_s: float = 5.0) -> None:
        self._url, self._project, self._timeout_s = url, project, timeout_s
        self._keyspace = Keyspace(connect(url, timeout_s), project)
        self._plans = PlanStore(self._keyspace)
        self._rows = RowStore(self._keyspace, self._plans)
        self._tiles = TileStore(self._keyspace, self._plans)
        self._probe = Probe(self._keyspace, self._plans)

    @property
    def project(self) -> str:
        """The project's name."""
        return self._project

    @property
    def shown_url(self) -> str:
        """Where the store is, without a password."""
        return self._keyspace.shown

    def close(self) -> None:
        """Close the connections."""
        self._keyspace.topology.close()

    # -- the plan -----------------------------------------------------------------------------------------------

    def find_published(self) -> Publication:
        """The publication that Redis holds, complete or not.

        Raises:
            NotPublishedError: the plan is of another version of the library.
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
        """
        return self._plans.find()

    def published(self) -> PublishedPlan | None:
        """The plan that is published; None when nothing is published.

        Raises:
            DamagedPlanError: the publication is incomplete, or cannot be read.
            NotPublishedError, StoreConnectionError, StoreTimeoutError: as `find_published`.
        """
        return self._plans.published()

    def require_published(self) -> PublishedPlan:
        """The plan that is published.

        Raises:
            NotPublishedError: no plan is published.
            DamagedPlanError, StoreConnectionError, StoreTimeoutError: as `published`.
        """
        return self._plans.required()

    def publish(
        self, plan: ServingPlan, *, over: PublishedPlan | Publication | None, written_to: bytes = b""
    ) -> PublishedPlan:
        """Publish a plan in place of another, for all readers and writers; see online/publication.py.

        Args:
            plan: the plan.
            over: the publication that the caller has read, complete or not; None when nothing is published.
            written_to: the `server_id` from before rows of the plan were copied or filled; empty without such rows.

        Raises:
            ConflictError: another plan than `over` is published.
            LostWriteError: another server than `written_to` answers, and may lack rows that the first acknowledged.
        """
        return self._plans.publish(plan, over=over, written_to=written_to)

    def remaining(self, target: ServingPlan) -> ServingPlan:
        """The target with each stored generation that it can adopt, when the published plan is lost; see remains.py.

        Args:
            target: the plan to serve, compiled as if nothing were stored.

        Raises:
            ConfigError: keys are stored under more buckets than the plan has.
        """
        return Remains(self._keyspace).adopted(target)

    def drop_epochs(self, published: PublishedPlan, buckets: int) -> None:
        """Delete the epochs of a published plan beyond so many buckets, which only retired generations needed.

        Raises:
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
        """
        self._plans.drop_epochs(published, buckets)

    # -- rows ---------------------------------------------------------------------------------------------------

    def writer(self, view: str) -> ViewWriter:
        """A writer of a view's rows, bound to the plan that is published now.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or no such view in it.
        """
        return self._rows.writer(view)

    def destination(self, view: str) -> Destination:
        """Where a job writes a view's rows: under the published plan, and under later plans that keep the layout.

        Raises:
            NotPublishedError, NotFoundError: as `writer`.
        """
        segment = self._plans.required().plan.group_of(view).segment(view)
        return Destination(self._url, self._project, segment, timeout_s=self._timeout_s)

    def filling(self, view: str, group: RowGroupPlan) -> Destination:
        """Where a job writes a view's rows for one row group alone: the next generation, while it is filled.

        Raises:
            NotPublishedError: there is no plan.
        """
        epoch = self._plans.required().epoch
        return Destination(self._url, self._project, group.segment(view), group, epoch, timeout_s=self._timeout_s)

    def filler(self, view: str, group: RowGroupPlan, copied: RowGroupPlan | None = None) -> ViewWriter:
        """A writer of a view's rows to one row group alone: the next generation, while it is filled.

        Args:
            view: the view whose rows are written.
            group: the row group.
            copied: the row group that the rows are read from, in the same buckets. A row that it no longer has is not
                written, so that an entity that is deleted during a copy stays deleted.

        Raises:
            NotPublishedError: there is no plan.
        """
        return self._rows.filler(view, group, copied)

    def progress(self, view: str, filled: RowGroupPlan | None = None) -> StoredProgress:
        """How far a batch view is materialized, in the row group that is served or in one that is being filled.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or no such view in it.
        """
        return self._rows.progress(view, filled)

    def finished_intervals(self) -> dict[str, list[Interval]]:
        """Per batch view of the published plan, the intervals `[start, end)` that are materialized, in microseconds
        since 1970, sorted, with gaps between them.

        Raises:
            NotPublishedError: there is no plan.
            CorruptRowError: a record cannot be read.
        """
        return self._rows.finished_intervals()

    def copy_rows(self, old: RowGroupPlan, new: RowGroupPlan) -> int:
        """Copy the fields that two layouts of a row group share. Fields that only the new layout has become null.

        A newer row in the new layout stays. The old rows stay too. An entity that is deleted meanwhile stays deleted.
        Returns how many rows were copied.
        """
        return self._rows.copy(old, new)

    def drop_rows(self, group: RowGroupPlan) -> int:
        """Delete a generation of a row group. Its progress goes first, so that no job continues the remaining rows.
        Returns how many keys were deleted."""
        return self._rows.drop(group)

    # -- tiles --------------------------------------------------------------------------------------------------

    def tile_writer(self, view: str) -> TileWriter:
        """A writer of a stream view's tiles, bound to the plan that is published now.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or no such stream view in it.
        """
        return self._tiles.writer(view)

    def tile_filler(self, tiles: TilesPlan) -> TileWriter:
        """A writer of a generation of a stream view that is being filled.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or the generation is not being filled.
        """
        return self._tiles.filler(tiles)

    def drop_tiles(self, tiles: TilesPlan) -> int:
        """Delete a generation of a stream view. Its fences go first, so that no worker merges into the remaining tiles.
        Returns how many keys were deleted."""
        return self._tiles.drop(tiles)

    def begin_tiles_anew(self, tiles: TilesPlan) -> None:
        """Delete the tiles and fences of a generation that is being filled, so that it is filled from the beginning.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or the generation is not being filled.
        """
        self._tiles.begin_anew(tiles)

    def lost_fences(self, tiles: TilesPlan) -> FencesLostError | None:
        """The error for a generation whose fences are lost or replaced; None when they are those that it began with.

        Raises:
            NotPublishedError: there is no plan.
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
        """
        return self._tiles.lost_fences(tiles)

    def topic_id_of(self, tiles: TilesPlan) -> str:
        """The id of the topic whose events a generation holds; empty when no id is recorded.

        Raises:
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
        """
        return self._tiles.topic_id_of(tiles)

    def note_topic_id(self, tiles: TilesPlan, topic_id: str) -> None:
        """Record the id of the topic whose events are merged into a generation, unless an id is recorded already.

        Raises:
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
        """
        self._tiles.note_topic_id(tiles, topic_id)

    # -- delete -------------------------------------------------------------------------------------------------

    def delete(self, entity: str, join_keys: Mapping[str, Any]) -> int:
        """Delete all stored values of one entity, under composite keys too. Returns how many keys were deleted.

        Rows and events of the entity that the sources still hold come back when they are read again: by a materialize
        of their time, by a backfill (also one that is running), or by an apply that fills a changed view.

        Args:
            entity: the entity's name.
            join_keys: `{join key: value}`.

        Raises:
            NotFoundError: no stored view has this entity.
            RequestError: the join key is missing, null or of a wrong type.
        """
        return delete_entity(self._keyspace, self._plans, entity, join_keys)

    def teardown(self) -> int:
        """Delete all keys of this project in Redis, and no others. Returns how many keys were deleted."""
        return self._keyspace.unlink_all()

    # -- look ---------------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, dict[str, int]]:
        """Per row group and stream view of the published plan: `rows`, `row_bytes`, and the `bytes` that Redis uses,
        estimated from a sample of its keys."""
        return self._probe.statistics()

    def newest_event_times(self, *, limit: int = _TIMES_COMPARED) -> dict[str, Newest]:
        """Per view of the published plan, the newest stored event time.

        Redis compares the times itself, in one walk over its keys, and sends no values. Measured with a million rows:
        comparing all of them takes 3.4 s of Redis's time, in steps of 3 ms. Comparing 100,000 takes 0.8 s, most of it
        for the walk.

        Args:
            limit: how many values of a row group or stream view are compared: the first that SCAN returns, in no order.
        """
        return self._probe.newest_event_times(limit)

    def sample_keys(self, view: str, count: int) -> list[tuple[int | str, ...]]:
        """The entity keys of up to `count` entities of a view: the first that SCAN returns.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or no such view in it.
        """
        return self._probe.sample_keys(view, count)

    def inspect(self, views: Sequence[str], join_keys: Mapping[str, Any], now_us: int) -> dict[str, StoredValue]:
        """The stored values of one entity in some views, decoded field by field.

        Args:
            views: batch or stream views.
            join_keys: `{join key: value}`, with the join keys of all views.
            now_us: the time at which windows end, microseconds since 1970.

        Raises:
            NotPublishedError, NotFoundError: there is no plan, or no such view in it.
            RequestError: a join key is missing, null or of a wrong type.
            CorruptRowError: a value does not fit its layout.
        """
        return self._probe.inspect(views, join_keys, now_us)

    def default_buckets(self) -> int:
        """The number of buckets, if feature_store.yaml does not set it: 1 on one server.

        On a Cluster: see online/buckets.py.

        Raises:
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
        """
        topology = self._keyspace.topology
        if topology.is_one_node:
            return 1
        return buckets_for(self._project, len(topology.nodes()), self._plans.stored_buckets())

    def server_id(self) -> bytes:
        """The ids of the Redis processes that answer. They change after a restart or a failover."""
        return self._probe.server_id()

    def now_us(self) -> int:
        """Redis's clock, microseconds since 1970; with several nodes, the earliest clock."""
        return self._probe.now_us()

    def info(self) -> dict[str, Any]:
        """The INFO of Redis; with several nodes, of the first node."""
        return self._probe.info()

    def infos(self) -> list[dict[str, Any]]:
        """The INFO of each Redis node that holds keys."""
        return self._probe.infos()

    def evicted_keys(self) -> int:
        """How many keys Redis has evicted for want of memory since it started; 0 when it does not report the number.

        Raises:
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
        """
        return self._probe.evicted_keys()

    def config(self, name: str) -> str | None:
        """A setting of Redis; None when the server does not report it."""
        return self._probe.config(name)

    def ping_us(self) -> float:
        """The round trip to Redis, in microseconds: the median of 20."""
        return self._probe.ping_us()
