from __future__ import annotations

import math

import pytest

from feature_store.monitoring.skew import FeatureSkew, compare, is_equal

ROWS = [{"user_id": 1}, {"user_id": 2}, {"user_id": 3}]
NAN = float("nan")


@pytest.mark.parametrize(
    ("one", "other"),
    [(None, None), (NAN, NAN), (1, 1), (0.1 + 0.2, 0.3), ([1.0, None], [1.0, None]), ("a", "a"), (math.inf, math.inf)],
)
def test_the_same_is_equal(one, other):
    assert is_equal(one, other)
    assert is_equal(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [(None, 0), (None, NAN), (NAN, 1.0), (1, 2), (1.0, 1.00001), ([1], [1, 2]), ("a", "b"), (2**63 - 1, 2**63 - 2)],
)
def test_what_differs_is_not_equal(one, other):
    assert not is_equal(one, other)
    assert not is_equal(other, one)


def test_the_worst_row_is_the_example():
    report = compare("ranking", 7, ROWS, {"mean": [1.0, 2.0, None]}, {"mean": [1.5, 4.0, 3.0]})
    assert report.features == (FeatureSkew("mean", 0, 3, 2.0, {"user_id": 2}, 2.0, 4.0),)
    assert report.differing == 3


def test_equal_columns_have_no_example():
    report = compare(
        "ranking", 7, ROWS, {"a": [1, 2, 3], "b": ["x", None, "z"]}, {"a": [1, 2, 3], "b": ["x", None, "y"]}
    )
    assert report.features[0] == FeatureSkew("a", 3, 0)
    assert report.features[1] == FeatureSkew("b", 2, 1, None, {"user_id": 3}, "z", "y")
    assert report.to_document()["rows"] == 3
