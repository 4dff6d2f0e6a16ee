"""The pruning page: what a service could do without, budget by budget, and the plans that are kept of it.

The curve is computed on the server, as `feature-store prune` makes plans; a slider goes from one choice to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_store.definitions.graph import graph_of
from feature_store.errors import RequestError
from feature_store.project.pruner import Pruner
from feature_store.pruning.cost import cost_model
from feature_store.pruning.frontier import frontier
from feature_store.pruning.importance import checked
from feature_store.pruning.labels import classify
from feature_store.pruning.plan import policy_pins

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from feature_store.project.store import FeatureStore
    from feature_store.pruning.cost import Cost, CostModel
    from feature_store.pruning.importance import Importances
    from feature_store.pruning.plan import PrunePlan
    from feature_store.ui.snapshot import Snapshot

# Rows of the table of features: more nobody reads, and the page must stay quick.
_MOST_ROWS = 300
_MOST_ENTITIES = 1_000_000


@dataclass(frozen=True)
class Bought:
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
class Account:
    """A feature's worth, and what it costs alone.

    Attributes:
        place: in `Bought.kept`.
        name, view: what it is.
        importance, std: what it is worth.
        bytes, keys: of a request, that go with it alone.
        pinned: whether a tag says that it must stay.
        labels: see `labels.classify`.
    """

    place: int
    name: str
    view: str
    importance: float
    std: float | None
    bytes: int
    keys: int
    pinned: bool
    labels: tuple[str, ...]


@dataclass(frozen=True)
class WhatIf:
    """All that the slider shows.

    Attributes:
        importances: what the choices go by.
        full: the cost of all features.
        choices: the cheapest first; the last keeps everything.
        accounts: the most important features, those first.
        features: how many there are.
    """

    importances: Importances
    full: Cost
    choices: tuple[Bought, ...]
    accounts: tuple[Account, ...]
    features: int


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


def what_if(store: FeatureStore, snapshot: Snapshot, service: str, request: Mapping[str, int]) -> WhatIf | None:
    """The choices of a service for budgets from most to least; None: no importances of it are kept.

    Raises:
        NotFoundError: there is no such service.
        DataError: the importances are not of the features that it has now.
    """
    found = Pruner(store).importances(service)
    if found is None:
        return None
    graph = graph_of(snapshot.definitions)
    columns = graph.columns(service)
    importances = checked(found, [column.name for column in columns])
    model = cost_model(snapshot.definitions, service, request, project=store.project)
    worth = importances.by_name()
    pinned = policy_pins(snapshot.definitions, service)
    choices = tuple(_bought(model, worth, pinned))
    labels = classify(importances, {column.name: graph.services_with(*column.key) for column in columns})
    std = {item.feature: item.std for item in importances.features}
    ranked = sorted(range(len(model.features)), key=lambda i: -worth.get(model.features[i], 0.0))[:_MOST_ROWS]
    accounts = []
    for place in ranked:
        name = model.features[place]
        alone = model.alone(name)
        accounts.append(
            Account(
                place,
                name,
                model.views[name],
                worth.get(name, 0.0),
                std.get(name),
                alone.bytes,
                alone.keys,
                name in pinned,
                tuple(label.replace("epsilon", "ε") for label in labels.get(name, ())),
            )
        )
    return WhatIf(importances, model.cost(model.features), choices, tuple(accounts), len(model.features))


def _bought(model: CostModel, worth: Mapping[str, float], pinned: set[str]) -> Iterator[Bought]:
    """The importance–cost curve, and at its end all features."""
    total = math.fsum(worth.get(name, 0.0) for name in model.features)
    for choice in frontier(model, worth, required=pinned):
        share = choice.importance / total if total > 0 else 1.0
        if len(choice.kept) < len(model.features):
            yield Bought(_bits(model, choice.kept), choice.cost, share, choice.proven)
    yield Bought(_bits(model, model.features), model.cost(model.features), 1.0, True)


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
