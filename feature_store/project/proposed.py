"""Versions of the definitions before they are committed: their changes, and the checks that can refuse them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from feature_store._extras import requires_extra
from feature_store._formatting import counted
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.on_demand import has_digest
from feature_store.definitions.pruned import refuse_unbound
from feature_store.definitions.pruning import Pruning
from feature_store.errors import DataError, MissingDependencyError, NotFoundError, RefusedError
from feature_store.registry.changes import ChangePlan, DefinitionChange
from feature_store.registry.diff import plan_changes
from feature_store.registry.store import Version


@dataclass(frozen=True)
class ProposedVersion:
    """Definitions that may become a version, and how they differ from the applied ones."""

    definitions: DefinitionSet
    changes: ChangePlan

    def refuse_unless_possible(self, *, allow_destructive: bool) -> None:
        """Raise a RefusedError when a change cannot be carried out, or is destructive and not allowed."""
        for change in self.changes.refused:
            raise RefusedError(f"{change.kind} {change.name}", problem=change.reason, hint=change.hint)
        if self.changes.destructive and not allow_destructive:
            names = ", ".join(f"{change.kind} {change.name} ({change.reason})" for change in self.changes.destructive)
            raise RefusedError(
                counted(len(self.changes.destructive), "destructive change"),
                problem=names,
                hint="pass allow_destructive=True to apply(), or --yes to `feature-store apply`",
            )

    def with_sources_checked(self, folder: Path) -> ProposedVersion:
        """The same version, with changes refused if a source does not fit its view."""
        return replace(self, changes=_with_sources_checked(self.changes, self.definitions, folder))


def with_definitions(
    newest: Version | None, definitions: DefinitionSet, readers: Mapping[str, Sequence[str]] | None = None
) -> ProposedVersion:
    """New definitions with the applied prunings.

    Args:
        newest: the newest version.
        definitions: the new definitions.
        readers: the readers of each service, see `plan_changes`.

    Raises:
        ConflictError: a pruned service has changed.
    """
    if newest is None:
        return ProposedVersion(definitions, plan_changes(None, definitions))
    applied = newest.definitions(like=definitions)
    target = definitions.with_prunings(applied.prunings.values())
    for pruning in target.prunings.values():
        refuse_unbound(target, pruning)
    return ProposedVersion(target, plan_changes(applied, target, readers))


def with_version(
    newest: Version, version: Version, offered: DefinitionSet, readers: Mapping[str, Sequence[str]] | None = None
) -> ProposedVersion:
    """The definitions and prunings of an earlier version.

    Args:
        newest: the newest version.
        version: the earlier version.
        offered: the folder's definitions, which hold the on-demand functions.
        readers: the readers of each service, see `plan_changes`.

    Raises:
        RefusedError: the code of an on-demand function has changed since, or is gone.
    """
    applied = newest.definitions()
    target = version.definitions(like=applied)
    for view in target.on_demand_feature_views.values():
        current = offered.on_demand_feature_views.get(view.name)
        if current is None or not has_digest(current, view.digest, view.nulls):
            problem = f"the folder has {'other' if current else 'no'} code for on-demand view {view.name}"
            raise RefusedError(
                f"rollback to version {version.version}",
                problem=f"{problem} ({view.function})",
                hint=f"check out the definition files of version {version.version}, and apply them",
            )
    return ProposedVersion(target, plan_changes(applied, target, readers))


def with_pruning(newest: Version, service: str, pruning: Pruning | None) -> ProposedVersion:
    """The applied definitions with another pruning of a service; None: without one.

    Raises:
        NotFoundError: there is no such service, or it has no pruning to remove.
        ConflictError: the service has changed since the pruning was made.
    """
    applied = newest.definitions()
    applied.service(service)
    others = [one for one in applied.prunings.values() if one.service != service]
    if pruning is None and len(others) == len(applied.prunings):
        raise NotFoundError(f"service {service}", problem="no prune plan is applied to it")
    target = applied.with_prunings(others if pruning is None else [*others, pruning])
    if pruning is not None:
        refuse_unbound(target, pruning)
    return ProposedVersion(target, plan_changes(applied, target))


def _with_sources_checked(plan: ChangePlan, definitions: DefinitionSet, folder: Path) -> ChangePlan:
    try:
        with requires_extra("local", "checking sources"):
            from feature_store.engines import source_check
    except MissingDependencyError as error:
        return replace(plan, notes=(*plan.notes, f"Sources are not checked: {error.hint}."))
    changes, notes = [], []
    for change in plan.changes:
        if change.kind not in ("FeatureView", "StreamFeatureView") or change.action == "delete":
            changes.append(change)
            continue
        view = definitions.stored_view(change.name)
        try:
            if change.effect != "rewrites" and not source_check.has_source(view, folder):
                notes.append(f"The source of {view.name} has no files yet. `materialize` fails until it has.")
            else:
                source_check.check_source(view, folder)
        except DataError as error:
            if not _depends_on_source(change):
                notes.append(f"The source of {view.name} does not fit it: {error.reason}.")
            else:
                change = replace(change, effect="refused", reason=error.reason, hint=error.hint)
        changes.append(change)
    return replace(plan, changes=tuple(changes), notes=(*plan.notes, *notes))


def _depends_on_source(change: DefinitionChange) -> bool:
    """Whether a change affects what the view reads from its source. A description or a ttl does not."""
    parts = ("schema", "source", "sql", "aggregations")
    return change.action == "create" or any(detail.path.split(".")[0] in parts for detail in change.details)
