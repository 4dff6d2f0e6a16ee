from __future__ import annotations

import numpy as np
import pytest

from feature_store.errors import RequestError
from feature_store.pruning.curve import Curve, area_under, metric_cost_curve, summed_costs
from tests.pruning.planted import model, planted


def test_costs_count_a_view_once():
    costs = summed_costs({"a": 1, "b": 2, "c": 4}, {"v": 10}, {"a": "v", "b": "v", "c": "w"})
    assert [costs([]), costs(["a"]), costs(["a", "b"]), costs(["a", "b", "c"])] == [0, 11, 13, 17]


def test_a_better_order_has_more_area():
    data = planted(2000)
    costs = summed_costs(dict.fromkeys(data.names, 1.0), {}, data.views)
    orders = (["best", ["p", "q"], "noise_0"], ["noise_0", "best", ["p", "q"]])
    curves = [metric_cost_curve(data, model, order, costs, seeds=(0, 1)) for order in orders]
    assert curves[0].cost.tolist() == [0, 1, 3, 4]
    assert curves[0].metric[0] == 0.5
    assert curves[0].metric[-1] == curves[1].metric[-1]
    assert area_under(curves[0]) > area_under(curves[1])


def test_area_is_the_mean_over_budgets():
    curve = Curve(np.array([0.0, 2.0, 3.0]), np.array([0.5, 0.6, 0.9]))
    assert area_under(curve) == pytest.approx((2 * 0.5 + 0.6) / 3)
    assert area_under(curve, 5) == pytest.approx((2 * 0.5 + 0.6 + 2 * 0.9) / 5)
    assert area_under(curve, 2.5) == pytest.approx((2 * 0.5 + 0.5 * 0.6) / 2.5)
    with pytest.raises(RequestError, match="costs that rise"):
        area_under(Curve(np.array([0.0, 2.0, 1.0]), np.zeros(3)))
