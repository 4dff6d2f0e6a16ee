"""Edge values, and the sketch of `distinct`. test_conformance.py checks the laws of all functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from feature_store.aggregates.states import state_for
from feature_store.definitions import Bool, Float32, Float64, Int32, Int64, String, Timestamp
from feature_store.definitions.dtypes import DType
from feature_store.functions import Part, WindowMask, function_named, values_of
from feature_store.functions._contract import MOST_COUNTED
from feature_store.functions.distinct import REGISTERS, register_of


def states_of(function: str, values: Any, at: Any, dtype: DType = Float64, **options: Any) -> list[Any]:
    """The states of one group of values, sorted by time, from which a function is computed."""
    found = function_named(function)
    assert found is not None
    parts = [Part(spec.kind, "x", str(dtype), n=spec.n) for spec in found.states(options)]
    starts = np.zeros(1, np.intp)
    return [state_for(part).update(values, at, starts) if len(values) else state_for(part).zero(1) for part in parts]


def stored(part: Part, state: Any) -> Any:
    """A state, read back from its bytes in a tile."""
    kept = state_for(part).zero(1)
    for name, values in state.items():
        kept[name][...] = values
    return kept


# -- values at the edges ------------------------------------------------------------------------------------------------

INF, NAN = math.inf, math.nan
DECIDED: list[tuple[str, list[float | None], Any]] = [
    *((function, [], 0) for function in ("count", "sum", "distinct")),
    *((function, [], None) for function in ("mean", "min", "max", "stddev", "first", "last")),
    ("last_n", [], []),
    *((function, [None, NAN], wanted) for function, wanted in (("count", 0), ("sum", 0), ("mean", None), ("last_n", []))),
    ("count", [1.0, NAN, None, INF], 2),
    ("mean", [1.0, NAN, 3.0, None], 2.0),
    ("sum", [1.0, INF], INF),
    ("sum", [INF, -INF], NAN),
    ("mean", [INF, -INF], NAN),
    ("mean", [-INF, 5.0], -INF),
    ("min", [INF], INF),
    ("max", [-INF], -INF),
    ("max", [INF, 2.0], INF),
    ("stddev", [INF, 1.0], NAN),
    ("stddev", [4.0], 0.0),
    ("stddev", [1e9 + 1, 1e9 + 2, 1e9 + 3], math.sqrt(2 / 3)),
    ("first", [-0.0], 0.0),
    ("last_n", [-0.0, INF], [INF, 0.0]),
    ("distinct", [0.0, -0.0, NAN, None], 1),
    ("sum", [1.7e308, 1.7e308], INF),
]  # fmt: skip


@pytest.mark.parametrize(("function", "values", "wanted"), DECIDED)
def test_special_values(function: str, values: list[float | None], wanted: Any) -> None:
    raw = np.array([NAN if value is None else value for value in values], np.float64)
    column, held = values_of(raw, np.array([value is None for value in values], bool))
    kept = column[held]
    found, nulls = function_named(function).finalize(states_of(function, kept, np.arange(len(kept)) + 1, n=2), {})
    assert bool(nulls[0]) == (wanted is None)
    if isinstance(wanted, list):
        assert [(value, math.copysign(1, value)) for value in found[0]] == [(value, 1.0) for value in wanted]
    elif wanted is not None:
        assert found[0] == pytest.approx(wanted, rel=1e-9, nan_ok=True)
        assert not (found[0] == 0 and math.copysign(1, found[0]) < 0), "negative zero"


def test_a_count_saturates() -> None:
    for kind, name in (("count", ""), ("moments", "count")):
        part = Part(kind, "x", "Float64")
        of_one = state_for(part).update(np.array([5.0]), np.array([1]), np.zeros(1, np.intp))
        full, one = stored(part, of_one), stored(part, of_one)
        full[name][:] = MOST_COUNTED - 1
        once = stored(part, state_for(part).merge(full, one))
        twice = stored(part, state_for(part).merge(once, one))
        assert once[name][0] == twice[name][0] == MOST_COUNTED
    tiles = {"": np.full((1, 3), MOST_COUNTED, np.uint32)}
    total = state_for(Part("count", "x", "Int64")).fold(tiles, WindowMask(np.ones((1, 3), bool)))
    values, _ = function_named("count").finalize([total], {})
    assert values.tolist() == [3 * MOST_COUNTED], "a window's count does not stop there"


@pytest.mark.parametrize(
    ("dtype", "values", "last"),
    [
        (Float64, [1.0, 2.0], 2.0),
        (Float64, [1.0, -1.0], -1.0),  # the sign bit is the highest bit
        (Int32, [5, -1], -1),
        (Int64, [5, 256], 256),  # little-endian: the number, not its bytes in their order
        (Bool, [True, False], True),
        (Timestamp, [10**15, 10**15 + 1], 10**15 + 1),
        (Float32, [0.5, 0.25], 0.5),
    ],
)
def test_of_equal_times_the_greater_bytes_are_later(dtype: DType, values: list[Any], last: Any) -> None:
    for in_order in (values, values[::-1]):
        column, at = np.array(in_order, dtype.numpy), np.full(2, 7)
        found = {name: states_of(name, column, at, dtype, n=2)[0] for name in ("first", "last", "last_n")}
        (first,) = set(values) - {last}
        assert found["last"]["value"][0] == last and found["first"]["value"][0] == first
        assert found["last_n"][""]["value"][0].tolist() == [last, first]


# -- the sketch ---------------------------------------------------------------------------------------------------------


def test_the_registers_of_values_never_change() -> None:
    """Registers are stored. With another hash, the same value would count as a new value."""
    golden = [
        (np.array([42, -1, 0], np.int64), GOLDEN_INTS),
        (np.array([42, -1, 0], np.int32), GOLDEN_INTS),
        (np.array([0.0, 0.5, math.inf]), GOLDEN_FLOATS),
        (np.array([0.0, 0.5, math.inf], np.float32), GOLDEN_FLOATS),
        (np.array(["", "a", "größe"], object), GOLDEN_TEXTS),
    ]
    for values, wanted in golden:
        place, rank = register_of(values)
        assert list(zip(place.tolist(), rank.tolist(), strict=True)) == wanted, values


GOLDEN_INTS = [(94, 1), (114, 2), (113, 4)]
GOLDEN_FLOATS = [(113, 4), (122, 3), (18, 2)]
GOLDEN_TEXTS = [(90, 2), (23, 1), (116, 1)]


def test_ranks_are_the_places_of_the_first_one_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    from feature_store.functions import distinct

    rests = [1 << 56, (1 << 57) - 1, 1 << 55, 1 << 4, 0, (1 << 53) - 1]  # the four lowest bits are cut off
    hashes = np.array([(5 << 57) | rest for rest in rests], np.uint64)
    monkeypatch.setattr(distinct, "hashes_of", lambda values: hashes)
    place, rank = register_of(hashes)
    assert place.tolist() == [5] * len(rests)
    assert rank.tolist() == [58 - rest.bit_length() for rest in rests]


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("count", [1, 10, 100, 1_000, 30_000])
def test_a_sketch_counts_within_its_error(count: int, texts: bool) -> None:
    """Of 40 sketches, none is off by four standard errors, and their mean error is small."""
    errors = []
    for i in range(40 if count < 30_000 else 8):
        numbers = np.arange(i * count, (i + 1) * count)
        values = np.array([f"item {number}" for number in numbers.tolist()], object) if texts else numbers
        states = states_of("distinct", values, numbers, String if texts else Int64)
        found, _ = function_named("distinct").finalize(states, {})
        errors.append(found[0] / count - 1)
    standard = 1.04 / math.sqrt(REGISTERS)
    assert max(map(abs, errors)) < 4 * standard
    assert abs(sum(errors) / len(errors)) < 4 * standard / math.sqrt(len(errors)) + 0.01
