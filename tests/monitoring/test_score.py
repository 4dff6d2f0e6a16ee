from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from feature_store.monitoring.score import Evidence, FeatureEvidence, ServiceEvidence, ViewEvidence, score_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FEATURE = FeatureEvidence(
    "v:a", is_owned=True, is_described=True, is_deprecated=False, is_expected=True, services=("s",)
)
VIEW = ViewEvidence("v", is_owned=True, says_privacy=True, personal=(), freshness_declared=True, is_stale=False)
SERVICE = ServiceEvidence(
    "s",
    is_owned=True,
    models=("m",),
    importances="refits",
    importances_cover=True,
    plan="p1",
    is_settled=True,
    skew_at=NOW - timedelta(days=1),
)
BEST = Evidence(
    at=NOW,
    features=(FEATURE,),
    views=(VIEW,),
    services=(SERVICE,),
    tested_code={"double": True},
    versions=3,
    added_features=1,
    quarantined=0,
)
NOTHING = Evidence(NOW, (), (), (), {}, 0, 0, 0)


def points(evidence: Evidence) -> dict[str, float]:
    return {item.id: item.points for item in score_of(evidence).items}


def changed(id: str, part: str, **values: Any) -> Any:
    """A case for parametrize: the best evidence, except for one feature, view or service."""
    one = {"features": FEATURE, "views": VIEW, "services": SERVICE}[part]
    return id, replace(BEST, **{part: (replace(one, **values),)})


def test_the_best_and_the_least() -> None:
    assert points(BEST) == {f"Data {i}": 1.0 for i in range(1, 8)} | {f"Monitoring {i}": 1.0 for i in range(1, 5)}
    assert set(points(NOTHING).values()) == {0.0}
    assert score_of(BEST).sections == {"Data": (7.0, 7, 7), "Monitoring": (4.0, 4, 7)}


def test_an_item_below_a_point_says_what_is_missing_and_how_to_add_it() -> None:
    for evidence in (BEST, NOTHING, replace(BEST, services=()), replace(BEST, views=()), replace(BEST, features=())):
        for item in score_of(evidence).items:
            assert item.found
            assert bool(item.missing) == bool(item.how) == (item.points < 1), item


@pytest.mark.parametrize(
    ("case", "expected", "says"),
    [
        (changed("Data 2", "services", importances="", importances_cover=False), 0.0, "importances for s"),
        (changed("Data 2", "services", importances_cover=False), 0.5, "importances for s"),
        (changed("Data 2", "services", useless=("a",)), 0.5, "pruning: s:a is within the noise"),
        (changed("Data 3", "services", plan="", is_settled=False), 0.0, "an applied plan for s"),
        (changed("Data 3", "services", is_settled=False), 0.5, "an applied plan for s"),
        (changed("Data 4", "features", is_owned=False), 0.0, "owner and a description for v:a"),
        (changed("Data 4", "features", is_deprecated=True), 0.5, "without the deprecated v:a"),
        (changed("Data 5", "views", says_privacy=False), 0.0, "privacy tags for v"),
        (("Data 6", replace(BEST, added_features=0)), 0.5, "a version that added a feature"),
        (("Data 7", replace(BEST, tested_code={"a": True, "b": False})), 0.5, "tests for b"),
        (("Data 7", replace(BEST, tested_code={"b": False})), 0.0, "tests for b"),
        (changed("Monitoring 1", "services", models=()), 0.0, "the models that read s"),
        (changed("Monitoring 1", "views", is_owned=False), 0.5, "an owner to notify for v"),
        (changed("Monitoring 3", "services", skew_at=None), 0.0, "a comparison of s"),
        (changed("Monitoring 3", "services", skew_at=NOW - timedelta(days=31)), 0.0, "a comparison of s"),
        (changed("Monitoring 3", "services", skew_differing=4), 0.5, "equal values in s (4 values)"),
        (changed("Monitoring 4", "views", freshness_declared=False, is_stale=None), 0.0, "a freshness for v"),
        (changed("Monitoring 4", "views", is_stale=True), 0.0, "fresh values in v"),
        (changed("Monitoring 4", "views", is_stale=None), 0.5, "cannot be read"),
    ],
)
def test_what_is_missing_costs_points_in_its_place_alone(
    case: tuple[str, Evidence], expected: float, says: str
) -> None:
    id, evidence = case
    assert {name: value for name, value in points(evidence).items() if value != points(BEST)[name]} == {id: expected}
    assert says in next(item.missing for item in score_of(evidence).items if item.id == id)


def test_a_type_alone_is_half_of_what_can_be_expected() -> None:
    found = points(replace(BEST, features=(FEATURE, replace(FEATURE, name="v:b", is_expected=False))))
    assert (found["Data 1"], found["Monitoring 2"]) == (0.5, 0.5)


def test_no_code_of_ones_own_needs_no_tests() -> None:
    assert points(replace(BEST, tested_code={}))["Data 7"] == 1.0


def test_half_for_a_part() -> None:
    other = replace(VIEW, name="w", says_privacy=False, freshness_declared=False)
    found = points(replace(BEST, views=(VIEW, other)))
    assert (found["Data 5"], found["Monitoring 4"]) == (0.5, 0.5)


def test_of_many_names_a_few_are_shown() -> None:
    many = tuple(replace(FEATURE, name=f"v:{i}", is_described=False) for i in range(50))
    missing = score_of(replace(BEST, features=many)).items[3].missing
    assert missing.endswith("v:4 and 45 more")


def test_as_a_document() -> None:
    document = score_of(BEST).to_document()
    assert document["sections"]["Monitoring"] == {"points": 4.0, "seen": 4, "tests": 7}
    assert len(document["items"]) == 11
