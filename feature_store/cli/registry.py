"""Commands on applied definitions and their versions: list, describe, history, diff."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from feature_store._formatting import shown_time
from feature_store.cli.options import AsJson, Repo
from feature_store.cli.output import console, print_json, table
from feature_store.cli.project import show_change, show_changes
from feature_store.cli.text import visible
from feature_store.errors import NotFoundError
from feature_store.project.pruner import Pruner
from feature_store.project.store import FeatureStore
from feature_store.registry.catalog import described, listed, names, unknown
from feature_store.registry.diff import plan_changes
from feature_store.registry.history import history_of, names_in
from feature_store.registry.store import Version


class ListedKind(StrEnum):
    """The kinds that can be listed."""

    ENTITIES = "entities"
    SOURCES = "sources"
    VIEWS = "views"
    STREAMS = "streams"
    ON_DEMAND = "on-demand"
    SERVICES = "services"
    FEATURES = "features"
    VERSIONS = "versions"
    PRUNE_PLANS = "prune-plans"


# A list of all features would hide the rest. Versions and plans are not definitions.
_ONLY_ON_REQUEST = (ListedKind.FEATURES, ListedKind.VERSIONS, ListedKind.PRUNE_PLANS)
# Characters of an id that people copy. A shorter text is taken for a misspelt name.
_LEAST_OF_AN_ID = 4


def list_definitions(
    kind: Annotated[
        ListedKind | None, typer.Argument(help="Default: all kinds except features, versions and prune-plans.")
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """List the applied definitions."""
    with FeatureStore(repo) as store:
        kinds = [kind] if kind is not None else [each for each in ListedKind if each not in _ONLY_ON_REQUEST]
        lists = {kind: _rows(store, kind) for kind in kinds}
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
    name: Annotated[
        str,
        typer.Argument(
            help="An entity, view, service, source, view:feature, number of a version, or id of a prune plan."
        ),
    ],
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Show one definition: its attributes, its parts, and who reads it."""
    with FeatureStore(repo) as store:
        document = _document(store, name)
    if as_json:
        print_json(document)
    else:
        _show(console(), document)


def history(
    name: Annotated[str, typer.Argument(help="An entity, view, service or view:feature, including deleted ones.")],
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Show the versions that changed a definition or a feature, with author and time."""
    with FeatureStore(repo) as store:
        versions = store.registry.history()[::-1]
    changes = history_of(versions, name)
    if not changes:
        raise unknown(name, "a definition or a feature of some version", dict.fromkeys(names_in(versions)))
    if as_json:
        print_json([past.to_document() for past in changes])
        return
    out = console()
    for past in changes:
        out.print(f"[bold]version {past.version.version}[/]  [dim]{_by(past.version)}[/]")
        show_change(out, past.change)


def diff(
    before: Annotated[int, typer.Argument(metavar="V1", help="The number of a version.")],
    after: Annotated[
        int | None, typer.Argument(metavar="V2", help="The number of a later version. Default: the newest.")
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Show what changed between two versions, as `plan` would if the second were applied to the first."""
    with FeatureStore(repo) as store:
        old = store.registry.version(before)
        new = store.registry.version(after) if after is not None else store.registry.latest()
    assert new is not None  # since an older version exists
    changes = plan_changes(old.definitions(), new.definitions())
    if as_json:
        print_json({"before": old.version, "after": new.version} | changes.to_document())
    elif changes.is_empty:
        console().print(f"Versions {old.version} and {new.version} have the same definitions.")
    else:
        show_changes(changes)


def _rows(store: FeatureStore, kind: ListedKind) -> list[dict[str, Any]]:
    match kind:
        case ListedKind.VERSIONS:
            rollouts = store.registry.rollouts()
            return [
                {
                    "version": version.version,
                    "applied_at": version.applied_at,
                    "author": version.author,
                    "state": rollouts[version.version].state if version.version in rollouts else "applied",
                }
                for version in store.registry.history(withdrawn=True)
            ]
        case ListedKind.PRUNE_PLANS:
            applied = {pruning.plan: pruning.stage for pruning in store.applied().prunings.values()}
            return [
                {
                    "plan": plan.id,
                    "service": plan.service,
                    "made_at": plan.made_at,
                    "kept": f"{len(plan.kept)} of {len(plan.columns)}",
                    "verified": plan.is_verified,
                    "applied": applied.get(plan.id),
                }
                for plan in Pruner(store).plans()
            ]
        case _:
            return listed(store.applied(), kind.value)


def _document(store: FeatureStore, name: str) -> dict[str, Any]:
    if name.isascii() and name.isdigit() and (document := _version_document(store, name)) is not None:
        return document
    definitions = store.applied()
    try:
        return described(definitions, name)
    except NotFoundError:
        plans = [plan for plan in Pruner(store).plans() if plan.id.startswith(name)]
        if len(plans) == 1 and len(name) >= _LEAST_OF_AN_ID:
            return _plan_document(plans[0])
        known = [*names(definitions), *(plan.id for plan in plans)]
        what = "a definition, a source, view:feature, a version's number or a prune plan's id"
        raise unknown(name, what, known) from None


def _version_document(store: FeatureStore, number: str) -> dict[str, Any] | None:
    versions = {str(version.version): version for version in store.registry.history()}
    version = versions.get(number)
    if version is None:
        return None
    before = versions.get(str(version.version - 1))
    changes = plan_changes(before.definitions() if before is not None else None, version.definitions())
    return {
        "kind": "Version",
        "name": number,
        "author": version.author,
        "applied_at": version.applied_at,
        "digest": version.digest,
        "changes": [
            {
                "action": change.action,
                "kind": change.kind,
                "name": change.name,
                "effect": change.effect,
                "details": [str(detail) for detail in change.details],
            }
            for change in changes.changes
        ],
    }


def _plan_document(plan: Any) -> dict[str, Any]:
    features = [{"name": name, "kept": name in plan.kept, "reason": plan.reasons.get(name)} for name in plan.columns]
    return {
        "kind": "PrunePlan",
        "name": plan.id,
        "service": plan.service,
        "made_at": plan.made_at,
        "model": plan.model or None,
        "method": plan.method,
        "kept": f"{len(plan.kept)} of {len(plan.columns)}",
        "bytes": f"{plan.after.bytes:,} of {plan.before.bytes:,}",
        "keys": f"{plan.after.keys} of {plan.before.keys}",
        "verified": plan.is_verified,
        "features": features,
    }


def _by(version: Version) -> str:
    return f"{shown_time(version.applied_at)} by {escape(visible(version.author))}"


def _show(out: Console, document: dict[str, Any]) -> None:
    out.print(f"[bold]{escape(visible(document['name']))}[/]  [dim]{document['kind']}[/]")
    lists = {name: value for name, value in document.items() if isinstance(value, list) and _is_table(value)}
    width = max(map(len, document)) + 2
    for name, value in document.items():
        if name in ("kind", "name", "source_of_that_name", *lists) or value in (None, "", [], {}):
            continue
        shown = shown_time(value) if isinstance(value, datetime) else str(_shown(value))
        out.print(f"{name + ': ':<{width}}{visible(shown)}", markup=False, soft_wrap=True)
    for name, rows in lists.items():
        filled = [key for key in rows[0] if any(row[key] not in (None, {}, []) for row in rows)]
        columns = dict.fromkeys(filled, "left")
        out.print(table(name, columns, [[_shown(row[key]) for key in filled] for row in rows]))
    if source := document.get("source_of_that_name"):
        _show(out, source)


def _is_table(value: list[Any]) -> bool:
    return bool(value) and isinstance(value[0], dict)


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{tag}={of}" for tag, of in value.items()) or None
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else value


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "list": ("Browse", "list_definitions", "List the applied definitions."),
    "describe": ("Browse", "describe", "Show one definition, and who reads it."),
    "history": ("Browse", "history", "Show which versions changed a definition or a feature."),
    "diff": ("Browse", "diff", "Show what changed between two versions."),
}
