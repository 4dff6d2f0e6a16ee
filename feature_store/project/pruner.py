"""Pruning a project's services, from importances to a plan, its verification and its rollout.

importances   imported from a file or a fitted model, or measured on the earlier part of a training set
plan          the most importance within a budget; kept in the registry under its id
verify        refits on the earlier part, compared on the later part, which no earlier step has read
apply         a version of the registry: shadow, mask or drop; `rollback` makes another version
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from feature_store._extras import requires_extra
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.pruning import Answer, Stage
from feature_store.errors import RefusedError
from feature_store.project.applying import Applied, prune
from feature_store.project.context import InProject
from feature_store.pruning.accounts import FeatureAccount
from feature_store.pruning.budget import Budget, Choice, Latency
from feature_store.pruning.cost import CostModel
from feature_store.pruning.dataset import Dataset
from feature_store.pruning.footprint import Footprint
from feature_store.pruning.importance import Importances
from feature_store.pruning.model_importance import importance_from_model
from feature_store.pruning.plan import PrunePlan, with_verification
from feature_store.pruning.records import PruningRecords
from feature_store.pruning.service import PrunableService
from feature_store.pruning.training import Training
from feature_store.pruning.trials import Report
from feature_store.pruning.verify import Verification

if TYPE_CHECKING:
    from feature_store.pruning.live import LiveService


class Pruner:
    """Prunes the services of a project.

    Each method reads the applied definitions once, unless it calls another one.

    Args:
        store: the project's FeatureStore.

    Example:
        >>> from datetime import UTC, datetime
        >>> from feature_store import FeatureStore, Pruner
        >>> from feature_store.pruning import Budget, FeatureImportance, Importances
        >>> names = ["price", "orders_30d", "mean_basket", "share_of_basket"]
        >>> features = (FeatureImportance("clicks_7d", 0.0), *(FeatureImportance(name, 0.01) for name in names))
        >>> with FeatureStore(".") as store:
        ...     pruner = Pruner(store)
        ...     imported = pruner.import_importances(
        ...         "ranking", Importances("imported", "ranker", datetime(2026, 1, 1, tzinfo=UTC), features)
        ...     )
        ...     plan = pruner.plan("ranking", Budget(keep=0.99), {"user": 1, "product": 200})
        >>> sorted(set(plan.columns) - set(plan.kept))
        ['clicks_7d']
    """

    def __init__(self, store: InProject) -> None:
        self._project = store.context

    def service(self, name: str, definitions: DefinitionSet | None = None) -> PrunableService:
        """A service with its newest importances.

        Args:
            name: its name.
            definitions: those of the version to ask about; None for the newest.

        Raises:
            NotFoundError: nothing is applied, or there is no such service.
        """
        known = self._records.importances(name)
        return PrunableService(definitions or self._project.applied(), name, self._project.name, known)

    # -- importances --------------------------------------------------------------------------------------------

    def import_importances(self, service: str, importances: Importances) -> Importances:
        """Keep importances of a service's features.

        Args:
            service: the service.
            importances: by the names that features are served by, or by `view:feature`.

        Raises:
            NotFoundError: there is no such service.
            DataError: there is not exactly one valid importance for each feature. The error names all that are wrong.
        """
        return self._keep_importances(self.service(service), importances)

    def import_from_model(self, service: str, model: Any) -> Importances:
        """Keep the importances that a fitted model reports of its features.

        Args:
            service: the service.
            model: a model fitted on all features of the service, as `importance_from_model` takes it.

        Raises:
            NotFoundError: there is no such service.
            RequestError: the model reports no importances, or of another number of columns than the service has.
            DataError: an importance is negative or not finite.
        """
        bound = self.service(service)
        return self._keep_importances(bound, importance_from_model(model, bound.matrix_features))

    def importances(self, service: str) -> Importances | None:
        """The newest importances of a service, or None."""
        return self._records.importances(service)

    def parts(self, service: str, training: Training) -> tuple[Dataset, Dataset]:
        """The earlier rows of a training set, which choices are made on, and the later ones, which only `verify` sees.

        Raises:
            NotFoundError: there is no such service.
            DataError: the training set cannot be read, lacks a column, or has too few rows for two parts.
            RequestError: the earlier share is not between 0 and 1.
        """
        return _parts(self.service(service), training)

    def measure(
        self,
        service: str,
        training: Training,
        *,
        seeds: Sequence[int] = (0, 1, 2),
        most_rows: int | None = None,
        report: Report | None = None,
    ) -> Importances:
        """Measure the importances of a service's features on the earlier part of a training set, and keep them.

        Args:
            service: the service.
            training: the training set and the model.
            seeds: each set of features is fitted once with each.
            most_rows: the most rows to use, evenly spread; None: all. Some models need hours for hundreds of refits on
                all rows.
            report: called after each fit.

        Raises:
            NotFoundError: there is no such service or model.
            RequestError, DataError: see `parts`; or the model returns scores that are not finite.
        """
        with requires_extra("prune", "prune measure"):
            from feature_store.pruning.dataset import load_factory
            from feature_store.pruning.measure import measure

        bound = self.service(service)
        earlier, _ = _parts(bound, training)
        rows = earlier if most_rows is None else earlier.thinned(most_rows)
        return self._keep_importances(bound, measure(rows, load_factory(training.model), seeds=seeds, report=report))

    # -- plans --------------------------------------------------------------------------------------------------

    def plan(
        self,
        service: str,
        budget: Budget,
        request: Mapping[str, int],
        *,
        required: Collection[str] = (),
        importances: Importances | None = None,
    ) -> PrunePlan:
        """Make a plan, and keep it.

        Args:
            service: the service to prune.
            budget: what a request may cost.
            request: the number of distinct entities in a usual request, by entity name.
            required: features that must be kept.
            importances: importances to plan with and to keep; None: the newest that are kept.

        Raises:
            NotFoundError: there is no such service, or no importances of it.
            DataError: the importances are not of the features that it has now.
            RequestError: nothing fits the budget, or the request lacks an entity.
        """
        bound = self.service(service)
        if importances is not None:
            bound = bound.with_importances(self._keep_importances(bound, importances))
        plan = bound.plan(budget, request, required=required)
        self._records.keep_plan(plan)
        return plan

    def costs(self, service: str, request: Mapping[str, int]) -> CostModel:
        """What the features of a service cost.

        Raises:
            NotFoundError: there is no such service.
            RequestError: the request lacks an entity.
        """
        return self.service(service).costs(request)

    def latency(self, service: str, request: Mapping[str, int], *, repeats: int = 100) -> Latency:
        """How long requests of a service take here: see `LiveService.latency`.

        Raises:
            NotFoundError: there is no such service, or no entity of it is stored.
            RequestError: the request lacks an entity.
        """
        return self._live(self.service(service)).latency(request, repeats=repeats)

    def footprint(
        self,
        service: str,
        requests: Sequence[Mapping[str, Any]],
        *,
        repeats: int = 1000,
        now: datetime | None = None,
        report: Report | None = None,
    ) -> Footprint:
        """What a service costs as it is served now: see `LiveService.footprint`.

        Raises:
            NotFoundError: there is no such service.
        """
        live = self._live(self.service(service))
        return live.footprint(requests, repeats=repeats, now=now, report=report)

    def curve(self, plan: PrunePlan) -> list[Choice]:
        """The importance–cost curve that a plan lies on: see `frontier`.

        Raises:
            NotFoundError: there are no importances of the service.
        """
        return self.service(plan.service).curve(plan.request)

    def plans(self, service: str | None = None) -> list[PrunePlan]:
        """The plans that are kept, of one service or of all, the newest first."""
        return self._records.plans(service)

    def find(self, plan: str) -> PrunePlan:
        """A plan by its id, or by the start of its id.

        Raises:
            NotFoundError: no plan has such an id, or several have.
        """
        return self._records.plan(plan)

    def verify(
        self,
        plan: PrunePlan,
        training: Training,
        *,
        margin: float = 0.002,
        seeds: Sequence[int] = (0, 1, 2),
        confidence: float = 0.95,
        slice_by: str | None = None,
        report: Report | None = None,
    ) -> tuple[PrunePlan, Verification, PrunePlan | None]:
        """Verify a plan on the later part of a training set, and keep the result.

        Args:
            plan: the plan.
            training: the training set and the model.
            margin: how much worse than the full model is accepted, in the metric's unit.
            seeds: each model is fitted once with each.
            confidence: of the bound, one-sided.
            slice_by: a feature; the plan must also pass on the rows above its median and on the others.
            report: called after each fit.

        Returns:
            The plan with the result, the verification, and the plan to take instead: of the candidates that pass, the
            one that drops most. None when that is this plan, or none passes.

        Raises:
            ConflictError: the service has changed since the plan was made.
            NotFoundError, RequestError, DataError: see `measure`.
        """
        with requires_extra("prune", "prune verify"):
            from feature_store.pruning.dataset import load_factory
            from feature_store.pruning.verify import verify

        bound = self.service(plan.service)
        bound.refuse_changed(plan)
        earlier, later = _parts(bound, training)
        verification = verify(
            earlier,
            later,
            load_factory(training.model),
            plan.candidates,
            margin=margin,
            seeds=seeds,
            confidence=confidence,
            slices=_halves(later, slice_by) if slice_by else None,
            report=report,
        )
        verified = with_verification(plan, verification)
        self._records.keep_plan(verified)
        instead = bound.instead_of(plan, verification)
        if instead is not None:
            self._records.keep_plan(instead)
        return verified, verification, instead

    # -- what is served -----------------------------------------------------------------------------------------

    def apply(self, plan: PrunePlan, stage: Stage, *, answer: Answer = "error", unverified: bool = False) -> Applied:
        """Serve a service by a plan.

        Args:
            plan: the plan.
            stage: `shadow`, `mask` or `drop`.
            answer: what a client gets for a dropped feature: an error, or its default.
            unverified: apply the plan even if it is not verified or did not pass.

        Raises:
            RefusedError: the plan drops nothing, or was not verified, or did not pass.
            ConflictError: the service has changed since the plan was made.
        """
        where = f"prune plan {plan.id} of service {plan.service}"
        if not plan.dropped:
            raise RefusedError(where, problem="the plan drops no feature")
        if not plan.is_verified and not unverified and stage != "shadow":
            problem = "the plan is not verified"
            if plan.verification is not None:
                problem = f"the plan did not pass verification: {plan.verification['reason']}"
            raise RefusedError(where, problem=problem, hint="run `feature-store prune verify`, or pass --unverified")
        pruning = self.service(plan.service).pruning_by(plan, stage, answer)
        return prune(self._project, plan.service, pruning)

    def rollback(self, service: str) -> Applied:
        """Serve all features of a service again. Dropped features are filled before readers see them.

        Raises:
            NotFoundError: no prune plan is applied to the service.
        """
        return prune(self._project, service, None)

    def accounts(
        self, service: str, request: Mapping[str, int], *, redis: bool = True, timed: bool = False
    ) -> list[FeatureAccount]:
        """The profit and loss of each feature of a service, the most important first.

        Args:
            service: the service.
            request: the number of distinct entities in a usual request, by entity name.
            redis: whether to ask the online store how much it holds.
            timed: whether to time requests, which takes some seconds.

        Raises:
            NotFoundError: there is no such service; with `timed`, no entity of it is stored.
            RequestError: the request lacks an entity.
        """
        bound = self.service(service)
        if not redis and not timed:
            return bound.accounts(request)
        live = self._live(bound)
        rows = live.stored_rows() if redis else None
        return bound.accounts(
            request,
            rows=rows,
            daily=live.daily_rows(rows) if rows is not None else None,
            latency=live.latency(request) if timed else None,
            decode_ns=live.decode_ns(request) if timed else None,
        )

    # -- small parts --------------------------------------------------------------------------------------------

    @property
    def _records(self) -> PruningRecords:
        return PruningRecords(self._project.registry)

    def _keep_importances(self, service: PrunableService, importances: Importances) -> Importances:
        named = service.named(importances)
        self._records.keep_importances(service.name, named)
        return named

    def _live(self, service: PrunableService) -> LiveService:
        with requires_extra("local", "pruning"):
            from feature_store.pruning.live import LiveService

        project = self._project
        return LiveService(service, project.online, lambda: project.client, project.folders.source)


def _parts(service: PrunableService, training: Training) -> tuple[Dataset, Dataset]:
    from feature_store.pruning.dataset import from_table

    rows = from_table(
        training.path,
        service.features,
        {column.name: column.view for column in service.columns},
        label=training.label,
        timestamp=training.timestamp,
        entity=training.entity,
    )
    earlier, later = rows.split_by_time((training.earlier, 1 - training.earlier))
    return earlier, later


def _halves(data: Dataset, feature: str) -> dict[str, Any]:
    import numpy as np

    values = data.x[:, data.columns([feature])].mean(axis=1)
    middle = np.nanmedian(values)
    return {f"{feature} > {middle:g}": values > middle, f"{feature} <= {middle:g}": ~(values > middle)}
