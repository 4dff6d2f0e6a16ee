from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.metrics import roc_auc_score

from feature_store.errors import DataError, RequestError
from feature_store.pruning.bootstrap import Draws, lower_bound, metric_by_draw
from feature_store.pruning.metric import RankedScores, auc, metric_name, metric_of

ROWS = st.lists(
    st.tuples(st.booleans(), st.integers(-3, 3), st.integers(0, 3), st.integers(0, 5)), min_size=2, max_size=40
)


def arrays(rows):
    y, score, times, entity = (np.array(column) for column in zip(*rows, strict=True))
    return y, score.astype(float), times, entity


@given(ROWS.filter(lambda rows: 0 < sum(row[0] for row in rows) < len(rows)))
def test_auc_is_that_of_scikit_learn(rows):
    y, score, times, _ = arrays(rows)
    assert auc(y, score) == pytest.approx(roc_auc_score(y, score))
    ranked = RankedScores(y, score)
    found = ranked.weighted_auc(times[ranked.true], times[ranked.false])
    if times[y].any() and times[~y].any():
        assert found == pytest.approx(roc_auc_score(y, score, sample_weight=times))
    else:
        assert np.isnan(found)


def test_labels_of_one_class_are_refused():
    with pytest.raises(DataError, match="both classes"):
        auc([1, 1], [0.1, 0.2])


def test_metrics_by_name():
    assert metric_of("auc") is auc
    assert metric_of(min) is min
    assert (metric_name("auc"), metric_name(roc_auc_score)) == ("auc", "roc_auc_score")
    with pytest.raises(RequestError, match="got 'f1'"):
        metric_of("f1")


def naive_by_draw(draws, y, score, entity):
    """The metric by copying rows one by one and comparing every pair."""
    out = []
    for times in draws:
        distinct = sorted(set(entity.tolist()))
        rows = [row for row in range(len(y)) for _ in range(times[distinct.index(entity[row])])]
        pairs = [(score[a] > score[b]) + 0.5 * (score[a] == score[b]) for a in rows for b in rows if y[a] and not y[b]]
        out.append(sum(pairs) / len(pairs) if pairs else float("nan"))
    return out


@given(ROWS.filter(lambda rows: 0 < sum(row[0] for row in rows) < len(rows)))
def test_draws_are_those_of_a_slow_bootstrap(rows):
    y, score, _, entity = arrays(rows)
    draws = Draws(entity, 5, seed=3)
    expected = naive_by_draw(draws, y, score, entity)
    assert metric_by_draw(draws, y, [score], auc, None) == pytest.approx(expected, nan_ok=True)


def test_another_metric_is_asked_with_rows_repeated():
    rng = np.random.default_rng(0)
    y, scores = rng.random(200) < 0.4, [rng.random(200), rng.random(200)]
    draws, mask = Draws(rng.integers(0, 40, 200), 20), rng.random(200) < 0.7
    fast = metric_by_draw(draws, y, scores, auc, mask)
    assert metric_by_draw(draws, y, scores, lambda y, score: roc_auc_score(y, score), mask) == pytest.approx(fast)


def test_draws_are_of_whole_entities_and_the_same_again():
    draws = Draws(np.array([7, 7, 9, 100]), 50)
    first, again = list(draws), list(draws)
    assert np.array_equal(first, again)
    assert draws.code.tolist() == [0, 0, 1, 2]
    assert {int(times.sum()) for times in first} == {3}


def test_a_draw_without_a_metric_counts_as_the_worst():
    assert lower_bound(np.array([0.1, np.nan, *[0.2] * 98]), 0.99) == -np.inf
    assert lower_bound(np.array([0.1, np.nan, *[0.2] * 98]), 0.95) == 0.2
