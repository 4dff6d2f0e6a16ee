"""Reduce events to deltas: the tiles that a batch of events adds to each entity, to be merged into the stored tiles.

A batch is sorted once by (entity, time). In this order the tiles of every ring are ranges, which are reduced one by
one. Most entities get one delta. An entity with several new tiles in a ring gets several deltas, in the order of time.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from feature_store.aggregates.tiles import TilesLayout, put_state
from feature_store.definitions.expression import expression
from feature_store.functions import Column, Mask, State, Values
from feature_store.functions._order import by_entity_and_time, starts_of

Columns = Mapping[str, Values]


class Deltas(NamedTuple):
    """The deltas of a batch of n events.

    Attributes:
        records: (k,) of the layout's record. Records of one entity are adjacent, in the order of time.
        entities: (k,) intp, the entity of each record.
        record_of_event: (n,) intp, the record with the event's tile in the ring with the longest reach; -1 when no part
            of that ring takes the event.
    """

    records: Column
    entities: Column
    record_of_event: Column


class _Events(NamedTuple):
    """Sorted events, with their values by `State.reads`, and for each state the events that it takes."""

    entities: Column
    event_us: Column
    values: Mapping[Hashable, Column]
    held: Mapping[State, Mask]

    def chosen(self, states: Sequence[State]) -> Column | slice:
        """The indexes of the events that at least one of the states takes."""
        chosen = np.logical_or.reduce([self.held[state] for state in states])
        return slice(None) if chosen.all() else np.flatnonzero(chosen)  # a slice copies nothing


class _Groups(NamedTuple):
    """The tiles of a ring. Tile i has `sizes[i]` of the `chosen` events, from `starts[i]`."""

    chosen: Column | slice
    starts: Column
    sizes: Column
    entities: Column
    tiles: Column


def deltas(layout: TilesLayout, entities: Column, event_us: Column, columns: Columns) -> Deltas:
    """The deltas of n events.

    Args:
        layout: the layout of the view's tiles.
        entities: (n,) intp, the index of each event's entity in the batch, from 0.
        event_us: (n,) int64, microseconds since 1970, within EARLIEST_EVENT_US and LATEST_EVENT_US.
        columns: for each column of the view's parts and filters (values, nulls), (n,) each; texts are objects.
    """
    windows = layout.windows
    order = by_entity_and_time(entities, event_us)
    events = _events(layout, entities[order], event_us[order], columns, order)
    groups = [_grouped(ring.hop_us, states, events) for ring, states in zip(windows.rings, layout.states, strict=True)]

    most = int(entities.max()) + 1 if len(entities) else 0
    per_entity = np.zeros(most, np.intp)
    for of_ring in groups:
        np.maximum(per_entity, np.bincount(of_ring.entities, minlength=most), out=per_entity)
    first = np.cumsum(per_entity) - per_entity
    owners = np.repeat(np.arange(most), per_entity)
    records = np.zeros(len(owners), layout.record)
    records["newest"] = _newest(most, groups, events.event_us)[owners]
    record_of_event = np.full(len(event_us), -1, np.intp)
    for r, (states, of_ring) in enumerate(zip(layout.states, groups, strict=True)):
        places = first[of_ring.entities] + _ranks(of_ring.entities)
        tiles = np.zeros(len(of_ring.starts), layout.tiles[r])
        tiles["number"] = of_ring.tiles + 1
        _fill(tiles, states, of_ring, events)
        raw = np.dtype((np.void, tiles.itemsize))  # copy bytes, not fields: 5,000 take 0.05 ms instead of 0.25 ms
        records[f"ring{r}"].view(raw)[places] = tiles.view(raw)
        if r == windows.longest_ring:
            record_of_event[order[of_ring.chosen]] = np.repeat(places, of_ring.sizes)
    return Deltas(records, owners, record_of_event)


def _events(layout: TilesLayout, entities: Column, event_us: Column, columns: Columns, order: Column) -> _Events:
    columns = {name: (values[order], nulls[order]) for name, (values, nulls) in columns.items()}
    passing = {text: expression(text).mask(columns, len(order)) for text in layout.windows.filters}
    taken: dict[Hashable, Values] = {}
    held = {}
    for states in layout.states:
        for state in states:
            if state.reads not in taken:
                taken[state.reads] = state.take(columns)
            are_values = taken[state.reads][1]
            held[state] = are_values & passing[state.part.filter] if state.part.filter else are_values
    return _Events(entities, event_us, {reads: values for reads, (values, _) in taken.items()}, held)


def _grouped(hop_us: int, states: Sequence[State], events: _Events) -> _Groups:
    chosen = events.chosen(states)
    entities, tiles = events.entities[chosen], events.event_us[chosen] // hop_us
    starts = starts_of(entities, tiles)
    return _Groups(chosen, starts, np.diff(starts, append=len(tiles)), entities[starts], tiles[starts])


def _ranks(entities: Column) -> Column:
    """The place of each group among the groups of its entity. Groups are sorted by entity."""
    starts = starts_of(entities)
    ranks: Column = np.arange(len(entities)) - np.repeat(starts, np.diff(starts, append=len(entities)))
    return ranks


def _newest(most: int, groups: list[_Groups], event_us: Column) -> Column:
    newest = np.zeros(most, np.int64)
    for of_ring in groups:
        latest = np.zeros(most, np.int64)
        # The last group of an entity is assigned last.
        latest[of_ring.entities] = event_us[of_ring.chosen][of_ring.starts + of_ring.sizes - 1]
        np.maximum(newest, latest, out=newest)
    return newest


def _fill(tiles: Column, states: Sequence[State], groups: _Groups, events: _Events) -> None:
    at = events.event_us[groups.chosen]
    chosen = {reads: events.values[reads][groups.chosen] for reads in {state.reads for state in states}}
    for i, state in enumerate(states):
        values, own = chosen[state.reads], events.held[state][groups.chosen]
        if own.all():
            if len(own):
                put_state(tiles, i, state.update(values, at, groups.starts))
            continue
        put_state(tiles, i, state.zero(len(tiles)))
        owner = np.repeat(np.arange(len(tiles)), groups.sizes)[own]
        starts = starts_of(owner)
        if len(starts):
            put_state(tiles, i, state.update(values[own], at[own], starts), owner[starts])
