"""Gathers the evidence of a project that `monitoring/score.py` judges."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.field import Field
from feature_store.definitions.graph import aggregated_as, feature_description, graph_of
from feature_store.definitions.on_demand import OnDemandFeatureView
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.errors import OnlineStoreError
from feature_store.monitoring.freshness import freshness_of
from feature_store.monitoring.score import Evidence, FeatureEvidence, ServiceEvidence, ViewEvidence
from feature_store.project.applying import models
from feature_store.project.context import Project
from feature_store.pruning.importance import Importances
from feature_store.pruning.labels import classify
from feature_store.pruning.plan import PrunePlan
from feature_store.registry.history import names_in
from feature_store.registry.lineage import MODELS, Node, lineage_of
from feature_store.registry.store import KeptReport, PruneRecord, Version

# Tags that say whether a definition is personal, and the tag that says that it is deprecated.
PRIVACY_TAGS, DEPRECATED_TAG = ("pii", "privacy"), "deprecated"
_NO = ("no", "false", "0", "none", "public")


def evidence_of(project: Project) -> Evidence:
    """The evidence of a project now.

    Raises:
        NotFoundError: nothing is applied.
        RegistryError: the registry cannot be read.
    """
    definitions, versions = project.applied(), project.registry.history()[::-1]
    stale = _stale(project)
    return Evidence(
        at=datetime.now(UTC),
        features=tuple(_features(definitions)),
        views=tuple(_view(view, stale) for view in definitions.stored_views),
        services=tuple(_services(project, definitions)),
        tested_code=_tested_code(definitions, project.config.folder),
        versions=len(versions),
        added_features=_added_features(versions),
        quarantined=sum(1 for _ in (project.folders.quarantine).glob("**/*.parquet")),
    )


def _features(definitions: DefinitionSet) -> Iterator[FeatureEvidence]:
    graph = graph_of(definitions)
    for view in graph.views.values():
        for field in view.fields:
            tags, consumers = view.tags | field.tags, graph.consumers(view.name, field.name)
            yield FeatureEvidence(
                f"{view.name}:{field.name}",
                is_owned=bool(field.owner or view.owner),
                is_described=bool(feature_description(view, field)),
                is_deprecated=tags.get(DEPRECATED_TAG, "no").lower() not in _NO,
                is_expected=_is_expected(view, field),
                services=tuple(one.service for one in consumers if one.service and not one.pruned_by),
            )


def _is_expected(view: FeatureView | StreamFeatureView | OnDemandFeatureView, field: Field) -> bool:
    """Whether a feature's values have expectations, or the column of events that it is computed from.

    An on-demand feature follows from its inputs.
    """
    if isinstance(view, OnDemandFeatureView):
        return True
    if not view.aggregations or view.source is None:
        return bool(field.expectation)
    column = aggregated_as(view, field.name)["column"]
    return any(one.of_values for one in view.source.fields if one.name == column)


def _view(view: FeatureView | StreamFeatureView, stale: Mapping[str, bool] | None) -> ViewEvidence:
    of_view = next((word for one in (view, *view.entities) if (word := _privacy(one.tags))), "")
    privacy = {field.name: _privacy(field.tags) or of_view for field in view.fields}
    return ViewEvidence(
        view.name,
        is_owned=bool(view.owner),
        says_privacy=all(privacy.values()),
        personal=tuple(name for name, word in privacy.items() if word and word not in _NO),
        freshness_declared=view.freshness is not None,
        is_stale=None if stale is None else stale.get(view.name),
    )


def _privacy(tags: Mapping[str, str]) -> str:
    """The value of a privacy tag in lower case; empty: there is none."""
    return next((tags[tag].lower() or "yes" for tag in PRIVACY_TAGS if tag in tags), "")


def _stale(project: Project) -> dict[str, bool] | None:
    """Whether each view is older than it declares. None if the online store cannot be read."""
    try:
        return {view.view: view.is_breached for view in freshness_of(project).views}
    except OnlineStoreError:
        return None


def _services(project: Project, definitions: DefinitionSet) -> Iterator[ServiceEvidence]:
    lineage = lineage_of(definitions, models(project))
    skews = project.registry.reports("skew")
    for service in definitions.feature_services.values():
        importances = project.registry.prune_records("importances", service.name)
        plans = project.registry.prune_records("plan", service.name)
        yield _service(
            definitions,
            service.name,
            models=tuple(node.name for node in lineage.children(Node("services", service.name)) if node.kind == MODELS),
            importances=Importances.from_json(importances[0].document) if importances else None,
            plans=plans,
            skew=skews.get(service.name),
        )


def _service(
    definitions: DefinitionSet,
    name: str,
    *,
    models: tuple[str, ...],
    importances: Importances | None,
    plans: list[PruneRecord],
    skew: KeptReport | None,
) -> ServiceEvidence:
    columns = {column.name for column in graph_of(definitions).columns(name)}
    pruning = definitions.prunings.get(name)
    gone = pruning.not_served if pruning is not None else frozenset()
    labels = classify(importances, dict.fromkeys(columns, (name,))) if importances is not None else {}
    plan = PrunePlan.from_json(plans[0].document) if plans else None
    is_covered = importances is not None and columns <= importances.by_name().keys()
    return ServiceEvidence(
        name,
        is_owned=bool(definitions.service(name).owner),
        models=models,
        importances=importances.method if importances is not None else "",
        importances_cover=is_covered,
        useless=tuple(sorted(one for one, of_one in labels.items() if "epsilon" in of_one and one in columns - gone)),
        plan=plan.id if plan is not None else "",
        is_settled=plan is not None and set(plan.dropped) <= gone,
        skew_at=skew.made_at if skew is not None else None,
        skew_differing=skew.document["differing"] if skew is not None else 0,
    )


def _tested_code(definitions: DefinitionSet, folder: Path) -> dict[str, bool]:
    """For each view with code, whether a test in the project's folder uses its function or name."""
    code = {view.name: view.function.rpartition(":")[2] for view in definitions.on_demand_feature_views.values()}
    code |= {view.name: view.name for view in definitions.feature_views.values() if view.sql is not None}
    if not code:
        return {}
    files = [*folder.glob("test_*.py"), *folder.glob("*_test.py"), *folder.glob("tests/**/test_*.py")]
    named = {name for file in files for name in _names_in(file)}
    return {view: view in named or function in named for view, function in code.items()}


def _names_in(file: Path) -> set[str]:
    """The names, attributes, imports and texts of a Python file. Empty if it cannot be parsed."""
    try:
        tree = ast.parse(file.read_text())
    except (SyntaxError, ValueError, OSError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name) | ast.Constant(value=str(name)):
                names.add(name)
    return names


def _added_features(versions: list[Version]) -> int:
    """The number of versions, after the first, with a feature that the version before lacks."""
    listed = [{name for name in names_in([version]) if ":" in name} for version in versions]
    return sum(bool(after - before) for before, after in pairwise(listed))
