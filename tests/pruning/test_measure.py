from __future__ import annotations

import numpy as np
import pytest

from feature_store.errors import DataError
from feature_store.pruning.correlation import correlated
from feature_store.pruning.labels import classify
from feature_store.pruning.measure import measure
from tests.pruning.planted import dataset, model, planted

NOISE = [f"noise_{i}" for i in range(20)]
USELESS = [f"useless_{i}" for i in range(9)]


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def found(told):
    return measure(planted(), model, report=lambda done, total: told.append((done, total)))


def test_noise_and_useless_members_are_within_noise(found):
    worth = found.by_name()
    assert max(worth[name] for name in NOISE + USELESS) <= found.noise
    assert list(worth) == list(planted().names)


def test_one_twin_stays(found):
    worth = found.by_name()
    assert sorted(worth[name] > found.noise for name in ("best", "twin")) == [False, True]
    assert [sorted(cluster) for cluster in found.clusters] == [["best", "twin"]]
    assert worth[found.clusters[0][0]] > found.noise
    assert found.cluster_gains[0] > found.noise


def test_the_xor_pair_stays(found):
    worth = found.by_name()
    assert min(worth["p"], worth["q"]) > found.noise


def test_the_good_member_of_the_bundle_is_told(found):
    bundle = next(view for view in found.views if view.view == "bundle")
    assert found.by_name()["good"] > found.noise
    assert bundle.importance > found.noise
    assert bundle.left_out > found.noise
    assert bundle.features == ("good", *USELESS)
    others = {view.view for view in found.views if view.importance <= found.noise}
    assert {"noise_0", "noise_1"} < others
    assert len(others) == 3  # and the view of the dropped twin


def test_labels(found):
    labels = classify(found, {name: ["ranking"] for name in NOISE} | {"good": ["ranking"], "best": []})
    assert labels["noise_0"] == ["epsilon"]
    assert labels["useless_3"] == ["unused", "epsilon", "bundled"]
    assert labels["good"] == []
    twins = {"best": labels["best"], "twin": labels["twin"]}
    assert sorted(twins.values()) == [["unused", "correlated"], ["unused", "epsilon", "correlated"]]


def test_progress_ends_whole(found, told):
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert all(done <= total for done, total in told)
    assert (found.method, found.model, found.metric) == (
        "retrained forward and leave-one-out", "HistGradientBoostingClassifier", "auc"
    )  # fmt: skip


def test_of_redundant_features_that_are_no_twins_one_has_the_worth_of_all():
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=3000)
    columns = {name: hidden + rng.normal(size=3000) * 0.45 for name in "abc"} | {"d": rng.normal(size=3000)}
    y = (hidden + rng.normal(size=3000) > 0).astype(int)
    found = measure(dataset(columns, {name: f"view_{name}" for name in "abcd"}, y), model, seeds=(0, 1))
    worth = found.by_name()
    assert found.clusters == ()
    assert max(worth.values()) > 0.2
    assert sum(worth.values()) == pytest.approx(0.3, abs=0.1)  # all together count once, not three times
    assert worth["d"] <= found.noise


def test_twins_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    a, gone = rng.normal(size=2000), rng.random(2000) < 0.3
    chain = a + rng.normal(size=2000) * 0.2
    columns = {
        "a": a,
        "same": -np.exp(a),
        "near": chain,
        "far": chain + rng.normal(size=2000) * 0.3,
        "constant": np.ones(2000),
        "hole": np.where(gone, np.nan, a),
        "same_hole": np.where(gone, np.nan, 3 * a),
    }
    data = dataset(columns, dict.fromkeys(columns, "v"), np.arange(2000) % 2)
    assert correlated(data, 0.95) == (("a", "same", "near"), ("hole", "same_hole"))
    assert correlated(data) == correlated(data, 1.0) == (("a", "same"), ("hole", "same_hole"))


def test_of_noise_alone_nothing_is_above_noise():
    rng = np.random.default_rng(2)
    columns = {name: rng.normal(size=1000) for name in "abcd"}
    found = measure(dataset(columns, dict.fromkeys("abcd", "v"), rng.random(1000) < 0.4), model)
    assert max(found.by_name().values()) <= found.noise + 0.02
    assert min(found.by_name().values()) >= 0


def test_later_labels_of_one_class_are_refused():
    data = dataset({"a": np.arange(100.0)}, {"a": "v"}, np.arange(100) < 50)
    with pytest.raises(DataError, match="both classes"):
        measure(data, model, seeds=(0,))
