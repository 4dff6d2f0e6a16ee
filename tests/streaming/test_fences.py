from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, strategies as st

from feature_store.streaming.fences import LANES, NONE, Fences, field

SOURCES = ["clicks:0", "clicks:1"]


def stored(fences: dict[tuple[int, str, int], int]) -> list[dict[str, int]]:
    """The fences of two buckets as Redis stores them, from `{(bucket, source, lane): offset}`."""
    found: list[dict[str, int]] = [{}, {}]
    for (bucket, source, lane), at in fences.items():
        found[bucket][field(source, lane)] = at
    return found


def all_at(at: int) -> dict[tuple[int, str, int], int]:
    return {(bucket, source, lane): at for bucket in range(2) for source in SOURCES for lane in range(LANES)}


def columns(fences: Fences, *sources: str) -> Any:
    return fences.columns_of(sources)


def test_a_source_is_read_from_the_lowest_of_its_fences() -> None:
    fences = Fences(stored(all_at(40) | {(1, "clicks:0", 3): 7}), SOURCES)
    assert [fences.start(source) for source in SOURCES] == [7, 40]
    assert fences.fronts(columns(fences, *SOURCES)).tolist() == [40, 40]


def test_a_lane_without_a_fence_has_merged_nothing() -> None:
    at = all_at(40)
    del at[0, "clicks:1", 5]
    assert [Fences(stored(at), SOURCES).start(source) for source in SOURCES] == [40, None]
    assert Fences([{}, {}], SOURCES).start("clicks:0") is None


def test_fences_of_other_sources_are_passed_over() -> None:
    fences = Fences(stored(all_at(40)), ["clicks:1"])
    found = columns(fences, "clicks:0", "clicks:1")
    assert found.tolist() == [-1, 0]
    assert fences.reaches(found, [0, 40]).tolist() == [False, True]
    assert fences.fronts(found).tolist() == [NONE, 40]
    assert fences.sources == ["clicks:1"]


def test_a_view_takes_part_only_where_it_has_all_that_came_before() -> None:
    fences = Fences(stored(all_at(40) | {(0, "clicks:1", 0): 39}), SOURCES)
    assert fences.reaches(columns(fences, *SOURCES), [40, 40]).tolist() == [True, False]
    assert Fences([{}, {}], SOURCES).reaches(columns(fences, *SOURCES), [NONE, 0]).tolist() == [True, False]


def test_only_lanes_that_are_touched_move_and_the_others_follow_later() -> None:
    fences = Fences([{}, {}], SOURCES)
    units = np.array([0, 0, LANES + 2])
    first, second = columns(fences, *SOURCES).tolist()
    moved = fences.advance(units, np.array([first, second, first]), {first: 10, second: 20})
    assert moved[0] == {"clicks:0/0": (None, 10), "clicks:1/0": (None, 20)}
    assert moved[LANES + 2] == {"clicks:0/2": (None, 10)}
    assert sum(map(len, moved)) == 3
    fences.take({first: 10, second: 20})
    assert [fences.start(source) for source in SOURCES] == [10, 20]

    followed = fences.catch_up(["clicks:0"])
    assert followed[0] == {}
    assert followed[1] == {"clicks:0/1": (None, 10)}
    assert sum(map(len, followed)) == 2 * LANES - 2
    assert not any(fences.catch_up(["clicks:0"]))
    assert sum(map(len, fences.catch_up(SOURCES))) == 2 * LANES - 1
    assert not any(fences.catch_up(SOURCES))


def test_what_is_gone_is_skipped_and_the_fences_follow() -> None:
    fences = Fences(stored(all_at(40)), SOURCES)
    fences.skip("clicks:0", 100)
    fences.skip("clicks:1", 30)
    assert [fences.start(source) for source in SOURCES] == [100, 40]
    moved = fences.catch_up(SOURCES)
    assert moved[0] == {"clicks:0/0": (40, 100)}
    assert sum(map(len, moved)) == 2 * LANES


@given(st.lists(st.tuples(st.integers(0, 2 * LANES - 1), st.integers(0, 1), st.integers(0, 50)), max_size=30))
def test_an_event_is_new_where_no_fence_has_passed_it(events: list[tuple[int, int, int]]) -> None:
    at = {(bucket, source, lane): 10 * (i % 5) for i, (bucket, source, lane) in enumerate(sorted(all_at(0))) if i % 7}
    fences = Fences(stored(at), SOURCES)
    units = np.array([unit for unit, _, _ in events], np.intp)
    sources = np.array([source for _, source, _ in events], np.intp)
    offsets = np.array([offset for _, _, offset in events], np.int64)
    wanted = [offset >= at.get((unit // LANES, SOURCES[source], unit % LANES), NONE) for unit, source, offset in events]
    assert fences.is_new(units, sources, offsets).tolist() == wanted
