"""What prunings leave of definitions: what is served, computed and stored."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson

from feature_store.definitions.aggregation import Aggregation
from feature_store.definitions.dtypes import MICROSECOND
from feature_store.definitions.field import EXPECTATIONS
from feature_store.definitions.pruning import PrunedFeature, Pruning
from feature_store.errors import ConflictError, DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from feature_store.definitions.definition_set import DefinitionSet
    from feature_store.definitions.pruning import Answer, Stage

Stored = tuple[str, str]  # view and feature
# Not part of what a feature means.
_DESCRIPTIVE = {"description", "owner", "tags", "freshness", "on_breach", *EXPECTATIONS}


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
    """A pruning that takes features, by the names they are served by, from a service as it is defined.

    Raises:
        NotFoundError: there is no such service.
        DefinitionError: as Pruning.
    """
    gone = set(dropped)
    served = {name: (view, feature) for name, view, feature in columns_of(definitions, service)}
    fields = {name: definitions.servable_view(view).field(feature) for name, (view, feature) in served.items()}
    unknown = sorted(gone - served.keys())
    if unknown:
        raise DefinitionError("dropped", expected=f"a feature of {service}", got=", ".join(unknown))
    return Pruning(
        service=service,
        plan=plan,
        stage=stage,
        bound_to=service_digest(definitions, service),
        columns=tuple(served),
        dropped=tuple(
            PrunedFeature(
                name=name,
                view=served[name][0],
                feature=served[name][1],
                dtype=str(fields[name].dtype),
                default=fields[name].dtype.to_json(fields[name].default),
            )
            for name in served
            if name in gone
        ),
        answer=answer,
        read_order=tuple(read_order),
    )


def service_digest(definitions: DefinitionSet, service: str) -> str:
    """A hash of all that the features of a service mean: their names, order and types, and how they come about.

    Raises:
        NotFoundError: there is no such service.
    """
    columns = columns_of(definitions, service)
    views = {view: definitions.servable_view(view) for _, view, _ in columns}
    for name in list(views):
        computed = definitions.on_demand_feature_views.get(name)
        if computed is not None:
            views |= {one.view: definitions.stored_view(one.view) for one in computed.projections}
    meant = {name: _without_descriptions(view.model_dump(mode="json", by_alias=True)) for name, view in views.items()}
    return hashlib.sha256(orjson.dumps([columns, meant], option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def refuse_unbound(definitions: DefinitionSet, pruning: Pruning) -> None:
    """Raise a ConflictError unless the service still is what the pruning was made for."""
    if pruning.service in definitions.feature_services:
        found = service_digest(definitions, pruning.service)
        if found == pruning.bound_to:
            return
        got = f"{found}: its features have changed since"
    else:
        got = "no such service"
    raise ConflictError(
        f"prune plan {pruning.plan} of service {pruning.service}",
        expected=f"the service that it was made for, {pruning.bound_to}",
        got=got,
        hint="roll the plan back first (`feature-store prune rollback`), or make another",
    )


def pruned(definitions: DefinitionSet) -> DefinitionSet:
    """The definitions that are left: what is served, computed and stored.

    What could not be filled again, were the plan rolled back, stays stored: what is pushed, or streamed and kept in no
    history. On-demand views come without their functions when anything was dropped.
    """
    if all(pruning.stage == "shadow" for pruning in definitions.prunings.values()):
        return definitions
    document = definitions.to_document()
    for pruning in definitions.prunings.values():
        if pruning.stage != "shadow":
            _keep(document["feature_services"][pruning.service]["features"], set(pruning.kept))
    before = {stored for name in definitions.feature_services for stored in _needed_of(definitions, name)}
    after = {
        stored
        for name in definitions.feature_services
        for stored in _needed_of(definitions, name, _kept(definitions, name))
    }
    _remove(document, {stored for stored in before - after if _can_be_filled_again(definitions, stored)})
    return type(definitions).from_document(document)


def columns_of(definitions: DefinitionSet, service: str) -> list[tuple[str, str, str]]:
    """What a service serves without any pruning: `(name, view, feature)`, in order.

    Raises:
        NotFoundError: there is no such service.
    """
    return [
        (served, projection.view, feature)
        for projection in definitions.service(service).features
        for feature, served in projection.columns
    ]


def needed_by(definitions: DefinitionSet, view: str, feature: str) -> list[Stored]:
    """The stored features that a feature needs: itself, or the inputs of the on-demand view that computes it."""
    computed = definitions.on_demand_feature_views.get(view)
    if computed is None:
        return [(view, feature)]
    return [(taken.view, name) for taken in computed.projections for name, _ in taken.columns]


def stays_stored(definitions: DefinitionSet, service: str) -> set[Stored]:
    """The stored features that stay whatever is dropped of a service: other services need them, nobody does, or they
    could not be filled again."""
    own = set(_needed_of(definitions, service))
    every = {(view.name, field.name) for view in definitions.stored_views for field in view.fields}
    others = {
        stored
        for name in definitions.feature_services
        if name != service
        for stored in _needed_of(definitions, name, _kept(definitions, name))
    }
    return {stored for stored in every if stored not in own - others or not _can_be_filled_again(definitions, stored)}


def _needed_of(definitions: DefinitionSet, service: str, kept: set[str] | None = None) -> Iterator[Stored]:
    """The stored features that a service needs to serve some names, all unless given."""
    for name, view, feature in columns_of(definitions, service):
        if kept is None or name in kept:
            yield from needed_by(definitions, view, feature)


def _kept(definitions: DefinitionSet, service: str) -> set[str] | None:
    """The names for which a service needs what is stored; None: all of them."""
    pruning = definitions.prunings.get(service)
    return set(pruning.kept) if pruning is not None and pruning.stage == "drop" else None


def _can_be_filled_again(definitions: DefinitionSet, stored: Stored) -> bool:
    return definitions.stored_view(stored[0]).history is not None


def _without_descriptions(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_descriptions(item) for key, item in value.items() if key not in _DESCRIPTIVE}
    return [_without_descriptions(item) for item in value] if isinstance(value, list) else value


def _keep(projections: list[dict[str, Any]], served: set[str]) -> None:
    for projection in projections:
        projection["columns"] = [column for column in projection["columns"] if column[1] in served]
    projections[:] = [projection for projection in projections if projection["columns"]]


def _remove(document: dict[str, Any], gone: set[tuple[str, str]]) -> None:
    """Take features out of views, and views that have none left, or whose inputs are gone, out of the document."""
    on_demand = document["on_demand_feature_views"]
    for name, view in list(on_demand.items()):
        if any((taken["view"], feature) in gone for taken in view["projections"] for feature, _ in taken["columns"]):
            del on_demand[name]
    for kind in ("feature_views", "stream_feature_views"):
        for name, view in list(document[kind].items()):
            fields = {field["name"] for field in view["schema"]} - {feature for owner, feature in gone if owner == name}
            if not fields:
                del document[kind][name]
            elif len(fields) < len(view["schema"]):
                document[kind][name] = _with_fields(view, fields)


def _with_fields(view: dict[str, Any], fields: set[str]) -> dict[str, Any]:
    aggregations = []
    for item in view.get("aggregations", ()):
        aggregation = Aggregation(**item)
        windows = [window for window in item["windows"] if aggregation.feature_name(window * MICROSECOND) in fields]
        if windows:
            aggregations.append(item | {"windows": windows})
    schema = [field for field in view["schema"] if field["name"] in fields]
    return view | {"schema": schema, "aggregations": aggregations}
