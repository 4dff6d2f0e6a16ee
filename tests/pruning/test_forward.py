from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from feature_store.pruning.forward import select_forward, shared
from feature_store.pruning.trials import Gain


class Known:
    """A metric with a known value for every set of features."""

    def __init__(self, metric):
        self.metric, self.asked = metric, 0

    def gain(self, kept, without):
        self.asked += 1
        return Gain(self.metric(frozenset(kept)) - self.metric(frozenset(kept) - set(without)), 0.0)


def forward(metric, names, noise=0.0):
    return select_forward(Known(metric), list(names), noise)


def test_worth_that_adds_up_is_each_ones_own():
    worth = {"a": 0.1, "b": 0.3, "c": 0.0}
    found = forward(lambda kept: sum(worth[name] for name in kept), "abc")
    assert found == pytest.approx({"b": 0.3, "a": 0.1})
    assert list(found) == ["b", "a"]


def test_of_the_redundant_the_first_has_all():
    assert forward(lambda kept: 0.3 * bool(kept), "abc") == pytest.approx({"a": 0.3})


def test_what_adds_no_more_than_noise_is_not_taken():
    assert forward(lambda kept: 0.3 * ("a" in kept) + 0.1 * ("b" in kept), "ab", noise=0.15) == {"a": 0.3}


@given(st.lists(st.frozensets(st.integers(0, 9)), min_size=1, max_size=8))
def test_lazily_it_takes_what_greedy_selection_takes(sets):
    """The metric is the size of a union of sets: what one more set adds never grows."""

    def metric(kept):
        return float(len(frozenset().union(*(sets[int(name)] for name in kept))))

    names = [str(i) for i in range(len(sets))]
    found = forward(metric, names)
    taken, expected = frozenset(), []
    while any(metric(taken | {name}) > metric(taken) for name in names):
        best = max(metric(taken | {name}) - metric(taken) for name in names)
        expected.append(best)
        name = list(found)[len(expected) - 1]
        assert metric(taken | {name}) - metric(taken) == best
        taken |= {name}
    assert list(found.values()) == expected


def test_few_are_fitted_again():
    rng = np.random.default_rng(0)
    worth = dict(zip(map(str, range(50)), rng.random(50), strict=True))
    known = Known(lambda kept: sum(worth[name] for name in kept))
    assert len(select_forward(known, list(worth), 0.0)) == 50
    assert known.asked < 50 + 2 * 50


def test_sums_are_shared_in_proportion():
    assert shared(1.0, {"a": 3, "b": 1, "c": -5}) == {"a": 0.75, "b": 0.25, "c": 0}
    assert shared(1.0, {"a": -1, "b": 0}) == {"a": 0.5, "b": 0.5}
    assert shared(-1.0, {"a": 1}) == {"a": 0}
    assert shared(1.0, {}) == {}
