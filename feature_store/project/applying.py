"""Make definitions a version of the registry and serve it: plan, apply, rollback, prune.

The steps: propose a version, check it, commit it to the registry, fill the generations it needs, publish its plan. An
apply that fails leaves the served version unchanged. The next apply finishes one that was killed.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

from feature_store.definitions.files import passed_over
from feature_store.definitions.pruned import pruned
from feature_store.definitions.pruning import Pruning
from feature_store.errors import ConflictError, FeatureStoreError
from feature_store.materialize.rollout import give_up, roll_out
from feature_store.project.context import Project
from feature_store.project.filling import GenerationFiller
from feature_store.project.proposed import ProposedVersion, with_definitions, with_pruning, with_version
from feature_store.pruning.importance import Importances
from feature_store.registry.changes import ChangePlan
from feature_store.registry.identity import refuse_other_registry
from feature_store.registry.serving_plan import ServingPlan
from feature_store.registry.store import Version, current_author, registry_exists


@dataclass(frozen=True)
class Applied:
    """What an apply did.

    Attributes:
        version: the version that is now served.
        changes: how it differs from the version before.
        plan: its serving plan.
    """

    version: Version
    changes: ChangePlan
    plan: ServingPlan


def plan(project: Project, *, check_sources: bool = True) -> ChangePlan:
    """The changes that `apply` would make; see `FeatureStore.plan`."""
    project.reload()
    if not project.has_open_registry and not registry_exists(project.config.registry_url):
        return _checked(project, with_definitions(None, project.definitions), check_sources).changes
    newest = project.registry.latest()
    proposed = _of_folder(project, newest, check_sources)
    unfinished = newest is not None and newest.version in project.registry.rollouts()
    return replace(proposed.changes, unfinished=newest.version if newest is not None and unfinished else None)


def apply(
    project: Project, *, author: str | None = None, allow_destructive: bool = False, check_sources: bool = True
) -> Applied:
    """Make the folder's definitions a version, and serve it; see `FeatureStore.apply`."""
    project.reload()
    newest = project.registry.latest()
    proposed = _of_folder(project, newest, check_sources)
    return _apply(project, newest, proposed, author, allow_destructive=allow_destructive)


def plan_rollback(project: Project, version: int, *, check_sources: bool = True) -> ChangePlan:
    """The changes that `rollback` would make; see `FeatureStore.plan_rollback`."""
    return _of_version(project, project.newest(), version, check_sources).changes


def rollback(
    project: Project,
    version: int,
    *,
    author: str | None = None,
    allow_destructive: bool = False,
    check_sources: bool = True,
) -> Applied:
    """Make an earlier version's definitions a version, and serve it; see `FeatureStore.rollback`."""
    newest = project.newest()
    proposed = _of_version(project, newest, version, check_sources)
    return _apply(project, newest, proposed, author, allow_destructive=allow_destructive)


def prune(project: Project, service: str, pruning: Pruning | None, *, author: str | None = None) -> Applied:
    """Apply a pruning to a service as a version, and serve it; see `FeatureStore.prune`."""
    newest = project.newest()
    return _apply(project, newest, with_pruning(newest, service, pruning), author, allow_destructive=True)


def models(project: Project) -> dict[str, list[str]]:
    """The models of each service whose importances the registry keeps."""
    models: dict[str, list[str]] = {}
    for record in project.registry.prune_records("importances"):
        model = Importances.from_json(record.document).model
        if model and model not in models.setdefault(record.service, []):
            models[record.service].append(model)
    return models


def _of_folder(project: Project, newest: Version | None, check_sources: bool) -> ProposedVersion:
    return _checked(project, with_definitions(newest, project.definitions, _readers(project)), check_sources)


def _of_version(project: Project, newest: Version, version: int, check_sources: bool) -> ProposedVersion:
    project.reload()
    earlier = project.registry.version(version)
    return _checked(project, with_version(newest, earlier, project.definitions, _readers(project)), check_sources)


def _readers(project: Project) -> dict[str, list[str]]:
    """The known readers of each service: the models whose importances the registry keeps."""
    return {service: [f"model {model}" for model in names] for service, names in models(project).items()}


def _checked(project: Project, proposed: ProposedVersion, check_sources: bool) -> ProposedVersion:
    folder = project.folders.source
    proposed = replace(proposed, changes=replace(proposed.changes, buckets=_changed_buckets(project)))
    if check_sources:
        proposed = proposed.with_sources_checked(folder)
    changes = proposed.changes
    if project.config.definitions or all(change.action != "delete" for change in changes.changes):
        return proposed
    # A deleted definition may be in a file that is not read by default.
    if names := ", ".join(path.name for path in passed_over(folder)):
        note = f"Files without definitions are not read: {names}. Else list them under `definitions:`."
        proposed = replace(proposed, changes=replace(changes, notes=(*changes.notes, note)))
    return proposed


def _changed_buckets(project: Project) -> tuple[int, int] | None:
    """The number of buckets before and after an apply; None if it stays, nothing is stored, or Redis is not reached."""
    if project.config.online_url is None:
        return None  # an embedded server, which need not be started for a plan
    with contextlib.suppress(FeatureStoreError):
        published = project.online.find_published().plan
        if published is not None and published.buckets != project.buckets:
            return published.buckets, project.buckets
    return None


def _apply(
    project: Project, newest: Version | None, proposed: ProposedVersion, author: str | None, *, allow_destructive: bool
) -> Applied:
    proposed.refuse_unless_possible(allow_destructive=allow_destructive)
    online, registry = project.online, project.registry
    refuse_other_registry(online.find_published().plan, registry)
    version = registry.commit(
        proposed.definitions, base=newest.version if newest is not None else None, author=author or current_author()
    )
    filler = GenerationFiller(project, pruned(proposed.definitions))
    try:
        plan = roll_out(
            proposed.definitions,
            version.version,
            project=project.name,
            online=online,
            registry=registry,
            filler=filler,
            buckets=project.buckets,
            expire_keys=project.config.online_store.expire_keys,
        )
    except ConflictError:  # another process is rolling out a version
        raise
    except Exception as error:
        # When Redis or the registry cannot be reached, the version stays unfinished, and the next apply finishes it.
        with contextlib.suppress(FeatureStoreError):
            if give_up(version.version, online):
                registry.withdraw(version.version, f"{type(error).__name__}: {error}")
        raise
    registry.finish(version.version)
    return Applied(version, proposed.changes, plan)
