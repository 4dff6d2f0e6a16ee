"""From an applied version to what readers see, with never a moment of half-new rows.

    publish the old plan, "filling" the new generations beside it   writers write both from now on
    copy what both layouts have; fill changed views, and those that were pruned and come back, from their sources,
    stream views from history and stream
    publish the new plan, with the old generations "retired"        readers change over, each request whole
    delete the retired rows; publish the plan without them

Every step can be repeated: an apply that was killed is finished by the next one, or given up by the next other one. One
that fails is given up at once (`give_up`), and what was served before stays served.
A backfill that is under way goes on, unless its view changes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from feature_store._intervals import merged, until
from feature_store.errors import ConfigError, ConflictError
from feature_store.registry.compile import compile_plan
from feature_store.registry.identity import refuse_other_registry
from feature_store.registry.serving_plan import FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from feature_store._intervals import Interval
    from feature_store.definitions.definition_set import DefinitionSet
    from feature_store.online.conversation import PublishedPlan
    from feature_store.online.store import OnlineStore
    from feature_store.registry.serving_plan import RowGroupPlan, SegmentPlan, ServingPlan, TilesPlan
    from feature_store.registry.store import Registry

    # Fills one view's segment of a new generation from its source, over intervals in microseconds.
    Fill = Callable[[str, RowGroupPlan, list[tuple[int, int]]], None]


# Copying has no chunks that are noted.
_NO_JOB = "copy"


class FillTiles(Protocol):
    """Fills a new generation of a stream view."""

    def start_us(self, tiles: TilesPlan) -> int | None:
        """Where its history ends and the stream goes on, microseconds since 1970; None: it has no history."""
        ...

    def fill(self, tiles: TilesPlan) -> None:
        """Fill it up to what the stream holds now. Called again after a kill, it goes on."""
        ...


def roll_out(
    definitions: DefinitionSet,
    version: int,
    *,
    project: str,
    online: OnlineStore,
    registry: Registry,
    fill: Fill,
    fill_tiles: FillTiles,
    buckets: int,
    expire_keys: bool,
) -> ServingPlan:
    """Publish a version of the registry; returns the plan that is then served.

    Raises:
        ConfigError: the number of buckets differs from the one that rows are stored under.
        ConflictError: another registry's plan or a newer version is published, or somebody else publishes at the
            same time.
        LostWriteError: Redis was restarted or replaced meanwhile; apply again.
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
    published = _whole(online, compiled, registry)
    old = published.plan
    target = compiled(previous=old)
    _refuse_to_go_back(old, target)
    target = replace(_with_starts(target, old, fill_tiles), filling_tiles=_under_way(target, old))
    if replace(old, retired=(), retired_tiles=()) != target:
        server = online.server_id()
        published = _fill(target, published, online, registry, fill, fill_tiles)
        published = online.publish(_retiring(target, published.plan), over=published, written_to=server)
    for group in published.plan.retired:
        online.drop_rows(group)
    for tiles in published.plan.retired_tiles:
        online.drop_tiles(tiles)
    if published.plan != target:
        published = online.publish(target, over=published)
    return published.plan


def _whole(online: OnlineStore, compiled: Callable[..., ServingPlan], registry: Registry) -> PublishedPlan:
    """The plan that is published: complete, and with marks. What Redis has lost of it is published again first; a plan
    that is lost altogether is made again of what is stored.

    Raises:
        ConflictError: another registry's plan is published, or somebody else publishes at the same time.
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
    """Leave what was served before a rollout of this version that failed. Returns False when it is served already.

    Its rows are deleted. What was filled of stream views stays: the next apply of the same views goes on from there.
    """
    published = online.published()
    if published is None:
        return True
    if published.plan.version >= version:
        return False
    if published.plan.filling:
        kept = replace(published.plan, filling=())
        published = online.publish(_retiring(kept, published.plan), over=published)
        for group in published.plan.retired:
            online.drop_rows(group)
        online.publish(replace(published.plan, retired=()), over=published)
    return True


def _under_way(target: ServingPlan, old: ServingPlan) -> tuple[TilesPlan, ...]:
    """The generations that backfills are filling of stream views that stay as they are: they go on."""
    return tuple(
        tiles
        for tiles in old.filling_tiles
        if all(
            served is not None and replace(served, generation=tiles.generation, start_us=tiles.start_us) == tiles
            for served in (old.tiles_of(tiles.view), target.tiles_of(tiles.view))
        )
    )


def _retiring(plan: ServingPlan, old: ServingPlan) -> ServingPlan:
    """A plan that retires all that `old` names and it does not, so that nothing that is stored is ever forgotten."""
    groups = {(group.name, group.generation) for group in (*plan.groups, *plan.filling)}
    tiles = {(one.view, one.generation) for one in (*plan.tiles, *plan.filling_tiles)}
    return replace(
        plan,
        retired=tuple(
            group for group in (*old.groups, *old.filling, *old.retired) if (group.name, group.generation) not in groups
        ),
        retired_tiles=tuple(
            one
            for one in (*old.tiles, *old.filling_tiles, *old.retired_tiles)
            if (one.view, one.generation) not in tiles
        ),
    )


def _with_starts(target: ServingPlan, old: ServingPlan, fill_tiles: FillTiles) -> ServingPlan:
    """The plan with the starts of new generations of stream views; one that a killed apply began keeps its own."""
    tiles = []
    for item in target.tiles:
        begun = next((one for one in old.filling_tiles if replace(one, start_us=None) == item), None)
        is_new = _is_new(item, {one.view: one.generation for one in old.tiles}, set(old.unstored))
        tiles.append(begun or (replace(item, start_us=fill_tiles.start_us(item)) if is_new else item))
    return replace(target, tiles=tuple(tiles))


def _fill(
    target: ServingPlan,
    published: PublishedPlan,
    online: OnlineStore,
    registry: Registry,
    fill: Fill,
    fill_tiles: FillTiles,
) -> PublishedPlan:
    served = {group.name: group for group in published.plan.groups}
    back = set(published.plan.unstored)
    new_groups = tuple(
        group
        for group in target.groups
        if (
            served[group.name].generation != group.generation
            if group.name in served
            else any(segment.view in back for segment in group.segments)
        )
    )
    streams = {tiles.view: tiles.generation for tiles in published.plan.tiles}
    new_tiles = tuple(tiles for tiles in target.tiles if _is_new(tiles, streams, back))
    if not new_groups and not new_tiles:
        return published
    filling = _retiring(
        replace(
            published.plan,
            filling=new_groups,
            filling_tiles=(*target.filling_tiles, *new_tiles),
            format=FORMAT,
        ),
        published.plan,
    )
    if published.plan != filling:
        published = online.publish(filling, over=published)
    for group in new_groups:
        _fill_group(served.get(group.name), group, back, online, registry, fill)
    for tiles in new_tiles:
        fill_tiles.fill(tiles)
    return published


def _is_new(tiles: TilesPlan, generations: Mapping[str, int], back: set[str]) -> bool:
    if tiles.view not in generations:
        return tiles.view in back
    return generations[tiles.view] != tiles.generation


def _fill_group(
    old: RowGroupPlan | None,
    new: RowGroupPlan,
    back: set[str],
    online: OnlineStore,
    registry: Registry,
    fill: Fill,
) -> None:
    # What is recorded from here on is of rows that are written from here on.
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
            # Rows of an earlier release have nothing noted beside them. A fill reads the source, and believes nobody.
            intervals = intervals or until(registry.materialized(segment.view), now_us)
            fill(segment.view, new, intervals)
            files_read.pop(segment.view, None)  # the fill notes what it reads
        if was is None and segment.view not in back:
            continue  # the fill has recorded what it wrote; of a view without a source that is nothing
        for interval in intervals:
            progress[segment.view].record_interval(_NO_JOB, 0, interval, files_read.get(segment.view, b""))


def _intervals(view: str, stored: Mapping[str, SegmentPlan], finished: Mapping[str, list[Interval]]) -> list[Interval]:
    """What a view of a new generation is to hold: what it held, or, when it is added to rows, what the others hold."""
    views = [view] if view in stored else list(stored)
    return merged([interval for one in views for interval in finished[one]])


def _adds_fields(was: SegmentPlan, segment: SegmentPlan) -> bool:
    stored = {(field.name, field.dtype) for field in was.fields}
    return any((field.name, field.dtype) not in stored for field in segment.fields)


def _refuse_to_go_back(old: ServingPlan, target: ServingPlan) -> None:
    if old.buckets != target.buckets:
        raise ConfigError(
            "feature_store.yaml: online_store.buckets",
            expected=f"{old.buckets}, under which the rows are stored",
            got=str(target.buckets),
            hint="tear the project down first, or keep the number",
        )
    if old.version > target.version:
        raise ConflictError(
            f"serving plan of {target.project}",
            expected=f"version {target.version} or older in Redis",
            got=f"version {old.version}",
            hint="is this the registry that the published plan came from?",
        )
