"""A stream view of every function, merges of events into it, and its expected windows (by naive.py)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np

from feature_store.aggregates.deltas import deltas
from feature_store.definitions import (
    Aggregation,
    DefinitionSet,
    Entity,
    FeatureService,
    Field,
    Float64,
    Int64,
    KafkaSource,
    StreamFeatureView,
    String,
)
from feature_store.online import keys
from feature_store.online.codec import object_column
from feature_store.online.tile_writer import Advances, Merge, TileWriter
from feature_store.registry.compile import compile_plan
from feature_store.registry.serving_plan import ServingPlan
from tests.aggregates.naive import naive

SECOND_US = 1_000_000
NOW_US = 1_700_000_000_000_000
SHORT, LONG = timedelta(minutes=1), timedelta(hours=1)
FUNCTIONS = ("count", "sum", "mean", "min", "max", "stddev", "first", "last", "distinct")

user = Entity("user", join_key="user_id")
shop = Entity("shop", join_key="shop_id", dtype=String)
source = KafkaSource(
    "clicks",
    topic="clicks",
    event_timestamp="ts",
    schema=[Field("user_id", Int64), Field("shop_id", String), Field("price", Float64), Field("action", String)],
)
activity = StreamFeatureView(
    "activity",
    entities=[user],
    source=source,
    aggregations=[
        *(Aggregation("price", function, windows=[SHORT, LONG]) for function in FUNCTIONS),
        Aggregation("price", "last_n", windows=[LONG], n=3),
        Aggregation("price", "sum", windows=[LONG], filter="action == 'buy'", name="bought"),
    ],
)
by_shop = StreamFeatureView(
    "by_shop", entities=[shop, user], source=source, aggregations=[Aggregation("price", "mean", windows=[LONG])]
)
everything = FeatureService("everything", features=[activity])
shops = FeatureService("shops", features=[by_shop])

Event = dict[str, Any]


def plan_of(**options: Any) -> ServingPlan:
    definitions = DefinitionSet([activity, by_shop, everything, shops])
    return compile_plan(definitions, project="test", version=1, **options)


def merge_events(
    writer: TileWriter, events: list[Event], advances: Advances, only: int | None = None
) -> list[list[int]]:
    """Merge events into a view, one call for each bucket or only for `only`. Returns each bucket's late records."""
    joined = [tuple(event[name] for name, _ in writer.layout.join_keys) for event in events]
    distinct = list(dict.fromkeys(joined))
    entities = np.array([distinct.index(key) for key in joined], np.intp)
    columns = {
        name: (
            object_column([event[name] for event in events])
            if name == "action"
            else np.array([0.0 if event[name] is None else event[name] for event in events], np.float64),
            np.array([event[name] is None for event in events], bool),
        )
        for name in ("price", "action")
    }
    found = deltas(writer.layout.tiles, entities, np.array([event["ts"] for event in events], np.int64), columns)
    encoded = keys.encode(
        writer.dtypes,
        [
            object_column(column) if dtype.width is None else np.array(column, dtype.numpy)
            for column, dtype in zip(zip(*distinct, strict=True), writer.dtypes, strict=True)
        ],
    )
    buckets = np.array(keys.buckets_of(encoded, writer.buckets))
    late = []
    for bucket in range(writer.buckets) if only is None else [only]:
        places = np.flatnonzero(buckets[found.entities] == bucket)
        owners, counts = np.unique(found.entities[places], return_counts=True)
        chosen = [encoded[i] for i in owners.tolist()]
        late.append(writer.merge(Merge(bucket, chosen, counts, found.records[places], advances)))
    return late


def expected(view: StreamFeatureView, events: list[Event], key: tuple[Any, ...], now_us: int) -> dict[str, Any]:
    """The expected features of an entity, computed straight from its events."""
    keyed = [event | {"entity": tuple(event[name] for name in view.join_keys)} for event in events]
    return {
        aggregation.feature_name(window): naive(aggregation, window, keyed, key, now_us)
        for aggregation in view.aggregations
        for window in aggregation.windows
    }
