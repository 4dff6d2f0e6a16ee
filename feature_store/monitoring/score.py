"""The ML Test Score, as far as a feature store can tell it: the tests of data, and four of the tests of monitoring.

Breck, Cai, Nielsen, Salib, Sculley (2017): The ML Test Score: A Rubric for ML Production Readiness and Technical Debt
Reduction. https://doi.org/10.1109/BigData.2017.8258038

A test earns half a point when it is done by hand and written down, and a point when a system does it again and again.
Here: half a point when it is done for a part, or is not seen to be done by a system; a point when it is done for all.
A section's score is the sum of its tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from feature_store._formatting import counted

# The tests of each section of the rubric.
WHOLE = 7
# A comparison that is older says little of what is served today.
RECENT = timedelta(days=30)
# Of some names, how many are shown.
_SHOWN = 5


@dataclass(frozen=True)
class FeatureEvidence:
    """What is known of a feature, `view:feature`.

    Attributes:
        name: of it.
        is_owned, is_described: it or its view has an owner; it has a description.
        is_deprecated: its tag `deprecated` says so.
        is_expected: something is expected of its values, or of what it is computed of.
        services: that get it.
    """

    name: str
    is_owned: bool
    is_described: bool
    is_deprecated: bool
    is_expected: bool
    services: tuple[str, ...]


@dataclass(frozen=True)
class ViewEvidence:
    """What is known of a stored view.

    Attributes:
        name: of it.
        is_owned: it has an owner.
        says_privacy: it, its entities or all its fields say whether they are personal.
        personal: its features that are.
        freshness_declared: it declares one.
        is_stale: it is older than that; None: not known.
    """

    name: str
    is_owned: bool
    says_privacy: bool
    personal: tuple[str, ...]
    freshness_declared: bool
    is_stale: bool | None


@dataclass(frozen=True)
class ServiceEvidence:
    """What is known of a service.

    Attributes:
        name: of it.
        is_owned: it has an owner.
        models: that it is for.
        importances: how those of its features were found; empty: they are not known.
        importances_cover: whether there is one for each of its features.
        useless: its features that are worth no more than chance, and are served.
        plan: the newest prune plan; empty: there is none.
        is_settled: what the plan drops is not served, or it drops nothing.
        skew_at: when it was last compared with the offline data.
        skew_differing: values that differed then.
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
    """What is known of a project.

    Attributes:
        at: the time of it, UTC.
        features, views, services: that are applied; views are those that are stored.
        tested_code: of the on-demand functions and of views with SQL, whether a test of the project names them.
        versions: that were applied.
        added_features: how many of them, after the first, added features.
        quarantined: files of rows that did not fit.
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
        id: its section and number there.
        title: the paper's.
        points: 0, 0.5 or 1.
        found: the evidence.
        missing: to a point; empty: nothing.
        how: to get it.
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
        """Per section the points, out of how many tests that are seen here, out of how many that there are."""
        found: dict[str, tuple[float, int, int]] = {}
        for item in self.items:
            section = item.id.partition(" ")[0]
            points, seen, whole = found.get(section, (0.0, 0, WHOLE))
            found[section] = points + item.points, seen + 1, whole
        return found

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
    found = f"{counted(len(evidence.features), 'feature')} declare a type, against which every row and event is checked"
    found += f"; of {len(evidence.features) - len(unexpected)}, values too are expected, or those they are computed of"
    if not unexpected:
        return Item("Data 1", title, 1.0, found)
    how = "say min=, max=, allowed= or max_null_rate= of fields"
    return Item("Data 1", title, 0.5, found, f"what values are expected of {_some(unexpected)}", how)


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
        hint = "`feature-store prune measure`, or `prune import` what the model says"
        return Item("Data 2", title, 0.5 if partly else 0.0, found, missing, hint)
    if useless:
        missing = f"{_some(useless)} {'is' if len(useless) == 1 else 'are'} worth no more than chance"
        return Item("Data 2", title, 0.5, found, missing, "`feature-store prune plan`, `verify`, `apply`")
    return Item("Data 2", title, 1.0, found)


def _cost(evidence: Evidence) -> Item:
    title, services = "No feature's cost is too much", evidence.services
    planned = [one for one in services if one.plan]
    settled = [one for one in planned if one.is_settled]
    found = f"a prune plan weighs what features cost for {len(planned)} of {counted(len(services), 'service')}"
    how = "`feature-store prune show` tells costs; `prune plan` with a budget, `verify`, `apply`"
    if services and len(settled) == len(services):
        return Item("Data 3", title, 1.0, f"{found}, and is served")
    lacking = [one.name for one in services if not one.is_settled]
    missing = f"a plan that is served for {_some(lacking)}" if services else "a service"
    return Item("Data 3", title, 0.5 if planned else 0.0, found, missing, how)


def _requirements(evidence: Evidence) -> Item:
    title, features = "Features adhere to meta-level requirements", evidence.features
    meeting = [one for one in features if one.is_owned and one.is_described]
    deprecated = [one.name for one in features if one.is_deprecated and one.services]
    found = f"{len(meeting)} of {counted(len(features), 'feature')} have an owner and a description"
    lacking = [one.name for one in features if not (one.is_owned and one.is_described)]
    wants = [f"an owner and a description of {_some(lacking)}"] if lacking else []
    wants += [f"services without the deprecated {_some(deprecated)}"] if deprecated else []
    if features and not wants:
        return Item("Data 4", title, 1.0, f"{found}; no service gets one that is tagged deprecated")
    how = "say description= and owner= of fields or views; take deprecated features out of services"
    points: float = 0.5 if features and len(meeting) * 2 >= len(features) else 0.0
    return Item("Data 4", title, points, found, "; ".join(wants) or "features", how)


def _privacy(evidence: Evidence) -> Item:
    title, views = "The data pipeline has appropriate privacy controls", evidence.views
    saying = [one for one in views if one.says_privacy]
    personal = sum(len(one.personal) for one in views)
    found = (
        f"{len(saying)} of {counted(len(views), 'view')} say whether they are personal; {personal} features are; "
        "`feature-store delete` forgets an entity, and no secret is kept in the registry"
    )
    if views and len(saying) == len(views):
        return Item("Data 5", title, 1.0, found)
    lacking = [one.name for one in views if not one.says_privacy]
    missing = f"a word on {_some(lacking)}" if views else "views"
    how = 'tag views, entities or fields: tags={"pii": "yes"} or "no"'
    return Item("Data 5", title, 0.5 if saying else 0.0, found, missing, how)


def _new_features(evidence: Evidence) -> Item:
    title = "New features can be added quickly"
    found = (
        f"{counted(evidence.versions, 'version')}, of which {evidence.added_features} added "
        "features to what was there; `apply` fills a new layout while the old one is served"
    )
    if evidence.added_features:
        return Item("Data 6", title, 1.0, found)
    missing = "a version that added a feature to a project in use" if evidence.versions else "an applied version"
    how = "add one and `feature-store apply`: `plan` says before what it would do"
    return Item("Data 6", title, 0.5 if evidence.versions else 0.0, found, missing, how)


def _tested_code(evidence: Evidence) -> Item:
    title, code = "All input feature code is tested", evidence.tested_code
    if not code:
        found = "no code of the project's own: no on-demand function, no SQL"
        if evidence.features:
            return Item("Data 7", title, 1.0, found)
        return Item("Data 7", title, 0.0, found, "features", "define views, and apply them")
    tested = [name for name, is_tested in code.items() if is_tested]
    found = f"tests of the project name {len(tested)} of {len(code)} on-demand functions and SQL views"
    if len(tested) == len(code):
        return Item("Data 7", title, 1.0, found)
    lacking = [name for name, is_tested in code.items() if not is_tested]
    how = "call the function with a few arrays in tests/test_*.py beside the definitions"
    return Item("Data 7", title, 0.5 if tested else 0.0, found, f"tests of {_some(lacking)}", how)


def _dependencies(evidence: Evidence) -> Item:
    title, services = "Dependency changes result in notification", evidence.services
    with_models = [one for one in services if one.models]
    unowned = [view.name for view in evidence.views if not view.is_owned]
    unowned += [one.name for one in services if not one.is_owned]
    found = f"lineage goes on to models from {len(with_models)} of {counted(len(services), 'service')}"
    found += "; `plan` says what a change means, `history` who made it" if evidence.versions else ""
    modelless = [one.name for one in services if not one.models]
    wants = [f"the models of {_some(modelless)}"] if modelless else []
    wants += [f"an owner, to be told, of {_some(unowned)}"] if unowned else []
    if services and not wants:
        return Item("Monitoring 1", title, 1.0, f"{found}; every view and service has an owner")
    how = 'tags={"model": "ranker"} and owner= on services; `feature-store consumers VIEW:FEATURE` says whom to tell'
    return Item("Monitoring 1", title, 0.5 if with_models else 0.0, found, "; ".join(wants) or "a service", how)


def _invariants(evidence: Evidence) -> Item:
    title = "Data invariants hold for inputs"
    if not evidence.features:
        return Item("Monitoring 2", title, 0.0, "no feature is applied", "features", "`feature-store apply`")
    unexpected = [one.name for one in evidence.features if not one.is_expected]
    files = counted(evidence.quarantined, "quarantine file")
    found = f"rows that do not fit their types are quarantined, events dead-lettered, with the reason; {files} here"
    found += (
        f"; what is expected of {len(evidence.features) - len(unexpected)} features is checked before it is written"
    )
    if not unexpected:
        return Item("Monitoring 2", title, 1.0, found)
    how = "say min=, max=, allowed= or max_null_rate= of fields; read the quarantine's reasons"
    return Item("Monitoring 2", title, 0.5, found, f"invariants of {_some(unexpected)}", how)


def _skew(evidence: Evidence) -> Item:
    title, services = "Training and serving are not skewed", evidence.services
    recent = [one for one in services if one.skew_at is not None and evidence.at - one.skew_at <= RECENT]
    equal = [one for one in recent if not one.skew_differing]
    found = f"{len(recent)} of {counted(len(services), 'service')} compared in the last {RECENT.days} days"
    found += f", {len(equal)} without a difference" if recent else ""
    if services and len(equal) == len(services):
        return Item("Monitoring 3", title, 1.0, found)
    differing = [f"{one.name} ({one.skew_differing:,} values)" for one in recent if one.skew_differing]
    unseen = [one.name for one in services if one not in recent]
    wants = [f"equal values in {_some(differing)}"] if differing else []
    wants += [f"a comparison of {_some(unseen)}"] if unseen else []
    how = "`feature-store skew --service …`, again and again: its exit code says when something differs"
    return Item("Monitoring 3", title, 0.5 if recent else 0.0, found, "; ".join(wants) or "a service", how)


def _staleness(evidence: Evidence) -> Item:
    title, views = "Models are not too stale", evidence.views
    declared = [one for one in views if one.freshness_declared]
    stale = [one.name for one in declared if one.is_stale]
    unknown = [one.name for one in declared if one.is_stale is None]
    found = f"{len(declared)} of {counted(len(views), 'view')} declare how fresh their features must be"
    found += f"; older than that: {_some(stale)}" if stale else ""
    undeclared = [one.name for one in views if not one.freshness_declared]
    wants = [f"freshness declared by {_some(undeclared)}"] if undeclared else []
    wants += [f"fresh values in {_some(stale)}"] if stale else []
    wants += [f"a measurement of {_some(unknown)}: the online store cannot be asked"] if unknown else []
    if views and not wants:
        return Item("Monitoring 4", title, 1.0, f"{found}; a model's own age is its server's to watch")
    how = "say freshness=timedelta(…) on views, and watch `feature-store freshness --metrics-port`"
    points: float = 0.5 if declared and len(stale) < len(declared) else 0.0
    return Item("Monitoring 4", title, points, found, "; ".join(wants) or "views", how)


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
