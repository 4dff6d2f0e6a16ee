from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from feature_store.pruning.budget import Latency
from feature_store.pruning.cost import Cost
from feature_store.pruning.latency import Timed, fit_latency

COSTS = [Cost(10, 1, 1), Cost(5_000, 20, 3), Cost(60_000, 200, 30), Cost(90_000, 201, 50), Cost(200, 60, 2)]


@given(st.floats(0.1, 1), *(st.floats(0, 1) for _ in range(3)))
def test_what_is_linear_is_found(base: float, per_key: float, per_byte: float, per_feature: float) -> None:
    wanted = Latency(base, per_key / 100, per_byte / 1e5, per_feature / 50)
    found = fit_latency([Timed(cost, [wanted.of(cost)] * 5) for cost in COSTS])
    for cost in COSTS:
        assert found.of(cost) == pytest.approx(wanted.of(cost), abs=1e-6)


def test_the_tail_of_the_largest_counts() -> None:
    timed = [Timed(cost, [1.0] * 99 + [50.0]) for cost in COSTS[:3]] + [Timed(COSTS[3], [2.0] * 60 + [6.0] * 40)]
    assert fit_latency(timed).of(COSTS[3]) == pytest.approx(6.0, rel=0.3)


def test_what_is_faster_for_more_is_no_saving() -> None:
    found = fit_latency([Timed(cost, [10.0 - i]) for i, cost in enumerate(COSTS)])
    assert min(found.base, found.per_key, found.per_byte, found.per_feature) >= 0
