"""The prune plan: the features that a service should keep, the reasons, and the result of its verification."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.graph import graph_of
from feature_store.definitions.pruned import service_digest
from feature_store.errors import RequestError
from feature_store.pruning.budget import Budget
from feature_store.pruning.cost import Cost, CostModel
from feature_store.pruning.greedy import dropping_order
from feature_store.pruning.importance import Importances
from feature_store.pruning.labels import classify
from feature_store.pruning.planner import choose
from feature_store.pruning.verify import Candidate, Verification

FORMAT = 1
# Candidates between all features and the plan's, as shares of the dropped features.
_STOPS = (0.25, 0.5, 0.75, 1.0)
# The tag of fields, views and entities that must not be pruned.
POLICY_TAG, POLICY_NEVER = "prune", "never"


@dataclass(frozen=True)
class PrunePlan:
    """The features that a service should keep.

    Attributes:
        service: the service's name.
        bound_to: the `service_digest` of the service that the plan was made for.
        made_at: when it was made, UTC.
        columns: the features of the service without the plan, in order.
        kept: the features to keep, in order.
        reasons: for each feature, a line that says why it is kept or dropped.
        method, model: the method and the model of the importances.
        importance: the importance of all features, and of the kept ones.
        request: the number of distinct entities in a usual request, by entity name.
        before, after: the cost of a request.
        budget: the limits.
        proven: whether the plan is proven to be the best within the budget.
        candidates: the sets of features that `verify` tries, from most to least features; the last is `kept`.
        verification: the result of `verify`; None: not verified.
    """

    service: str
    bound_to: str
    made_at: datetime
    columns: tuple[str, ...]
    kept: tuple[str, ...]
    reasons: Mapping[str, str]
    method: str
    model: str
    importance: tuple[float, float]
    request: Mapping[str, int]
    before: Cost
    after: Cost
    budget: Mapping[str, Any]
    proven: bool
    candidates: tuple[tuple[str, ...], ...]
    verification: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        """A hash of the service, its digest and the kept features."""
        bound = "\n".join((self.service, self.bound_to, *self.kept))
        return hashlib.sha256(bound.encode()).hexdigest()[:12]

    @property
    def dropped(self) -> tuple[str, ...]:
        """The dropped features, in order."""
        return tuple(name for name in self.columns if name not in self.kept)

    @property
    def is_verified(self) -> bool:
        """Whether the plan has passed verification."""
        return self.verification is not None and bool(self.verification["passes"])

    def to_json(self) -> bytes:
        """The plan as a JSON document."""
        return orjson.dumps({"format": FORMAT, "id": self.id} | asdict(self), option=orjson.OPT_INDENT_2)

    @classmethod
    def from_json(cls, document: bytes | str) -> PrunePlan:
        """Read a document of `to_json`.

        Raises:
            RequestError: it is not such a document.
        """
        try:
            read = orjson.loads(document)
            if read.pop("format") != FORMAT:
                raise ValueError("another format")
            wanted = read.pop("id")
            plan = cls(
                **read
                | {
                    "made_at": datetime.fromisoformat(read["made_at"]),
                    "columns": tuple(read["columns"]),
                    "kept": tuple(read["kept"]),
                    "importance": tuple(read["importance"]),
                    "before": Cost(**read["before"]),
                    "after": Cost(**read["after"]),
                    "candidates": tuple(map(tuple, read["candidates"])),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            got = f"{type(error).__name__}: {error}"
            raise RequestError("prune plan", expected=f"a document of format {FORMAT}", got=got) from error
        if plan.id != wanted:
            raise RequestError(
                f"prune plan {wanted}", problem="its id is not that of its features: the document was changed"
            )
        return plan


def make_plan(
    definitions: DefinitionSet,
    model: CostModel,
    importances: Importances,
    budget: Budget,
    request: Mapping[str, int],
    *,
    required: Collection[str] = (),
) -> PrunePlan:
    """The plan that keeps the most importance within a budget, or the cheapest that keeps a share of it.

    Args:
        definitions: the applied definitions.
        model: the costs of the service.
        importances: one for each feature of the service; see `importance.checked`.
        budget: the limits.
        request: the request that `model` is for.
        required: features that must be kept, besides those with a policy tag.

    Raises:
        RequestError: nothing fits the budget, or a required feature is not served.
    """
    worth = importances.by_name()
    pinned = {*required, *policy_pins(definitions, model.service)}
    choice = choose(model, worth, budget, required=pinned)
    if not choice.kept:
        raise RequestError(f"prune plan of {model.service}", problem="no feature fits the budget")
    dropped = [name for name in model.features if name not in choice.kept]
    return PrunePlan(
        service=model.service,
        bound_to=service_digest(definitions, model.service),
        made_at=datetime.now(UTC),
        columns=model.features,
        kept=choice.kept,
        reasons=_reasons(definitions, model, importances, set(choice.kept), pinned),
        method=importances.method,
        model=importances.model,
        importance=(sum(worth.get(name, 0.0) for name in model.features), choice.importance),
        request=dict(request),
        before=model.cost(model.features),
        after=choice.cost,
        budget={name: value for name, value in asdict(budget).items() if value is not None},
        proven=choice.proven,
        candidates=_candidates(model, dropping_order(model, worth, dropped)),
    )


def with_verification(plan: PrunePlan, verification: Verification) -> PrunePlan:
    """The plan with the result of its verification."""
    candidate = next(one for one in verification.candidates if one.kept == plan.kept)
    offered = verification.largest_passing
    passes = offered is not None and len(offered.kept) <= len(plan.kept)
    return replace(plan, verification=_document(verification, candidate, passes=passes))


def offered_instead(
    plan: PrunePlan, model: CostModel, importances: Importances, verification: Verification
) -> PrunePlan | None:
    """The plan of the passing candidate that drops most. None if it is the plan itself, or no candidate passes."""
    offered = verification.largest_passing
    if offered is None or offered.kept == plan.kept:
        return None
    worth, kept = importances.by_name(), set(offered.kept)
    return replace(
        plan,
        made_at=datetime.now(UTC),
        kept=offered.kept,
        reasons={
            name: line
            if name not in kept or name in plan.kept
            else f"kept: {_worth(importances, name)}; a plan without it did not pass"
            for name, line in plan.reasons.items()
        },
        importance=(plan.importance[0], sum(worth.get(name, 0.0) for name in kept)),
        after=model.cost(kept),
        proven=False,
        candidates=tuple(one for one in plan.candidates if len(one) >= len(kept)),
        verification=_document(verification, offered, passes=True),
    )


def read_order(
    definitions: DefinitionSet, model: CostModel, importances: Importances, kept: Collection[str]
) -> list[str]:
    """The stored views that kept features need, those with the most importance per byte first."""
    worth, everything = importances.by_name(), model.cost(kept)
    graph, needing = graph_of(definitions), dict[str, set[str]]()
    for column in graph.columns(model.service):
        for stored, _ in graph.needs(*column.key) if column.name in kept else ():
            needing.setdefault(stored, set()).add(column.name)

    def rank(view: str) -> float:
        importance = sum(worth.get(name, 0.0) for name in needing[view])
        saved = everything.bytes - model.cost(set(kept) - needing[view]).bytes
        return -importance / max(saved, 1)

    return sorted(needing, key=rank)


def policy_pins(definitions: DefinitionSet, service: str) -> set[str]:
    """The features of a service that must be kept by a tag of the field, its view or the view's entities."""
    graph, pinned = graph_of(definitions), set()
    for column in graph.columns(service):
        view = graph.views[column.view]
        tagged = (column.field.tags, view.tags, *(entity.tags for entity in getattr(view, "entities", ())))
        if any(tags.get(POLICY_TAG) == POLICY_NEVER for tags in tagged):
            pinned.add(column.name)
    return pinned


def _reasons(
    definitions: DefinitionSet, model: CostModel, importances: Importances, kept: set[str], pinned: Collection[str]
) -> dict[str, str]:
    labels = classify(importances, dict.fromkeys(model.features, (model.service,)))
    graph = graph_of(definitions)
    shared = {
        column.name: [other for other in graph.services_with(*column.key) if other != model.service]
        for column in graph.columns(model.service)
    }
    lines = {}
    for name in model.features:
        alone = model.alone(name)
        why = [_worth(importances, name), *(label.replace("epsilon", "ε") for label in labels.get(name, []))]
        cost = f"{alone.bytes:,} bytes" + (f" and {alone.keys} keys" if alone.keys else "") + " alone"
        if name in kept:
            lines[name] = f"kept: {'required' if name in pinned else ', '.join(why)}; {cost}"
        else:
            stays = f"; stays stored for {', '.join(shared[name])}" if shared[name] else ""
            lines[name] = f"dropped: {', '.join(why)}; {cost}{stays}"
    return lines


def _worth(importances: Importances, name: str) -> str:
    item = next((one for one in importances.features if one.feature == name), None)
    if item is None:
        return "importance unknown"
    return f"importance {item.importance:.4g}" + (f" ± {item.std:.2g}" if item.std is not None else "")


def _candidates(model: CostModel, order: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The plan and steps on the way to it, so that a plan that drops too much shows how much is safe."""
    ends = sorted({round(stop * len(order)) for stop in _STOPS} - {0}) or [0]
    gone = [set(order[:end]) for end in ends]
    return tuple(tuple(name for name in model.features if name not in one) for one in gone)


def _document(verification: Verification, chosen: Candidate, *, passes: bool) -> dict[str, Any]:
    candidates = [
        asdict(one.overall)
        | {
            "features": len(one.kept),
            "passes": one.passes,
            "slices": {name: asdict(compared) for name, compared in one.slices.items()},
        }
        for one in verification.candidates
    ]
    about = {name: value for name, value in vars(verification).items() if name != "candidates"}
    return about | asdict(chosen.overall) | {"passes": passes, "reason": verification.reason, "candidates": candidates}
