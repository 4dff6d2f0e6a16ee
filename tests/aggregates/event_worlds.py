"""Random events with every kind of column, aggregations of every function over them, and comparisons of results."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from feature_store.aggregates.at_times import Events
from feature_store.aggregates.windows import compile_windows
from feature_store.definitions import Aggregation, Bool, Float64, Int32, String
from feature_store.definitions.dtypes import DType
from tests.aggregates.naive import Event, naive

SECOND_US = 1_000_000
BASE_US = 1_600_000_000 * SECOND_US
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
COLUMNS: dict[str, DType] = {"x": Float64, "count": Int32, "seen": Bool, "action": String}
AGGREGATIONS = [
    *(Aggregation("x", function, windows=[MINUTE, HOUR]) for function in ("count", "sum", "mean", "min", "max")),
    *(Aggregation("x", function, windows=[HOUR]) for function in ("stddev", "first", "last", "distinct")),
    Aggregation("x", "last_n", windows=[HOUR], n=2),
    Aggregation("x", "mean", windows=[HOUR], filter="action == 'buy'", name="bought"),
    Aggregation("x", "sum", windows=[timedelta(seconds=90)], hop=timedelta(seconds=30)),
    Aggregation("count", "last_n", windows=[timedelta(seconds=90)], hop=timedelta(seconds=30), n=60),
    *(Aggregation("count", function, windows=[MINUTE]) for function in ("sum", "last", "distinct")),
    *(Aggregation("seen", function, windows=[MINUTE, HOUR]) for function in ("mean", "first", "last")),
    *(Aggregation("action", function, windows=[HOUR]) for function in ("count", "distinct")),
    *(Aggregation("x", function, windows=["lifetime"]) for function in ("count", "sum", "mean", "last")),
    Aggregation("count", "last_n", windows=[MINUTE, "lifetime"], n=3),
    Aggregation("action", "count", windows=["lifetime"], filter="action == 'buy'", name="bought_actions"),
    Aggregation("count", "stddev", windows=[HOUR], filter="action in ('buy',)", name="bought_count"),
]
WINDOWS = compile_windows(AGGREGATIONS, COLUMNS)
NAMES = [window.name for window in WINDOWS.features]

numbers = st.one_of(st.none(), st.sampled_from([0.0, -0.0, math.nan]), st.floats(-1e6, 1e6, width=32))
seconds = st.integers(0, 3 * 3600)


def _event(entity: int, second: int, late: int, **columns: Any) -> Event:
    ts = BASE_US + second * SECOND_US
    return {"entity": entity, "ts": ts, "created": ts + late * SECOND_US, **columns}


IN_TIME = st.just(0)


def lists_of_events(late: st.SearchStrategy[int] = IN_TIME, max_size: int = 60) -> st.SearchStrategy[list[Event]]:
    return st.lists(
        st.builds(
            _event,
            st.integers(0, 2),
            seconds,
            late,
            x=numbers,
            count=st.one_of(st.none(), st.integers(0, 9)),
            seen=st.sampled_from([None, True, False]),
            action=st.sampled_from([None, "buy", "view"]),
        ),
        max_size=max_size,
    )


def columns_of(events: list[Event]) -> Events:
    columns = {}
    for name, dtype in COLUMNS.items():
        values = [event[name] for event in events]
        filled = [dtype.numpy.type(0) if value is None else value for value in values] if dtype.width else values
        columns[name] = np.array(filled, dtype.numpy), np.array([value is None for value in values], bool)
    return Events(
        np.array([event["entity"] for event in events], np.intp),
        np.array([event["ts"] for event in events], np.int64),
        columns,
        np.array([event["created"] for event in events], np.int64),
    )


def assert_windows(found: dict[str, tuple[Any, Any]], i: int, events: list[Event], entity: Any, now_us: int) -> None:
    """Assert that row i equals the naive computation for an entity at a time."""
    for aggregation in AGGREGATIONS:
        for window in aggregation.windows:
            name = aggregation.feature_name(window)
            values, nulls = found[name]
            wanted = naive(aggregation, window, events, entity, now_us)
            assert bool(nulls[i]) == (wanted is None), name
            if wanted is not None:
                assert_equal(values[i], wanted, name)


def assert_equal(got: Any, wanted: Any, name: str) -> None:
    if isinstance(wanted, list):
        assert list(got) == wanted, name
    elif "distinct" in name:
        assert abs(got - wanted) <= 1 + 0.3 * wanted, name
    else:
        assert got == pytest.approx(wanted, rel=1e-9, abs=1e-6 if "stddev" in name else 1e-9, nan_ok=True), name
