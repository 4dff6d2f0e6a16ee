"""Batch views over tables of events, and with SQL: accepted and refused arguments, documents, changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from feature_store.definitions import (
    Aggregation,
    Array,
    DefinitionSet,
    Entity,
    FeatureView,
    Field,
    Float32,
    Float64,
    Int64,
    ParquetSource,
    String,
)
from feature_store.errors import DefinitionError
from feature_store.registry.compile import compile_plan
from feature_store.registry.diff import plan_changes

HOURS = [timedelta(hours=1), timedelta(days=2)]
user = Entity("user", join_key="user_id")
events = ParquetSource(
    "events.parquet",
    event_timestamp="at",
    created_timestamp="made",
    schema=[Field("user_id", Int64), Field("price", Float32), Field("action", String)],
)


def aggregated(*aggregations: Aggregation, **options: Any) -> FeatureView:
    chosen = aggregations or (Aggregation("price", "mean", windows=HOURS),)
    return FeatureView("spending", **({"entities": [user], "source": events, "aggregations": chosen} | options))


def test_features_follow_from_the_aggregations() -> None:
    view = aggregated(
        Aggregation("price", "sum", windows=HOURS, filter="action == 'buy'"),
        Aggregation("price", "last_n", windows=HOURS[:1], n=2),
    )
    shown = [(field.name, field.dtype, field.default) for field in view.fields]
    assert shown == [
        ("price_sum_1h", Float64, 0.0),
        ("price_sum_2d", Float64, 0.0),
        ("price_last2_1h", Array(Float32), []),
    ]
    assert view.event_columns == {"price": Float32, "action": String}
    assert view.history is events
    (group,) = compile_plan(DefinitionSet([view]), project="p", version=1).groups
    assert not group.segments[0].created  # computed rows are created at their event time


def test_a_document_holds_aggregations_and_sql() -> None:
    rows = FeatureView("rows", entities=[user], source=events, sql="SELECT * FROM source", schema=[Field("a", Float64)])
    known = DefinitionSet([aggregated(), rows])
    document = json.loads(json.dumps(known.to_document()))
    again = DefinitionSet.from_document(document)
    assert again.view("spending") == known.view("spending")
    assert again.view("rows") == known.view("rows")
    assert plan_changes(again, known).is_empty


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: aggregated(source=None), "spending.*source: expected a batch source of events"),
        (lambda: aggregated(schema=[Field("a", Int64)]), "schema: a view with aggregations takes no schema"),
        (lambda: aggregated("mean"), r"aggregations\[0\]: expected an Aggregation"),
        (lambda: aggregated(Aggregation("cost", "sum", windows=HOURS)), "a column of events.parquet: user_id, price"),
        (lambda: aggregated(Aggregation("action", "sum", windows=HOURS)), "numbers for sum, got String"),
        (lambda: aggregated(Aggregation("action", "last", windows=HOURS)), "a fixed width for last"),
        (lambda: aggregated(Aggregation("price", "sum", windows=HOURS, filter="cost > 1")), "a column of events"),
        (lambda: aggregated(Aggregation("price", "sum", windows=HOURS, filter="action > 1")), "a value of String"),
        (lambda: aggregated(*[Aggregation("price", "sum", windows=HOURS)] * 2), "price_sum_1h' occurs twice"),
        (lambda: aggregated(entities=[Entity("shop")]), r"entities\[0\]: expected 'shop' \(Int64\) in the schema"),
        (lambda: FeatureView("v", entities=[user], schema=[Field("a", Int64)], sql="SELECT"), "no source to select from"),
        (
            lambda: ParquetSource("a", event_timestamp="at", schema=[Field("at", Int64)]),
            "is a timestamp of the source, not a column of its schema",
        ),
        (lambda: ParquetSource("a", event_timestamp="at", schema=[Field("x", Array(Int64))]), "a scalar type"),
        (lambda: ParquetSource("a", event_timestamp="at", schema=[Field("x", Int64)] * 2), "'x' occurs twice"),
    ],
)  # fmt: skip
def test_an_error_names_the_refused_part(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "effect", "reason"),
    [
        ({"aggregations": [Aggregation("price", "mean", windows=HOURS[:1])]}, "rewrites", "filled from the source"),
        (
            {"aggregations": [Aggregation("price", "mean", windows=HOURS, filter="action == 'buy'")]},
            "safe",
            "the next materialize computes all rows again",
        ),
        ({"sql": "SELECT * FROM source"}, "safe", "the next materialize selects all rows again"),
        ({"ttl": timedelta(days=1)}, "safe", "applied when rows are read"),
    ],
)
def test_a_plan_says_what_a_change_means(change: dict[str, Any], effect: str, reason: str) -> None:
    (found,) = plan_changes(DefinitionSet([aggregated()]), DefinitionSet([aggregated(**change)])).changes
    assert (found.effect, reason in found.reason) == (effect, True), found.reason


def test_two_changed_aggregations_are_two_changes() -> None:
    """Aggregations seldom have a name, though other lists are compared by names."""
    before = [Aggregation("price", function, windows=HOURS) for function in ("min", "max")]
    after = [Aggregation("price", function, windows=HOURS, filter="action == 'buy'") for function in ("min", "max")]
    (found,) = plan_changes(DefinitionSet([aggregated(*before)]), DefinitionSet([aggregated(*after)])).changes
    assert "max" in str(found.details)
    assert "min" in str(found.details)
