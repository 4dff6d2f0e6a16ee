"""The limits of a request, and a choice of features within them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from feature_store.errors import RequestError
from feature_store.pruning.cost import Cost, CostModel

# Importances that differ by less are equal. HiGHS's own tolerance on a constraint is 1e-6 of these units.
TIE = 1e-6


@dataclass(frozen=True)
class Latency:
    """A request's time in milliseconds: base + per_key · keys + per_byte · bytes + per_feature · features."""

    base: float = 0.0
    per_key: float = 0.0
    per_byte: float = 0.0
    per_feature: float = 0.0

    def of(self, cost: Cost) -> float:
        """The estimated time of a request of this cost, in milliseconds."""
        return self.base + self.per_key * cost.keys + self.per_byte * cost.bytes + self.per_feature * cost.features


@dataclass(frozen=True)
class Budget:
    """The limits of a request, or the share of importance to keep at the least cost.

    Attributes:
        max_bytes, max_keys, max_features: the most that a request may cost.
        slo_ms: the longest time of a request in milliseconds, estimated by `latency`.
        keep: the share of the total importance to keep, 0 to 1. With it, bytes are minimised within the other limits.
        latency: estimates the time of a request from its cost.

    Example:
        >>> from feature_store.pruning import Budget
        >>> Budget(max_bytes=4096, keep=0.995).max_bytes
        4096
    """

    max_bytes: int | None = None
    max_keys: int | None = None
    max_features: int | None = None
    slo_ms: float | None = None
    keep: float | None = None
    latency: Latency = field(default_factory=Latency)


@dataclass(frozen=True)
class Choice:
    """The features to keep.

    Attributes:
        kept: their names, in the order of the service.
        importance: their total importance.
        cost: their cost in a request.
        proven: whether the choice is proven to be the best within the budget.
    """

    kept: tuple[str, ...]
    importance: float
    cost: Cost
    proven: bool


def fits(cost: Cost, budget: Budget) -> bool:
    """Whether a cost is within the limits of a budget."""
    return all(spent <= limit + 1e-9 for spent, limit in limits_of(cost, budget))


def limits_of(cost: Cost, budget: Budget) -> list[tuple[float, float]]:
    """Each limit of a budget, as `(spent, limit)`."""
    limits = (
        (cost.bytes, budget.max_bytes),
        (cost.keys, budget.max_keys),
        (cost.features, budget.max_features),
        (budget.latency.of(cost), budget.slo_ms),
    )
    return [(spent, limit) for spent, limit in limits if limit is not None]


def choice_of(model: CostModel, importance: Mapping[str, float], kept: Collection[str], *, proven: bool) -> Choice:
    """The choice of some features, with their importance and cost."""
    names = tuple(name for name in model.features if name in kept)
    return Choice(names, math.fsum(importance.get(name, 0.0) for name in names), model.cost(kept), proven)


def exceeded(model: CostModel, budget: Budget, required: Collection[str]) -> RequestError:
    """The error that no choice is within a budget."""
    least = model.cost(required)
    problem = "the share of importance to keep does not fit the budget"
    if required:
        needs = (
            f"{least.bytes:,} bytes, {least.keys} keys, {least.features} features, {budget.latency.of(least):.2f} ms"
        )
        problem = f"the required features exceed the budget: they need {needs}"
    return RequestError(f"prune plan of {model.service}", problem=problem, hint="allow more, or require less")
