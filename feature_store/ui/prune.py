"""The pruning page: what a service could do without, budget by budget, and the plans that are kept of it.

The choices of all budgets are computed on the server, as `feature-store prune plan --max-bytes` makes them; a slider
goes from one to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_store.errors import RequestError
from feature_store.pruner import Pruner
from feature_store.pruning.cost import cost_model
from feature_store.pruning.plan import policy_pins
from feature_store.pruning.planner import Budget, choose

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from feature_store.pruning.cost import Cost, CostModel
    from feature_store.pruning.importance import Importances
    from feature_store.pruning.plan import PrunePlan
    from feature_store.store import FeatureStore
    from feature_store.ui.snapshot import Snapshot

# Budgets that are tried between the cheapest feature's bytes and those of all: as many again in even shares as in even
# steps, since a few features of a row cost little, and the tiles of a stream view much.
_BUDGETS = 12
# For the proof of each choice; what is not proven by then is said to be so.
_SECONDS = 1.0
# Rows of the table of features: more nobody reads, and the page must stay quick.
_MOST_ROWS = 300
_MOST_ENTITIES = 1_000_000


@dataclass(frozen=True)
class Choice:
    """What a budget buys.

    Attributes:
        budget: bytes of a request.
        kept: whether each feature stays, in the order of the service: `1` or `0`.
        cost: of what stays.
        share: of the importance that stays.
        proven: whether nothing better fits.
    """

    budget: int
    kept: str
    cost: Cost
    share: float
    proven: bool


@dataclass(frozen=True)
class Account:
    """A feature's worth, and what it costs alone; `place` is its place in `Choice.kept`."""

    place: int
    name: str
    view: str
    importance: float
    std: float | None
    bytes: int
    keys: int
    pinned: bool


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
    choices: tuple[Choice, ...]
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
    """
    importances = Pruner(store).importances(service)
    if importances is None:
        return None
    model = cost_model(snapshot.definitions, service, request, project=store.project)
    worth = importances.by_name()
    pinned = policy_pins(snapshot.definitions, model)
    choices = tuple(_choices(model, worth, pinned))
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
            )
        )
    return WhatIf(importances, model.cost(model.features), choices, tuple(accounts), len(model.features))


def _choices(model: CostModel, worth: Mapping[str, float], pinned: set[str]) -> Iterator[Choice]:
    full = model.cost(model.features)
    least = max(1, min(model.cost([name]).bytes for name in model.features))
    total = sum(worth.get(name, 0.0) for name in model.features)
    seen: set[str] = set()
    for budget in _budgets(least, full.bytes):
        try:
            found = choose(model, worth, Budget(max_bytes=budget), required=pinned, seconds=_SECONDS)
        except RequestError:  # what must stay is beyond it
            continue
        kept = set(found.kept)
        bits = "".join("1" if name in kept else "0" for name in model.features)
        if kept and bits not in seen:
            seen.add(bits)
            share = found.importance / total if total > 0 else 1.0
            yield Choice(budget, bits, found.cost, share, found.proven)
    everything = "1" * len(model.features)
    if everything not in seen:
        yield Choice(full.bytes, everything, full, 1.0, True)


def _budgets(least: int, most: int) -> list[int]:
    shares = [i / _BUDGETS for i in range(_BUDGETS + 1)]
    steps = [least + (most - least) * share for share in shares]
    return sorted({round(budget) for budget in (*steps, *(least * (most / least) ** share for share in shares))})


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
