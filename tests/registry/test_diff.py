from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from feature_store.definitions import (
    DefinitionSet,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Int32,
    Int64,
    OnDemandFeatureView,
    ParquetSource,
    String,
)
from feature_store.definitions.definition import Definition
from feature_store.registry.changes import DefinitionChange
from feature_store.registry.compile import compile_plan
from feature_store.registry.diff import plan_changes

user, movie = Entity("user", join_key="user_id"), Entity("movie", join_key="movie_id")
DAY = timedelta(days=1)
SOURCES = [
    None,
    ParquetSource("a", event_timestamp="at"),
    ParquetSource("b", event_timestamp="at"),
    ParquetSource("a", event_timestamp="at", created_timestamp="made"),
]


def view(name: str = "profile", *, entities: Any = (user,), schema: Any = None, **about: Any) -> FeatureView:
    return FeatureView(name, entities=entities, schema=schema or [Field("a", Int32), Field("b", Float32)], **about)


def changes(old: list[Definition] | None, new: list[Definition]) -> dict[str, DefinitionChange]:
    plan = plan_changes(None if old is None else DefinitionSet(old), DefinitionSet(new))
    return {change.name: change for change in plan.changes}


def paths(change: DefinitionChange) -> dict[str, tuple[Any, Any]]:
    return {detail.path: (detail.before, detail.after) for detail in change.details}


def test_the_first_apply_creates_everything_safely() -> None:
    found = changes(None, [view(), FeatureService("ranking", features=[view()])])
    assert {name: (change.action, change.effect) for name, change in found.items()} == {
        "user": ("create", "safe"),
        "profile": ("create", "safe"),
        "ranking": ("create", "safe"),
    }


def test_the_same_definitions_are_no_change() -> None:
    plan = plan_changes(DefinitionSet([view()]), DefinitionSet.from_document(DefinitionSet([view()]).to_document()))
    assert plan.is_empty
    assert str(plan).startswith("No changes")


@pytest.mark.parametrize(
    ("old", "new", "path", "before", "after"),
    [
        ({"ttl": DAY}, {"ttl": 2 * DAY}, "ttl", 86_400_000_000, 172_800_000_000),
        ({}, {"ttl": DAY}, "ttl", None, 86_400_000_000),
        ({}, {"freshness": DAY}, "freshness", None, 86_400_000_000),
        ({}, {"on_breach": "warn"}, "on_breach", None, "warn"),
        (
            {"schema": [Field("a", Int32), Field("b", Float32)]},
            {"schema": [Field("a", Int32, min=3), Field("b", Float32)]},
            "schema.a.min",
            None,
            3,
        ),
        ({"owner": "ada"}, {"owner": "bob"}, "owner", "ada", "bob"),
        ({"tags": {"team": "x"}}, {"tags": {"team": "y"}}, "tags.team", "x", "y"),
        (
            {"source": ParquetSource("a", event_timestamp="ts")},
            {"source": ParquetSource("b", event_timestamp="ts")},
            "source.path",
            "a",
            "b",
        ),
        (
            {"schema": [Field("a", Int32), Field("b", Float32)]},
            {"schema": [Field("a", Int32, default=3), Field("b", Float32)]},
            "schema.a.default",
            None,
            3,
        ),
    ],
)
def test_changes_that_keep_stored_rows_are_safe_and_listed(
    old: dict[str, Any], new: dict[str, Any], path: str, before: Any, after: Any
) -> None:
    change = changes([view(**old)], [view(**new)])["profile"]
    assert (change.action, change.effect) == ("update", "safe")
    assert change.reason
    assert paths(change) == {path: (before, after)}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ([Field("a", Int64), Field("b", Float32)], "schema.a.dtype"),
        ([Field("a", Int32), Field("b", Float32), Field("c", Int32)], "schema.c"),
        ([Field("c", Int32), Field("a", Int32), Field("b", Float32)], "schema.c"),
        ([Field("a", Int32)], "schema.b"),
        ([Field("b", Float32), Field("a", Int32)], "schema"),
    ],
)
def test_a_changed_field_rewrites_the_row_and_is_listed_by_name(schema: list[Field], path: str) -> None:
    change = changes([view(source=SOURCES[1])], [view(schema=schema, source=SOURCES[1])])["profile"]
    assert change.effect == "rewrites"
    assert list(paths(change)) == [path]
    is_kept = {("a", Int32), ("b", Float32)} <= {(field.name, field.dtype) for field in schema}
    pushed = changes([view()], [view(schema=schema)])["profile"]
    assert pushed.effect == ("rewrites" if is_kept else "destructive"), "what was pushed has no source"


@pytest.mark.parametrize(
    ("old", "new", "effect"),
    [
        (SOURCES[1], SOURCES[3], "rewrites"),
        (SOURCES[3], SOURCES[1], "rewrites"),
        (SOURCES[0], SOURCES[1], "rewrites"),
        (SOURCES[0], SOURCES[3], "safe"),
        (SOURCES[1], SOURCES[2], "safe"),
    ],
)
def test_a_row_is_rewritten_when_it_gains_or_loses_created_timestamps(old: Any, new: Any, effect: str) -> None:
    assert changes([view(source=old)], [view(source=new)])["profile"].effect == effect


def test_an_order_that_changes_together_with_a_default_is_still_seen() -> None:
    change = changes([view()], [view(schema=[Field("b", Float32), Field("a", Int32, default=1)])])["profile"]
    assert change.effect == "rewrites"
    assert paths(change) == {"schema.a.default": (None, 1), "schema": (["a", "b"], ["b", "a"])}


def test_a_view_that_joins_or_leaves_a_row_rewrites_it_and_the_first_and_last_do_not() -> None:
    first, second, other = view(), view("second"), view("other", entities=[user, movie])
    assert changes([first], [first, second])["second"].effect == "rewrites"
    assert changes([first, second], [first])["second"].effect == "destructive"
    assert changes([first], [first, other])["other"].effect == "safe"
    assert changes([first, other], [first])["other"].effect == "destructive"
    replaced = {name: change.effect for name, change in changes([first], [second]).items()}
    assert replaced == {"profile": "destructive", "second": "rewrites"}


def test_a_change_of_a_views_entities_is_refused_with_a_hint() -> None:
    change = changes([view(entities=[user])], [view(entities=[movie])])["profile"]
    assert change.effect == "refused"
    assert "another name" in change.reason
    assert changes([view(entities=[user, movie])], [view(entities=[movie, user])])["profile"].effect == "refused"


@pytest.mark.parametrize("about", [{"join_key": "uid"}, {"join_key": "user_id", "dtype": String}])
def test_a_change_of_an_entitys_key_is_refused_while_rows_are_stored(about: dict[str, Any]) -> None:
    change = changes([view()], [view(entities=[Entity("user", **about)])])["user"]
    assert change.effect == "refused"
    assert "profile" in change.reason
    assert changes([user], [Entity("user", **about)])["user"].effect == "safe"


def test_a_description_of_an_entity_is_safe() -> None:
    described = Entity("user", join_key="user_id", description="who asks")
    assert changes([view()], [view(entities=[described])])["user"].effect == "safe"


def double(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"doubled": inputs["a"] * 2}


def triple(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"doubled": inputs["a"] * 3}


def test_services_and_on_demand_views_store_nothing() -> None:
    def project(function: Any, columns: list[str]) -> list[Definition]:
        computed = OnDemandFeatureView(
            "computed", sources=[view()[["a"]]], schema=[Field("doubled", Int32)], function=function
        )
        return [view(), computed, FeatureService("ranking", features=[view()[columns], computed])]

    found = changes(project(double, ["a", "b"]), project(triple, ["b", "a"]))
    assert {name: change.effect for name, change in found.items()} == {"computed": "safe", "ranking": "destructive"}
    assert [str(detail) for detail in found["ranking"].details] == ["a: column 1 -> 2", "b: column 2 -> 1"]
    assert set(paths(found["computed"])) == {"function", "digest"}


def service(*features: Any, **about: Any) -> FeatureService:
    return FeatureService("ranking", features=features, **about)


def test_a_change_of_a_service_lists_its_columns() -> None:
    a, b = view(), view("second", schema=[Field("c", Int32), Field("d", Int32)])

    def told(old: Any, new: Any, views: Any = (a, b)) -> tuple[str, list[str]]:
        (change,) = (one for one in plan_changes(DefinitionSet([a, b, old]), DefinitionSet([*views, new])).changes
                     if one.kind == "FeatureService")  # fmt: skip
        return change.effect, [f"{detail.sign} {detail}" for detail in change.details]

    assert told(service(a), service(a, b[["c"]])) == ("safe", ["+ second:c (column 3)"])
    assert told(service(b), service(a[["a"]], b)) == ("safe", ["+ profile:a (column 1)"])
    assert told(service(a, b), service(a)) == ("destructive", ["- second:c (column 3)", "- second:d (column 4)"])
    renamed = b[["c"]].rename({"c": "e"})
    assert told(service(b[["c"]]), service(renamed)) == (
        "destructive",
        ["- second:c (column 1)", "+ second:c as e (column 1)"],
    )
    swapped = b[["d"]].rename({"d": "c"})
    assert told(service(b[["c"]]), service(swapped)) == ("destructive", ["~ c: feature second:c -> second:d"])
    assert told(service(a), service(a[["b", "a"]]))[0] == "destructive"
    described = service(a, description="who ranks")
    assert told(service(a), described) == ("safe", ["~ description:  -> who ranks"])
    wider = view("second", schema=[Field("c", Int64), Field("d", Int32)])
    assert told(service(b), service(b), (a, wider)) == ("destructive", ["~ c: dtype Int32 -> Int64"])


def test_a_change_that_breaks_readers_names_them_and_an_alternative() -> None:
    old = DefinitionSet([view(), service(view())])
    new = DefinitionSet([view(), service(view()[["b"]].rename({"b": "bee"}))])
    readers = {"ranking": ["model ranker-7"]}
    (change,) = plan_changes(old, new, readers).changes
    assert change.effect == "destructive"
    assert "known readers: model ranker-7" in change.reason
    assert 'add FeatureService("ranking_v2", features=[profile[["b"]].rename({"b": "bee"})])' in change.hint
    (gone,) = plan_changes(old, DefinitionSet([view()]), readers).changes
    assert (gone.effect, "model ranker-7" in gone.reason) == ("destructive", True)
    (unknown,) = plan_changes(old, new).destructive
    assert "known readers" not in unknown.reason
    tagged = DefinitionSet([view(), service(view(), tags={"model": "ranker-8"})])
    (gone,) = plan_changes(tagged, DefinitionSet([view()]), readers).changes
    assert gone.reason.endswith("known readers: model ranker-8, model ranker-7")


def test_the_plan_is_shown_line_by_line_with_a_summary() -> None:
    old = DefinitionSet([view(ttl=DAY), view("gone", entities=[movie])])
    new = DefinitionSet([view(ttl=2 * DAY, schema=[Field("a", Int64), Field("b", Float32)]), view("more")])
    lines = str(plan_changes(old, new)).splitlines()
    assert any(line.startswith("~ update FeatureView profile  (destructive: ") for line in lines)
    assert any(line.startswith("+ create FeatureView more  (rewrites: ") for line in lines)
    assert any(line.startswith("- delete FeatureView gone  (destructive: ") for line in lines)
    assert "    ~ schema.a.dtype: Int32 -> Int64" in lines
    assert "    ~ ttl: 1 day, 0:00:00 -> 2 days, 0:00:00" in lines
    assert lines[-1].startswith(
        "Plan: 1 to create, 1 to change, 2 to delete; 1 rewrite data, 2 destructive, 0 refused."
    )


def test_the_plan_is_a_json_document() -> None:
    document = plan_changes(DefinitionSet([view()]), DefinitionSet([view(ttl=DAY)])).to_document()
    (change,) = json.loads(json.dumps(document))["changes"]
    assert change["details"] == [{"path": "ttl", "before": None, "after": 86_400_000_000}]


# -- whatever the change: what the plan says of stored rows is what compile_plan does to them --------------------

fields = st.lists(
    st.builds(
        Field, st.sampled_from(["x", "y", "z"]), st.sampled_from([Int32, Int64]), default=st.sampled_from([None, 1])
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda field: field.name,
)


@st.composite
def projects(draw: st.DrawFn) -> DefinitionSet:
    keys = draw(st.sampled_from([Int64, Int64, Int64, String]))
    who = Entity("who", dtype=keys, description=draw(st.sampled_from(["", "who asks"])))
    what = Entity("what")
    made = [
        FeatureView(
            name,
            entities=draw(st.sampled_from([[who], [who], [what], [who, what]])),
            schema=draw(fields),
            ttl=draw(st.sampled_from([None, DAY])),
            source=draw(st.sampled_from(SOURCES)),
        )
        for name in draw(st.sets(st.sampled_from(["a", "b", "c"]), min_size=1))
    ]
    return DefinitionSet(made)


@given(projects(), projects())
@settings(max_examples=500)
def test_changes_rewrite_exactly_the_rows_that_get_a_new_generation(old: DefinitionSet, new: DefinitionSet) -> None:
    plan = plan_changes(old, new)
    assert plan.is_empty == (old.to_document() == new.to_document())
    served = compile_plan(old, project="p", version=1)
    generations = {group.name: group.generation for group in served.groups}
    target = compile_plan(new, project="p", version=2, previous=served)
    renewed = {group.name for group in target.groups if group.generation != generations.get(group.name, 2)}
    if plan.refused:
        return

    def group_of(name: str) -> str:
        found = new.feature_views.get(name) or old.feature_views[name]
        return "+".join(entity.name for entity in found.entities)

    effects: dict[str, set[str]] = {"rewrites": set(), "destructive": set()}
    for change in plan.changes:
        if change.effect in effects:
            effects[change.effect].add(group_of(change.name))
    assert effects["rewrites"] <= renewed <= effects["rewrites"] | effects["destructive"]
    assert set(plan.rewritten) == renewed
