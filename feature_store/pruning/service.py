"""A service of one version, bound to what pruning it is based on: its importances, costs and applied pruning."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.graph import ServedFeature, graph_of
from feature_store.definitions.pruned import pruned, pruning_of, service_digest
from feature_store.definitions.pruning import Answer, Pruning, Stage
from feature_store.errors import ConflictError, NotFoundError
from feature_store.pruning.accounts import FeatureAccount, accounts_of
from feature_store.pruning.budget import Budget, Choice, Latency
from feature_store.pruning.cost import CostModel, cost_model
from feature_store.pruning.frontier import frontier
from feature_store.pruning.importance import Importances, checked
from feature_store.pruning.plan import PrunePlan, make_plan, offered_instead, policy_pins, read_order
from feature_store.pruning.verify import Verification


@dataclass(frozen=True)
class PrunableService:
    """A service of one version. Each step of pruning makes one and asks it everything.

    Args:
        definitions: the version's definitions, with the prunings that are applied.
        name: the service.
        project: its project, which is part of the keys that a request reads.
        known: the newest importances of its features, or None. `importances` checks them.

    Raises:
        NotFoundError: there is no such service.
    """

    definitions: DefinitionSet
    name: str
    project: str = "project"
    known: Importances | None = None
    _costs: dict[frozenset[tuple[str, int]], CostModel] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        graph_of(self.definitions).columns(self.name)

    @property
    def columns(self) -> tuple[ServedFeature, ...]:
        """What the service serves without its own pruning, in order."""
        return graph_of(self.definitions).columns(self.name)

    @property
    def served_columns(self) -> tuple[ServedFeature, ...]:
        """What the service serves now, in order."""
        return graph_of(pruned(self.definitions)).columns(self.name)

    @property
    def served_definitions(self) -> DefinitionSet:
        """What is computed and stored now."""
        return pruned(self.definitions)

    @property
    def features(self) -> list[str]:
        """The names of `columns`."""
        return [column.name for column in self.columns]

    @property
    def matrix_features(self) -> list[str]:
        """The feature of each column of the matrix that models are fitted on. An array has a column per element."""
        return [column.name for column in self.columns for _ in range(column.field.dtype.length or 1)]

    @property
    def pruning(self) -> Pruning | None:
        """The pruning that is applied to it, or None."""
        return self.definitions.prunings.get(self.name)

    @cached_property
    def digest(self) -> str:
        """What a prune plan is bound to: see `service_digest`."""
        return service_digest(self.definitions, self.name)

    @cached_property
    def pinned(self) -> set[str]:
        """The features that tags say must be kept."""
        return policy_pins(self.definitions, self.name)

    @cached_property
    def importances(self) -> Importances:
        """The importances of its features, one for each, in order.

        Raises:
            NotFoundError: none are known.
            DataError: they are not of the features that the service has now.
        """
        if self.known is None:
            hint = "`feature-store prune import` or `prune measure`"
            raise NotFoundError(f"service {self.name}", expected="importances of its features", got="none", hint=hint)
        return checked(self.known, self.features)

    def named(self, importances: Importances) -> Importances:
        """Importances by the names of the service's columns.

        Args:
            importances: by those names or by `view:feature`.

        Raises:
            DataError: there is not exactly one valid importance for each feature. The error names all that are wrong.
        """
        names = {column.reference: column.name for column in self.columns}
        items = tuple(replace(item, feature=names.get(item.feature, item.feature)) for item in importances.features)
        return checked(replace(importances, features=items), self.features)

    def with_importances(self, importances: Importances) -> PrunableService:
        """The same service with other importances."""
        return replace(self, known=importances)

    def costs(self, request: Mapping[str, int]) -> CostModel:
        """What its features cost. Computed once per request.

        Args:
            request: the number of distinct entities in a usual request, by entity name.

        Raises:
            RequestError: the request lacks an entity.
        """
        key = frozenset(request.items())
        if key not in self._costs:
            self._costs[key] = cost_model(self.definitions, self.name, request, project=self.project)
        return self._costs[key]

    def plan(self, budget: Budget, request: Mapping[str, int], *, required: Collection[str] = ()) -> PrunePlan:
        """The plan that keeps the most importance within a budget.

        Raises:
            NotFoundError, DataError: see `importances`.
            RequestError: nothing fits the budget, or a required feature is not one of the service's.
        """
        return make_plan(self.definitions, self.costs(request), self.importances, budget, request, required=required)

    def curve(self, request: Mapping[str, int]) -> list[Choice]:
        """The most importance that each budget buys: see `frontier`.

        Raises:
            NotFoundError, DataError: see `importances`.
        """
        return frontier(self.costs(request), self.importances.by_name(), required=self.pinned)

    def instead_of(self, plan: PrunePlan, verification: Verification) -> PrunePlan | None:
        """The plan of the candidate that passed and drops most, or None if that is the plan itself or none passed."""
        return offered_instead(plan, self.costs(plan.request), self.importances, verification)

    def refuse_changed(self, plan: PrunePlan) -> None:
        """Check that the service is still the one that a plan was made for.

        Raises:
            ConflictError: it has changed.
        """
        if self.digest != plan.bound_to:
            raise ConflictError(
                f"prune plan {plan.id} of service {plan.service}",
                expected=f"the service that it was made for, {plan.bound_to}",
                got=f"{self.digest}: its features have changed since",
                hint="measure and plan again",
            )

    def pruning_by(self, plan: PrunePlan, stage: Stage, answer: Answer = "error") -> Pruning:
        """The pruning that a plan makes.

        Raises:
            ConflictError: the service has changed since the plan was made.
            NotFoundError, DataError: see `importances`.
        """
        self.refuse_changed(plan)
        order = read_order(self.definitions, self.costs(plan.request), self.importances, plan.kept)
        return pruning_of(
            self.definitions, self.name, plan.dropped, plan=plan.id, stage=stage, answer=answer, read_order=order
        )

    def accounts(
        self,
        request: Mapping[str, int],
        *,
        rows: Mapping[str, int] | None = None,
        daily: Mapping[str, float] | None = None,
        latency: Latency | None = None,
        decode_ns: Mapping[str, int] | None = None,
    ) -> list[FeatureAccount]:
        """What each feature is worth and what it costs, the most important first: see `accounts_of`."""
        return accounts_of(
            self.definitions,
            self.costs(request),
            self.known,
            pinned=self.pinned,
            rows=rows,
            daily=daily or {},
            latency=latency,
            decode_ns=decode_ns or {},
        )
