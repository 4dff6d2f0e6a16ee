"""Pruning a project's services: from importances to a plan, its proof, and what is served by it.

importances   imported, told by a model, or measured on the earlier part of a training set
plan          the most importance within a budget; kept in the registry under its id
verify        refits on the earlier part, compared on the later part, which nothing before has seen
apply         a version of the registry: shadow, mask or drop; `rollback` is another
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from feature_store.arrow.sources.opening import open_view
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.graph import graph_of
from feature_store.definitions.pruned import pruned, pruning_of, service_digest
from feature_store.errors import ConflictError, NotFoundError, RefusedError, did_you_mean, extra
from feature_store.project.applying import prune
from feature_store.pruning.cost import cost_model
from feature_store.pruning.importance import Importances, checked
from feature_store.pruning.plan import (
    PrunePlan,
    make_plan,
    offered_instead,
    policy_pins,
    read_order,
    with_verification,
)
from feature_store.registry.store import current_author

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from feature_store.definitions.definition_set import DefinitionSet
    from feature_store.definitions.pruning import Answer, Stage
    from feature_store.project.applying import Applied
    from feature_store.project.context import InProject
    from feature_store.pruning.accounts import FeatureAccount
    from feature_store.pruning.cost import CostModel
    from feature_store.pruning.dataset import Dataset
    from feature_store.pruning.footprint import Footprint
    from feature_store.pruning.planner import Budget, Choice, Latency
    from feature_store.pruning.training import Training
    from feature_store.pruning.trials import Report
    from feature_store.pruning.verify import Verification

# Of a usual request's entities, at which its latency is measured.
_SHARES = (0.1, 0.5, 1.0)
_DECODES = 31
_RECENT_DAYS, _DAY_US = 28, 86_400_000_000


class Pruner:
    """Prunes the services of a project.

    Args:
        store: the project's FeatureStore.
    """

    def __init__(self, store: InProject) -> None:
        self._project = store.context

    # -- importances --------------------------------------------------------------------------------------------

    def import_importances(self, service: str, importances: Importances) -> Importances:
        """Keep importances of a service's features, by the names they are served by or by `view:feature`.

        Raises:
            NotFoundError: there is no such service.
            DataError: they are not one good importance for each of its features; it names all that are wrong.
        """
        definitions = self._project.applied()
        by_reference = {column.reference: column.name for column in graph_of(definitions).columns(service)}
        named = tuple(
            replace(item, feature=by_reference.get(item.feature, item.feature)) for item in importances.features
        )
        found = checked(replace(importances, features=named), list(by_reference.values()))
        document = found.to_json()
        self._project.registry.keep_prune_record(
            "importances",
            service,
            hashlib.sha256(service.encode() + document).hexdigest()[:12],
            document,
            current_author(),
        )
        return found

    def importances(self, service: str) -> Importances | None:
        """The newest of a service, or None."""
        records = self._project.registry.prune_records("importances", service)
        return Importances.from_json(records[0].document) if records else None

    def parts(self, service: str, training: Training) -> tuple[Dataset, Dataset]:
        """The earlier rows of a training set, which choices are made on, and the later ones, which only `verify` sees.

        Raises:
            NotFoundError, RequestError, DataError: the service or the training set are not as they must be.
        """
        from feature_store.pruning.dataset import from_table

        definitions: DefinitionSet = self._project.applied()
        columns = graph_of(definitions).columns(service)
        data = from_table(
            training.path,
            [column.name for column in columns],
            {column.name: column.view for column in columns},
            label=training.label,
            timestamp=training.timestamp,
            entity=training.entity,
        )
        earlier, later = data.split_by_time((training.earlier, 1 - training.earlier))
        return earlier, later

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
            most_rows: how many rows to take at most, evenly spread: some models take hours for hundreds of refits on
                all of them; None: all.

        Raises:
            NotFoundError, RequestError, DataError: the service, the model or the training set are not as they must be.
        """
        with extra("prune", "prune measure"):
            from feature_store.pruning.dataset import load_factory
            from feature_store.pruning.measure import measure

        earlier, _ = self.parts(service, training)
        rows = earlier if most_rows is None else earlier.thinned(most_rows)
        found = measure(rows, load_factory(training.model), seeds=seeds, report=report)
        return self.import_importances(service, found)

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
            service: what to prune.
            budget: what it may cost.
            request: how many distinct entities a usual request has, by entity name.
            required: features that must be kept.
            importances: the newest that are kept unless given; then they are kept, too.

        Raises:
            NotFoundError: there is no such service, or no importances of it.
            DataError: importances are not of the features that it serves now.
            RequestError: nothing fits in the budget.
        """
        definitions = self._project.applied()
        model = self.costs(service, request)
        found = self._importances(service) if importances is None else self.import_importances(service, importances)
        plan = make_plan(definitions, model, found, budget, request, required=required)
        self._keep(plan)
        return plan

    def costs(self, service: str, request: Mapping[str, int]) -> CostModel:
        """What the features of a service cost.

        Raises:
            NotFoundError: there is no such service.
            RequestError: the request does not say how many of an entity.
        """
        return cost_model(self._project.applied(), service, request, project=self._project.name)

    def latency(self, service: str, request: Mapping[str, int], *, repeats: int = 100) -> Latency:
        """How long requests of a service take here, at their 99th percentile: measured with entities that are stored,
        for the whole service and for each view of it, at several sizes.

        Raises:
            NotFoundError: there is no such service, or no entity of it is stored.
            RequestError: the request does not say how many of an entity.
        """
        from feature_store.pruning.latency import Timed, fit_latency

        definitions = self._project.applied()
        columns = graph_of(definitions).columns(service)
        asked: list[tuple[str | list[str], list[str]]] = [(service, [column.name for column in columns])]
        for view in definitions.stored_views_of(service):
            own = [(column.name, column.reference) for column in columns if column.view == view.name]
            if own:
                asked.append(([reference for _, reference in own], [name for name, _ in own]))
        timed = []
        for share in _SHARES:
            counts = {entity: max(1, round(count * share)) for entity, count in request.items()}
            model = self.costs(service, counts)
            rows = self._rows(service, counts)
            for features, names in asked:
                took = [self._timed(features, rows) for _ in range(repeats)]
                timed.append(Timed(model.cost(names), took))
        return fit_latency(timed)

    def footprint(
        self,
        service: str,
        requests: Sequence[Mapping[str, Any]],
        *,
        repeats: int = 1000,
        now: datetime | None = None,
        report: Report | None = None,
    ) -> Footprint:
        """What a service costs as it is served now: asks, lets Redis count, and takes the time.

        Other clients' requests are counted along: have none meanwhile.

        Args:
            requests: entity rows and request fields, several, so that not always the same keys are read.
            repeats: how many requests are timed, in turn.
            now: of the requests.
            report: is told after each.
        """
        from feature_store.pruning.footprint import Counted, footprint

        online, client = self._project.online, self._project.client

        def ask(rows: Mapping[str, Any]) -> int:
            response = client.get_online_features(service, rows, now=now)
            response.to_numpy()
            return len(response.names)

        features = [ask(rows) for rows in requests][-1]  # and once before anything is counted
        counted = [Counted.of(online.info()), Counted.of(online.info())]
        for rows in requests:
            ask(rows)
        counted.append(Counted.of(online.info()))
        seconds = []
        for i, rows in enumerate(islice(cycle(requests), repeats)):
            begun = time.perf_counter()
            ask(rows)
            seconds.append(time.perf_counter() - begun)
            if report is not None:
                report(i + 1, repeats)
        return footprint(features, counted, len(requests), seconds, self._redis_bytes(service))

    def _redis_bytes(self, service: str) -> int:
        """Of all that the service reads."""
        plan, read = self._project.online.require_published().plan, set()
        for view in pruned(self._project.applied()).stored_views_of(service):
            read.add(view.name if plan.tiles_of(view.name) is not None else plan.group_of(view.name).name)
        return sum(found["bytes"] for name, found in self._project.online.statistics().items() if name in read)

    def _timed(self, features: str | list[str], rows: Mapping[str, Any]) -> float:
        """Milliseconds of one request."""
        begun = time.perf_counter()
        self._project.client.get_online_features(features, rows).to_numpy()
        return (time.perf_counter() - begun) * 1e3

    def _rows(self, service: str, counts: Mapping[str, int]) -> dict[str, Any]:
        """A request of so many distinct entities, of those that are stored; request fields are zero or empty."""
        definitions = self._project.applied()
        rows: dict[str, Any] = {}
        for view in definitions.stored_views_of(service):
            most = max(counts[entity.name] for entity in view.entities)
            found = self._project.online.sample_keys(view.name, most)
            if not found:
                raise NotFoundError(f"latency of {service}", expected=f"stored entities of {view.name}", got="none")
            for entity, values in zip(view.entities, zip(*found, strict=True), strict=True):
                count = counts[entity.name]
                listed = [values[i % len(values)] for i in range(count)]
                rows[entity.join_key] = listed if count > 1 else listed[0]
        for computed in definitions.on_demand_feature_views.values():
            for field in (field for one in computed.requests for field in one.fields):
                rows[field.name] = field.dtype.scalar.zero
        return rows

    def curve(self, plan: PrunePlan) -> list[Choice]:
        """The importance–cost curve that a plan lies on: see `frontier`.

        Raises:
            NotFoundError: there are no importances of the service.
        """
        from feature_store.pruning.frontier import frontier

        pinned = policy_pins(self._project.applied(), model := self.costs(plan.service, plan.request))
        return frontier(model, self._importances(plan.service).by_name(), required=pinned)

    def plans(self, service: str | None = None) -> list[PrunePlan]:
        """The plans that are kept, the newest first."""
        return [PrunePlan.from_json(one.document) for one in self._project.registry.prune_records("plan", service)]

    def find(self, plan: str) -> PrunePlan:
        """A plan by its id, or by what its id begins with.

        Raises:
            NotFoundError: there is none, or more than one.
        """
        plans = self.plans()
        found = [one for one in plans if one.id.startswith(plan)]
        if len(found) != 1:
            known = ", ".join(one.id for one in plans)
            raise NotFoundError(
                f"prune plan {plan}",
                expected=f"the id of one plan: {known}" if known else "a plan",
                got=f"{len(found)} that begin so" if found else "none",
                hint=did_you_mean(plan, [one.id for one in plans])
                or ("" if known else "make one: `feature-store prune plan`"),
            )
        return found[0]

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
        """Verify a plan on the later part of a training set, and keep what is found.

        Args:
            slice_by: a feature; the plan must pass on the rows above and on those up to its median too.

        Returns:
            The plan with what was found, the verification, and the plan to take instead: of the candidates that pass,
            the one that removes most; None when that is this plan, or none passes.

        Raises:
            ConflictError: the service is not what the plan was made for.
            NotFoundError, RequestError, DataError: as `measure`.
        """
        with extra("prune", "prune verify"):
            from feature_store.pruning.dataset import load_factory
            from feature_store.pruning.verify import verify

        self._refuse_changed(plan)
        earlier, later = self.parts(plan.service, training)
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
        found = with_verification(plan, verification)
        self._keep(found)
        model, importances = self.costs(plan.service, plan.request), self._importances(plan.service)
        instead = offered_instead(plan, model, importances, verification)
        if instead is not None:
            self._keep(instead)
        return found, verification, instead

    # -- what is served -----------------------------------------------------------------------------------------

    def apply(self, plan: PrunePlan, stage: Stage, *, answer: Answer = "error", unverified: bool = False) -> Applied:
        """Serve by a plan.

        Args:
            stage: `shadow`, `mask` or `drop`.
            answer: what a client gets that asks for a dropped feature.
            unverified: apply it although it was not verified, or did not pass.

        Raises:
            RefusedError: the plan drops nothing, or was not verified, or did not pass.
            ConflictError: the service is not what the plan was made for.
        """
        where = f"prune plan {plan.id} of service {plan.service}"
        if not plan.dropped:
            raise RefusedError(where, expected="a feature that it drops", got="none: nothing can go")
        if not plan.is_verified and not unverified and stage != "shadow":
            got = "none" if plan.verification is None else str(plan.verification["reason"])
            raise RefusedError(
                where,
                expected="a verification that it passes",
                got=got,
                hint="`feature-store prune verify`; or say --unverified",
            )
        self._refuse_changed(plan)
        definitions, model = self._project.applied(), self.costs(plan.service, plan.request)
        importances = self._importances(plan.service)
        pruning = pruning_of(
            definitions,
            plan.service,
            plan.dropped,
            plan=plan.id,
            stage=stage,
            answer=answer,
            read_order=read_order(definitions, model, importances, plan.kept),
        )
        return prune(self._project, plan.service, pruning)

    def rollback(self, service: str) -> Applied:
        """Serve all features of a service again; what was dropped is filled before any reader sees it.

        Raises:
            NotFoundError: nothing is pruned of it.
        """
        return prune(self._project, service, None)

    def accounts(
        self, service: str, request: Mapping[str, int], *, redis: bool = True, timed: bool = False
    ) -> list[FeatureAccount]:
        """The profit and loss of each feature of a service, the most important first.

        Args:
            request: how many distinct entities a usual request has, by entity name.
            redis: whether to ask the online store what it holds.
            timed: whether to time requests, which takes some seconds.

        Raises:
            NotFoundError, RequestError: as `costs`; with `timed`, as `latency`.
        """
        from feature_store.pruning.accounts import accounts_of

        definitions, model = self._project.applied(), self.costs(service, request)
        rows = {name: about["rows"] for name, about in self._project.online.statistics().items()} if redis else None
        return accounts_of(
            definitions,
            model,
            self.importances(service),
            pinned=policy_pins(definitions, model),
            rows=rows,
            daily={} if rows is None else self._daily_rows(definitions, service, rows),
            latency=self.latency(service, request) if timed else None,
            decode_ns=self._decode_ns(service, request) if timed else {},
        )

    def _daily_rows(self, definitions: DefinitionSet, service: str, stored: Mapping[str, int]) -> dict[str, float]:
        """Of each view of which that is known, how many rows are materialized a day: what its source had of the last
        weeks; of a view with aggregations each stored entity's row, once a day."""
        plan, found = self._project.online.require_published().plan, {}
        finished = self._project.online.finished_intervals()
        for view in pruned(definitions).stored_views_of(service):
            if not isinstance(view, FeatureView) or view.source is None:
                continue
            group = plan.group_of(view.name)
            if view.aggregations:
                found[view.name] = float(stored.get(group.name, 0))
            elif intervals := finished[view.name]:
                end_us = intervals[-1][1]
                source = open_view(view.source, view, self._project.folders.source)
                times = TimeRange(view.source.event_timestamp, end_us - _RECENT_DAYS * _DAY_US, end_us)
                count = source.count(times)
                found |= {} if count is None else {view.name: count / _RECENT_DAYS}
        return found

    def _decode_ns(self, service: str, request: Mapping[str, int]) -> dict[str, int]:
        """Of each feature that is served, the nanoseconds to make a matrix of it alone: the median of some requests."""
        rows, found = self._rows(service, request), {}
        for column in graph_of(pruned(self._project.applied())).columns(service):
            times = []
            for _ in range(_DECODES):
                response = self._project.client.get_online_features([column.reference], rows)
                begun = time.perf_counter_ns()
                response.to_numpy()
                times.append(time.perf_counter_ns() - begun)
            found[column.name] = sorted(times)[_DECODES // 2]
        return found

    # -- small parts --------------------------------------------------------------------------------------------

    def _keep(self, plan: PrunePlan) -> None:
        self._project.registry.keep_prune_record("plan", plan.service, plan.id, plan.to_json(), current_author())

    def _importances(self, service: str) -> Importances:
        found = self.importances(service)
        if found is None:
            hint = "`feature-store prune import` or `prune measure`"
            raise NotFoundError(f"service {service}", expected="importances of its features", got="none", hint=hint)
        return checked(found, [column.name for column in graph_of(self._project.applied()).columns(service)])

    def _refuse_changed(self, plan: PrunePlan) -> None:
        found = service_digest(self._project.applied(), plan.service)
        if found != plan.bound_to:
            raise ConflictError(
                f"prune plan {plan.id} of service {plan.service}",
                expected=f"the service that it was made for, {plan.bound_to}",
                got=f"{found}: its features have changed since",
                hint="measure and plan again",
            )


def _halves(data: Dataset, feature: str) -> dict[str, Any]:
    import numpy as np

    values = data.x[:, data.columns([feature])].mean(axis=1)
    middle = np.nanmedian(values)
    return {f"{feature} > {middle:g}": values > middle, f"{feature} <= {middle:g}": ~(values > middle)}
