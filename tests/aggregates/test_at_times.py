"""Windows at the times of labels, against the naive computation: any events, late events among them, any labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from feature_store.aggregates.at_times import Events, windows_at
from feature_store.aggregates.windows import compile_windows
from feature_store.definitions import Aggregation, Float64
from feature_store.functions import _ranges
from tests.aggregates.event_worlds import (
    BASE_US,
    HOUR,
    MINUTE,
    NAMES,
    SECOND_US,
    WINDOWS,
    assert_windows,
    columns_of,
    lists_of_events,
    seconds,
)
from tests.aggregates.naive import Event

# Most events are known at once, some a little later, and some much later.
events_of = lists_of_events(st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 4000)))
labels_of = st.lists(st.tuples(st.integers(-1, 3), seconds), max_size=12)


def check(events: list[Event], labels: list[tuple[int, int]]) -> None:
    entities = np.array([entity for entity, _ in labels], np.intp)
    times = np.array([BASE_US + second * SECOND_US for _, second in labels], np.int64)
    found = windows_at(WINDOWS, columns_of(events), entities, times, NAMES)
    for i, (entity, _) in enumerate(labels):
        assert_windows(found, i, events, entity, int(times[i]))


@settings(max_examples=150)
@given(events=events_of, labels=labels_of)
def test_windows_are_those_of_the_events(events: list[Event], labels: list[tuple[int, int]]) -> None:
    check(events, labels)


@settings(max_examples=80)
@given(events=events_of, labels=labels_of)
def test_small_batches_and_trees_give_the_same_windows(events: list[Event], labels: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ranges, "PAIRS", 3)
        patch.setattr(_ranges, "SHORT", -1)
        check(sorted(events, key=lambda event: event["ts"]), labels)


SUMS = compile_windows([Aggregation("x", "sum", windows=[MINUTE, HOUR])], {"x": Float64})


def test_times_that_do_not_fit_beside_entities_become_ranks() -> None:
    far = [0, 2**40, 2**52]
    count = 3000
    events = Events(
        np.arange(count) % 1000 * 2**12,
        np.array(far)[np.arange(count) % 3],
        {"x": (np.ones(count), np.zeros(count, bool))},
    )
    labels = np.arange(1000) * 2**12
    values, _ = windows_at(SUMS, events, labels, np.full(1000, 2**52), ["x_sum_1m"])["x_sum_1m"]
    wanted = [int(((events.entities == label) & (events.event_us == 2**52)).sum()) for label in labels.tolist()]
    assert values.tolist() == wanted


def test_many_entities_and_events_agree_with_brute_force() -> None:
    """More entities than 16 bits can count, and events in no order, each created up to a minute late."""
    random = np.random.default_rng(0)
    entities, at = random.integers(0, 200_000, 50_000), BASE_US + random.integers(0, 7200 * SECOND_US, 50_000)
    created = at + random.integers(1, 60 * SECOND_US, 50_000)
    x = random.normal(size=50_000)
    labels = np.concatenate([entities[:300], [5, 199_999]])
    times = BASE_US + random.integers(0, 7200 * SECOND_US, len(labels))
    events = Events(entities, at, {"x": (x, np.zeros(50_000, bool))}, created)
    found = windows_at(SUMS, events, labels, times, ["x_sum_1h"])["x_sum_1h"][0]
    hop = 3600 * SECOND_US // 48
    for i, (label, time) in enumerate(zip(labels.tolist(), times.tolist(), strict=True)):
        held = (entities == label) & (at >= (time - 3600 * SECOND_US) // hop * hop) & (created <= time)
        assert found[i] == pytest.approx(x[held].sum(), abs=1e-9)


def test_late_events_are_checked_one_by_one_only_near_the_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """When every row was created within a second, pairs stay few, however many events a window holds."""
    looked_at = []
    pairs = _ranges.pairs

    def counted(starts, ends):
        looked_at.append(int((ends - starts).sum()))
        return pairs(starts, ends)

    monkeypatch.setattr(_ranges, "pairs", counted)
    count = 10_000
    at = BASE_US + np.arange(count) * SECOND_US // 4
    events = Events(
        np.zeros(count, np.intp),
        at,
        {"x": (np.ones(count), np.zeros(count, bool))},
        at + SECOND_US // 2 + np.arange(count) % 7,
    )
    times = BASE_US + np.arange(100) * 25 * SECOND_US
    found = windows_at(SUMS, events, np.zeros(100, np.intp), times, ["x_sum_1h"])["x_sum_1h"][0]
    assert found.tolist() == [float((events.created_us <= time).sum()) for time in times.tolist()]
    assert sum(looked_at) <= 100 * 8
