"""The ML Test Score, as far as a feature store can judge it: the tests of data, and four of the tests of monitoring.

Breck, Cai, Nielsen, Salib, Sculley (2017): The ML Test Score: A Rubric for ML Production Readiness and Technical Debt
Reduction. https://doi.org/10.1109/BigData.2017.8258038

In the paper, a test earns half a point if it is done by hand and documented, and a point if it runs automatically. Here
it earns half a point if it is done for some features, views or services, and a point if it is done for all. The score
of a section is the sum of its tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from feature_store._formatting import counted

# The number of tests in each section of the rubric.
WHOLE = 7
# An older comparison says little about what is served today.
RECENT = timedelta(days=30)
# The most names that a line lists.
_SHOWN = 5


@dataclass(frozen=True)
class FeatureEvidence:
    """The evidence of a feature.

    Attributes:
        name: its reference, `view:feature`.
        is_owned: whether it or its view has an owner.
        is_described: whether it has a description.
        is_deprecated: whether its tag `deprecated` says so.
        is_expected: whether its values, or those that it is computed from, have expectations.
        services: the services that serve it.
    """

    name: str
    is_owned: bool
    is_described: bool
    is_deprecated: bool
    is_expected: bool
    services: tuple[str, ...]


@dataclass(frozen=True)
class ViewEvidence:
    """The evidence of a stored view.

    Attributes:
        name: its name.
        is_owned: whether it has an owner.
        says_privacy: whether tags of the view, its entities or all its fields say if they are personal.
        personal: its personal features.
        freshness_declared: whether it declares a freshness.
        is_stale: whether it is older than that; None: not known.
    """

    name: str
    is_owned: bool
    says_privacy: bool
    personal: tuple[str, ...]
    freshness_declared: bool
    is_stale: bool | None


@dataclass(frozen=True)
class ServiceEvidence:
    """The evidence of a service.

    Attributes:
        name: its name.
        is_owned: whether it has an owner.
        models: the models that read it.
        importances: the method of its importances; empty: none are known.
        importances_cover: whether each of its features has an importance.
        useless: served features whose importance is within the noise.
        plan: the id of the newest prune plan; empty: there is none.
        is_settled: whether the features that the plan drops are no longer served.
        skew_at: the time of the last comparison with offline data.
        skew_differing: the number of values that differed then.
    """

    name: str
    is_owned: bool
    models: tuple[str, ...]
    importances: str = ""
    importances_cover: bool = False
    useless: tuple[str, ...] = ()
    plan: str = ""
    is_settled: bool = False
    skew_at: datetime | None = None
    skew_differing: int = 0


@dataclass(frozen=True)
class Evidence:
    """The evidence of a project.

    Attributes:
        at: the time of the evidence, UTC.
        features: all applied features.
        views: all applied stored views.
        services: all applied services.
        tested_code: for each on-demand function and each view with SQL, whether a test of the project names it.
        versions: the number of applied versions.
        added_features: the number of versions, after the first, that added features.
        quarantined: the number of quarantine files.
    """

    at: datetime
    features: tuple[FeatureEvidence, ...]
    views: tuple[ViewEvidence, ...]
    services: tuple[ServiceEvidence, ...]
    tested_code: dict[str, bool]
    versions: int
    added_features: int
    quarantined: int


@dataclass(frozen=True)
class Item:
    """A test of the rubric.

    Attributes:
        id: its section and number in the paper.
        title: its title in the paper.
        points: 0, 0.5 or 1.
        found: the evidence, in words.
        missing: what a full point needs; empty: nothing.
        how: how to add what is missing.
    """

    id: str
    title: str
    points: float
    found: str
    missing: str = ""
    how: str = ""


@dataclass(frozen=True)
class Score:
    """The tests, in the order of the paper."""

    items: tuple[Item, ...]

    @property
    def sections(self) -> dict[str, tuple[float, int, int]]:
        """For each section: the points, the number of tests judged here, and the number of tests in the paper."""
        sections: dict[str, tuple[float, int, int]] = {}
        for item in self.items:
            section = item.id.partition(" ")[0]
            points, seen, whole = sections.get(section, (0.0, 0, WHOLE))
            sections[section] = points + item.points, seen + 1, whole
        return sections

    def to_document(self) -> dict[str, Any]:
        """The score as JSON types."""
        sections = {
            name: {"points": points, "seen": seen, "tests": whole}
            for name, (points, seen, whole) in self.sections.items()
        }
        return {"sections": sections, "items": [asdict(item) for item in self.items]}


def score_of(evidence: Evidence) -> Score:
    """The score of a project."""
    tests: list[Callable[[Evidence], Item]] = [
        _schema,
        _beneficial,
        _cost,
        _requirements,
        _privacy,
        _new_features,
        _tested_code,
        _dependencies,
        _invariants,
        _skew,
        _staleness,
    ]
    return Score(tuple(test(evidence) for test in tests))


def _schema(evidence: Evidence) -> Item:
    title = "Feature expectations are captured in a schema"
    if not evidence.features:
        return Item(
            "Data 1", title, 0.0, "no feature is applied", "features", "define views, and `feature-store apply`"
        )
    unexpected = [one.name for one in evidence.features if not one.is_expected]
    found = f"{counted(len(evidence.features), 'feature')} declare a type, which every row and event is checked against"
    found += f"; {len(evidence.features) - len(unexpected)} have expectations of their values or inputs"
    if not unexpected:
        return Item("Data 1", title, 1.0, found)
    how = "set min=, max=, allowed= or max_null_rate= on fields"
    return Item("Data 1", title, 0.5, found, f"expectations for {_some(unexpected)}", how)


def _beneficial(evidence: Evidence) -> Item:
    title, services = "All features are beneficial", evidence.services
    known = [one.name for one in services if one.importances_cover]
    useless = [f"{one.name}:{name}" for one in services for name in one.useless]
    how = ", ".join(dict.fromkeys(one.importances for one in services if one.importances))
    found = f"importances of all features of {len(known)} of {counted(len(services), 'service')}"
    found += f" ({how})" if how else ""
    unknown = [one.name for one in services if not one.importances_cover]
    if unknown or not services:
        missing = f"importances for {_some(unknown)}" if services else "a service"
        partly = any(one.importances for one in services)
        hint = "`feature-store prune measure`, or `prune import`"
        return Item("Data 2", title, 0.5 if partly else 0.0, found, missing, hint)
    if useless:
        missing = f"pruning: {_some(useless)} {'is' if len(useless) == 1 else 'are'} within the noise"
        return Item("Data 2", title, 0.5, found, missing, "`feature-store prune plan`, `verify`, `apply`")
    return Item("Data 2", title, 1.0, found)


def _cost(evidence: Evidence) -> Item:
    title, services = "No feature's cost is too much", evidence.services
    planned = [one for one in services if one.plan]
    settled = [one for one in planned if one.is_settled]
    found = f"a prune plan weighs the cost of features for {len(planned)} of {counted(len(services), 'service')}"
    how = "`feature-store prune show` lists costs; then `prune plan` with a budget, `verify`, `apply`"
    if services and len(settled) == len(services):
        return Item("Data 3", title, 1.0, f"{found}, and is applied")
    lacking = [one.name for one in services if not one.is_settled]
    missing = f"an applied plan for {_some(lacking)}" if services else "a service"
    return Item("Data 3", title, 0.5 if planned else 0.0, found, missing, how)


def _requirements(evidence: Evidence) -> Item:
    title, features = "Features adhere to meta-level requirements", evidence.features
    meeting = [one for one in features if one.is_owned and one.is_described]
    deprecated = [one.name for one in features if one.is_deprecated and one.services]
    found = f"{len(meeting)} of {counted(len(features), 'feature')} have an owner and a description"
    lacking = [one.name for one in features if not (one.is_owned and one.is_described)]
    wants = [f"an owner and a description for {_some(lacking)}"] if lacking else []
    wants += [f"services without the deprecated {_some(deprecated)}"] if deprecated else []
    if features and not wants:
        return Item("Data 4", title, 1.0, f"{found}; no service reads a feature tagged deprecated")
    how = "set description= and owner= on fields or views; remove deprecated features from services"
    points: float = 0.5 if features and len(meeting) * 2 >= len(features) else 0.0
    return Item("Data 4", title, points, found, "; ".join(wants) or "features", how)


def _privacy(evidence: Evidence) -> Item:
    title, views = "The data pipeline has appropriate privacy controls", evidence.views
    saying = [one for one in views if one.says_privacy]
    personal = sum(len(one.personal) for one in views)
    found = (
        f"{len(saying)} of {counted(len(views), 'view')} state privacy; {counted(personal, 'personal feature')}; "
        "`feature-store delete` deletes an entity; the registry holds no secrets"
    )
    if views and len(saying) == len(views):
        return Item("Data 5", title, 1.0, found)
    lacking = [one.name for one in views if not one.says_privacy]
    missing = f"privacy tags for {_some(lacking)}" if views else "views"
    how = 'tag views, entities or fields: tags={"pii": "yes"} or "no"'
    return Item("Data 5", title, 0.5 if saying else 0.0, found, missing, how)


def _new_features(evidence: Evidence) -> Item:
    title = "New features can be added quickly"
    found = (
        f"{counted(evidence.versions, 'version')}, of which {evidence.added_features} added "
        "features to an earlier version; `apply` fills a new layout while the old one is served"
    )
    if evidence.added_features:
        return Item("Data 6", title, 1.0, found)
    missing = "a version that added a feature to a project in use" if evidence.versions else "an applied version"
    how = "add one and run `feature-store apply`; `plan` shows the changes first"
    return Item("Data 6", title, 0.5 if evidence.versions else 0.0, found, missing, how)


def _tested_code(evidence: Evidence) -> Item:
    title, code = "All input feature code is tested", evidence.tested_code
    if not code:
        found = "the project has no on-demand function and no SQL"
        if evidence.features:
            return Item("Data 7", title, 1.0, found)
        return Item("Data 7", title, 0.0, found, "features", "define views, and apply them")
    tested = [name for name, is_tested in code.items() if is_tested]
    found = f"tests of the project use {len(tested)} of {len(code)} on-demand functions and SQL views"
    if len(tested) == len(code):
        return Item("Data 7", title, 1.0, found)
    lacking = [name for name, is_tested in code.items() if not is_tested]
    how = "call the function with a few arrays in tests/test_*.py, next to the definitions"
    return Item("Data 7", title, 0.5 if tested else 0.0, found, f"tests for {_some(lacking)}", how)


def _dependencies(evidence: Evidence) -> Item:
    title, services = "Dependency changes result in notification", evidence.services
    with_models = [one for one in services if one.models]
    unowned = [view.name for view in evidence.views if not view.is_owned]
    unowned += [one.name for one in services if not one.is_owned]
    found = f"lineage reaches models from {len(with_models)} of {counted(len(services), 'service')}"
    found += "; `plan` shows the effect of a change, `history` its author" if evidence.versions else ""
    modelless = [one.name for one in services if not one.models]
    wants = [f"the models that read {_some(modelless)}"] if modelless else []
    wants += [f"an owner to notify for {_some(unowned)}"] if unowned else []
    if services and not wants:
        return Item("Monitoring 1", title, 1.0, f"{found}; every view and service has an owner")
    how = 'tags={"model": "ranker"} and owner= on services; `feature-store consumers VIEW:FEATURE` lists whom to notify'
    return Item("Monitoring 1", title, 0.5 if with_models else 0.0, found, "; ".join(wants) or "a service", how)


def _invariants(evidence: Evidence) -> Item:
    title = "Data invariants hold for inputs"
    if not evidence.features:
        return Item("Monitoring 2", title, 0.0, "no feature is applied", "features", "`feature-store apply`")
    unexpected = [one.name for one in evidence.features if not one.is_expected]
    files = counted(evidence.quarantined, "quarantine file")
    found = f"rows that do not fit their types are quarantined, and events dead-lettered, with the reason; {files}"
    found += f"; expectations of {len(evidence.features) - len(unexpected)} features are checked before a write"
    if not unexpected:
        return Item("Monitoring 2", title, 1.0, found)
    how = "set min=, max=, allowed= or max_null_rate= on fields; read the reasons in the quarantine"
    return Item("Monitoring 2", title, 0.5, found, f"invariants for {_some(unexpected)}", how)


def _skew(evidence: Evidence) -> Item:
    title, services = "Training and serving are not skewed", evidence.services
    recent = [one for one in services if one.skew_at is not None and evidence.at - one.skew_at <= RECENT]
    equal = [one for one in recent if not one.skew_differing]
    found = f"{len(recent)} of {counted(len(services), 'service')} were compared in the last {RECENT.days} days"
    found += f", {len(equal)} without differences" if recent else ""
    if services and len(equal) == len(services):
        return Item("Monitoring 3", title, 1.0, found)
    differing = [f"{one.name} ({one.skew_differing:,} values)" for one in recent if one.skew_differing]
    unseen = [one.name for one in services if one not in recent]
    wants = [f"equal values in {_some(differing)}"] if differing else []
    wants += [f"a comparison of {_some(unseen)}"] if unseen else []
    how = "run `feature-store skew --service …` regularly: it exits with 3 if values differ"
    return Item("Monitoring 3", title, 0.5 if recent else 0.0, found, "; ".join(wants) or "a service", how)


def _staleness(evidence: Evidence) -> Item:
    title, views = "Models are not too stale", evidence.views
    declared = [one for one in views if one.freshness_declared]
    stale = [one.name for one in declared if one.is_stale]
    unknown = [one.name for one in declared if one.is_stale is None]
    found = f"{len(declared)} of {counted(len(views), 'view')} declare a freshness"
    found += f"; stale: {_some(stale)}" if stale else ""
    undeclared = [one.name for one in views if not one.freshness_declared]
    wants = [f"a freshness for {_some(undeclared)}"] if undeclared else []
    wants += [f"fresh values in {_some(stale)}"] if stale else []
    wants += [f"a measurement of {_some(unknown)}: the online store cannot be read"] if unknown else []
    if views and not wants:
        return Item("Monitoring 4", title, 1.0, f"{found}; the model server must watch the age of the model itself")
    how = "set freshness=timedelta(…) on views, and monitor `feature-store freshness --metrics-port`"
    points: float = 0.5 if declared and len(stale) < len(declared) else 0.0
    return Item("Monitoring 4", title, points, found, "; ".join(wants) or "views", how)


def _some(names: Sequence[str]) -> str:
    """The first few names, and the number of others."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
