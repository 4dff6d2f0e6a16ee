from __future__ import annotations

import numpy as np
import pytest

from feature_store.errors import DataError, NotFoundError, RequestError
from feature_store.pruning.bootstrap import Draws, lower_bound, metric_by_draw
from feature_store.pruning.metric import auc
from feature_store.pruning.verify import verify
from tests.pruning.planted import model, planted

GOOD = ("best", "p", "q", "good")
DATA = planted(6000)
EARLIER, LATER = DATA.split_by_time((0.6, 0.4))


def test_the_harmless_passes_and_the_harmful_does_not():
    told = []
    prefixes = [[*GOOD, "twin"], GOOD, GOOD[:3], ["noise_0"]]
    found = verify(EARLIER, LATER, model, prefixes, margin=0.01, draws=200, report=lambda *at: told.append(at))
    assert [one.passes for one in found.candidates] == [True, True, False, False]
    assert found.largest_passing.kept == GOOD
    assert found.largest_passing.overall.lower_bound > -0.01
    assert found.reason.startswith("4 features are enough: auc +0.0")
    last = found.candidates[-1].overall
    assert last.difference == pytest.approx(last.pruned - last.full)
    assert last.lower_bound <= last.difference < -0.2
    assert told[-1] == (15, 15)
    assert (found.earlier_rows, found.later_rows, found.entities) == (3600, 2400, len(np.unique(LATER.entity)))


def test_no_feature_can_be_dropped():
    found = verify(EARLIER, LATER, model, [["p", "q"], ["best"]], draws=100, seeds=(0,))
    assert found.largest_passing is None
    assert found.reason == "no feature can be dropped: no candidate is shown to lose at most 0.002 auc"


def test_what_passes_behind_one_that_does_not_is_not_offered():
    found = verify(EARLIER, LATER, model, [[*GOOD[:3], "noise_0"], GOOD], margin=0.01, draws=100, seeds=(0,))
    assert [one.passes for one in found.candidates] == [False, True]
    assert found.largest_passing is None


def test_each_slice_must_pass():
    where = LATER.x[:, LATER.columns(["good"])[0]] > 0.5
    names = ["twin" if name == "best" else name for name in GOOD]
    slices = {"good": where, "all": np.ones(len(LATER), bool)}
    found = verify(EARLIER, LATER, model, [names, GOOD[:3]], margin=0.03, draws=200, slices=slices)
    first, second = found.candidates
    assert first.passes
    assert first.slices["all"] == first.overall
    assert first.slices["good"].lower_bound < first.overall.lower_bound
    assert not second.overall.passes


def test_draws_are_paired():
    found = verify(EARLIER, LATER, model, [DATA.features], draws=50, seeds=(0,), margin=0.0001)
    assert found.candidates[0].overall.lower_bound == found.candidates[0].overall.difference == 0


def test_another_metric():
    def right(y, score):
        return float(np.mean((score > 0.5) == y))

    found = verify(EARLIER, LATER, model, [GOOD, ["noise_0"]], metric=right, margin=0.02, draws=100, seeds=(0,))
    assert [one.passes for one in found.candidates] == [True, False]
    assert found.metric == "right"


@pytest.mark.parametrize(
    ("more", "error", "reason"),
    [
        ({"prefixes": []}, RequestError, "from the one that keeps most"),
        ({"prefixes": [["best"], []]}, RequestError, "from the one that keeps most"),
        ({"prefixes": [["best"], GOOD]}, RequestError, "from the one that keeps most"),
        ({"prefixes": [["nope"]]}, NotFoundError, "got nope"),
        ({"margin": -0.1}, RequestError, "margin -0.1"),
        ({"confidence": 0.1}, RequestError, "confidence 0.1"),
        ({"draws": 10}, RequestError, "draws 10"),
        ({"later": EARLIER}, DataError, "split one data set by time"),
        ({"slices": {"s": np.zeros(len(LATER), bool)}}, DataError, "slice s"),
        ({"slices": {"s": np.ones(3, bool)}}, DataError, "slice s"),
        ({"slices": {"s": LATER.y > 0}}, DataError, "slice s: expected labels of both classes"),
    ],
)
def test_what_cannot_be_judged_is_refused(more, error, reason):
    arguments = {"earlier": EARLIER, "later": LATER, "factory": model, "prefixes": [GOOD]} | more
    with pytest.raises(error, match=reason):
        verify(**arguments)


def test_the_bound_holds_as_often_as_it_says():
    """Two scores with a true difference of 0, whose rows are alike within an entity: the bound is above 0 in 5 %."""
    rng = np.random.default_rng(0)
    above, tries = 0, 300
    for at in range(tries):
        entity = rng.integers(0, 100, 600)
        y = (rng.random(600) < 0.4).astype(int)
        common = y + rng.normal(size=100)[entity] + rng.normal(size=600)
        one, other = (common + rng.normal(size=100)[entity] + rng.normal(size=600) for _ in range(2))
        draws = Draws(entity, 200, seed=at)
        differences = metric_by_draw(draws, y, [one], auc, None) - metric_by_draw(draws, y, [other], auc, None)
        above += lower_bound(differences, 0.95) > 0
    assert 0.02 <= above / tries <= 0.09
