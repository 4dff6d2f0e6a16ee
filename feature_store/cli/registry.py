"""Commands on what is applied: list and describe."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from feature_store.cli.options import AsJson, Repo
from feature_store.cli.output import console, print_json, table
from feature_store.registry.catalog import described, listed
from feature_store.store import FeatureStore

if TYPE_CHECKING:
    from rich.console import Console


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
        lists = {kind: _versions(store) if kind is Kind.VERSIONS else listed(store.applied(), kind) for kind in kinds}
    if as_json:
        print_json({kind.value: rows for kind, rows in lists.items()})
        return
    for kind, rows in lists.items():
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
        document = described(store.applied(), name)
    if as_json:
        print_json(document)
    else:
        _show(console(), document)


def _versions(store: FeatureStore) -> list[dict[str, Any]]:
    return [
        {"version": version.version, "applied_at": version.applied_at, "author": version.author}
        for version in store.registry.history()
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
