"""A choice of features without a solver: drop what saves the most for the importance that it loses, step by step."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from feature_store.pruning.budget import TIE, Budget, Choice, choice_of, exceeded, fits, limits_of
from feature_store.pruning.cost import Cost, CostModel, Resource


def greedy(
    model: CostModel, importance: Mapping[str, float], budget: Budget, *, required: Collection[str] = ()
) -> Choice:
    """A choice by dropping one feature, or one view, after another: first what saves the most for what it loses.

    Raises:
        RequestError: no choice is within the budget.
    """
    importances = {name: importance.get(name, 0.0) for name in model.features}
    needed = -math.inf
    if budget.keep is not None:
        needed = budget.keep * math.fsum(importances.values()) * (1 - TIE) - TIE
    walk = _Dropping(model, importances, _candidates(model, required))
    while budget.keep is not None or not fits(walk.spent, budget):
        if walk.step(budget, needed) is None:
            break
    if not fits(walk.spent, budget):
        raise exceeded(model, budget, required)
    return choice_of(model, importance, walk.kept, proven=False)


def dropping_order(model: CostModel, importance: Mapping[str, float], dropped: Collection[str]) -> list[str]:
    """Features in the order in which to drop them: first those that save the most for the importance they lose."""
    importances = {name: importance.get(name, 0.0) for name in model.features}
    staying = set(model.features) - set(dropped)
    walk = _Dropping(model, importances, _candidates(model, staying))
    order: list[str] = []
    while (gone := walk.step(Budget(), -math.inf)) is not None:
        order += [name for name in model.features if name in gone]
    return order + [name for name in model.features if name in dropped and name not in order]


class _Dropping:
    """Drops one candidate after another."""

    def __init__(
        self, model: CostModel, importances: Mapping[str, float], candidates: Sequence[frozenset[str]]
    ) -> None:
        self._importances, self._candidates = importances, candidates
        self.kept = set(model.features)
        self.spent = model.cost(self.kept)
        self._touched: dict[str, list[Resource]] = {name: [] for name in model.features}
        for resource in model.resources:
            for name in frozenset().union(*resource.needed_by):
                self._touched[name].append(resource)

    def step(self, budget: Budget, needed: float) -> frozenset[str] | None:
        """Drop the candidate that saves the most for the importance it loses. Return it, or None if none can go.

        Args:
            budget: the limits. Savings count where a limit is exceeded.
            needed: the importance that must be left.
        """
        total = math.fsum(self._importances[name] for name in self.kept)
        best: tuple[tuple[float, float], frozenset[str], Cost] | None = None
        for candidate in self._candidates:
            gone = candidate & self.kept
            lost = math.fsum(self._importances[name] for name in gone)
            if not gone or total - lost < needed:
                continue
            left = _without(self.spent, self.kept, gone, self._touched)
            saved = _weight(self.spent, budget) - _weight(left, budget)
            rank = saved / lost if lost > 0 else math.inf, saved
            if (saved > 0 or lost == 0) and (best is None or rank > best[0]):
                best = rank, gone, left
        if best is None:
            return None
        self.kept, self.spent = self.kept - best[1], best[2]
        return best[1]


def _without(spent: Cost, kept: set[str], gone: frozenset[str], touched: Mapping[str, list[Resource]]) -> Cost:
    """The cost of the kept features without some of them."""
    left = kept - gone
    resources = {id(resource): resource for name in gone for resource in touched[name]}.values()
    fewer = [(resource.count(kept) - resource.count(left), resource) for resource in resources]
    return Cost(
        spent.bytes - sum(count * resource.bytes for count, resource in fewer),
        spent.keys - sum(count * resource.keys for count, resource in fewer),
        spent.features - len(gone),
    )


def _candidates(model: CostModel, required: Collection[str]) -> list[frozenset[str]]:
    """The sets that one step may drop: a feature, a view, or all features that need a resource."""
    views = dict.fromkeys(model.views.values())
    sets = [
        *(frozenset([name]) for name in model.features),
        *(frozenset(name for name in model.features if model.views[name] == view) for view in views),
        *(names for resource in model.resources for names in resource.needed_by),
    ]
    return list(dict.fromkeys(names for names in sets if not names & set(required)))


def _weight(cost: Cost, budget: Budget) -> float:
    """The size of a cost: the sum of the shares by which it exceeds limits, or its bytes where nothing is limited."""
    shares = [max(spent - limit, 0.0) / max(limit, 1) for spent, limit in limits_of(cost, budget)]
    return sum(shares) if shares and budget.keep is None else float(cost.bytes)
