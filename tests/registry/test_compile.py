from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from feature_store.definitions import (
    DefinitionSet,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Int32,
    OnDemandFeatureView,
    RequestSource,
    String,
    Timestamp,
)
from feature_store.errors import NotFoundError, NotPublishedError
from feature_store.registry.compile import compile_plan
from feature_store.registry.plan_document import plan_from_json, plan_to_json
from feature_store.registry.serving_plan import ColumnPlan, FieldPlan, InputPlan, ServingPlan

user, movie = Entity("user", join_key="user_id"), Entity("movie", join_key="movie_id", dtype=String)
profile = FeatureView(
    "profile", entities=[user], ttl=timedelta(hours=1), schema=[Field("age", Int32, default=18), Field("w", Float32)]
)
taste = FeatureView("taste", entities=[user], schema=[Field("since", Timestamp)])
affinity = FeatureView("affinity", entities=[user, movie], schema=[Field("score", Float32, default=float("nan"))])


def birth_year(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"born": inputs["now_year"] - inputs["years"]}


born = OnDemandFeatureView(
    "born_view",
    sources=[profile[["age"]].rename({"age": "years"}), RequestSource("context", [Field("now_year", Int32)])],
    schema=[Field("born", Int32)],
    function=birth_year,
)
ranking = FeatureService("ranking", features=[born, affinity, profile[["w"]].rename({"w": "weight"})])


def compiled(*definitions: Any, version: int = 1, previous: ServingPlan | None = None, **options: Any) -> ServingPlan:
    return compile_plan(DefinitionSet(definitions), project="p", version=version, previous=previous, **options)


def test_views_of_the_same_entities_share_a_row() -> None:
    plan = compiled(taste, affinity, profile)
    assert {group.name: [segment.view for segment in group.segments] for group in plan.groups} == {
        "user": ["profile", "taste"],
        "user+movie": ["affinity"],
    }
    assert plan.group_of("affinity").join_keys == (("user_id", "Int64"), ("movie_id", "String"))
    assert plan.group_of("profile").segment("profile").ttl_us == 3_600_000_000
    assert plan.group_of("taste").segment("taste").ttl_us is None


def test_a_service_lists_its_columns_in_order_under_the_names_served() -> None:
    plan = compiled(profile, affinity, born, ranking)
    assert plan.service("ranking").columns == (
        ColumnPlan("born", "born_view", "born"),
        ColumnPlan("score", "affinity", "score"),
        ColumnPlan("weight", "profile", "w"),
    )


def test_a_transform_lists_stored_inputs_and_those_of_the_request() -> None:
    (transform,) = compiled(profile, born).transforms
    assert transform.inputs == (
        InputPlan("years", "profile", "age", "Int32", 18),
        InputPlan("now_year", "", "now_year", "Int32", None),
    )
    assert transform.outputs == (FieldPlan("born", "Int32", None),)


def test_a_plan_survives_its_document() -> None:
    plan = compiled(profile, taste, affinity, born, ranking, version=7, buckets=16, expire_keys=True)
    assert plan_from_json(plan_to_json(plan)) == plan


def test_definitions_from_a_document_compile_to_the_same_plan() -> None:
    made = DefinitionSet([profile, taste, affinity, born, ranking])
    stored = DefinitionSet.from_document(made.to_document())
    assert compile_plan(stored, project="p", version=1) == compile_plan(made, project="p", version=1)


@pytest.mark.parametrize(
    "document", [b"", b"{}", b'{"project": "p"}', b"[1]", b'{"project": "p", "version": 1, "format": 99}']
)
def test_a_document_of_another_format_is_refused(document: bytes) -> None:
    with pytest.raises(NotPublishedError):
        plan_from_json(document)


def test_a_plan_of_the_first_format_is_read_as_it_was_meant() -> None:
    plan = compiled(profile, taste, affinity, born, ranking)
    document = json.loads(plan_to_json(plan)) | {"format": 1}
    for group in document["groups"]:
        for segment in group["segments"]:
            assert segment.pop("created")
    assert plan_from_json(json.dumps(document).encode()) == replace(plan, format=1)


def test_an_unknown_view_or_service_is_an_error_that_lists_the_known() -> None:
    plan = compiled(profile, affinity, born, ranking)
    with pytest.raises(NotFoundError, match="ranking"):
        plan.service("rank")
    with pytest.raises(NotFoundError, match="affinity, "):
        plan.group_of("profiles")


def generations(plan: ServingPlan) -> dict[str, int]:
    return {group.name: group.generation for group in plan.groups}


def with_schema(*schema: Field) -> FeatureView:
    return FeatureView("profile", entities=[user], ttl=timedelta(hours=1), schema=schema)


@pytest.mark.parametrize(
    "changed",
    [
        FeatureView(
            "profile", entities=[user], schema=[Field("age", Int32), Field("w", Float32)]
        ),  # no ttl, no default
        FeatureView("profile", entities=[user], schema=profile.fields, description="about users"),
    ],
)
def test_a_generation_stays_while_the_bytes_stay_the_same(changed: FeatureView) -> None:
    before = compiled(profile, taste, affinity, version=3)
    after = compiled(changed, taste, affinity, version=4, previous=before)
    assert generations(after) == {"user": 3, "user+movie": 3}


@pytest.mark.parametrize(
    "views",
    [
        [with_schema(Field("age", Int32)), taste],
        [with_schema(Field("w", Float32), Field("age", Int32)), taste],
        [with_schema(Field("age", Timestamp), Field("w", Float32)), taste],
        [with_schema(Field("age", Int32), Field("w", Float32), Field("more", Int32)), taste],
        [profile],
        [profile, taste, FeatureView("third", entities=[user], schema=[Field("t", Int32)])],
    ],
)
def test_a_new_layout_changes_the_generation_of_its_row_group_only(views: list[FeatureView]) -> None:
    before = compiled(profile, taste, affinity, version=3)
    after = compiled(*views, affinity, version=4, previous=before)
    assert generations(after) == {"user": 4, "user+movie": 3}


def test_a_generation_number_is_never_used_again_for_another_layout() -> None:
    first = compiled(profile, version=1)
    second = compiled(with_schema(Field("age", Int32)), version=2, previous=first)
    third = compiled(profile, version=3, previous=second)
    assert [generations(plan)["user"] for plan in (first, second, third)] == [1, 2, 3]
