"""The definitions that remain after pruning."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from feature_store.definitions import (
    Aggregation,
    DefinitionSet,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Float64,
    Int64,
    KafkaSource,
    OnDemandFeatureView,
    ParquetSource,
    StreamFeatureView,
)
from feature_store.definitions.pruned import pruned, pruning_of, refuse_unbound, service_digest
from feature_store.errors import ConflictError, DefinitionError

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
user = Entity("user", join_key="user_id")
profile = FeatureView(
    "profile",
    entities=[user],
    source=ParquetSource("p.parquet", event_timestamp="at"),
    schema=[Field("age", Int64, default=30), Field("height", Float32), Field("shared", Float32)],
)
lonely = FeatureView(
    "lonely", entities=[user], source=ParquetSource("l.parquet", event_timestamp="at"), schema=[Field("x", Float32)]
)
history = ParquetSource("clicks.parquet", event_timestamp="ts")
columns = [Field("user_id", Int64), Field("n", Float64)]
clicks = KafkaSource("clicks", topic="c", event_timestamp="ts", history=history, schema=columns)
activity = StreamFeatureView(
    "activity",
    entities=[user],
    source=clicks,
    aggregations=[Aggregation("n", "mean", windows=[HOUR, DAY]), Aggregation("n", "count", windows=[DAY])],
)
ratio = OnDemandFeatureView(
    "ratio",
    schema=[Field("per_height", Float32), Field("squared", Float32)],
    projections=[profile[["height"]]],
    requests=[],
    function="m:f",
    digest="1",
)
ranking = FeatureService("ranking", features=[profile.project().rename({"shared": "common"}), lonely, activity, ratio])
other = FeatureService("other", features=[profile[["shared"]]])
BASE = DefinitionSet([user, profile, lonely, activity, ratio, ranking, other])


def after(*dropped: str, stage: Any = "drop", of: DefinitionSet = BASE) -> DefinitionSet:
    return pruned(of.with_prunings([pruning_of(of, "ranking", dropped, plan="p1", stage=stage)]))


def fields(definitions: DefinitionSet) -> dict[str, list[str]]:
    return {view.name: [field.name for field in view.fields] for view in definitions.stored_views}


def test_a_feature_is_dropped_unless_another_service_needs_it() -> None:
    left = after("age", "common")
    assert fields(left)["profile"] == ["height", "shared"], "other serves shared"
    assert [served for one in left.service("ranking").features for _, served in one.columns] == [
        "height", "x", "n_mean_1h", "n_mean_1d", "n_count_1d", "per_height", "squared"
    ]  # fmt: skip
    assert left.service("other").features == other.features


def test_windows_are_dropped_and_an_aggregation_with_its_last_window() -> None:
    left = after("n_mean_1h", "n_count_1d").stream_feature_views["activity"]
    assert [(one.function, one.windows) for one in left.aggregations] == [("mean", (DAY,))]
    assert [field.name for field in left.fields] == ["n_mean_1d"]


def test_a_view_is_dropped_with_its_last_feature() -> None:
    assert "lonely" not in after("x").feature_views
    assert not after("n_mean_1h", "n_mean_1d", "n_count_1d").stream_feature_views


def test_features_that_could_not_be_filled_again_stay_stored() -> None:
    pushed = FeatureView("pushed", entities=[user], schema=[Field("p", Float32)])
    live = StreamFeatureView(
        "live",
        entities=[user],
        source=KafkaSource("live_clicks", topic="c", event_timestamp="ts", schema=columns),
        aggregations=[Aggregation("n", "sum", windows=[DAY])],
    )
    ranking = FeatureService("ranking", features=[lonely, pushed, live])
    left = after("p", "n_sum_1d", of=DefinitionSet([user, lonely, pushed, live, ranking]))
    assert set(left.feature_views) == {"lonely", "pushed"}
    assert set(left.stream_feature_views) == {"live"}
    assert [one.view for one in left.service("ranking").features] == ["lonely"]


def test_an_input_is_dropped_with_the_last_feature_computed_from_it() -> None:
    assert "height" in fields(after("height"))["profile"], "per_height is computed of it"
    assert "height" in fields(after("height", "per_height"))["profile"], "squared too"
    left = after("height", "per_height", "squared")
    assert "height" not in fields(left)["profile"]
    assert not left.on_demand_feature_views


@pytest.mark.parametrize("stage", ["shadow", "mask"])
def test_shadowed_and_masked_features_stay_stored(stage: str) -> None:
    left = after("x", "per_height", "squared", stage=stage)
    assert fields(left) == fields(BASE)
    served = [name for one in left.service("ranking").features for _, name in one.columns]
    assert ("x" in served) == (stage == "shadow")


def test_a_feature_masked_in_one_service_stays_stored_when_another_drops_it() -> None:
    both = BASE.with_prunings(
        [
            pruning_of(BASE, "ranking", ["common"], plan="p1", stage="drop"),
            pruning_of(
                DefinitionSet([*BASE, FeatureService("third", features=[profile])]), "third", ["shared"], plan="p2",
                stage="mask",
            ),
        ]
    )  # fmt: skip
    third = DefinitionSet([*both, FeatureService("third", features=[profile])], both.prunings.values())
    assert "shared" in fields(pruned(third))["profile"]


def test_documents_hold_prunings_only_if_there_are_any() -> None:
    definitions = BASE.with_prunings([pruning_of(BASE, "ranking", ["age"], plan="p1", stage="mask", answer="default")])
    again = DefinitionSet.from_document(definitions.to_document())
    assert again.prunings == definitions.prunings
    assert again.prunings["ranking"].dropped[0].default == 30
    assert "prunings" not in BASE.to_document()


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        ([], "at least 1"),
        (["ages"], "expected a feature of ranking, got ages"),
        (
            ["age", "height", "common", "x", "n_mean_1h", "n_mean_1d", "n_count_1d", "per_height", "squared"],
            "no feature of .* would be left",
        ),
    ],
)
def test_an_impossible_pruning_is_refused(dropped: list[str], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        pruning_of(BASE, "ranking", dropped, plan="p1", stage="mask")


def changed(view: Any, **changes: Any) -> DefinitionSet:
    document = BASE.to_document()
    kind = next(kind for kind, items in document.items() if view.name in items)
    document[kind][view.name] |= changes
    return DefinitionSet.from_document(document)


@pytest.mark.parametrize(
    "definitions",
    [
        changed(ranking, features=[one.model_dump() for one in ranking.features[:-1]]),
        changed(ranking, features=[one.model_dump() for one in reversed(ranking.features)]),
        changed(profile, source={"path": "other.parquet", "event_timestamp": "at"}),
        changed(ratio, digest="2"),
        changed(activity, aggregations=[one.model_dump(mode="json") for one in reversed(activity.aggregations)]),
    ],
)
def test_a_plan_does_not_fit_a_service_whose_features_changed_meaning(definitions: DefinitionSet) -> None:
    pruning = pruning_of(BASE, "ranking", ["age"], plan="p1", stage="mask")
    with pytest.raises(ConflictError, match="prune plan p1 of service ranking"):
        refuse_unbound(definitions, pruning)


def test_a_plan_fits_after_changes_of_descriptions_and_other_services() -> None:
    pruning = pruning_of(BASE, "ranking", ["age"], plan="p1", stage="mask")
    refuse_unbound(changed(profile, description="Who they are.", owner="me", tags={"a": "b"}), pruning)
    refuse_unbound(DefinitionSet([*BASE, FeatureService("third", features=[profile])]), pruning)
    refuse_unbound(changed(profile, freshness=3_600_000_000), pruning)
    refuse_unbound(changed(profile, on_breach="warn"), pruning)
    assert service_digest(BASE, "ranking") != service_digest(BASE, "other")
