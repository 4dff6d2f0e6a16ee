"""Whose plan is published: a registry has an id, and the plans that it publishes carry it.

Two registries that number their versions apart would give different layouts the same generation. So what one of them
has published, the other neither replaces nor writes to.
"""

from __future__ import annotations

from feature_store.errors import ConflictError, NotFoundError
from feature_store.registry.compile import compile_plan
from feature_store.registry.serving_plan import ServingPlan
from feature_store.registry.store import Registry


def refuse_other_registry(plan: ServingPlan | None, registry: Registry) -> None:
    """See to it that the published plan is of a registry, or that there is none.

    A plan without an id was published by a release before ids. It counts as the registry's when its layouts are those
    of the registry's version of that number; the next apply writes the id.

    Raises:
        ConflictError: it is of another registry, or of another copy of this one.
    """
    if plan is None:
        return
    if plan.registry == (registry.id() or None):
        _refuse_other_copy(plan, registry)
        return
    if not plan.registry and _has_published(plan, registry):
        return
    raise ConflictError(
        f"serving plan of {plan.project}",
        problem=f"another registry than {registry.shown_url} has published version {plan.version} to this Redis",
        hint="set `registry` in feature_store.yaml to the database that both are to share, or give this project "
        "another name or another Redis; if the other registry is lost, run `feature-store teardown`, then apply and "
        "materialize",
    )


def _refuse_other_copy(plan: ServingPlan, registry: Registry) -> None:
    """A registry that is copied, with its folder or from a backup, keeps its id; versions then part."""
    if plan.definitions in ("", registry.digest(plan.version)):
        return
    raise ConflictError(
        f"serving plan of {plan.project}",
        problem=f"another copy of the registry {registry.shown_url} has published its version {plan.version} to this "
        "Redis, which this copy does not have",
        hint="set `registry` in feature_store.yaml to the copy that goes on, or give this project another name or "
        "another Redis; if the other copy is lost, run `feature-store teardown`, then apply and materialize",
    )


def _has_published(plan: ServingPlan, registry: Registry) -> bool:
    try:
        definitions = registry.version(plan.version).definitions()
    except NotFoundError:
        return False
    own = compile_plan(definitions, project=plan.project, version=plan.version, previous=plan)
    rows = [group.layout for group in own.groups] == [group.layout for group in plan.groups]
    return rows and [one.layout for one in own.tiles] == [one.layout for one in plan.tiles]
