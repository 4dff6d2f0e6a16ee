"""From events to windows through stored tiles, in any order and batches, against the naive computation; and bytes."""

from __future__ import annotations

import itertools
import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from feature_store.aggregates.deltas import Deltas, deltas
from feature_store.aggregates.read import WindowReader
from feature_store.aggregates.tiles import TilesLayout
from feature_store.aggregates.windows import CLOCK_SKEW_US, compile_windows
from feature_store.definitions import Aggregation, Float64, Int32, String
from feature_store.testing.tile_merges import empty, merge
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
)
from tests.aggregates.naive import Event

LAYOUT = TilesLayout(WINDOWS)
SUM = TilesLayout(compile_windows([Aggregation("x", "sum", windows=[MINUTE])], {"x": Float64}))


def deltas_of(layout: TilesLayout, events: list[Event]) -> Deltas:
    entities, event_us, columns, _ = columns_of(events)
    return deltas(layout, entities, event_us, columns)


def bytes_of(values: Any) -> Any:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)


def summed(event_us: list[int], xs: list[float | None], entities: list[int] | None = None) -> Deltas:
    columns = {"x": (np.array([math.nan if x is None else x for x in xs]), np.array([x is None for x in xs], bool))}
    return deltas(SUM, np.array(entities or [0] * len(xs), np.intp), np.array(event_us, np.int64), columns)


# -- the whole way ------------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(events=lists_of_events(), cuts=st.lists(st.integers(0, 60), max_size=4), ahead_s=st.integers(0, 8000))
def test_windows_are_those_of_the_events(events: list[Event], cuts: list[int], ahead_s: int) -> None:
    """For any order, lateness and batches, windows at the newest event and later equal the naive windows."""
    values = [empty(LAYOUT) for _ in range(3)]
    bounds = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    for start, end in itertools.pairwise(bounds):
        found = deltas_of(LAYOUT, events[start:end])
        for entity in range(3):
            merge(LAYOUT, values[entity], found.records[found.entities == entity])
    newest = max((event["ts"] for event in events), default=BASE_US)
    for now_us in (newest, newest + ahead_s * SECOND_US):
        read_windows = read(LAYOUT, NAMES, bytes_of(np.concatenate(values)), now_us)
        for entity in range(3):
            assert_windows(read_windows, entity, events, entity, now_us)


@settings(max_examples=100)
@given(events=lists_of_events(), order=st.randoms())
def test_deltas_are_the_same_in_any_order_and_sorted(events: list[Event], order: Any) -> None:
    found = deltas_of(LAYOUT, events)
    order.shuffle(events)
    again = deltas_of(LAYOUT, events)
    assert found.entities.tolist() == again.entities.tolist() == sorted(found.entities.tolist())
    assert_records_equal(found.records, again.records)
    for r, tile in enumerate(LAYOUT.tiles):
        numbers = found.records[f"ring{r}"]["number"]
        for entity in set(found.entities.tolist()):
            own = numbers[found.entities == entity].tolist()
            held = [number for number in own if number]
            assert own == sorted(set(held)) + [0] * (len(own) - len(held)), (tile, entity)


def assert_records_equal(a: Any, b: Any) -> None:
    assert a["newest"].tolist() == b["newest"].tolist()
    for r, tile in enumerate(LAYOUT.tiles):
        for name in tile.names or ():
            x, y = a[f"ring{r}"][name], b[f"ring{r}"][name]
            if x.dtype.kind == "f":
                np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-6)
            else:
                assert x.tobytes() == y.tobytes(), name


@settings(max_examples=100)
@given(events=lists_of_events())
def test_every_event_has_the_record_of_its_tile(events: list[Event]) -> None:
    found = deltas_of(LAYOUT, events)
    longest = WINDOWS.longest_ring
    ring = WINDOWS.rings[longest]
    for event, record in zip(events, found.record_of_event.tolist(), strict=True):
        taken = any(
            event[part.column] is not None
            and event[part.column] == event[part.column]
            and (not part.filter or event["action"] == "buy")
            for part in ring.parts
        )
        assert (record >= 0) == taken
        if taken:
            assert found.entities[record] == event["entity"]
            assert found.records[f"ring{longest}"]["number"][record] == event["ts"] // ring.hop_us + 1
            assert found.records["newest"][record] >= event["ts"]


# -- deltas -------------------------------------------------------------------------------------------------------------


def test_the_bytes_of_a_delta() -> None:
    """Fixed bytes, since they are stored and Lua reads them. One event in ring 0, of one-second tiles."""
    layout = TilesLayout(
        compile_windows(
            [
                Aggregation("x", "mean", windows=[MINUTE]),
                Aggregation("x", "stddev", windows=[MINUTE]),
                Aggregation("i", "last_n", windows=[MINUTE], n=2),
                Aggregation("i", "first", windows=[HOUR], filter="i > 5"),
            ],
            {"x": Float64, "i": Int32},
        )
    )
    columns = {"x": (np.array([1.5]), np.array([False])), "i": (np.array([3], np.int32), np.array([False]))}
    (record,) = deltas(layout, np.array([0]), np.array([BASE_US]), columns).records
    at = np.float64(BASE_US).tobytes()
    assert record.tobytes().hex(" ", 4) == b"".join(
        [
            at,  # newest
            (BASE_US // SECOND_US + 1).to_bytes(4, "little"),  # tile number + 1
            (1).to_bytes(4, "little"),  # count
            np.float64(1.5).tobytes(),  # sum
            (1).to_bytes(4, "little") + np.float64(1.5).tobytes() + bytes(8),  # moments
            at + (3).to_bytes(4, "little") + bytes(12),  # last_n
            bytes(4) + bytes(12),  # the ring of the hour: no tile, since the filter takes no event
        ]
    ).hex(" ", 4)
    assert layout.value.itemsize == len(record.tobytes()) + (60 + 10) * 60 + (48 + 1) * 16


def test_nothing_makes_no_deltas() -> None:
    for found in (summed([], []), summed([BASE_US] * 2, [None, math.nan])):
        assert len(found.records) == len(found.entities) == 0
    assert summed([BASE_US, BASE_US], [None, 1.0]).record_of_event.tolist() == [-1, 0]


def test_an_entity_with_many_new_tiles_has_as_many_deltas() -> None:
    found = summed([BASE_US + i * SECOND_US for i in (2, 0, 1, 0)], [1.0, 2.0, 4.0, 8.0], entities=[1, 1, 1, 0])
    assert found.entities.tolist() == [0, 1, 1, 1]
    assert found.records["ring0"]["0"].tolist() == [8.0, 2.0, 4.0, 1.0]
    assert found.records["newest"].tolist() == [BASE_US, *[BASE_US + 2 * SECOND_US] * 3]
    assert found.record_of_event.tolist() == [3, 1, 2, 0]


def test_more_entities_than_a_digit_of_the_sort_counts() -> None:
    count = 150_000
    entities = np.random.default_rng(0).permutation(np.repeat(np.arange(count), 2))
    columns = {"x": (np.ones(2 * count), np.zeros(2 * count, bool))}
    found = deltas(SUM, entities, np.full(2 * count, BASE_US), columns)
    assert found.entities.tolist() == list(range(count))
    assert (found.records["ring0"]["0"] == 2.0).all()


def test_an_event_older_than_every_window_is_late() -> None:
    value = empty(SUM)
    slots = SUM.windows.rings[0].slots
    assert merge(SUM, value, summed([BASE_US + slots * SECOND_US], [1.0]).records) == []
    assert merge(SUM, value, summed([BASE_US], [2.0]).records) == [], "a window of the newest event's holds it still"
    assert merge(SUM, value, summed([BASE_US - SECOND_US], [4.0]).records) == [0]
    now_us = BASE_US + 60 * SECOND_US
    assert read(SUM, ["x_sum_1m"], bytes_of(value), now_us)["x_sum_1m"][0].tolist() == [2.0]


# -- reading ------------------------------------------------------------------------------------------------------------


def read(layout: TilesLayout, names: list[str], values: Any, now_us: int) -> dict[str, Any]:
    """Read with scratch space that holds other bytes before the read and is overwritten after it."""
    reader = WindowReader(layout, names)
    scratch = np.full(reader.scratch_bytes(len(values)), 255, np.uint8)
    found = reader.read(values, now_us, scratch)
    scratch[:] = 170
    return found


def test_a_stale_tile_is_ignored_whatever_its_bytes() -> None:
    aggregations = [
        *(
            Aggregation("x", function, windows=[MINUTE])
            for function in ("sum", "mean", "min", "max", "stddev", "first")
        ),
        Aggregation("x", "last_n", windows=[MINUTE], n=3),
    ]
    layout = TilesLayout(compile_windows(aggregations, {"x": Float64}))
    ring = layout.windows.rings[0]
    value = empty(layout)
    for i, x in enumerate([math.inf, -math.inf, 1e308, 1e308]):
        event_us = np.array([BASE_US + i * SECOND_US], np.int64)
        merge(layout, value, deltas(layout, np.array([0]), event_us, {"x": (np.array([x]), np.array([False]))}).records)
    now_us = BASE_US + (ring.slots + 60) * SECOND_US
    last = deltas(layout, np.array([0]), np.array([now_us]), {"x": (np.array([2.0]), np.array([False]))})
    merge(layout, value, last.records)
    found = read(layout, [window.name for window in layout.windows.features], bytes_of(value), now_us)
    assert {name: values[0] for name, (values, _) in found.items() if name != "x_last3_1m"} == {
        "x_sum_1m": 2.0, "x_mean_1m": 2.0, "x_min_1m": 2.0, "x_max_1m": 2.0, "x_stddev_1m": 0.0, "x_first_1m": 2.0
    }  # fmt: skip
    assert found["x_last3_1m"][0][0].tolist() == [2.0]


def test_tiles_after_now_are_left_out() -> None:
    value = empty(SUM)
    merge(SUM, value, summed([BASE_US, BASE_US + 5 * SECOND_US], [1.0, 2.0]).records)
    sums = [
        read(SUM, ["x_sum_1m"], bytes_of(value), BASE_US + s * SECOND_US)["x_sum_1m"][0].tolist()
        for s in (-1, 0, 4, 5, 60, 61, 65, 66)
    ]
    assert sums == [[0.0], [1.0], [1.0], [3.0], [3.0], [2.0], [2.0], [0.0]]
    assert read(SUM, ["x_sum_1m"], bytes_of(value), -5 * SECOND_US)["x_sum_1m"][0].tolist() == [0.0]


def test_values_may_lie_anywhere_in_a_reply() -> None:
    events = [{"entity": i % 3, "ts": BASE_US + i * SECOND_US, "created": 0, "x": float(i), "count": i, "seen": True, "action": "buy"} for i in range(30)]  # fmt: skip
    found = deltas_of(LAYOUT, events)
    values = [empty(LAYOUT) for _ in range(3)]
    for entity in range(3):
        merge(LAYOUT, values[entity], found.records[found.entities == entity])
    plain = bytes_of(np.concatenate(values))
    reply = np.frombuffer(b"".join(b"$123\r\n" + row.tobytes() + b"\r\n" for row in plain), np.uint8)
    askew = reply.reshape(3, -1)[:, 6:-2]
    now_us = BASE_US + 31 * SECOND_US
    wanted = read(LAYOUT, NAMES, plain, now_us)
    for some in (NAMES, NAMES[::2], NAMES[:1], []):
        got = read(LAYOUT, some, askew, now_us)
        assert set(got) == set(some)
        for name, (got_values, nulls) in got.items():
            assert [str(value) for value in got_values] == [str(value) for value in wanted[name][0]]
            assert nulls.tolist() == wanted[name][1].tolist()
    none = read(LAYOUT, NAMES, plain[:0], now_us)
    assert all(len(got_values) == len(nulls) == 0 for got_values, nulls in none.values())


def test_values_are_of_the_features_types() -> None:
    found = read(LAYOUT, NAMES, bytes_of(empty(LAYOUT)), BASE_US)
    for window in WINDOWS.features:
        values, nulls = found[window.name]
        kind = "O" if window.function == "last_n" else {"Int64": "i", "Int32": "i", "Bool": "b"}.get(window.dtype, "f")
        assert values.dtype.kind == kind and nulls.dtype == bool, window
    assert found["count_last60_90s"][0][0].dtype == np.int32


# -- windows ------------------------------------------------------------------------------------------------------------


def test_windows_that_share_a_hop_share_a_ring_and_functions_their_parts() -> None:
    windows = compile_windows(
        [
            Aggregation("x", "mean", windows=[HOUR, 2 * HOUR], hop=timedelta(seconds=75)),
            Aggregation("x", "count", windows=[HOUR]),
            Aggregation("x", "sum", windows=[HOUR], filter="a == 'b'"),
            Aggregation("x", "max", windows=[timedelta(hours=5)]),
        ],
        {"x": Float64, "a": String},
    )
    assert [(ring.hop_us // SECOND_US, ring.slots, len(ring.parts)) for ring in windows.rings] == [
        (75, 97, 3),
        (375, 49, 2),
    ]
    assert windows.longest_ring == 1 and windows.columns == ("x",) and windows.filters == ("a == 'b'",)
    assert windows.longest_us == (5 * 3600 + 375) * SECOND_US
    assert [feature.parts for feature in windows.features] == [(0, 1), (0, 1), (0,), (2,), (0, 1)]


@pytest.mark.parametrize(
    ("seconds", "hop"), [(60, 1), (3600, 75), (86_400, 1800), (7 * 86_400, 12_600), (3601, 13), (97, 1), (49, 1)]
)
def test_a_window_slides_by_a_48th_of_itself_or_a_little_less(seconds: int, hop: int) -> None:
    window = timedelta(seconds=seconds)
    aggregation = Aggregation("x", "sum", windows=[window])
    assert aggregation.hop_us(window) == hop * SECOND_US and seconds // hop >= 48
    (ring,) = compile_windows([aggregation], {"x": Float64}).rings
    assert ring.slots == seconds // hop + -(-CLOCK_SKEW_US // ring.hop_us), "what a fast clock pushes out, none holds"
