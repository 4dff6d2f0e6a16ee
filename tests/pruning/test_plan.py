"""Prune plans as documents: what they say about features, what they are bound to, and how verification changes them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from feature_store.definitions import DefinitionSet, Entity, FeatureService, FeatureView, Field, Float32, ParquetSource
from feature_store.errors import RequestError
from feature_store.pruning.budget import Budget
from feature_store.pruning.cost import cost_model
from feature_store.pruning.importance import FeatureImportance, Importances
from feature_store.pruning.plan import PrunePlan, make_plan, offered_instead, policy_pins, with_verification
from feature_store.pruning.verify import Candidate, Comparison, Verification

WORTH = {"a0": 5.0, "a1": 1.0, "a2": 0.0, "b0": 0.5, "b1": 0.25, "c0": 0.0}
REQUEST = {"user": 1, "movie": 10}


def world(**tags: dict[str, str]) -> DefinitionSet:
    user = Entity("user", join_key="user_id", tags=tags.get("user", {}))
    movie = Entity("movie", join_key="movie_id")
    source = ParquetSource("x.parquet", event_timestamp="at")

    def view(name: str, entity: Entity, count: int) -> FeatureView:
        fields = [Field(f"{name}{i}", Float32, tags=tags.get(f"{name}{i}", {})) for i in range(count)]
        return FeatureView(name, entities=[entity], source=source, schema=fields, tags=tags.get(name, {}))

    a, b, c = view("a", movie, 3), view("b", movie, 2), view("c", user, 1)
    services = FeatureService("ranking", features=[a, b, c]), FeatureService("cards", features=[a[["a2"]]])
    return DefinitionSet([user, movie, a, b, c, *services])


BASE = world()
MODEL = cost_model(BASE, "ranking", REQUEST)
IMPORTANCES = Importances(
    "measured",
    "Model",
    datetime(2026, 1, 1, tzinfo=UTC),
    tuple(FeatureImportance(name, value, 0.01) for name, value in WORTH.items()),
    noise=0.1,
)


def plan(budget: Budget = Budget(keep=0.8), **about) -> PrunePlan:  # noqa: B008
    return make_plan(BASE, MODEL, IMPORTANCES, budget, REQUEST, **about)


def test_a_plan_says_of_each_feature_why_it_stays_or_goes() -> None:
    made = plan()
    assert made.kept == ("a0", "a1") and made.dropped == ("a2", "b0", "b1", "c0")
    assert made.reasons["a0"].startswith("kept: importance 5 ± 0.01; 40 bytes alone")
    assert made.reasons["a2"].endswith("0 bytes alone; stays stored for cards")
    assert "keys alone" in made.reasons["c0"] and "ε" in made.reasons["c0"]
    assert made.importance == (6.75, 6.0) and made.proven
    assert made.after == MODEL.cost(["a0", "a1"]) and made.before == MODEL.cost(WORTH)


def test_candidates_lead_to_the_plan_step_by_step() -> None:
    made = plan()
    assert made.candidates[-1] == made.kept
    for more, less in zip(made.candidates, made.candidates[1:], strict=False):
        assert set(less) < set(more) < set(made.columns)
    assert set(made.columns) - set(made.candidates[0]) <= {"a2", "c0"}, "what is worth nothing goes first"


@pytest.mark.parametrize("where", ["user", "c", "c0"])
def test_tags_say_what_is_never_pruned(where: str) -> None:
    definitions = world(**{where: {"prune": "never"}})
    assert policy_pins(definitions, "ranking") == {"c0"}
    made = make_plan(definitions, MODEL, IMPORTANCES, Budget(keep=0.5), REQUEST)
    assert "c0" in made.kept and made.reasons["c0"].startswith("kept: required")


def test_a_document_is_read_as_it_was_written() -> None:
    made = plan(required=["b1"])
    again = PrunePlan.from_json(made.to_json())
    assert again == made and again.id == made.id
    with pytest.raises(RequestError, match="its id is not that of its features"):
        PrunePlan.from_json(made.to_json().replace(b'"kept": [\n    "a0",', b'"kept": [\n'))
    for text in (b"{}", b"[", made.to_json().replace(b'"format": 1', b'"format": 9')):
        with pytest.raises(RequestError, match="a document of format 1"):
            PrunePlan.from_json(text)


def test_an_id_is_of_what_is_kept_of_which_service() -> None:
    assert plan().id == plan(Budget(keep=0.85)).id
    assert plan().id != plan(required=["b0"]).id
    assert plan().id != replace(plan(), bound_to="other").id


def verification(made: PrunePlan, passing: int) -> Verification:
    """A verification that the first `passing` candidates pass."""
    candidates = tuple(
        Candidate(kept, Comparison(0.8, 0.79, -0.01, -0.02, i < passing), {}) for i, kept in enumerate(made.candidates)
    )
    return Verification(candidates, 0.002, 0.95, "auc", (0, 1), 1000, 70, 30, 10)


def test_a_plan_that_passes_is_verified() -> None:
    made = plan()
    found = verification(made, len(made.candidates))
    assert not made.is_verified and with_verification(made, found).is_verified
    assert offered_instead(made, MODEL, IMPORTANCES, found) is None
    assert PrunePlan.from_json(with_verification(made, found).to_json()).is_verified


def test_of_a_plan_that_goes_too_far_the_largest_part_that_passes_is_offered() -> None:
    made = plan()
    found = verification(made, 1)
    refused = with_verification(made, found)
    assert not refused.is_verified and refused.id == made.id
    instead = offered_instead(made, MODEL, IMPORTANCES, found)
    assert instead is not None and instead.is_verified
    assert instead.kept == made.candidates[0] and instead.candidates[-1] == instead.kept
    assert instead.after == MODEL.cost(instead.kept)
    back = next(name for name in instead.kept if name not in made.kept)
    assert instead.reasons[back].startswith("kept:") and "a plan without it did not pass" in instead.reasons[back]


def test_where_nothing_passes_nothing_is_offered() -> None:
    made = plan()
    found = verification(made, 0)
    assert not with_verification(made, found).is_verified
    assert offered_instead(made, MODEL, IMPORTANCES, found) is None
    assert "no feature can be dropped" in found.reason


def test_what_keeps_everything_drops_nothing() -> None:
    made = plan(Budget(max_bytes=10**9))
    assert set(made.columns) - set(made.kept) <= {"a2", "c0"}, "of equal importance the cheapest is taken"
    all_of_it = plan(Budget(keep=1.0), required=WORTH)
    assert all_of_it.dropped == () and all_of_it.candidates == (all_of_it.columns,)
