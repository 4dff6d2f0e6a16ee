"""Rolls out an applied version or a backfill: fills new generations of rows and tiles, then serves them.

`registry/generations.py` has the states of a generation. The steps:

    begin      publish the old plan with the new generations marked as being filled: writers of rows write to both
    fill       copy the fields that both layouts have; fill changed views, and views whose pruning ends, from their
               sources; fill stream views from history and stream
    serve      publish the new plan with the old generations marked as retired: readers switch between two requests
    drop       delete the retired keys; publish the plan without them

Each step can be repeated. If an apply is killed, the next apply of the same version finishes it, and an apply of
another version abandons it. If an apply fails, it is abandoned at once (`give_up`), and readers keep the old plan. A
backfill under way continues unless its view changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from feature_store._intervals import Interval, merged, until
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.errors import ConflictError, DamagedPlanError, LostWriteError
from feature_store.online.published_plan import PublishedPlan
from feature_store.online.store import OnlineStore
from feature_store.registry import generations
from feature_store.registry.compile import compile_plan
from feature_store.registry.identity import refuse_other_registry
from feature_store.registry.serving_plan import RowGroupPlan, SegmentPlan, ServingPlan, TilesPlan

if TYPE_CHECKING:
    from feature_store.registry.store import Registry

T = TypeVar("T")
# The job name under which copied intervals are recorded. Copying records no chunks.
_NO_JOB = "copy"
# How often a backfill publishes again because another process published at the same time.
_ATTEMPTS = 20
# How often a fill is tried if Redis loses acknowledged rows meanwhile. If it fails more often, a person must look.
_MOST_FILLS = 3


class Filler(Protocol):
    """Fills new generations of rows and tiles before readers see them. `roll_out` calls it again after a kill."""

    def fill_rows(self, view: str, group: RowGroupPlan, intervals: list[Interval]) -> None:
        """Write a view's rows of some intervals of event time, microseconds since 1970, into a new row group."""
        ...

    def tiles_start_us(self, tiles: TilesPlan) -> int | None:
        """The end of a view's history, where its stream takes over, microseconds since 1970. None: no history."""
        ...

    def fill_tiles(self, tiles: TilesPlan) -> None:
        """Fill a new generation of a stream view with all events that the stream holds now. Resumes after a kill."""
        ...


def roll_out(
    definitions: DefinitionSet,
    version: int,
    *,
    project: str,
    online: OnlineStore,
    registry: Registry,
    filler: Filler,
    buckets: int,
    expire_keys: bool,
) -> ServingPlan:
    """Publish a version of the registry. Returns the plan that is then served.

    If the number of buckets differs from that of the stored generations, each gets a new one in the other buckets. If
    Redis is restarted or replaced during the fill, and so may lack rows or tiles, the fill begins again.

    Raises:
        ConflictError: another registry's plan or a newer version is published, or another process publishes at the
            same time.
        LostWriteError: Redis was restarted or replaced during each of 3 fills. Apply again.
    """
    compiled = partial(
        compile_plan,
        definitions,
        project=project,
        version=version,
        registry=registry.id(),
        digest=registry.digest(version),
        buckets=buckets,
        expire_keys=expire_keys,
    )

    def abandon() -> bool:
        try:
            give_up(version, online)
            published = online.published()
        except DamagedPlanError:  # some nodes have the new plan
            return False
        if published is None or published.plan.version < version:
            return True
        return published.plan.version == version and published.plan.buckets != buckets

    return _despite_losses(lambda: _roll_out(compiled, online, registry, filler), abandon)


def _roll_out(
    compiled: Callable[..., ServingPlan], online: OnlineStore, registry: Registry, filler: Filler
) -> ServingPlan:
    published = _whole(online, compiled, registry)
    old = published.plan
    target = compiled(previous=old)
    _refuse_to_go_back(old, target)
    target = replace(_with_starts(target, old, filler), filling_tiles=generations.under_way(old, target))
    if generations.drop(old) != target:
        server = online.server_id()
        begun = _publish(online, generations.begin(old, target), over=published)
        _fill(target, published.plan, online, registry, filler)
        published = _publish(online, generations.serve(begun.plan, target), over=begun, written_to=server)
    return _drop_retired(online, published).plan


def refill(online: OnlineStore, view: str, start_us: int | None, fill: Callable[[TilesPlan], T]) -> T:
    """Fill a new generation of a stream view, and serve it in place of the old one. Returns the result of `fill`.

    Args:
        online: the online store.
        view: the name of a stream view.
        start_us: the end of the history, where the stream takes over, microseconds since 1970. None: no history.
        fill: fills the generation. It resumes if it is called again after a kill.

    Raises:
        NotPublishedError: no plan is published.
        NotFoundError: the plan has no such stream view, or another backfill of the view began meanwhile.
        LostWriteError: Redis was restarted or replaced during each of 3 fills. Run the backfill again.
        ConflictError: other processes published at the same time in each of 21 attempts.
    """

    def refilled() -> T:
        tiles = _again(lambda: begin_tiles(online, view, start_us))
        server = online.server_id()
        filled = fill(tiles)
        _again(lambda: serve_tiles(online, tiles, server))
        return filled

    # The fences of the generation tell which tiles are there. An incomplete plan is repaired by an apply.
    return _despite_losses(refilled, lambda: online.find_published().problem is None)


def begin_tiles(online: OnlineStore, view: str, start_us: int | None) -> TilesPlan:
    """Begin a new generation of a stream view, or resume the generation that an earlier call began at the same start.

    Args:
        online, view, start_us: see `refill`.

    Raises:
        NotPublishedError: no plan is published.
        NotFoundError: the plan has no such stream view.
        ConflictError: another process publishes at the same time.
    """
    published = online.require_published()
    plan, tiles = generations.begin_tiles(published.plan, view, start_us)
    published = _drop_retired(online, _publish(online, plan, over=published))
    return next(item for item in published.plan.filling_tiles if item == tiles)


def serve_tiles(online: OnlineStore, tiles: TilesPlan, written_to: bytes = b"") -> None:
    """Serve a filled generation of a stream view, and delete the old one.

    Args:
        online: the online store.
        tiles: the generation.
        written_to: `OnlineStore.server_id` from before the fill.

    Raises:
        LostWriteError: another Redis server answers than before the fill. It may lack tiles that were acknowledged.
        NotFoundError: the plan no longer has the generation, since another backfill of the view began.
        ConflictError: another process publishes at the same time.
    """
    published = online.require_published()
    plan = generations.serve_tiles(published.plan, tiles)
    _drop_retired(online, _publish(online, plan, over=published, written_to=written_to))


def _despite_losses(run: Callable[[], T], abandon: Callable[[], bool]) -> T:
    """Run a fill. If Redis was restarted or replaced meanwhile, run it again, unless readers see its plan already.

    Args:
        run: fills new generations and serves them.
        abandon: gives up what may be incomplete. Returns False if that is too late.
    """
    for _ in range(_MOST_FILLS - 1):
        try:
            return run()
        except LostWriteError:
            if not abandon():
                raise
    return run()


def _again(publish: Callable[[], T]) -> T:
    """Publish, and repeat if another process publishes at the same time."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(ConflictError):
            return publish()
    return publish()


def _publish(online: OnlineStore, plan: ServingPlan, *, over: PublishedPlan, written_to: bytes = b"") -> PublishedPlan:
    """Publish a plan, unless it is published already. Its generations may be at most one step further."""
    if plan == over.plan:
        return over
    generations.refuse_forbidden(over.plan, plan)
    return online.publish(plan, over=over, written_to=written_to)


def _drop_retired(online: OnlineStore, published: PublishedPlan) -> PublishedPlan:
    """Delete the retired generations of a plan, and publish the plan without them."""
    for group in published.plan.retired:
        online.drop_rows(group)
    for tiles in published.plan.retired_tiles:
        online.drop_tiles(tiles)
    plan = generations.drop(published.plan)
    online.drop_epochs(published, plan.needed_buckets)
    return _publish(online, plan, over=published)


def _whole(online: OnlineStore, compiled: Callable[..., ServingPlan], registry: Registry) -> PublishedPlan:
    """The published plan, complete and with marks.

    An incomplete publication is first published again. A lost plan is first reconstructed from the stored keys.

    Raises:
        ConflictError: another registry's plan is published, or another process publishes at the same time.
    """
    found = online.find_published()
    refuse_other_registry(found.plan, registry)
    if found.is_empty:
        return online.publish(compiled(), over=found)
    plan = found.plan or online.remaining(compiled())
    if found.problem is None and all(tiles.mark for tiles in (*plan.tiles, *plan.filling_tiles)):
        return found.published
    return online.publish(plan, over=replace(found, plan=plan))


def give_up(version: int, online: OnlineStore) -> bool:
    """Abandon a failed rollout of a version. Returns False if the version is already served.

    The new rows are deleted. Filled tiles stay, so that the next apply of the same stream views resumes there. A
    version that is already served has new rows while its number of buckets changes.
    """
    published = online.published()
    if published is None:
        return True
    if published.plan.version > version:
        return False
    if published.plan.filling:
        _drop_retired(online, _publish(online, generations.abandon_rows(published.plan), over=published))
    return published.plan.version < version


def _with_starts(target: ServingPlan, old: ServingPlan, filler: Filler) -> ServingPlan:
    """The plan with start times for new generations of stream views. A generation of a killed apply keeps its start."""
    _, new = generations.unfilled(old, target)
    tiles = []
    for item in target.tiles:
        begun = next((one for one in old.filling_tiles if replace(one, start_us=None) == item), None)
        tiles.append(begun or (replace(item, start_us=filler.tiles_start_us(item)) if item in new else item))
    return replace(target, tiles=tuple(tiles))


def _fill(target: ServingPlan, old: ServingPlan, online: OnlineStore, registry: Registry, filler: Filler) -> None:
    served = {group.name: group for group in old.groups}
    rows, tiles = generations.unfilled(old, target)
    for group in rows:
        _fill_group(served.get(group.name), group, set(old.unstored), online, registry, filler)
    for item in tiles:
        filler.fill_tiles(item)


def _fill_group(
    old: RowGroupPlan | None,
    new: RowGroupPlan,
    back: set[str],
    online: OnlineStore,
    registry: Registry,
    filler: Filler,
) -> None:
    # Opened before any row is written, so that it notices if Redis loses rows that are written from here on.
    progress = {segment.view: online.progress(segment.view, new) for segment in new.segments}
    finished, now_us = online.finished_intervals(), online.now_us()
    stored = {segment.view: segment for segment in old.segments} if old is not None else {}
    files_read = {view: online.progress(view).files_read() for view in stored}
    if old is not None:
        online.copy_rows(old, new)
    for segment in new.segments:
        was = stored.get(segment.view)
        if segment.view in back:
            intervals = until(registry.materialized_had_it_stayed(segment.view), now_us)
        else:
            intervals = _intervals(segment.view, stored, finished)
        if was is None or segment.view in back or _adds_fields(was, segment) or segment.created > was.created:
            # Rows written by an earlier release have no record in Redis. The registry's record then decides the fill.
            intervals = intervals or until(registry.materialized(segment.view), now_us)
            filler.fill_rows(segment.view, new, intervals)
            files_read.pop(segment.view, None)  # the fill records the files that it reads
        if was is None and segment.view not in back:
            continue  # the fill has recorded its intervals; a view without a source has none
        for interval in intervals:
            progress[segment.view].record_interval(_NO_JOB, 0, interval, files_read.get(segment.view, b""))


def _intervals(view: str, stored: Mapping[str, SegmentPlan], finished: Mapping[str, list[Interval]]) -> list[Interval]:
    """The intervals to fill: those of the view. For a view that is new in its row group: those of the other views."""
    views = [view] if view in stored else list(stored)
    return merged([interval for one in views for interval in finished[one]])


def _adds_fields(was: SegmentPlan, segment: SegmentPlan) -> bool:
    stored = {(field.name, field.dtype) for field in was.fields}
    return any((field.name, field.dtype) not in stored for field in segment.fields)


def _refuse_to_go_back(old: ServingPlan, target: ServingPlan) -> None:
    if old.version > target.version:
        raise ConflictError(
            f"serving plan of {target.project}",
            expected=f"version {target.version} or older in Redis",
            got=f"version {old.version}",
            hint="check that this is the registry that published the plan",
        )
