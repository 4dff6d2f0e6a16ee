"""quantile: its error bound, and windows of more values than a leaf of the tree holds."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from feature_store.aggregates.at_times import Events, windows_at
from feature_store.aggregates.windows import compile_windows
from feature_store.definitions import Aggregation, Float64
from feature_store.definitions.dtypes import MICROSECOND
from feature_store.errors import DefinitionError
from feature_store.functions.quantile import Histogram

DAY = timedelta(days=1)
BASE_US = 1_600_000_000_000_000
QUANTILES = (0.01, 0.5, 0.9, 0.999)


def quantiles(values: Any, buckets: int, at_us: Any = None, ends_us: Any = None) -> Any:
    """Per quantile, the values of one entity's windows that end at these times."""
    aggregations = [Aggregation("x", "quantile", windows=[DAY], q=q, buckets=buckets) for q in QUANTILES]
    at_us = BASE_US + np.arange(len(values)) if at_us is None else at_us
    ends_us = np.array([at_us.max()]) if ends_us is None else ends_us
    events = Events(np.zeros(len(values), np.intp), at_us, {"x": (values, np.zeros(len(values), bool))})
    windows = compile_windows(aggregations, {"x": Float64})
    names = [window.name for window in windows.features]
    assert len(windows.rings[0].parts) == 1, "quantiles of a column share their histogram"
    found = windows_at(windows, events, np.zeros(len(ends_us), np.intp), ends_us, names)
    return np.array([found[name][0] for name in names])


def octaves(values: Any) -> float:
    """The number of powers of two that the values span, of both signs together."""
    return sum(math.log2(side.max() / side.min()) for side in (values[values > 0], -values[values < 0]) if len(side))


@pytest.mark.parametrize("buckets", [16, 64, 256])
@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).uniform(0.001, 1, 5_000),
        2.0 ** np.random.default_rng(1).uniform(-5, 5, 5_000),
        np.random.default_rng(2).normal(100, 5, 5_000),
        np.concatenate([-(2.0 ** np.random.default_rng(3).uniform(0, 3, 500)), np.full(9, 7.0)]),
    ],
)
def test_the_error_is_within_its_bound(buckets: int, values: Any) -> None:
    exact = np.quantile(values, QUANTILES, method="inverted_cdf")
    bound = octaves(values) / (buckets - 2)
    assert (np.abs(quantiles(values, buckets)[:, 0] - exact) <= bound * np.abs(exact)).all()


def test_few_numbers_of_few_digits_are_exact() -> None:
    values = np.array([0.0, -3.25, 1e6, 999_999.0, 0.5, math.inf, -math.inf] * 3)
    exact = np.quantile(values, QUANTILES, method="inverted_cdf")
    assert quantiles(values, 8)[:, 0].tolist() == exact.tolist()


def test_windows_by_tree_equal_windows_value_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merged leaves with the values around them give the same as single values."""
    chance = np.random.default_rng(4)
    values = chance.lognormal(size=4_000)
    at_us = BASE_US + np.sort(chance.integers(0, 3 * DAY // MICROSECOND, len(values)))
    ends_us = BASE_US + chance.integers(0, 4 * DAY // MICROSECOND, 100)
    by_tree = quantiles(values, 32, at_us, ends_us)
    monkeypatch.setattr(Histogram, "leaf", len(values) + 1)  # so that no range contains a whole leaf
    np.testing.assert_array_equal(by_tree, quantiles(values, 32, at_us, ends_us))


@pytest.mark.parametrize(
    ("options", "name"), [({"q": 0.5}, "x_p50_1d"), ({"q": 0.999}, "x_p99_9_1d"), ({"q": 0.99}, "x_p99_1d")]
)
def test_names(options: dict[str, Any], name: str) -> None:
    assert Aggregation("x", "quantile", windows=[DAY], **options).feature_name(DAY) == name


@pytest.mark.parametrize(
    ("function", "options", "match"),
    [
        ("quantile", {}, r"q: expected a number between 0 and 1, exclusive, got None"),
        ("quantile", {"q": 1}, r"q: expected a number between 0 and 1, exclusive, got 1"),
        ("quantile", {"q": 0.5, "buckets": 7}, r"buckets: expected an integer from 8 to 512, got 7"),
        ("quantile", {"q": 0.5, "k": 7}, r"k: there is no such argument.*parameters of quantile: q, buckets"),
        ("top_k", {"n": 3, "categories": "buy"}, r"categories: expected 1 to 64 different texts"),
        ("top_k", {"n": 3, "categories": ["buy", "buy"]}, r"categories: expected 1 to 64 different texts"),
        ("count_per_category", {"categories": ["buy", 1]}, r"categories: expected 1 to 64 different texts"),
        ("sum_per_category", {"categories": ["buy"]}, r"by: expected a column of the events"),
    ],
)
def test_wrong_parameters_are_refused(function: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(DefinitionError, match=match):
        Aggregation("x", function, windows=[DAY], **options)
