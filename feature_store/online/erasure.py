"""Deletes all stored values of one entity, in every generation that the plan names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from feature_store.definitions.dtypes import DType
from feature_store.errors import NotFoundError
from feature_store.online import keys
from feature_store.online.entity_rows import entity_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from feature_store.online.keyspace import Keyspace
    from feature_store.online.publication import PlanStore
    from feature_store.registry.serving_plan import RowGroupPlan, ServingPlan, TilesPlan


class _Stored(NamedTuple):
    """A row group or stream view. `prefixes(bucket)` are the starts of its keys in a bucket; the entity key follows."""

    entities: tuple[str, ...]
    join_keys: tuple[tuple[str, str], ...]
    buckets: int
    prefixes: Callable[[int], list[bytes]]


def delete_entity(keyspace: Keyspace, plans: PlanStore, entity: str, join_keys: Mapping[str, Any]) -> int:
    """Delete all stored values of one entity; see `OnlineStore.delete`. Returns how many keys were deleted."""
    published, deleted = plans.required(), 0
    while True:
        deleted += _delete(keyspace, published.plan, entity, join_keys)
        # A plan that was published meanwhile may name generations to which the entity was copied before it was deleted.
        before, published = published, plans.required()
        if published.epoch == before.epoch:
            return deleted


def _delete(keyspace: Keyspace, plan: ServingPlan, entity: str, join_keys: Mapping[str, Any]) -> int:
    # Delete from the served generations first: a row is copied only while the generation that it comes from has it.
    stored = [
        *(_rows(keyspace.project, group) for group in (*plan.groups, *plan.filling, *plan.retired)),
        *(_tiles(keyspace.project, tiles) for tiles in (*plan.tiles, *plan.filling_tiles, *plan.retired_tiles)),
    ]
    chosen = [item for item in stored if entity in item.entities]
    if not chosen:
        known = sorted({name for item in stored for name in item.entities})
        raise NotFoundError(
            f"project {keyspace.project}", expected=f"an entity with features: {', '.join(known)}", got=repr(entity)
        )
    return sum(_delete_in(keyspace, item, entity, join_keys) for item in chosen)


def _delete_in(keyspace: Keyspace, stored: _Stored, entity: str, join_keys: Mapping[str, Any]) -> int:
    place = stored.entities.index(entity)
    dtypes = [DType.parse(dtype) for _, dtype in stored.join_keys]
    name = stored.join_keys[place][0]
    given = {name: join_keys.get(name)} if name in join_keys else {}
    wanted = entity_keys([(name, dtypes[place])], given, 1).each()[0]
    if len(dtypes) == 1:
        bucket = keys.buckets_of([wanted], stored.buckets)[0]
        return keyspace.unlink(bucket, [prefix + wanted for prefix in stored.prefixes(bucket)])
    value = keys.decode([dtypes[place]], wanted)[0]
    deleted = 0
    for bucket in range(stored.buckets):
        for prefix in stored.prefixes(bucket):
            for names in keyspace.scan(bucket, prefix):
                of_entity = [n for n in names if keys.decode(dtypes, n[len(prefix) :])[place] == value]
                deleted += keyspace.unlink(bucket, of_entity)
    return deleted


def _rows(project: str, group: RowGroupPlan) -> _Stored:
    def prefixes(bucket: int) -> list[bytes]:
        views = [keys.variable_prefix(project, bucket, group, segment.view) for segment in group.segments]
        return [keys.row_prefix(project, bucket, group), *views]

    return _Stored(group.entities, group.join_keys, group.buckets, prefixes)


def _tiles(project: str, tiles: TilesPlan) -> _Stored:
    def prefixes(bucket: int) -> list[bytes]:
        return [keys.tiles_prefix(project, bucket, tiles)]

    return _Stored(tiles.entities, tiles.join_keys, tiles.buckets, prefixes)
