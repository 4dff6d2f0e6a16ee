"""The algebra: its laws on random states, and what is decided about values at the edges."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from feature_store.aggregates.parts import ALGEBRA, MOST_COUNTED, REGISTERS, Held, finalize, register_of, taken
from feature_store.aggregates.windows import PARTS, Part
from feature_store.definitions import Bool, Float32, Float64, Int32, Int64, String, Timestamp
from feature_store.definitions.dtypes import DType

FLOATS = [Part(kind, "x", "Float64", n=3 if kind == "last_n" else 1) for kind in ALGEBRA]
INTS = [Part(kind, "x", "Int32", n=3 if kind == "last_n" else 1) for kind in ALGEBRA]
ROUNDED = ("sum", "moments")

values_of = st.lists(
    st.tuples(st.integers(1, 5), st.one_of(st.sampled_from([0.0, -1.0, 1.0]), st.floats(-1e6, 1e6, width=32))),
    max_size=8,
)


def state_of(part: Part, items: list[tuple[int, float]]) -> Any:
    """One state, of (time, value)s in any order."""
    if not items:
        return ALGEBRA[part.kind].zero(part, 1)
    items = sorted(items, key=lambda item: item[0])
    values, _ = taken(
        np.array([value for _, value in items]).astype(DType.parse(part.dtype).numpy), np.zeros(len(items), bool)
    )
    at = np.array([time for time, _ in items])
    return ALGEBRA[part.kind].update(part, values, at, np.zeros(1, np.intp))


def stored(part: Part, state: Any) -> Any:
    """A state as its bytes in a tile hold it."""
    kept = ALGEBRA[part.kind].zero(part, len(next(iter(state.values()))))
    for name, values in state.items():
        kept[name][...] = values
    return kept


def assert_same(part: Part, a: Any, b: Any) -> None:
    a, b = stored(part, a), stored(part, b)
    for name, values in a.items():
        if part.kind in ROUNDED and values.dtype.kind == "f":
            np.testing.assert_allclose(values, b[name], rtol=1e-9, atol=1e-6)
        else:
            assert values.tobytes() == b[name].tobytes(), (part, name)


@pytest.mark.parametrize("part", [*FLOATS, *INTS], ids=lambda part: f"{part.kind}-{part.dtype}")
@settings(max_examples=60)
@given(a=values_of, b=values_of, c=values_of)
def test_merging_is_commutative_and_associative_and_what_updating_with_all_says(part: Part, a, b, c) -> None:
    def merge(x, y):
        return ALGEBRA[part.kind].merge(part, x, y)

    x, y, z = state_of(part, a), state_of(part, b), state_of(part, c)
    assert_same(part, merge(x, y), merge(y, x))
    assert_same(part, merge(merge(x, y), z), merge(x, merge(y, z)))
    assert_same(part, merge(merge(x, y), z), state_of(part, [*a, *b, *c]))
    assert_same(part, merge(x, state_of(part, [])), x)
    if part.kind == "sketch":
        assert_same(part, merge(x, x), x)


@pytest.mark.parametrize("part", FLOATS, ids=lambda part: part.kind)
@settings(max_examples=60)
@given(tiles=st.lists(st.tuples(values_of, st.booleans()), min_size=1, max_size=7), order=st.randoms())
def test_a_fold_is_the_merge_of_the_tiles_that_are_held(part: Part, tiles, order) -> None:
    """Whatever those hold that are left out; tiles have no time in common, and lie in any order."""
    algebra = ALGEBRA[part.kind]
    apart = [([(time + 10 * i, value) for time, value in items], held) for i, (items, held) in enumerate(tiles)]
    order.shuffle(apart)
    states = [stored(part, state_of(part, items)) for items, _ in apart]
    together = {name: np.stack([state[name] for state in states], axis=1) for name in states[0]}
    mask = np.array([[held for _, held in apart]])
    for values in together.values():
        if values.dtype.kind == "f":
            values[0, ~mask[0]] = math.inf
    with np.errstate(invalid="ignore"):
        folded = algebra.fold(part, together, Held(mask))
    merged = reduce(
        lambda x, y: algebra.merge(part, x, y),
        [state for state, (_, held) in zip(states, apart, strict=True) if held],
        algebra.zero(part, 1),
    )
    # What a state of nothing holds beside its count or time is nobody's business.
    told_by = {"moments": "count", "first": "at", "last": "at"}.get(part.kind)
    if told_by and not merged[told_by][0]:
        assert not folded[told_by][0]
        return
    if part.kind == "last_n":
        folded[""][folded[""]["at"] == 0] = 0
    assert_same(part, folded, merged)


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
def test_what_is_decided_about_values(function: str, values: list[float | None], wanted: Any) -> None:
    raw = np.array([NAN if value is None else value for value in values], np.float64)
    column, held = taken(raw, np.array([value is None for value in values], bool))
    kept = [(i + 1, value) for i, value in enumerate(column[held].tolist())]
    states = [state_of(Part(kind, "x", "Float64", n=2), kept) for kind in PARTS[function]]
    found, nulls = finalize(function, Float64, states)
    assert bool(nulls[0]) == (wanted is None)
    if isinstance(wanted, list):
        assert [(value, math.copysign(1, value)) for value in found[0]] == [(value, 1.0) for value in wanted]
    elif wanted is not None:
        assert found[0] == pytest.approx(wanted, rel=1e-9, nan_ok=True)
        assert not (found[0] == 0 and math.copysign(1, found[0]) < 0), "negative zero"


def test_a_count_stops_at_the_most_that_it_can_hold() -> None:
    for part in (FLOATS[0], next(part for part in FLOATS if part.kind == "moments")):
        name = "" if part.kind == "count" else "count"
        full, one = stored(part, state_of(part, [(1, 5.0)])), state_of(part, [(2, 5.0)])
        full[name][:] = MOST_COUNTED - 1
        once = stored(part, ALGEBRA[part.kind].merge(part, full, one))
        twice = stored(part, ALGEBRA[part.kind].merge(part, once, one))
        assert once[name][0] == twice[name][0] == MOST_COUNTED
    tiles = {"": np.full((1, 3), MOST_COUNTED, np.uint32)}
    total = ALGEBRA["count"].fold(FLOATS[0], tiles, Held(np.ones((1, 3), bool)))
    assert finalize("count", Int64, [total])[0].tolist() == [3 * MOST_COUNTED], "a window's count does not stop there"


@pytest.mark.parametrize(
    ("dtype", "values", "last"),
    [
        (Float64, [1.0, 2.0], 2.0),
        (Float64, [1.0, -1.0], -1.0),  # the sign bit is the highest
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
        found = {
            kind: ALGEBRA[kind].update(Part(kind, "x", str(dtype), n=2), column, at, np.zeros(1, np.intp))
            for kind in ("first", "last", "last_n")
        }
        (first,) = set(values) - {last}
        assert found["last"]["value"][0] == last and found["first"]["value"][0] == first
        assert found["last_n"][""]["value"][0].tolist() == [last, first]


# -- the sketch ---------------------------------------------------------------------------------------------------------


def test_the_registers_of_values_never_change() -> None:
    """They are stored: another hash would make the same value a new one."""
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
    from feature_store.aggregates import parts

    rests = [1 << 56, (1 << 57) - 1, 1 << 55, 1 << 4, 0, (1 << 53) - 1]  # the four lowest are cut off
    hashes = np.array([(5 << 57) | rest for rest in rests], np.uint64)
    monkeypatch.setattr(parts, "_hashes", lambda values: hashes)
    place, rank = register_of(hashes)
    assert place.tolist() == [5] * len(rests)
    assert rank.tolist() == [58 - rest.bit_length() for rest in rests]


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("count", [1, 10, 100, 1_000, 30_000])
def test_a_sketch_counts_within_its_error(count: int, texts: bool) -> None:
    """Of 40 sketches, none is off by four standard errors, and all together hardly."""
    part = Part("sketch", "x", "String" if texts else "Int64")
    errors = []
    for i in range(40 if count < 30_000 else 8):
        numbers = np.arange(i * count, (i + 1) * count)
        values = np.array([f"item {number}" for number in numbers.tolist()], object) if texts else numbers
        state = ALGEBRA["sketch"].update(part, values, numbers, np.zeros(1, np.intp))
        found, _ = finalize("distinct", String if texts else Int64, [state])
        errors.append(found[0] / count - 1)
    standard = 1.04 / math.sqrt(REGISTERS)
    assert max(map(abs, errors)) < 4 * standard
    assert abs(sum(errors) / len(errors)) < 4 * standard / math.sqrt(len(errors)) + 0.01
