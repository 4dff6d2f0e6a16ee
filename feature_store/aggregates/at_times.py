"""The values of windows at given times, computed from events. They equal the values read from tiles at these times.

The hop rule is that of serving: a window of length W at time t holds the events from `(t - W) // hop * hop` to t.

Events are sorted once by (entity, time). In this order, each window of each label is a range of events, and
`functions/_ranges.py` computes the states of ranges.

Events that were created after they happened are sorted into classes by their delay. Each class has delays up to four
times those of the class before. At a label's time, events of a class that are older than its longest delay are known,
and events younger than its shortest delay are not. The few events in between are checked one by one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property, reduce
from typing import NamedTuple

import numpy as np

from feature_store.aggregates.states import state_for
from feature_store.aggregates.windows import Windows
from feature_store.definitions.expression import expression
from feature_store.functions import LIFETIME_US, Column, Mask, State, StateArrays, Values
from feature_store.functions._order import by_entity_and_time
from feature_store.functions._ranges import RangeStates, updated
from feature_store.functions._sorted_values import SortedValues

# The longest delay of the first class of late events, microseconds: few events lie between it and a label.
_LITTLE_US = 1_000_000


class Events(NamedTuple):
    """n events.

    Attributes:
        entities: (n,) intp, the entity of each event, from 0.
        event_us: (n,) int64, the event times, microseconds since 1970.
        columns: for each column of the view's parts and filters (values, nulls), (n,) each; texts are objects.
        created_us: (n,) int64, the time from which each event was known, microseconds since 1970; None when this is the
            event time.
    """

    entities: Column
    event_us: Column
    columns: Mapping[str, Values]
    created_us: Column | None = None


def windows_at(
    windows: Windows, events: Events, label_entities: Column, label_us: Column, features: Sequence[str]
) -> dict[str, Values]:
    """The values of features for m labels, each an entity at a time.

    Args:
        windows: the windows of the view.
        events: the events, in any order. An event created after a label's time does not count for the label.
        label_entities: (m,) intp; -1, or any number that no event has, stands for an entity without events.
        label_us: (m,) int64, microseconds since 1970.
        features: names of windows.

    Returns:
        For each feature its values, as `Function.finalize` returns them, and (m,) bool, True where it is null.
    """
    # Labels are sorted like the events, so that neighbouring labels search neighbouring places: 0.2 s instead of 0.33 s
    # for 100k labels × 6 windows among 1M events.
    by_place = by_entity_and_time(label_entities - label_entities.min(initial=0), label_us)
    back = np.empty_like(by_place)
    back[by_place] = np.arange(len(by_place))
    label_entities, label_us = label_entities[by_place], label_us[by_place]
    timelines = [_Timeline(some, label_entities, label_us) for some in _by_lateness(events)]
    wanted, values_of = set(features), {}
    computed: dict[tuple[State, int, int], StateArrays] = {}
    for window in windows.features:
        if window.name not in wanted:
            continue
        ring = windows.rings[window.ring]
        keys = [(state_for(ring.parts[place]), ring.hop_us, window.window_us) for place in window.parts]
        for key in keys:
            if key not in computed:
                computed[key] = reduce(key[0].merge, (timeline.states(*key) for timeline in timelines))
        values, nulls = window.value_of([computed[key] for key in keys], label_us)
        values_of[window.name] = values[back], nulls[back]
    return values_of


def _by_lateness(events: Events) -> list[Events]:
    if events.created_us is None or not len(events.event_us):
        return [events]
    late = np.maximum(events.created_us - events.event_us, 0)
    _, exponents = np.frexp(late / _LITTLE_US)
    classes = np.where(late > 0, 1 + np.maximum(exponents, 0) // 2, 0)
    return [_chosen(events, classes == one) for one in np.flatnonzero(np.bincount(classes))]


def _chosen(events: Events, chosen: Mask) -> Events:
    if chosen.all():
        return events
    columns = {name: (values[chosen], nulls[chosen]) for name, (values, nulls) in events.columns.items()}
    created = None if events.created_us is None else events.created_us[chosen]
    return Events(events.entities[chosen], events.event_us[chosen], columns, created)


class _Timeline:
    """Events of one class of delays, sorted by entity and time, and the places of labels among them."""

    def __init__(self, events: Events, label_entities: Column, label_us: Column) -> None:
        self._label_us = label_us
        self._place = _Places(events, label_entities, label_us)
        order = self._place.order
        self._at = events.event_us[order]
        # The time from which each event is known, and the shortest and longest delay.
        self._from, self._least, self._most = self._at, 0, 0
        if events.created_us is not None and len(order):
            self._from = np.maximum(events.created_us[order], self._at)
            late = self._from - self._at
            self._least, self._most = int(late.min()), int(late.max())
        self._columns = {
            name: (values[order], nulls[order] if nulls.any() else nulls)
            for name, (values, nulls) in events.columns.items()
        }
        self._taken: dict[tuple[Hashable, str], RangeStates] = {}
        self._ranges: dict[tuple[int, int], tuple[Column, Column, Column]] = {}

    def states(self, state: State, hop_us: int, window_us: int) -> StateArrays:
        """The states of a window of each label: (m,)."""
        taken = self._taken_by(state)
        values = taken.events
        starts, known, ends = (values.bound(bound) for bound in self._range(hop_us, window_us))
        states = taken.states(state, starts, known)
        if self._least == self._most:
            return states
        since = self._from[values.places]
        return state.merge(states, updated(state, known, ends, values.values, values.at, since, self._label_us))

    def _range(self, hop_us: int, window_us: int) -> tuple[Column, Column, Column]:
        """For each label three indexes of events: where its window starts, up to where all events are known, and from
        where no event is known."""
        key = hop_us, window_us
        if key not in self._ranges:
            first_us = self._label_us - window_us
            if hop_us != LIFETIME_US:  # else the window begins at its first time, as `CellFunction` says
                first_us = first_us // hop_us * hop_us
            starts = self._place.before(first_us)
            known, ends = self._bounds
            known = np.maximum(known, starts)
            self._ranges[key] = starts, known, np.maximum(ends, known)
        return self._ranges[key]

    @cached_property
    def _bounds(self) -> tuple[Column, Column]:
        known = self._place.before(self._label_us - self._most + 1)
        return known, known if self._least == self._most else self._place.before(self._label_us - self._least + 1)

    def _taken_by(self, state: State) -> RangeStates:
        key = state.reads, state.part.filter
        if key not in self._taken:
            values, held = state.take(self._columns)
            if state.part.filter:
                held = held & expression(state.part.filter).mask(self._columns, len(self._at))
            self._taken[key] = RangeStates(SortedValues(values, self._at, held, self._place.keys))
        return self._taken[key]


class _Places:
    """The places of labels among events that are sorted by (entity, time)."""

    def __init__(self, events: Events, label_entities: Column, label_us: Column) -> None:
        self._entities = label_entities.astype(np.int64)
        times = [column for column in (events.event_us, label_us) if len(column)]
        self._first = min((int(column.min()) for column in times), default=0)
        span = max((int(column.max()) for column in times), default=0) - self._first + 2
        most = max((int(column.max()) for column in (events.entities, label_entities) if len(column)), default=0) + 2
        self._span, self._ranks = span, None
        if span * most >= 1 << 63:  # entity and time do not fit in one int64: times become ranks
            self._ranks = np.unique(events.event_us)
            self._span = len(self._ranks) + 1
        self.order = by_entity_and_time(events.entities, events.event_us)
        self.keys = (events.entities * np.int64(self._span) + self._rank(events.event_us))[self.order]

    def before(self, time_us: Column) -> Column:
        """The number of events that sort before a time of each label's entity."""
        rank = np.clip(self._rank(time_us), 0, self._span)
        places: Column = np.searchsorted(self.keys, self._entities * self._span + rank)
        return places

    def _rank(self, time_us: Column) -> Column:
        if self._ranks is None:
            return time_us - self._first
        return np.searchsorted(self._ranks, time_us)
