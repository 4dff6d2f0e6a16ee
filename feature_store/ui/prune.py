"""The pruning page: what a service could do without, budget by budget, and the plans that are kept of it.

The curve is computed on the server, as `feature-store prune` makes plans; a slider goes from one choice to the next.
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

# Rows of the table of features: more nobody reads, and the page must stay quick.
_MOST_ROWS = 300
_MOST_ENTITIES = 1_000_000


@dataclass(frozen=True)
class BudgetPoint:
    """What a budget buys.

    Attributes:
        kept: whether each feature stays, in the order of the service: `1` or `0`.
        cost: of what stays.
        share: of the importance that stays.
        proven: whether nothing better fits.
    """

    kept: str
    cost: Cost
    share: float
    proven: bool


@dataclass(frozen=True)
class WhatIf:
    """All that the slider shows.

    Attributes:
        importances: what the choices go by.
        full: the cost of all features.
        choices: the cheapest first; the last keeps everything.
        accounts: the most important features, those first.
        places: of each feature, its place in `BudgetPoint.kept`.
    """

    importances: Importances
    full: Cost
    choices: tuple[BudgetPoint, ...]
    accounts: tuple[FeatureAccount, ...]
    places: Mapping[str, int]


def read_request(
    snapshot: Snapshot, service: str, parameters: Mapping[str, str], usual: Mapping[str, int]
) -> dict[str, int]:
    """How many of each entity a usual request has, from an address (`n_user=1`); as in the newest plan unless given.

    Raises:
        NotFoundError: there is no such service.
        RequestError: a count is no number from 1.
    """
    views = snapshot.definitions.stored_views_of(service)
    entities = dict.fromkeys(entity.name for view in views for entity in view.entities)
    found = {}
    for entity in entities:
        text = parameters.get(f"n_{entity}", "") or str(usual.get(entity, 1))
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= _MOST_ENTITIES):
            raise RequestError(f"n_{entity}", expected=f"a number from 1 to {_MOST_ENTITIES:,}", got=repr(text[:20]))
        found[entity] = int(text)
    return found


def what_if(service: PrunableService, request: Mapping[str, int]) -> WhatIf | None:
    """The choices of a service for budgets from least to most, or None when no importances of it are kept.

    Raises:
        DataError: the importances are not of the features that it has now.
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
    """The importance–cost curve, and at its end all features."""
    model, total = service.costs(request), math.fsum(service.importances.by_name().values())
    for choice in service.curve(request):
        share = choice.importance / total if total > 0 else 1.0
        if len(choice.kept) < len(model.features):
            yield BudgetPoint(_bits(model, choice.kept), choice.cost, share, choice.proven)
    yield BudgetPoint(_bits(model, model.features), model.cost(model.features), 1.0, True)


def _bits(model: CostModel, kept: Collection[str]) -> str:
    stays = set(kept)
    return "".join("1" if name in stays else "0" for name in model.features)


def chosen(found: WhatIf, parameters: Mapping[str, str]) -> int:
    """The place of the choice that an address asks for: `point=3`, or `bytes=4000`; all features unless asked.

    Raises:
        RequestError: it is no number.
    """
    last = len(found.choices) - 1
    for name, text in (("point", parameters.get("point", "")), ("bytes", parameters.get("bytes", ""))):
        if not text:
            continue
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise RequestError(name, expected="a number", got=repr(text[:20]))
        if name == "point":
            return min(int(text), last)
        return max((i for i, one in enumerate(found.choices) if one.cost.bytes <= int(text)), default=0)
    return last


@dataclass(frozen=True)
class PlanRow:
    """A prune plan that is kept; `stage` is how far it is applied, empty: it is not."""

    plan: PrunePlan
    stage: str


def plans_of(store: FeatureStore, snapshot: Snapshot, service: str | None) -> list[PlanRow]:
    """The plans that are kept, of one service or of all, the newest first."""
    rows = []
    for plan in Pruner(store).plans(service):
        pruning = snapshot.definitions.prunings.get(plan.service)
        rows.append(PlanRow(plan, pruning.stage if pruning is not None and pruning.plan == plan.id else ""))
    return rows
