from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.pruning.elimination import eliminate, expected_fits, shared
from feature_store.pruning.trials import Gain


class Known:
    """A metric that is known for every set of features."""

    def __init__(self, metric):
        self.metric, self.asked = metric, set()

    def gain(self, kept, without):
        self.asked |= {frozenset(kept), frozenset(kept) - set(without)}
        return Gain(self.metric(frozenset(kept)) - self.metric(frozenset(kept) - set(without)), 0.0)


def one_by_one(metric, names, context=frozenset()):
    return eliminate(Known(metric), frozenset(context), {name: (name,) for name in names}, 0.0)


def test_worth_that_adds_up_is_each_ones_own():
    worth = {"a": 0.1, "b": 0.3, "c": 0.0}
    found = one_by_one(lambda kept: sum(worth[name] for name in kept), "abc")
    assert found == pytest.approx(worth)
    assert list(found) == ["c", "a", "b"]


def test_of_the_redundant_the_last_has_all():
    assert one_by_one(lambda kept: 0.3 * bool(kept), "abc") == pytest.approx({"a": 0, "b": 0, "c": 0.3})


def test_of_a_pair_that_counts_together_the_first_to_go_has_all():
    assert one_by_one(lambda kept: 0.3 * ({"p", "q"} <= kept), "pqr") == pytest.approx({"r": 0, "p": 0.3, "q": 0})


def test_what_the_context_has_is_worth_nothing():
    found = one_by_one(lambda kept: 0.3 * bool({"a", "x"} & kept) + 0.1 * ("b" in kept), "ab", context="x")
    assert found == pytest.approx({"a": 0, "b": 0.1})


def test_units_go_with_all_their_features():
    units = {"v": ("a", "b"), "w": ("c",)}
    assert eliminate(Known(len), frozenset(), units, 0.0) == {"w": 1, "v": 2}


SETS = st.dictionaries(st.frozensets(st.sampled_from("abcdef")), st.floats(0, 1), min_size=1)


@given(SETS, st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_credits_add_up_where_more_features_are_never_worse(table, share):
    def metric(kept):
        return max((value for names, value in table.items() if names <= kept), default=0.0)

    known = Known(metric)
    found = eliminate(known, frozenset(), {name: (name,) for name in "abcdef"}, share)
    assert sum(found.values()) == pytest.approx(metric(frozenset("abcdef")) - metric(frozenset()))
    assert min(found.values()) >= 0
    assert len(known.asked) <= expected_fits(6, share) + 2  # and the two ends: with all, and with none


def test_sums_are_shared_in_proportion():
    assert shared(1.0, {"a": 3, "b": 1, "c": -5}) == {"a": 0.75, "b": 0.25, "c": 0}
    assert shared(1.0, {"a": -1, "b": 0}) == {"a": 0.5, "b": 0.5}
    assert shared(-1.0, {"a": 1}) == {"a": 0}
    assert shared(1.0, {}) == {}
