"""Changes of stream views: their effects in `plan`, and the compiled generations."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from feature_store.definitions import (
    Aggregation,
    DefinitionSet,
    Entity,
    Field,
    Float32,
    Float64,
    Int64,
    KafkaSource,
    ParquetSource,
    StreamFeatureView,
    String,
)
from feature_store.registry.changes import DefinitionChange
from feature_store.registry.compile import compile_plan
from feature_store.registry.diff import plan_changes
from feature_store.registry.serving_plan import ServingPlan

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
user, shop = Entity("user", join_key="user_id"), Entity("shop", join_key="shop", dtype=String)
FIELDS = [Field("user_id", Int64), Field("shop", String), Field("price", Float64), Field("action", String)]
SUM = Aggregation("price", "sum", windows=[HOUR])
COUNT = Aggregation("price", "count", windows=[HOUR])
DAILY = Aggregation("price", "sum", windows=[DAY])
BOUGHT = Aggregation("price", "sum", windows=[HOUR], filter="action == 'buy'", name="bought")


def source(**changed: Any) -> KafkaSource:
    known: dict[str, Any] = {"topic": "clicks", "event_timestamp": "ts", "schema": FIELDS}
    return KafkaSource("clicks", **(known | changed))


def view(*aggregations: Aggregation, entities: Any = (user,), of: KafkaSource | None = None, **about: Any) -> Any:
    made = aggregations or (SUM, COUNT)
    return StreamFeatureView("clicks", entities=entities, source=of or source(), aggregations=made, **about)


def change(old: StreamFeatureView, new: StreamFeatureView) -> DefinitionChange:
    """The change of the view, as `plan` shows it."""
    (found,) = (
        change
        for change in plan_changes(DefinitionSet([old]), DefinitionSet([new])).changes
        if change.kind == "StreamFeatureView"
    )
    return found


def compiled(view: StreamFeatureView, version: int = 1, previous: ServingPlan | None = None) -> ServingPlan:
    return compile_plan(DefinitionSet([view]), project="p", version=version, previous=previous)


def generation(old: StreamFeatureView, new: StreamFeatureView) -> int:
    """The generation of the tiles after version 1 with the old view and version 2 with the new one."""
    return compiled(new, 2, compiled(old)).tiles[0].generation


REWRITES = {
    "a window": view(Aggregation("price", "sum", windows=[DAY]), COUNT),
    "one more window": view(Aggregation("price", "sum", windows=[HOUR, DAY]), COUNT),
    "a hop": view(Aggregation("price", "sum", windows=[HOUR], hop=MINUTE), COUNT),
    "a filter": view(Aggregation("price", "sum", windows=[HOUR], filter="action == 'buy'"), COUNT),
    "one more aggregation": view(SUM, COUNT, BOUGHT),
    "one aggregation less": view(SUM),
    "another function": view(SUM, Aggregation("price", "max", windows=[HOUR])),
    # Tiles keep their parts in the order of the aggregations.
    "the order of aggregations": view(COUNT, SUM),
    "a topic": view(of=source(topic="taps")),
    "the member of the event time": view(of=source(event_timestamp="sent")),
    "the unit of the event time": view(of=source(timestamp_unit="s")),
    "the type of a column": view(of=source(schema=[*FIELDS[:2], Field("price", Float32), FIELDS[3]])),
}
SAFE = {
    "the name of a feature": view(SUM, Aggregation("price", "count", windows=[HOUR], name="clicked")),
    "a mean beside the sum and the count that it is of": view(SUM, COUNT, Aggregation("price", "mean", windows=[HOUR])),
    "a history": view(of=source(history=ParquetSource("clicks.parquet", event_timestamp="ts"))),
    "a member that is not aggregated": view(of=source(schema=[*FIELDS, Field("page", String)])),
    "a description": view(description="what users look at"),
}


@pytest.mark.parametrize("new", REWRITES.values(), ids=REWRITES)
def test_changes_of_tiles_rewrite_them_in_a_new_generation(new: StreamFeatureView) -> None:
    found = change(view(), new)
    assert (found.action, found.effect) == ("update", "rewrites")
    assert "filled from the history and the topic" in found.reason
    assert found.details
    assert generation(view(), new) == 2
    assert generation(new, view()) == 2, "and back"


@pytest.mark.parametrize("new", SAFE.values(), ids=SAFE)
def test_changes_that_keep_tiles_are_safe_and_keep_the_generation(new: StreamFeatureView) -> None:
    found = change(view(), new)
    assert (found.action, found.effect) == ("update", "safe")
    assert found.details
    assert generation(view(), new) == 1


def test_the_plan_shows_the_changed_attributes_of_the_source() -> None:
    found = change(view(), view(of=source(event_timestamp="sent", timestamp_unit="s")))
    assert {str(detail) for detail in found.details} == {
        "source.event_timestamp: ts -> sent",
        "source.timestamp_unit: ms -> s",
    }


def test_changed_entities_are_refused_and_a_removed_view_is_destructive() -> None:
    assert change(view(), view(entities=[shop])).effect == "refused"
    assert change(view(entities=[user, shop]), view(entities=[shop, user])).effect == "refused"
    nothing, something = DefinitionSet([user]), DefinitionSet([view()])
    for old, new, action in (
        (nothing, something, "create"),
        (something, nothing, "delete"),
        (None, something, "create"),
    ):
        (found,) = (one for one in plan_changes(old, new).changes if one.kind == "StreamFeatureView")
        assert (found.action, found.effect) == (action, "destructive" if action == "delete" else "safe")


def test_a_plan_without_event_time_causes_no_rewrite() -> None:
    published = compiled(view())
    known = replace(published, tiles=(replace(published.tiles[0], event_time=None),))
    assert compiled(view(), 2, known).tiles == published.tiles


aggregations = st.lists(st.sampled_from([SUM, COUNT, DAILY, BOUGHT]), min_size=1, unique_by=id)
sources = st.builds(
    source,
    topic=st.sampled_from(["clicks", "taps"]),
    event_timestamp=st.sampled_from(["ts", "sent"]),
    timestamp_unit=st.sampled_from(["ms", "us"]),
)
views = st.builds(lambda made, of: view(*made, of=of), aggregations, sources)


@given(views, views)
def test_changes_rewrite_exactly_the_tiles_that_get_a_new_generation(
    old: StreamFeatureView, new: StreamFeatureView
) -> None:
    if old == new:
        assert generation(old, new) == 1
    else:
        assert (change(old, new).effect == "rewrites") == (generation(old, new) == 2)
