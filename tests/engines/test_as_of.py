"""The point-in-time kernel against an oracle that looks at every row for every label."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US
from feature_store.engines.as_of import NONE, SortedRows, as_of, sort_rows


class Row(NamedTuple):
    entity: int
    at: int
    made: int


class Label(NamedTuple):
    entity: int
    at: int


ENTITIES = 4
# Times that are close together, so that some are equal, and times as far apart as possible.
TIMES = st.integers(-6, 12) | st.sampled_from([MIN_TIMESTAMP_US, MAX_TIMESTAMP_US])
ROWS = st.lists(st.builds(Row, st.integers(0, ENTITIES - 2), TIMES, TIMES), max_size=60)
LABELS = st.lists(st.builds(Label, st.integers(-1, ENTITIES - 1), TIMES), max_size=25)
TTLS = st.none() | st.integers(1, 20) | st.just(10**20)


def oracle(rows: list[Row], label: Label, ttl: int | None) -> int:
    """The place of the row that a label sees, among the rows in their given order."""
    visible = [
        (row.at, row.made, place)
        for place, row in enumerate(rows)
        if row.entity == label.entity and row.at <= label.at and row.made <= label.at
    ]
    if not visible:
        return NONE
    at, _, place = max(visible)
    return NONE if ttl is not None and at < label.at - ttl else place


def seen(rows: list[Row], labels: list[Label], ttl: int | None, *, same_times: bool = False) -> list[int]:
    """What the kernel finds, as places among the rows in their given order."""
    entities, event_ts, created_ts = np.array(rows, np.int64).reshape(-1, 3).T
    made = None if same_times else created_ts
    order, ordered = sort_rows(entities.astype(np.int32), event_ts, made, ENTITIES)
    of, at = np.array(labels, np.int64).reshape(-1, 2).T
    found = as_of(ordered, of.astype(np.int32), at, ttl)
    return [NONE if place == NONE else int(order[place]) for place in found.tolist()]


@settings(max_examples=400)
@given(ROWS, LABELS, TTLS)
def test_each_label_sees_the_latest_row_that_was_known(rows: list[Row], labels: list[Label], ttl: int | None) -> None:
    assert seen(rows, labels, ttl) == [oracle(rows, label, ttl) for label in labels]


@given(ROWS, LABELS, TTLS)
def test_rows_without_a_creation_time_are_known_at_once(rows: list[Row], labels: list[Label], ttl: int | None) -> None:
    at_once = [row._replace(made=row.at) for row in rows]
    assert seen(rows, labels, ttl, same_times=True) == [oracle(at_once, label, ttl) for label in labels]


@given(ROWS, LABELS, TTLS, st.randoms(use_true_random=False))
def test_rows_that_came_later_than_a_label_change_nothing_of_it(
    rows: list[Row], labels: list[Label], ttl: int | None, chance: random.Random
) -> None:
    """No leakage: rows that are added in the future of a label do not change what the label sees."""
    for label in labels:
        known = [row for row in rows if max(row.at, row.made) <= label.at]
        places = sorted(chance.sample(range(len(rows)), len(known)))
        later = iter([row for row in rows if max(row.at, row.made) > label.at])
        mixed = [known[places.index(i)] if i in places else next(later) for i in range(len(rows))]
        (alone,), (among,) = seen(known, [label], ttl), seen(mixed, [label], ttl)
        assert among == (NONE if alone == NONE else places[alone])


@pytest.mark.parametrize("first", [0, 1, 7, 2**12 - 5])
@pytest.mark.parametrize("length", [1, 2, 5, 64, 100, 1000])
def test_rows_created_much_later_are_passed_over(first: int, length: int) -> None:
    """The last visible row is found, wherever the rows of an entity begin and however many of them are hidden."""
    event_ts = np.arange(first + length)
    visible = [*range(0, length, 7), length - 1]
    for last in visible:
        created = np.full(first + length, 10**9)
        created[:first] = 0  # rows of another entity, visible to all labels
        created[first + last] = 0
        rows = SortedRows(np.array([0, first, first + length]), event_ts, created)
        until = as_of(rows, np.array([1, 1, 1, 0]), np.array([10**8, first + last, first + last - 1, 10**8]))
        assert until.tolist() == [first + last, first + last, NONE, first - 1]


def test_no_rows_and_no_labels() -> None:
    nothing = np.array([], np.int64)
    order, rows = sort_rows(nothing, nothing, nothing, 3)
    assert len(order) == 0
    assert as_of(rows, np.array([0, -1]), np.array([5, 5])).tolist() == [NONE, NONE]
    assert len(as_of(rows, nothing, nothing)) == 0


def test_many_rows_are_sorted_as_lexsort_does() -> None:
    chance = np.random.default_rng(3)
    for in_order in (True, False):
        entities = chance.integers(0, 50, 20_000).astype(np.int32)
        event_ts = chance.integers(0, 500, 20_000)
        if in_order:
            event_ts.sort()
        created_ts = event_ts + chance.integers(0, 3, 20_000)
        order, rows = sort_rows(entities, event_ts, created_ts, 50)
        assert order.tolist() == np.lexsort((created_ts, event_ts, entities)).tolist()
        assert rows.event_ts.tolist() == event_ts[order].tolist()
