"""Every function keeps the laws of feature_store/testing/functions.py."""

from __future__ import annotations

import math
import statistics
import struct
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from feature_store.definitions import Bool, Float64, Int32, String
from feature_store.functions import all_functions
from feature_store.testing.functions import FunctionCase, FunctionSuite

numbers = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, math.nan]), st.floats(-1e6, 1e6, width=32))
whole = st.one_of(st.none(), st.integers(0, 9))
bools = st.sampled_from([None, True, False])
actions = st.sampled_from([None, "buy", "view", "größe", "other"])
# Values of both signs and all sizes, so that buckets are joined.
powers = st.builds(lambda size, sign: sign * 2.0**size, st.integers(-30, 30), st.sampled_from([-1, 1]))
apart = st.one_of(st.floats(-1e9, 1e9), powers)
# Of one sign: the oracle's rounding and the state's differ by more than what is left of values that cancel each other.
positive = st.one_of(st.none(), st.sampled_from([0.0, -0.0, math.nan]), st.floats(0, 1e6, width=32))
texts = st.sampled_from([None, "a", "b", "größe", ""])


def _values(events: list[Any]) -> list[Any]:
    return [row[0] for row in events]


def _or_none(function: Any) -> Any:
    return lambda events: function(_values(events)) if events else None


def _counts(events: list[Any], place: int, categories: list[Any]) -> list[int]:
    return [sum(row[place] == category for row in events) for category in categories]


def _sums(categories: list[Any]) -> Any:
    return lambda events: [math.fsum(x for x, action in events if action == category) for category in categories]


def _top(n: int, categories: list[Any]) -> Any:
    def oracle(events: list[Any]) -> list[Any]:
        counts = dict(zip(categories, _counts(events, 0, categories), strict=True))
        return sorted((one for one in categories if counts[one]), key=lambda one: -counts[one])[:n]

    return oracle


def _decayed(function: str, half_life: timedelta) -> Any:
    """By the definition: one power for each event. Weights of a mean are relative to those of the newest event."""

    def oracle(events: list[Any], now_us: int) -> float | None:
        end_us = events[-1][0] if events and function == "decayed_mean" else now_us
        weights = [0.5 ** ((end_us - at) / (half_life // timedelta(microseconds=1))) for at, _ in events]
        total = math.fsum(weight * row[0] for weight, (_, row) in zip(weights, events, strict=True))
        if function == "decayed_mean":
            return total / math.fsum(weights) if events else None
        return total if function == "decayed_sum" else math.fsum(weights)

    return oracle


def _quantile(q: float, buckets: int) -> Any:
    """The bucket of the exact quantile. Keys come from struct, and the level is found by trying each."""

    def key(value: float) -> int:
        (bits,) = struct.unpack("<q", struct.pack("<d", abs(value)))
        return ~(bits >> 32) if value < 0 else bits >> 32

    def number(bits: int) -> float:
        return struct.unpack("<d", struct.pack("<q", bits))[0]

    def oracle(events: list[Any]) -> float | None:
        values = sorted(float(value) for value in _values(events))
        if not values:
            return None
        keys = {key(value) for value in values}
        level = next(level for level in range(32) if len({one >> level for one in keys}) <= buckets)
        exact = values[max(math.ceil(round(q * len(values), 9)), 1) - 1]
        bucket = key(exact) >> level
        size = ~bucket if bucket < 0 else bucket
        low, high = number(size << 32 + level), number((size + 1 << 32 + level) - 1)
        middle = low if not level or not size else low + (high - low) / 2
        return -middle if bucket < 0 else middle

    return oracle


DAILY_SUM = _decayed("decayed_sum", timedelta(days=1))


def _sequence(n: int, serves: int, distinct: int | None = None, action: int | None = None) -> Any:
    """The served column of the n latest events, newest first: one walk back through the events."""

    def oracle(events: list[Any]) -> list[Any]:
        seen, served = set(), []
        for row in reversed(events):
            if any(value is None or value != value for value in row):
                continue
            if distinct is None or row[distinct] not in seen:
                served.append(row[serves])
            if distinct is not None:
                seen.add(row[distinct])
        if action == serves:
            served = [1 + ACTIONS.index(one) if one in ACTIONS else 0 for one in served]
        return served[:n]

    return oracle


# A sequence of x, item and seen; and one with texts.
WITH_ITEMS = {"columns": {"x": "Float64", "item": "Int32", "seen": "Bool"}}
WITH_ACTIONS = {"columns": {"x": "Int32", "action": "Int32"}, "categories_of": {"action": ["buy", "view", "größe"]}}
ITEMS = {"item": (Int32, st.one_of(st.none(), st.integers(0, 3))), "seen": (Bool, bools)}
ACTIONS, STARS = ["buy", "view", "größe"], [5, 1, 3]
CASES = [
    FunctionCase("count", Float64, numbers, len),
    FunctionCase("count", String, texts, len),
    FunctionCase("sum", Float64, numbers, lambda events: math.fsum(_values(events))),
    FunctionCase("sum", Int32, whole, lambda events: sum(_values(events))),
    FunctionCase("mean", Float64, numbers, _or_none(statistics.fmean)),
    FunctionCase("mean", Bool, bools, _or_none(statistics.fmean)),
    FunctionCase("min", Float64, numbers, _or_none(min)),
    FunctionCase("max", Int32, whole, _or_none(max)),
    FunctionCase("stddev", Float64, numbers, _or_none(statistics.pstdev)),
    FunctionCase("first", Float64, numbers, _or_none(lambda values: values[0])),
    FunctionCase("first", Bool, bools, _or_none(lambda values: values[0])),
    FunctionCase("last", Int32, whole, _or_none(lambda values: values[-1])),
    FunctionCase("last_n", Float64, numbers, lambda events: _values(events)[::-1][:3], {"n": 3}),
    FunctionCase("last_n", Int32, whole, lambda events: _values(events)[::-1][:60], {"n": 60}),
    # Of up to 40 values, the sketch is off by about one.
    FunctionCase("distinct", Float64, numbers, lambda events: len(set(_values(events))), rel=0.3, abs=1),
    FunctionCase("distinct", String, texts, lambda events: len(set(_values(events))), rel=0.3, abs=1),
    FunctionCase("quantile", Float64, numbers, _quantile(0.5, 8), {"q": 0.5, "buckets": 8}, rel=1e-15, abs=0),
    FunctionCase("quantile", Float64, apart, _quantile(0.9, 8), {"q": 0.9, "buckets": 8}, rel=1e-15, abs=0),
    FunctionCase("quantile", Int32, whole, _quantile(0.999, 64), {"q": 0.999}, rel=0, abs=0),
    FunctionCase(
        "count_per_category", String, actions, lambda rows: _counts(rows, 0, ACTIONS), {"categories": ACTIONS}
    ),
    FunctionCase("count_per_category", Int32, whole, lambda rows: _counts(rows, 0, STARS), {"categories": STARS}),
    FunctionCase(
        "sum_per_category",
        Float64,
        numbers,
        _sums(ACTIONS),
        {"by": "action", "categories": ACTIONS},
        others={"action": (String, actions)},
    ),
    FunctionCase(
        "sum_per_category",
        Int32,
        whole,
        _sums([True]),
        {"by": "seen", "categories": [True]},
        others={"seen": (Bool, bools)},
    ),
    *(
        FunctionCase(
            "sequence",
            Float64,
            numbers,
            _sequence(n, place, distinct and 1),
            {"n": n, "serves": serves, "distinct": distinct} | WITH_ITEMS,
            others=ITEMS,
            rel=0,
            abs=0,
        )
        for n, place, serves, distinct in (
            (3, 0, "x", None),
            (50, 1, "item", None),
            (2, 0, "x", "item"),
            (9, 2, "seen", "item"),
        )
    ),
    *(
        FunctionCase(
            "sequence",
            Int32,
            whole,
            _sequence(4, place, distinct, action=1),
            {"n": 4, "serves": serves, "distinct": "action" if distinct else None} | WITH_ACTIONS,
            others={"action": (String, actions)},
        )
        for place, serves, distinct in ((0, "x", None), (1, "action", None))
    ),
    FunctionCase("top_k", String, actions, _top(2, ACTIONS), {"n": 2, "categories": ACTIONS}),
    *(
        FunctionCase(function, dtype, values, _decayed(function, half_life), {"half_life": half_life}, is_timed=True)
        for function in ("decayed_sum", "decayed_count", "decayed_mean")
        for dtype, values, half_life in (
            (Float64, positive, timedelta(seconds=7)),
            (Int32, whole, timedelta(hours=1)),
        )
    ),
    FunctionCase("decayed_sum", Float64, numbers, DAILY_SUM, {"half_life": timedelta(days=1)}, is_timed=True),
    FunctionCase("top_k", Int32, whole, _top(2, STARS), {"n": 2, "categories": STARS}),
]


class TestFunctions(FunctionSuite):
    cases = CASES


def test_every_function_has_a_case() -> None:
    assert {case.function for case in CASES} == set(all_functions())
