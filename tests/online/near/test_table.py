"""The table of cached values, against a dict: it may forget any key, and never gives any value but the last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from feature_store.online.near.hashing import LONGEST_KEY, Keys
from feature_store.online.near.table import Table

SIZE = 12


def keys_of(table: Table, names: list[int], width: int | None) -> Keys:
    """Names as keys: of 8 or 4 bytes, or texts of many lengths. Some texts end in zero bytes, and some are too long."""
    if width is not None:
        return table.keys(b"".join(name.to_bytes(width, "big") for name in names), None)
    return table.keys(b"", [text_of(name) for name in names])


def text_of(name: int) -> bytes:
    return b"%d" % (name // 4) + b"\0" * (name % 3) + (b"x" * LONGEST_KEY if name % 4 == 3 else b"")


def value_of(name: int, version: int) -> bytes:
    return name.to_bytes(4, "big") + version.to_bytes(8, "big")


def block(values: list[bytes]) -> Any:
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, SIZE)


names = st.lists(st.integers(0, 120), min_size=1, max_size=30, unique=True)
steps = st.lists(st.tuples(st.sampled_from(["find", "keep", "forget", "late keep"]), names), max_size=40)


@settings(max_examples=150, deadline=None)
@given(steps, st.sampled_from([8, 4, 12, None]), st.sampled_from([0, 2]), st.sampled_from([1, 4_000, 100_000]))
def test_it_says_what_was_kept_last_or_nothing(steps: Any, width: int | None, variables: int, budget: int) -> None:
    table = Table(SIZE, width, variables, budget)
    versions: dict[int, int] = {}
    moment = 0
    for step, chosen in steps:
        keys = keys_of(table, chosen, width)
        if step == "find":
            cells, is_hit, slots = table.find(keys)
            extras = table.variables(slots, is_hit, [0])[0][0] if variables else []
            hits = [name for name, hit in zip(chosen, is_hit.tolist(), strict=True) if hit]
            found = [cell[table.at : table.at + SIZE].tobytes() for cell in cells[is_hit]]
            assert found == [value_of(name, versions.get(name, 0)) for name in hits]
            assert [extra for extra in extras if extra is not None] == (found if variables else [])
            assert len(hits) <= len(table)
            continue
        if step == "forget":
            moment += 1
            for name in chosen:
                versions[name] = moment
            table.forget(keys, moment)
            assert not table.find(keys).is_hit.any()
            continue
        # A late keep has values that were read before the last changes.
        since = moment if step == "keep" else max(moment - 1, 0)
        read = [value_of(name, min(versions.get(name, 0), since)) for name in chosen]
        extra = [(value, None) for value in read] if variables else None
        moment += 1
        table.keep(keys, block(read), extra, np.full(len(chosen), since), moment)
        assert len(table) <= table.capacity
    assert table.size_bytes <= budget or budget < 4_000  # a table has at least two sets


def test_two_keys_that_share_a_set_and_a_tag_are_told_apart() -> None:
    table = Table(SIZE, 8, 0, 1)  # makes two sets
    wanted = keys_of(table, [5], 8)
    table.keep(wanted, block([value_of(5, 0)]), None, np.zeros(1, np.int64), 1)
    other = wanted._replace(words=wanted.words + np.uint64(1))
    assert table.find(wanted).is_hit.all()
    assert not table.find(other).is_hit.any()


def test_a_key_of_zeros_is_not_found_in_an_empty_table() -> None:
    for width in (8, 4, 16):
        table = Table(SIZE, width, 0, 10_000)
        assert not table.find(keys_of(table, [0], width)).is_hit.any()
    table = Table(SIZE, None, 0, 10_000)
    assert not table.find(table.keys(b"", [b""])).is_hit.any()


def test_a_scan_does_not_push_out_what_is_used() -> None:
    table = Table(SIZE, 8, 0, 200_000)
    used = list(range(table.capacity // 2))
    keep(table, used)
    for start in range(0, 20 * table.capacity, 1000):
        assert_found(table, used, at_least=0)
        keep(table, list(range(10**6 + start, 10**6 + start + 1000)))
    assert_found(table, used, at_least=0.9)


def test_what_is_used_pushes_out_what_is_not() -> None:
    table = Table(SIZE, 8, 0, 200_000)
    for _ in range(3):
        keep(table, list(range(2 * table.capacity)))
    used = list(range(10**6, 10**6 + table.capacity // 4))
    for _ in range(12):
        keep(table, used)
        table.find(keys_of(table, used, 8))
    assert_found(table, used, at_least=0.9)


@pytest.mark.parametrize("variables", [0, 1])
def test_it_stays_within_its_budget(variables: int) -> None:
    budget = 300_000
    table = Table(SIZE, 8, variables, budget)
    for start in range(0, 40_000, 500):
        names = list(range(start, start + 500))
        extra = [(b"v" * 300,) for _ in names] if variables else None
        table.keep(keys_of(table, names, 8), block([value_of(n, 0) for n in names]), extra, np.zeros(500, np.int64), 0)
        assert table.size_bytes <= budget
    assert table.size_bytes >= 0.8 * budget


def keep(table: Table, names: list[int]) -> None:
    table.keep(
        keys_of(table, names, 8), block([value_of(name, 0) for name in names]), None, np.zeros(len(names), np.int64), 0
    )


def assert_found(table: Table, names: list[int], at_least: float) -> None:
    assert table.find(keys_of(table, names, 8)).is_hit.mean() >= at_least


def test_what_makes_room_counts_as_a_change_of_its_set() -> None:
    table = Table(SIZE, 8, 1, 20_000)
    keep_text(table, 0, b"v" * 5_000, since=0, moment=1)
    keep_text(table, 1, b"v" * 15_000, since=1, moment=2)
    assert table.size_bytes <= 20_000
    late = keep_text(table, 0, b"old", since=0, moment=3)
    assert not table.find(keys_of(table, [0], 8)).is_hit.any()
    assert late == 0


def keep_text(table: Table, name: int, text: bytes, since: int, moment: int) -> int:
    keys = keys_of(table, [name], 8)
    return table.keep(keys, block([value_of(name, 0)]), [(text,)], np.full(1, since), moment)


def integers(*columns: Any) -> bytes:
    return np.stack(columns, axis=1).astype(">i8").tobytes()


COUNT = np.arange(6000)
PATTERNS: dict[str, tuple[bytes, list[bytes] | None, int | None]] = {
    "consecutive": (integers(COUNT), None, 8),
    "multiples of 1000": (integers(1000 * COUNT), None, 8),
    "multiples of 2**32": (integers(COUNT << 32), None, 8),
    "of 4 bytes": (COUNT.astype(">i4").tobytes(), None, 4),
    "pairs": (integers(COUNT % 77, COUNT // 77), None, 16),
    "texts that end differently": (b"", [b"item-%06d" % i for i in COUNT], None),
    "texts that begin differently": (b"", [b"%05dxxx" % i for i in COUNT], None),
    "texts of two numbers": (b"", [b"u%07di%07d" % (i % 77, i // 77) for i in COUNT], None),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_keys_spread_over_sets_and_tags_as_random_ones_do(pattern: str) -> None:
    """Keys that share a set and a tag push each other out, and keys that crowd in few sets leave the others empty."""
    packed, listed, width = PATTERNS[pattern]
    table = Table(SIZE, width, 0, 100_000)
    keys = table.keys(packed, listed)
    of_sets = np.bincount(keys.sets, minlength=table.capacity // 8)
    assert 0.5 < of_sets.var() / of_sets.mean() < 1.5  # 1 for random keys, with a deviation of 0.06
    assert len(np.unique(np.stack([keys.sets, keys.tags]), axis=1).T) >= len(COUNT) - 1


@given(st.lists(st.binary(max_size=LONGEST_KEY + 3), unique=True, max_size=8), st.lists(st.binary(max_size=60)))
@settings(max_examples=60, deadline=None)
def test_a_text_is_the_same_key_beside_any_other_texts(asked: list[bytes], others: list[bytes]) -> None:
    """The words of a request's keys are made together, as many as its longest key needs."""
    table = Table(SIZE, None, 0, 100_000)
    together, alone = table.keys(b"", [*asked, *others]), [table.keys(b"", [key]) for key in asked]
    for i, one in enumerate(alone):
        assert [part[i].tolist() for part in together] == [part[0].tolist() for part in one]
    short = [key for key in asked if len(key) <= LONGEST_KEY]
    assert len({tuple(row) for row in table.keys(b"", short).words.tolist()}) == len(short)
