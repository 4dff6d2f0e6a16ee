"""The data of the pruning page: the features that each budget keeps, and the prune plans of a service.

The server computes the importance–cost curve as `feature-store prune` does. A slider selects a point of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from feature_store.errors import RequestError
from feature_store.project.pruner import Pruner
from feature_store.project.store import FeatureStore
from feature_store.pruning.accounts import FeatureAccount
from feature_store.pruning.cost import Cost, CostModel
from feature_store.pruning.importance import Importances
from feature_store.pruning.plan import PrunePlan
from feature_store.pruning.service import PrunableService
from feature_store.ui.snapshot import Snapshot

# The most rows of the table of features, so that the page stays quick.
_MOST_ROWS = 300
_MOST_ENTITIES = 1_000_000


@dataclass(frozen=True)
class BudgetPoint:
    """A point of the importance–cost curve.

    Attributes:
        kept: for each feature in the order of the service, `1` if it is kept, else `0`.
        cost: the cost of the kept features.
        share: the share of importance that is kept.
        proven: whether the choice is proven to be the best within the budget.
    """

    kept: str
    cost: Cost
    share: float
    proven: bool


@dataclass(frozen=True)
class WhatIf:
    """The data of the slider.

    Attributes:
        importances: the importances that the choices are based on.
        full: the cost of all features.
        choices: the points, the cheapest first. The last keeps all features.
        accounts: the accounts of the most important features, the most important first.
        places: the index of each feature in `BudgetPoint.kept`.
    """

    importances: Importances
    full: Cost
    choices: tuple[BudgetPoint, ...]
    accounts: tuple[FeatureAccount, ...]
    places: Mapping[str, int]


def read_request(
    snapshot: Snapshot, service: str, parameters: Mapping[str, str], usual: Mapping[str, int]
) -> dict[str, int]:
    """The number of distinct entities in a usual request, from an address (`n_user=1`). Default: `usual`, else 1.

    Raises:
        NotFoundError: there is no such service.
        RequestError: a count is not a number from 1.
    """
    views = snapshot.definitions.stored_views_of(service)
    entities = dict.fromkeys(entity.name for view in views for entity in view.entities)
    counts = {}
    for entity in entities:
        text = parameters.get(f"n_{entity}", "") or str(usual.get(entity, 1))
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= _MOST_ENTITIES):
            raise RequestError(f"n_{entity}", expected=f"a number from 1 to {_MOST_ENTITIES:,}", got=repr(text[:20]))
        counts[entity] = int(text)
    return counts


def what_if(service: PrunableService, request: Mapping[str, int]) -> WhatIf | None:
    """The importance–cost curve of a service. None if the registry keeps no importances of it.

    Raises:
        DataError: the importances are not those of the features that the service has now.
    """
    if service.known is None:
        return None
    model, importances = service.costs(request), service.importances
    accounts = service.accounts(request)
    return WhatIf(
        importances,
        model.cost(model.features),
        tuple(_budget_points(service, request)),
        tuple(accounts[:_MOST_ROWS]),
        {name: place for place, name in enumerate(model.features)},
    )


def _budget_points(service: PrunableService, request: Mapping[str, int]) -> Iterator[BudgetPoint]:
    """The points of the curve, then that of all features."""
    model, total = service.costs(request), math.fsum(service.importances.by_name().values())
    for choice in service.curve(request):
        share = choice.importance / total if total > 0 else 1.0
        if len(choice.kept) < len(model.features):
            yield BudgetPoint(_bits(model, choice.kept), choice.cost, share, choice.proven)
    yield BudgetPoint(_bits(model, model.features), model.cost(model.features), 1.0, True)


def _bits(model: CostModel, kept: Collection[str]) -> str:
    stays = set(kept)
    return "".join("1" if name in stays else "0" for name in model.features)


def chosen(curve: WhatIf, parameters: Mapping[str, str]) -> int:
    """The index of the point in an address: `point=3`, or `bytes=4000`. Default: the last point.

    Raises:
        RequestError: it is not a number.
    """
    last = len(curve.choices) - 1
    for name, text in (("point", parameters.get("point", "")), ("bytes", parameters.get("bytes", ""))):
        if not text:
            continue
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise RequestError(name, expected="a number", got=repr(text[:20]))
        if name == "point":
            return min(int(text), last)
        return max((i for i, one in enumerate(curve.choices) if one.cost.bytes <= int(text)), default=0)
    return last


@dataclass(frozen=True)
class PlanRow:
    """A prune plan, and the stage in which it is applied; empty: it is not applied."""

    plan: PrunePlan
    stage: str


def plans_of(store: FeatureStore, snapshot: Snapshot, service: str | None) -> list[PlanRow]:
    """The prune plans of one service or of all, the newest first."""
    rows = []
    for plan in Pruner(store).plans(service):
        pruning = snapshot.definitions.prunings.get(plan.service)
        rows.append(PlanRow(plan, pruning.stage if pruning is not None and pruning.plan == plan.id else ""))
    return rows
