"""Definitions after pruning: what remains served, computed and stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from feature_store.definitions.definition import on_change
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.feature_view import FeatureView, Projection
from feature_store.definitions.field import Field
from feature_store.definitions.graph import BatchOrStreamView, FeatureKey, graph_of
from feature_store.definitions.pruning import Answer, PrunedFeature, Pruning, Stage
from feature_store.definitions.service import FeatureService
from feature_store.errors import ConflictError, DefinitionError

_DESCRIPTIVE = {name for name, declared in on_change(FeatureView, Field) if declared.keeps_meaning}


def pruning_of(
    definitions: DefinitionSet,
    service: str,
    dropped: Iterable[str],
    *,
    plan: str,
    stage: Stage,
    answer: Answer = "error",
    read_order: Sequence[str] = (),
) -> Pruning:
    """A pruning of a service as it is defined.

    Args:
        definitions: those that define the service.
        service: its name.
        dropped: the columns to drop.
        plan, stage, answer, read_order: see Pruning.

    Raises:
        NotFoundError: there is no such service.
        DefinitionError: a dropped column does not belong to the service, none is dropped, or none is left.
    """
    columns, drop = graph_of(definitions).columns(service), set(dropped)
    unknown = sorted(drop - {column.name for column in columns})
    if unknown:
        raise DefinitionError("dropped", expected=f"a feature of {service}", got=", ".join(unknown))
    return Pruning(
        service=service,
        plan=plan,
        stage=stage,
        bound_to=service_digest(definitions, service),
        columns=tuple(column.name for column in columns),
        dropped=tuple(
            PrunedFeature(
                name=column.name,
                view=column.view,
                feature=column.feature,
                dtype=str(column.field.dtype),
                default=column.field.dtype.to_json(column.field.default),
            )
            for column in columns
            if column.name in drop
        ),
        answer=answer,
        read_order=tuple(read_order),
    )


def service_digest(definitions: DefinitionSet, service: str) -> str:
    """A hash of the meaning of a service's features: names, order, types, and how they are computed. It does not cover
    descriptions, owners, tags and expectations.

    Raises:
        NotFoundError: there is no such service.
    """
    graph = graph_of(definitions)
    columns = graph.columns(service)
    views = dict.fromkeys(column.view for column in columns)
    views |= dict.fromkeys(stored for column in columns for stored, _ in graph.needs(*column.key))
    meaning = {name: _without_descriptions(graph.views[name].model_dump(mode="json", by_alias=True)) for name in views}
    served = [(column.name, *column.key) for column in columns]
    return hashlib.sha256(orjson.dumps([served, meaning], option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def refuse_unbound(definitions: DefinitionSet, pruning: Pruning) -> None:
    """Check that a service has not changed since a pruning was made for it.

    Raises:
        ConflictError: the service has changed or is gone.
    """
    if pruning.service in definitions.feature_services:
        digest = service_digest(definitions, pruning.service)
        if digest == pruning.bound_to:
            return
        problem = f"the features of the service have changed since the plan was made ({pruning.bound_to}, now {digest})"
    else:
        problem = "the service no longer exists"
    raise ConflictError(
        f"prune plan {pruning.plan} of service {pruning.service}",
        problem=problem,
        hint="roll the plan back first (`feature-store prune rollback`), or make another plan",
    )


def pruned(definitions: DefinitionSet) -> DefinitionSet:
    """The definitions that remain after pruning. Computed once per set.

    Features that could not be filled again after a rollback stay stored: those of views without a source, and of stream
    views without a history.

    Raises:
        NotFoundError: a pruning is of a service that is not defined.
        DefinitionError: a pruning leaves a service without features.
    """
    return definitions.derived(_pruned)


def stays_stored(definitions: DefinitionSet, service: str) -> set[FeatureKey]:
    """The stored features that stay even if all columns of a service are dropped: other services need them, no service
    needs them, or they could not be filled again."""
    graph = graph_of(definitions)
    others = {
        stored
        for name in definitions.feature_services
        if name != service
        for stored in graph.needed_by(name, _needed_columns(definitions, name))
    }
    may_go = graph.needed_by(service) - others
    return {
        (view.name, field.name)
        for view in definitions.stored_views
        for field in view.fields
        if (view.name, field.name) not in may_go or view.history is None
    }


def _pruned(definitions: DefinitionSet) -> DefinitionSet:
    prunings = [pruning for pruning in definitions.prunings.values() if pruning.stage != "shadow"]
    if not prunings:
        return definitions
    services = {**definitions.feature_services}
    for pruning in prunings:
        services[pruning.service] = _serving(definitions.service(pruning.service), set(pruning.kept))
    dropped = _dropped(definitions)
    computed = [
        view
        for name, view in definitions.on_demand_feature_views.items()
        if dropped.isdisjoint(one.key for one in graph_of(definitions).inputs(name))
    ]
    stored = [left for view in definitions.stored_views if (left := _storing(view, dropped)) is not None]
    items = [*definitions.entities.values(), *stored, *computed, *services.values()]
    return DefinitionSet(items, definitions.prunings.values())


def _dropped(definitions: DefinitionSet) -> set[FeatureKey]:
    """The stored features that some service needs before the prunings and none needs after them."""
    graph = graph_of(definitions)
    shrinking = [pruning.service for pruning in definitions.prunings.values() if pruning.stage == "drop"]
    dropped = {stored for name in shrinking for stored in graph.needed_by(name)}
    for name in definitions.feature_services if dropped else ():
        dropped -= graph.needed_by(name, _needed_columns(definitions, name))
    return {(view, feature) for view, feature in dropped if graph.stored_views[view].history is not None}


def _needed_columns(definitions: DefinitionSet, service: str) -> tuple[str, ...] | None:
    """The columns of a service whose stored features must stay; None for all."""
    pruning = definitions.prunings.get(service)
    return pruning.kept if pruning is not None and pruning.stage == "drop" else None


def _serving(service: FeatureService, kept: set[str]) -> FeatureService:
    """A service with some of its columns."""
    projections = []
    for projection in service.features:
        columns = tuple(column for column in projection.columns if column[1] in kept)
        if columns:
            projections.append(Projection(view=projection.view, columns=columns))
    about = {"description": service.description, "owner": service.owner, "tags": service.tags}
    return FeatureService(service.name, features=projections, **about)


def _storing(view: BatchOrStreamView, dropped: set[FeatureKey]) -> BatchOrStreamView | None:
    """A view without some features: the view itself if it has none of them, None if it has no others."""
    fields = tuple(field for field in view.fields if (view.name, field.name) not in dropped)
    if len(fields) == len(view.fields):
        return view
    if not fields:
        return None
    left = {field.name for field in fields}
    aggregations = []
    for aggregation in view.aggregations:
        windows = tuple(window for window in aggregation.windows if aggregation.feature_name(window) in left)
        if windows:
            aggregations.append(aggregation.model_copy(update={"windows": windows}))
    return view.model_copy(update={"fields": fields, "aggregations": tuple(aggregations)})


def _without_descriptions(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_descriptions(item) for key, item in value.items() if key not in _DESCRIPTIVE}
    return [_without_descriptions(item) for item in value] if isinstance(value, list) else value
