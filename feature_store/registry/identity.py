"""The registry that published a plan: each registry has an id, and its plans carry it.

Two registries number their versions independently, so they would give different layouts the same generation. A registry
therefore refuses to replace another's plan, or to write under it.
"""

from __future__ import annotations

from feature_store.errors import ConflictError, NotFoundError
from feature_store.registry.compile import compile_plan
from feature_store.registry.serving_plan import ServingPlan
from feature_store.registry.store import Registry


def refuse_other_registry(plan: ServingPlan | None, registry: Registry) -> None:
    """Check that this registry published the plan, or that no plan is published.

    A plan of a release before 0.2 has no id. It counts as this registry's if its layouts are those of the registry's
    version of the same number; the next apply writes the id.

    Raises:
        ConflictError: another registry published the plan, or another copy of this one.
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
        problem=f"another registry, not {registry.shown_url}, has published version {plan.version} to this Redis",
        hint="set `registry` in feature_store.yaml to the database that both should share, or give this project "
        "another name or another Redis; if the other registry is lost, run `feature-store teardown`, then apply and "
        "materialize",
    )


def _refuse_other_copy(plan: ServingPlan, registry: Registry) -> None:
    """Raise if a copy of the registry published the plan: a copied folder or a restored backup has the same id."""
    if plan.definitions in ("", registry.digest(plan.version)):
        return
    raise ConflictError(
        f"serving plan of {plan.project}",
        problem=f"another copy of the registry {registry.shown_url} has published its version {plan.version} to this "
        "Redis, which this copy does not have",
        hint="set `registry` in feature_store.yaml to the copy that you keep, or give this project another name or "
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
