"""The costs of resources, summed, against the layouts compiled from the pruned definitions."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, strategies as st

from feature_store.definitions import (
    Aggregation,
    Array,
    Bool,
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
    String,
)
from feature_store.definitions.graph import graph_of
from feature_store.definitions.pruned import pruning_of
from feature_store.errors import RequestError
from feature_store.online.layout import RowLayout
from feature_store.online.tile_layout import TileValueLayout
from feature_store.pruning.cost import VARIABLE_BYTES, cost_model
from feature_store.registry.compile import compile_plan

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
REQUEST = {"user": 1, "movie": 7}
user, movie = Entity("user", join_key="user_id"), Entity("movie", join_key="movie_id")


def parquet(path: str, created: str | None = None) -> ParquetSource:
    return ParquetSource(path, event_timestamp="at", created_timestamp=created)


wide = FeatureView(
    "wide",
    entities=[movie],
    source=parquet("w", "made"),
    schema=[*(Field(f"w{i}", [Float32, Float64, Bool, Array(Float32, 3)][i % 4]) for i in range(18)), Field("text", String)],
)  # fmt: skip
more = FeatureView("more", entities=[movie], source=parquet("m"), schema=[Field(f"m{i}", Int64) for i in range(3)])
pair = FeatureView("pair", entities=[user, movie], source=parquet("p"), schema=[Field("p0", Float32)])
pushed = FeatureView("pushed", entities=[user], schema=[Field("q0", Float32), Field("q1", Float32)])
about = FeatureView("about", entities=[user], source=parquet("a"), schema=[Field("a0", Float32), Field("a1", Bool)])
clicks = KafkaSource(
    "clicks",
    topic="c",
    event_timestamp="ts",
    history=ParquetSource("c", event_timestamp="ts"),
    schema=[Field("user_id", Int64), Field("movie_id", Int64), Field("n", Float64), Field("k", Float64)],
)
live = StreamFeatureView(
    "live",
    entities=[user],
    source=clicks,
    aggregations=[
        Aggregation("n", "mean", windows=[HOUR, DAY]),
        Aggregation("n", "count", windows=[HOUR]),
        Aggregation("k", "stddev", windows=[DAY]),
        Aggregation("k", "sum", windows=[DAY, 2 * DAY, 3 * DAY], hop=HOUR),
        Aggregation("n", "max", windows=[DAY], hop=HOUR),
    ],
)
seen = StreamFeatureView(
    "seen", entities=[movie], source=clicks, aggregations=[Aggregation("k", "last_n", n=5, windows=[DAY])]
)
gap = OnDemandFeatureView(
    "gap",
    schema=[Field("g0", Float32), Field("g1", Float32)],
    projections=[wide[["w0", "w1"]], live[["n_mean_1h"]]],
    requests=[],
    function="m:f",
    digest="1",
)
ranking = FeatureService(
    "ranking",
    features=[wide, more, pair, pushed, about[["a1"]], live, seen, gap],
)
other = FeatureService("other", features=[wide[["w3", "w5"]], live[["n_count_1h", "k_sum_2d"]], more[["m1"]]])
BASE = DefinitionSet([user, movie, wide, more, pair, pushed, about, live, seen, gap, ranking, other])
NAMES = [column.name for column in graph_of(BASE).columns("ranking")]
MODEL = cost_model(BASE, "ranking", REQUEST, project="shop")


def framing(prefix: bytes, size: int) -> int:
    return len(b"$%d\r\n%b\r\n" % (len(prefix), prefix)) + len(b"$%d\r\n\r\n" % size)


def compiled_cost(definitions: DefinitionSet, kept: set[str]) -> tuple[int, int]:
    """Bytes and keys of a request under the plan that is compiled without the features that are not kept."""
    full = compile_plan(definitions, project="shop", version=1)
    dropped = [name for name in NAMES if name not in kept]
    pruning = [pruning_of(definitions, "ranking", dropped, plan="p", stage="drop")] if dropped else []
    left = definitions.with_prunings([*definitions.prunings.values(), *pruning])
    plan = compile_plan(left, project="shop", version=1)
    needed = graph_of(definitions).needed_by("ranking", kept)
    total = keys = 0
    for group in plan.groups:
        if {segment.view for segment in group.segments} & {view for view, _ in needed}:
            count = max(REQUEST[name] for name in group.entities)
            layout, was = RowLayout(group), RowLayout(next(one for one in full.groups if one.name == group.name))
            total += count * (framing(layout.prefix("shop", 0), was.size) + layout.size)
            keys += count
            if ("wide", "text") in needed and group.name == "movie":
                total += count * (framing(layout.prefix("shop", 0) + b"wide:", VARIABLE_BYTES) + VARIABLE_BYTES)
                keys += count
    for tiles in plan.tiles:
        if tiles.view in {view for view, _ in needed}:
            count = REQUEST[tiles.entities[0]]
            was_tiles = TileValueLayout(next(one for one in full.tiles if one.view == tiles.view))
            total += count * (framing(was_tiles.prefix("shop", 0), was_tiles.size) + TileValueLayout(tiles).size)
            keys += count
    return total, keys


def test_a_full_service_costs_what_its_layouts_say() -> None:
    cost = MODEL.cost(NAMES)
    assert (cost.bytes, cost.keys) == compiled_cost(BASE, set(NAMES))
    assert cost.features == len(NAMES)


@given(st.sets(st.sampled_from(NAMES), min_size=1))
def test_what_is_kept_costs_what_its_layouts_say(kept: set[str]) -> None:
    cost = MODEL.cost(kept)
    assert (cost.bytes, cost.keys) == compiled_cost(BASE, kept)


@given(st.sets(st.sampled_from(NAMES), min_size=1), st.sampled_from(["mask", "drop"]))
def test_what_another_service_drops_does_not_count(kept: set[str], stage) -> None:
    pruning = pruning_of(BASE, "other", ["w5", "k_sum_2d"], plan="o", stage=stage)
    definitions = BASE.with_prunings([pruning])
    cost = cost_model(definitions, "ranking", REQUEST, project="shop").cost(kept)
    assert (cost.bytes, cost.keys) == compiled_cost(definitions, kept)


def test_nothing_costs_nothing() -> None:
    cost = MODEL.cost([])
    assert (cost.bytes, cost.keys, cost.features) == (0, 0, 0)


def test_what_a_feature_costs_alone_is_what_goes_with_it() -> None:
    assert MODEL.alone("p0").keys == 7, "its row group goes"
    assert MODEL.alone("m1").bytes == 0, "another service needs it"
    assert MODEL.alone("q0").bytes == 0, "it is pushed, and so stays stored"
    assert MODEL.alone("m0").bytes == 7 * 8


def test_a_request_says_how_many_of_each_entity() -> None:
    with pytest.raises(RequestError, match="expected the number of movie entities, got user"):
        cost_model(BASE, "ranking", {"user": 1})
