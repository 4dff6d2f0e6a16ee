from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import Event, naive

from feature_store.aggregates import at_times
from feature_store.aggregates.at_times import Events, windows_at
from feature_store.aggregates.windows import compile_windows
from feature_store.definitions import Aggregation, Float64, String

SECOND_US = 1_000_000
BASE_US = 1_600_000_000 * SECOND_US
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
AGGREGATIONS = [
    *(Aggregation("x", function, windows=[MINUTE, HOUR]) for function in ("count", "sum", "mean", "min", "max")),
    *(Aggregation("x", function, windows=[HOUR]) for function in ("stddev", "first", "last", "distinct")),
    Aggregation("x", "last_n", windows=[HOUR], n=2),
    Aggregation("x", "mean", windows=[HOUR], filter="action == 'buy'", name="bought"),
    Aggregation("x", "sum", windows=[timedelta(seconds=90)], hop=timedelta(seconds=30)),
]
WINDOWS = compile_windows(AGGREGATIONS, {"x": Float64, "action": String})
NAMES = [window.name for window in WINDOWS.features]

numbers = st.one_of(st.none(), st.sampled_from([0.0, -0.0, math.nan]), st.floats(-1e6, 1e6, width=32))
seconds = st.integers(0, 3 * 3600)
events_of = st.lists(
    st.builds(
        lambda entity, second, late, x, action: {
            "entity": entity,
            "ts": BASE_US + second * SECOND_US,
            "created": BASE_US + (second + late) * SECOND_US,
            "x": x,
            "action": action,
        },
        st.integers(0, 2),
        seconds,
        st.one_of(st.just(0), st.integers(0, 4000)),
        numbers,
        st.sampled_from(["buy", "view"]),
    ),
    max_size=60,
)
labels_of = st.lists(st.tuples(st.integers(-1, 3), seconds), max_size=12)


def columns_of(events: list[Event]) -> Events:
    values = [event["x"] for event in events]
    actions = np.array([event["action"] for event in events], object)
    return Events(
        np.array([event["entity"] for event in events], np.intp),
        np.array([event["ts"] for event in events], np.int64),
        {
            "x": (np.array([0.0 if v is None else v for v in values]), np.array([v is None for v in values], bool)),
            "action": (actions, np.zeros(len(events), bool)),
        },
        np.array([event["created"] for event in events], np.int64),
    )


def assert_equal(got: Any, wanted: Any, name: str) -> None:
    if isinstance(wanted, list):
        assert list(got) == wanted, name
    elif "distinct" in name:
        assert abs(got - wanted) <= 1 + 0.3 * wanted, name
    else:
        assert got == pytest.approx(wanted, rel=1e-9, abs=1e-6 if "stddev" in name else 1e-9, nan_ok=True), name


def check(events: list[Event], labels: list[tuple[int, int]]) -> None:
    entities = np.array([entity for entity, _ in labels], np.intp)
    times = np.array([BASE_US + second * SECOND_US for _, second in labels], np.int64)
    found = windows_at(WINDOWS, columns_of(events), entities, times, NAMES)
    for aggregation in AGGREGATIONS:
        for window in aggregation.windows:
            name = aggregation.feature_name(window)
            values, nulls = found[name]
            for i, (entity, _) in enumerate(labels):
                wanted = naive(aggregation, window, events, entity, int(times[i]))
                assert bool(nulls[i]) == (wanted is None), name
                if wanted is not None:
                    assert_equal(values[i], wanted, name)


@settings(max_examples=150)
@given(events=events_of, labels=labels_of)
def test_windows_are_those_of_the_events(events: list[Event], labels: list[tuple[int, int]]) -> None:
    check(events, labels)


@settings(max_examples=80)
@given(events=events_of, labels=labels_of)
def test_a_few_pairs_at_a_time_say_the_same(events: list[Event], labels: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(at_times, "_PAIRS", 3)
        check(sorted(events, key=lambda event: event["ts"]), labels)


def test_times_that_do_not_fit_beside_entities_become_ranks() -> None:
    far = [0, 2**40, 2**52]
    count = 3000
    events = Events(
        np.arange(count) % 1000 * 2**12,
        np.array(far)[np.arange(count) % 3],
        {"x": (np.ones(count), np.zeros(count, bool)), "action": (np.full(count, "buy"), np.zeros(count, bool))},
    )
    labels = np.arange(1000) * 2**12
    values, _ = windows_at(WINDOWS, events, labels, np.full(1000, 2**52), ["x_count_1m"])["x_count_1m"]
    wanted = [int(((events.entities == label) & (events.event_us == 2**52)).sum()) for label in labels.tolist()]
    assert values.tolist() == wanted
