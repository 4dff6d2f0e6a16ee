"""From an applied version to what readers see, with never a moment of half-new rows.

    publish the old plan, "filling" the new generations beside it   writers write both from now on
    copy what both layouts have; fill changed views from their sources
    publish the new plan, with the old generations "retired"        readers change over, each request whole
    delete the retired rows; publish the plan without them

Every step can be repeated: an apply that was killed is finished by the next one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from feature_store.errors import ConfigError, ConflictError
from feature_store.registry.compile import compile_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from feature_store.definitions.definition_set import DefinitionSet
    from feature_store.online.conversation import PublishedPlan
    from feature_store.online.store import OnlineStore
    from feature_store.registry.serving_plan import RowGroupPlan, ServingPlan
    from feature_store.registry.store import Registry

    # Fills one view's segment of a new generation from its source, over intervals in microseconds.
    Fill = Callable[[str, RowGroupPlan, list[tuple[int, int]]], None]


def roll_out(
    definitions: DefinitionSet,
    version: int,
    *,
    project: str,
    online: OnlineStore,
    registry: Registry,
    fill: Fill,
    buckets: int,
    expire_keys: bool,
) -> ServingPlan:
    """Publish a version of the registry; returns the plan that is then served.

    Raises:
        ConfigError: the number of buckets differs from the one that rows are stored under.
        ConflictError: a newer version is published, or somebody else publishes at the same time.
    """
    published = online.published()
    old = published.plan if published is not None else None
    target = compile_plan(
        definitions, project=project, version=version, previous=old, buckets=buckets, expire_keys=expire_keys
    )
    if published is None or old is None:
        return online.publish(target, over=None).plan
    _refuse_to_go_back(old, target)
    kept = {(group.name, group.generation) for group in target.groups}
    retired = [group for group in (*old.groups, *old.retired) if (group.name, group.generation) not in kept]
    if replace(old, filling=(), retired=()) != target:
        published = _fill(target, published, online, registry, fill)
        published = online.publish(replace(target, retired=tuple(retired)), over=published)
    for group in retired:
        online.drop_rows(group)
    if published.plan != target:
        published = online.publish(target, over=published)
    return published.plan


def _fill(
    target: ServingPlan, published: PublishedPlan, online: OnlineStore, registry: Registry, fill: Fill
) -> PublishedPlan:
    served = {group.name: group for group in published.plan.groups}
    pairs = [
        (served[group.name], group)
        for group in target.groups
        if group.name in served and served[group.name].generation != group.generation
    ]
    if not pairs:
        return published
    filling = tuple(new for _, new in pairs)
    if published.plan.filling != filling:
        published = online.publish(replace(published.plan, filling=filling), over=published)
    for old, new in pairs:
        online.copy_rows(old, new)
        for segment in new.segments:
            intervals = registry.finished_intervals(segment.view, old.generation)
            was = next((other for other in old.segments if other.view == segment.view), None)
            if was is not None and was.fields != segment.fields:
                fill(segment.view, new, intervals)
            for start, end in intervals:
                registry.record_interval(segment.view, new.generation, start, end)
    return published


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
