"""The graph of definitions against loops over projections, and values that are read or derived once."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from feature_store.definitions import (
    DefinitionSet,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Int64,
    OnDemandFeatureView,
    ParquetSource,
    RequestSource,
)
from feature_store.definitions.graph import graph_of
from feature_store.definitions.pruned import pruned, pruning_of
from feature_store.errors import NotFoundError

user, movie = Entity("user", join_key="user_id"), Entity("movie", join_key="movie_id")
source = ParquetSource("x.parquet", event_timestamp="at")


def view(name: str, entities: list[Entity], count: int) -> FeatureView:
    return FeatureView(
        name, entities=entities, source=source, schema=[Field(f"{name}{i}", Float32) for i in range(count)]
    )


a, b = view("a", [user], 3), view("b", [user, movie], 2)
both = OnDemandFeatureView(
    "both",
    schema=[Field("sum", Float32), Field("ratio", Float32)],
    projections=[a[["a0"]].rename({"a0": "x"}), b[["b1"]]],
    requests=[RequestSource("now", schema=[Field("hour", Int64)])],
    function="m:f",
    digest="1",
)
columns = [f"{one.name}:{field.name}" for one in (a, b, both) for field in one.fields]


@st.composite
def sets(draw: st.DrawFn) -> DefinitionSet:
    """Definitions of up to three services with some features, renamed or not, some of them pruned."""
    services = []
    for number in range(draw(st.integers(1, 3))):
        chosen = draw(st.lists(st.sampled_from(columns), min_size=2, unique=True))
        renamed = draw(st.booleans())
        features = []
        for reference in chosen:
            name, feature = reference.split(":")
            taken = {"a": a, "b": b, "both": both}[name][[feature]]
            features.append(taken.rename({feature: f"{feature}_{number}"}) if renamed else taken)
        services.append(FeatureService(f"s{number}", features=features))
    made = DefinitionSet([a, b, both, *services])
    prunings = []
    for service in services:
        names = [name for one in service.features for _, name in one.columns]
        dropped = draw(st.lists(st.sampled_from(names), max_size=len(names) - 1, unique=True))
        if dropped:
            stage: Any = draw(st.sampled_from(["shadow", "mask", "drop"]))
            prunings.append(pruning_of(made, service.name, dropped, plan=f"p{service.name}", stage=stage))
    return made.with_prunings(prunings)


def served(definitions: DefinitionSet, service: str) -> list[tuple[str, str, str]]:
    """The columns of a service, by a loop over its projections."""
    return [(name, one.view, feature) for one in definitions.service(service).features for feature, name in one.columns]


@given(sets())
def test_the_graph_agrees_with_loops_over_projections(definitions: DefinitionSet) -> None:
    graph = graph_of(definitions)
    direct: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for service in definitions.feature_services:
        assert [(one.name, one.view, one.feature) for one in graph.columns(service)] == served(definitions, service)
        assert all(
            one.field == definitions.servable_view(one.view).field(one.feature) for one in graph.columns(service)
        )
        for name, of, feature in served(definitions, service):
            direct.setdefault((of, feature), []).append((service, name))
    for reference, feature in graph.features.items():
        key = (feature.view.name, feature.field.name)
        assert feature.consumers == tuple(direct.get(key, ())), reference
        assert graph.services_with(*key) == tuple(dict.fromkeys(service for service, _ in feature.consumers))
        assert feature.inputs_of == (("both",) if key in {("a", "a0"), ("b", "b1")} else ())
        through = [one for one in graph.consumers(*key) if one.through is not None]
        of_both = [item for name in ("sum", "ratio") for item in direct.get(("both", name), ())]
        wanted = (of_both or [(None, {"a0": "x", "b1": "b1"}[key[1]])]) if feature.inputs_of else []
        assert sorted((str(one.service), one.name) for one in through) == sorted((str(s), name) for s, name in wanted)


@given(sets())
def test_a_consumer_is_pruned_when_its_column_is_not_served(definitions: DefinitionSet) -> None:
    left = pruned(definitions)
    for service in definitions.feature_services:
        kept = {name for name, _, _ in served(left, service)}
        for column in graph_of(definitions).columns(service):
            one = next(
                item
                for item in graph_of(definitions).consumers(*column.key)
                if (item.service, item.name, item.through) == (service, column.name, None)
            )
            assert (one.pruned_by is None) == (column.name in kept)


@given(sets())
def test_stored_features_are_those_still_needed_or_never_needed(definitions: DefinitionSet) -> None:
    needs = {"sum": [("a", "a0"), ("b", "b1")], "ratio": [("a", "a0"), ("b", "b1")]}

    def needed(service: str, names: set[str]) -> set[tuple[str, str]]:
        return {
            stored
            for name, of, feature in served(definitions, service)
            if name in names
            for stored in (needs[feature] if of == "both" else [(of, feature)])
        }

    before, after = set(), set()
    for service in definitions.feature_services:
        every = {name for name, _, _ in served(definitions, service)}
        pruning = definitions.prunings.get(service)
        drops = pruning is not None and pruning.stage == "drop"
        before |= needed(service, every)
        after |= needed(service, set(pruning.kept) if drops and pruning is not None else every)
    stored = {(one.name, field.name) for one in definitions.stored_views for field in one.fields}
    left = {(one.name, field.name) for one in pruned(definitions).stored_views for field in one.fields}
    assert left == stored - (before - after)
    again = DefinitionSet.from_document(pruned(definitions).to_document())
    assert again.to_document() == pruned(definitions).to_document(), "what is left is a set like any other"


@given(sets(), sets())
def test_reading_with_like_gives_equal_definitions(one: DefinitionSet, other: DefinitionSet) -> None:
    document = json.loads(json.dumps(one.to_document()))
    assert document == one.to_document()
    beside, alone = DefinitionSet.from_document(document, like=other), DefinitionSet.from_document(document)
    assert list(beside) == list(alone) and beside.prunings == alone.prunings
    assert beside.to_document() == alone.to_document() == document
    assert beside.feature_views["a"] is other.feature_views["a"], "equal: not read again"


def test_a_view_is_reused_only_with_its_entities() -> None:
    old = DefinitionSet([a, FeatureService("s", features=[a])])
    described = Entity("user", join_key="user_id", description="who")
    new = DefinitionSet([view("a", [described], 3), FeatureService("s", features=[a])])
    read = DefinitionSet.from_document(old.to_document(), like=new)
    assert read.entities["user"] == user and read.feature_views["a"] == a


def test_a_document_is_the_callers_own() -> None:
    definitions = DefinitionSet([a])
    kept = copy.deepcopy(definitions.to_document())
    definitions.to_document()["feature_views"]["a"]["schema"].clear()
    assert definitions.to_document() == kept


def test_derived_values_are_made_once_and_not_shared_with_other_prunings() -> None:
    definitions = DefinitionSet([a, b, both, FeatureService("s", features=[a, both])])
    assert graph_of(definitions) is graph_of(definitions)
    assert pruned(definitions) is definitions, "nothing is pruned"
    dropped = definitions.with_prunings([pruning_of(definitions, "s", ["a1"], plan="p", stage="drop")])
    assert graph_of(dropped) is not graph_of(definitions)
    assert pruned(dropped) is pruned(dropped)
    assert pruned(dropped).feature_views["b"] is b, "what no plan touches stays the same object"


def test_requests_and_entities() -> None:
    graph = graph_of(DefinitionSet([a, b, both, FeatureService("s", features=[both])]))
    assert graph.entities_of == {"a": ("user",), "b": ("user", "movie"), "both": ("user", "movie")}
    assert graph.request_of("both") == {"user_id": "Int64", "movie_id": "Int64", "hour": "Int64"}
    assert graph.request_of_service("s") == graph.request_of("both")
    assert graph.entities_of_service("s") == ("user", "movie")
    with pytest.raises(NotFoundError, match="a feature service"):
        graph.columns("other")
    assert graph.field("a", "nothing") is None and graph.field("nothing", "a0") is None
