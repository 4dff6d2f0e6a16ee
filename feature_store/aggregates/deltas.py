"""Events → what they add to each entity: the deltas that are merged into the stored tiles.

A batch is sorted once per ring by (entity, tile) and reduced, whatever its number of entities. Most entities get one
delta; one that has several new tiles in a ring gets as many, in the order of time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from feature_store.aggregates.parts import ALGEBRA, taken
from feature_store.aggregates.tiles import put_state
from feature_store.definitions.expression import expression

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_store.aggregates.parts import Column, Mask
    from feature_store.aggregates.tiles import TilesLayout
    from feature_store.aggregates.windows import Part, Ring

    Columns = Mapping[str, tuple[Column, Mask]]

_TILE_BITS = 32


class Deltas(NamedTuple):
    """What a batch adds.

    Attributes:
        records: (k,) of the layout's record; those of one entity behind one another, in the order of time.
        entities: (k,) intp, whose each is.
        record_of_event: (n,) intp, the record that holds an event's tile of the ring with the longest reach; -1 when no
            part takes the event.
    """

    records: Column
    entities: Column
    record_of_event: Column


class _Groups(NamedTuple):
    """The events of one ring by entity and tile: `order` sorts them, groups begin at `starts`, each has two keys."""

    order: Column
    starts: Column
    entities: Column
    tiles: Column


def deltas(layout: TilesLayout, entities: Column, event_us: Column, columns: Columns) -> Deltas:
    """The deltas of n events.

    Args:
        layout: of the view's state.
        entities: (n,) intp, an entity's place among those of the batch, from 0.
        event_us: (n,) int64, microseconds since 1970, within EARLIEST_EVENT_US and LATEST_EVENT_US.
        columns: the columns that the view's parts and filters name: (values, nulls), (n,) each; texts as objects.
    """
    windows = layout.windows
    values = {name: taken(*columns[name]) for name in windows.columns}
    passing = {text: expression(text).mask(columns, len(event_us)) for text in windows.filters}
    held = {part: _held(part, values, passing) for ring in windows.rings for part in ring.parts}
    groups = [_grouped(ring, held, entities, event_us) for ring in windows.rings]

    most = int(entities.max()) + 1 if len(entities) else 0
    per_entity = np.zeros(most, np.intp)
    for of_ring in groups:
        np.maximum(per_entity, np.bincount(of_ring.entities, minlength=most), out=per_entity)
    first = np.cumsum(per_entity) - per_entity
    owners = np.repeat(np.arange(most), per_entity)
    records = np.zeros(len(owners), layout.record)
    records["newest"] = _newest(most, groups, entities, event_us)[owners]
    record_of_event = np.full(len(event_us), -1, np.intp)
    for r, (ring, of_ring) in enumerate(zip(windows.rings, groups, strict=True)):
        if not len(of_ring.order):
            continue
        places = first[of_ring.entities] + _ranks(of_ring.entities)
        tiles = np.zeros(len(of_ring.starts), layout.tiles[r])
        tiles["number"] = of_ring.tiles + 1
        _fill(tiles, ring, of_ring, values, held, event_us)
        records[f"ring{r}"][places] = tiles
        if r == windows.longest_ring:
            sizes = np.diff(of_ring.starts, append=len(of_ring.order))
            record_of_event[of_ring.order] = np.repeat(places, sizes)
    return Deltas(records, owners, record_of_event)


def _held(part: Part, values: Mapping[str, tuple[Column, Mask]], passing: Mapping[str, Mask]) -> Mask:
    held = values[part.column][1]
    return held & passing[part.filter] if part.filter else held


def _grouped(ring: Ring, held: Mapping[Part, Mask], entities: Column, event_us: Column) -> _Groups:
    any_part = np.logical_or.reduce([held[part] for part in ring.parts])
    chosen = np.flatnonzero(any_part)
    # One number of entity and tile, so that one sort does.
    key = (entities[chosen].astype(np.int64) << _TILE_BITS) | (event_us[chosen] // ring.hop_us)
    by_key = np.argsort(key, kind="stable")
    key = key[by_key]
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else np.zeros(0, np.intp)
    return _Groups(chosen[by_key], starts, key[starts] >> _TILE_BITS, key[starts] & ((1 << _TILE_BITS) - 1))


def _ranks(entities: Column) -> Column:
    """The place of each group among its entity's; groups are sorted by entity."""
    is_first = np.concatenate([[True], entities[1:] != entities[:-1]])
    return np.arange(len(entities)) - np.maximum.accumulate(np.where(is_first, np.arange(len(entities)), 0))


def _newest(most: int, groups: list[_Groups], entities: Column, event_us: Column) -> Column:
    newest = np.zeros(most, np.int64)
    for of_ring in groups:
        if len(of_ring.order):
            latest = np.maximum.reduceat(event_us[of_ring.order], of_ring.starts)
            np.maximum.at(newest, of_ring.entities, latest)
    return newest


def _fill(
    tiles: Column,
    ring: Ring,
    groups: _Groups,
    values: Mapping[str, tuple[Column, Mask]],
    held: Mapping[Part, Mask],
    event_us: Column,
) -> None:
    group_of = np.repeat(np.arange(len(tiles)), np.diff(groups.starts, append=len(groups.order)))
    for i, part in enumerate(ring.parts):
        algebra = ALGEBRA[part.kind]
        own = held[part][groups.order]
        column, at = values[part.column][0], event_us
        if own.all():
            order, starts = groups.order, groups.starts
            put_state(tiles, i, algebra.update(part, column[order], at[order], starts))
            continue
        put_state(tiles, i, algebra.zero(part, len(tiles)))
        order, owner = groups.order[own], group_of[own]
        if len(order):
            starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
            put_state(tiles, i, algebra.update(part, column[order], at[order], starts), owner[starts])
