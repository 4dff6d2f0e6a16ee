"""How good a model is for what its features cost, for an order in which they are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from feature_store.errors import RequestError
from feature_store.pruning.trials import Trials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_store.pruning.dataset import Dataset, Factory
    from feature_store.pruning.metric import Metric
    from feature_store.pruning.trials import Report

Costs = Callable[[Sequence[str]], float]
"""What keeping these features costs together."""


class Curve(NamedTuple):
    """Points of rising cost, the first of which keeps nothing.

    Attributes:
        cost: (k + 1,) in the unit of the costs.
        metric: (k + 1,) the mean over the seeds.
    """

    cost: npt.NDArray[np.float64]
    metric: npt.NDArray[np.float64]


def summed_costs(features: Mapping[str, float], views: Mapping[str, float], view_of: Mapping[str, str]) -> Costs:
    """Costs that are the sum of those of the features and, once each, of their views."""

    def cost(kept: Sequence[str]) -> float:
        return sum(features[name] for name in kept) + sum(views.get(v, 0.0) for v in {view_of[name] for name in kept})

    return cost


def metric_cost_curve(
    dataset: Dataset,
    factory: Factory,
    order: Sequence[str | Sequence[str]],
    costs: Costs,
    seeds: Sequence[int],
    *,
    metric: str | Metric = "auc",
    fractions: tuple[float, float] = (0.7, 0.3),
    report: Report | None = None,
) -> Curve:
    """Refit the model on what the order keeps, point after point.

    Args:
        dataset: is split in time: fitted on the earlier part, scored on the later.
        factory: makes an unfitted model from a seed.
        order: what is added at each point, a feature or several; the first is kept longest.
        costs: what some features cost together; must not fall when features are added.
        seeds: the metric is the mean over them.
        metric: larger is better.
        fractions: of the rows before and after the split.
        report: is told after each fit.
    """
    earlier, later = dataset.split_by_time(fractions)
    trials = Trials(earlier, later, factory, seeds, metric, report)
    trials.expect(len(order))
    kept: list[str] = []
    cost, metrics = [0.0], [float(trials.metrics(()).mean())]
    for step in order:
        kept += [step] if isinstance(step, str) else step
        cost.append(costs(kept))
        metrics.append(float(trials.metrics(kept).mean()))
    return Curve(np.asarray(cost), np.asarray(metrics))


def area_under(curve: Curve, most: float | None = None) -> float:
    """The mean metric over all budgets from 0 to `most` (default: the largest cost), where a budget buys the last point
    that it can pay: the area under the steps, by the width.

    Raises:
        RequestError: costs fall, or `most` is not above 0.
    """
    most = float(curve.cost[-1]) if most is None else most
    if np.any(np.diff(curve.cost) < 0) or most <= 0:
        raise RequestError("curve", expected="costs that rise, up to more than 0", got=str(curve.cost.tolist()[:10]))
    widths = np.diff(np.minimum([*curve.cost, most], most))
    return float(np.dot(widths, curve.metric) / most)
