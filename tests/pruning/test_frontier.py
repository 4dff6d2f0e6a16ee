from __future__ import annotations

from hypothesis import given, settings

from feature_store.pruning.budget import Budget
from feature_store.pruning.cost import CostModel
from feature_store.pruning.frontier import frontier
from feature_store.pruning.planner import choose
from tests.pruning.test_planner import models


@settings(max_examples=40)
@given(models())
def test_each_point_is_the_best_within_its_cost(made: tuple[CostModel, dict[str, float]]) -> None:
    model, worth = made
    found = frontier(model, worth, points=8)
    gains = [point.importance for point in found]
    assert gains == sorted(set(gains)), "more is bought at each point"
    for point in found:
        best = choose(model, worth, Budget(max_bytes=point.cost.bytes))
        assert abs(best.importance - point.importance) < 1e-6
    total = sum(worth.values())
    assert not total or abs(found[-1].importance - total) < 1e-6, "the last buys all"
