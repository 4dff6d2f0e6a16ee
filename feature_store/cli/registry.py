"""Commands on what is applied: list and describe."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from feature_store.cli.options import AsJson, Repo, show_duration
from feature_store.cli.output import console, print_json, table
from feature_store.definitions import Entity, FeatureService, FeatureView, OnDemandFeatureView, StreamFeatureView
from feature_store.definitions.definition_set import find
from feature_store.store import FeatureStore

if TYPE_CHECKING:
    from rich.console import Console

    from feature_store.definitions.definition import Definition
    from feature_store.definitions.definition_set import DefinitionSet


class Kind(StrEnum):
    """What can be listed."""

    ENTITIES = "entities"
    VIEWS = "views"
    STREAMS = "streams"
    ON_DEMAND = "on-demand"
    SERVICES = "services"
    VERSIONS = "versions"


def list_definitions(
    kind: Annotated[Kind | None, typer.Argument(help="All kinds but versions unless given.")] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """List what is applied."""
    with FeatureStore(repo) as store:
        kinds = [kind] if kind is not None else [each for each in Kind if each is not Kind.VERSIONS]
        listed = {kind: _versions(store) if kind is Kind.VERSIONS else _rows(store.applied(), kind) for kind in kinds}
    if as_json:
        print_json({kind.value: rows for kind, rows in listed.items()})
        return
    for kind, rows in listed.items():
        if not rows:
            console().print(f"[bold]{kind.value}[/]\n[dim]none[/]\n")
            continue
        columns = {name: "right" if isinstance(value, int) else "left" for name, value in rows[0].items()}
        console().print(table(kind.value, columns, [[_shown(value) for value in row.values()] for row in rows]))


def describe(
    name: Annotated[str, typer.Argument(help="An entity, a view or a service.")],
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Show one definition: what it is, its features, and who reads them."""
    with FeatureStore(repo) as store:
        definitions = store.applied()
    definition = find({item.name: item for item in definitions}, name, "definition")
    document = _document(definition, definitions)
    if as_json:
        print_json(document)
    else:
        _show(console(), document)


def _versions(store: FeatureStore) -> list[dict[str, Any]]:
    return [
        {"version": version.version, "applied_at": version.applied_at, "author": version.author}
        for version in store.registry.history()
    ]


def _rows(definitions: DefinitionSet, kind: Kind) -> list[dict[str, Any]]:
    match kind:
        case Kind.ENTITIES:
            return [
                {"name": entity.name, "join_key": entity.join_key, "dtype": str(entity.dtype)} | _about(entity)
                for entity in definitions.entities.values()
            ]
        case Kind.VIEWS:
            return [
                {
                    "name": view.name,
                    "entities": [entity.name for entity in view.entities],
                    "features": len(view.fields),
                    "ttl": show_duration(view.ttl) if view.ttl is not None else None,
                    "source": view.source.path if view.source is not None else None,
                }
                | _about(view)
                for view in definitions.feature_views.values()
            ]
        case Kind.STREAMS:
            return [
                {
                    "name": view.name,
                    "entities": [entity.name for entity in view.entities],
                    "features": len(view.fields),
                    "topic": view.source.topic,
                    "history": view.source.history.path if view.source.history is not None else None,
                }
                | _about(view)
                for view in definitions.stream_feature_views.values()
            ]
        case Kind.ON_DEMAND:
            return [
                {
                    "name": view.name,
                    "features": len(view.fields),
                    "inputs": [
                        *(projection.view for projection in view.projections),
                        *(request.name for request in view.requests),
                    ],
                }
                | _about(view)
                for view in definitions.on_demand_feature_views.values()
            ]
        case _:
            return [
                {
                    "name": service.name,
                    "features": sum(len(projection.columns) for projection in service.features),
                    "views": list(dict.fromkeys(projection.view for projection in service.features)),
                }
                | _about(service)
                for service in definitions.feature_services.values()
            ]


def _about(definition: Definition) -> dict[str, Any]:
    return {"owner": definition.owner or None, "description": definition.description or None}


def _document(definition: Definition, definitions: DefinitionSet) -> dict[str, Any]:
    document: dict[str, Any] = {"kind": type(definition).__name__, "name": definition.name}
    document |= _about(definition) | {"tags": dict(definition.tags)}
    match definition:
        case Entity():
            users = [view.name for view in definitions.stored_views if definition in view.entities]
            return document | {"join_key": definition.join_key, "dtype": str(definition.dtype), "views": users}
        case FeatureView():
            row = next(row for row in _rows(definitions, Kind.VIEWS) if row["name"] == definition.name)
            document |= {name: row[name] for name in ("entities", "ttl", "source")}
            return document | {"fields": _fields(definition), "read_by": _readers(definition.name, definitions)}
        case StreamFeatureView():
            row = next(row for row in _rows(definitions, Kind.STREAMS) if row["name"] == definition.name)
            document |= {name: row[name] for name in ("entities", "topic", "history")}
            return document | {"fields": _fields(definition), "read_by": _readers(definition.name, definitions)}
        case OnDemandFeatureView():
            inputs = [
                *(f"{one.view}:{feature}" for one in definition.projections for feature, _ in one.columns),
                *(f"{one.name}:{field.name}" for one in definition.requests for field in one.fields),
            ]
            document |= {"inputs": inputs, "fields": _fields(definition)}
            return document | {"read_by": _readers(definition.name, definitions)}
        case FeatureService():
            features = [
                {"name": renamed, "feature": f"{projection.view}:{feature}"}
                for projection in definition.features
                for feature, renamed in projection.columns
            ]
            return document | {"features": features}
        case _:
            return document


def _fields(view: FeatureView | StreamFeatureView | OnDemandFeatureView) -> list[dict[str, Any]]:
    return [
        {
            "name": field.name,
            "dtype": str(field.dtype),
            "default": field.dtype.to_json(field.default),
            "description": field.description or None,
            "tags": dict(field.tags),
        }
        for field in view.fields
    ]


def _readers(name: str, definitions: DefinitionSet) -> list[str]:
    readers: list[OnDemandFeatureView | FeatureService] = [
        *definitions.on_demand_feature_views.values(),
        *definitions.feature_services.values(),
    ]
    return [
        reader.name
        for reader in readers
        if name in {one.view for one in (reader.features if isinstance(reader, FeatureService) else reader.projections)}
    ]


def _show(out: Console, document: dict[str, Any]) -> None:
    out.print(f"[bold]{escape(document['name'])}[/]  [dim]{document['kind']}[/]")
    for name, value in document.items():
        if name in ("kind", "name") or not value or (isinstance(value, list) and isinstance(value[0], dict)):
            continue
        out.print(f"{name + ':':<13}{_shown(value)}", markup=False)
    for name in ("fields", "features"):
        if rows := document.get(name):
            shown = [key for key in rows[0] if any(row[key] not in (None, {}) for row in rows)]
            out.print(table("", dict.fromkeys(shown, "left"), [[_shown(row[key]) for key in shown] for row in rows]))


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{tag}={of}" for tag, of in value.items()) or None
    return ", ".join(map(str, value)) if isinstance(value, list) else value
