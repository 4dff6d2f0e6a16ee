"""Small projects for the tests of the online store, their data, and an oracle that is slow and obviously right."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np

from feature_store.definitions import (
    Array,
    Bool,
    DefinitionSet,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Float64,
    Int32,
    Int64,
    ParquetSource,
    String,
    Timestamp,
)
from feature_store.definitions.dtypes import MICROSECOND, from_microseconds
from feature_store.online import OnlineStore
from feature_store.online.batch import RowBatch, Values
from feature_store.online.codec import object_column
from feature_store.registry.compile import compile_plan

HOUR_US = 3_600_000_000
NOW_US = 1_700_000_000_000_000

user = Entity("user", join_key="user_id")
movie = Entity("movie", join_key="movie_id")
shop = Entity("shop", join_key="shop_id", dtype=String)

every_type = FeatureView(
    "every_type",
    entities=[movie],
    ttl=timedelta(hours=10),
    schema=[
        Field("flag", Bool),
        Field("small", Int32, default=-1),
        Field("large", Int64),
        Field("single", Float32),
        Field("double", Float64, default=0.5),
        Field("when", Timestamp),
        Field("title", String),
        Field("vector", Array(Float32, 3)),
        Field("ragged", Array(Int64)),
        Field("words", Array(String), default=["none"]),
    ],
)
numbers = FeatureView(
    "numbers", entities=[movie], schema=[Field("a", Float32), Field("b", Float32, default=7.0), Field("c", Int32)]
)
# A source without created times: of rows with one event time, the last written counts.
profile = FeatureView(
    "profile",
    entities=[user],
    ttl=timedelta(hours=1),
    source=ParquetSource("profile.parquet", event_timestamp="at"),
    schema=[Field("age", Int32), Field("score", Float32)],
)
affinity = FeatureView("affinity", entities=[user, movie], schema=[Field("likes", Float32)])
by_name = FeatureView("by_name", entities=[shop, user], schema=[Field("visits", Int32)])

VIEWS = {view.name: view for view in (every_type, numbers, profile, affinity, by_name)}


def plan_of(
    *services: FeatureService, project: str = "test", version: int = 1, views: Any = None, **options: Any
) -> Any:
    chosen = list(VIEWS.values()) if views is None else views
    return compile_plan(DefinitionSet([*chosen, *services]), project=project, version=version, **options)


def batch(view: FeatureView, rows: list[dict[str, Any]]) -> RowBatch:
    """Rows as dicts of Python values (`event_ts`, `created_ts` in microseconds) → a batch."""
    columns = {}
    for field_ in view.fields:
        values = [row.get(field_.name) for row in rows]
        nulls = np.array([value is None for value in values])
        dtype = field_.dtype
        if dtype.width is None:
            stored = [None if value is None else dtype.to_stored(value) for value in values]
            columns[field_.name] = Values(object_column(stored), nulls)
            continue
        blank = [0] * dtype.size if dtype.element else 0
        listed = [blank if value is None else dtype.to_stored(value) for value in values]
        shape = (len(rows), dtype.length) if dtype.length else (len(rows),)
        columns[field_.name] = Values(np.array(listed, dtype.numpy).reshape(shape), nulls)
    keys = {}
    for entity in view.entities:
        values = [row[entity.join_key] for row in rows]
        keys[entity.join_key] = (
            object_column(values) if entity.dtype == String else np.array(values, entity.dtype.numpy)
        )
    times = np.array([row["event_ts"] for row in rows], np.int64)
    created = np.array([row.get("created_ts", row["event_ts"]) for row in rows], np.int64)
    return RowBatch(keys, times, created, columns)


def write(store: OnlineStore, view: FeatureView, rows: list[dict[str, Any]]) -> Any:
    with store.writer(view.name) as writer:
        return writer.write(batch(view, rows))


def _order(view: FeatureView, row: dict[str, Any]) -> tuple[int, ...]:
    if view.source is not None and view.source.created_timestamp is None:
        return (row["event_ts"],)
    return row["event_ts"], row.get("created_ts", row["event_ts"])


@dataclass
class Oracle:
    """What the store must serve, in dicts."""

    rows: dict[tuple[str, tuple[Any, ...]], dict[str, Any]] = field(default_factory=dict)

    def write(self, view: FeatureView, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            place = view.name, tuple(row[key] for key in view.join_keys)
            stored = self.rows.get(place)
            if stored is None or _order(view, row) >= _order(view, stored):
                self.rows[place] = row

    def read(self, view: FeatureView, feature: str, key: tuple[Any, ...], now_us: int) -> tuple[Any, str, Any]:
        """`(value, status, event time)` of one feature of one entity."""
        field_ = view.field(feature)
        row = self.rows.get((view.name, key))
        if row is None:
            return field_.default, "MISSING", None
        time = from_microseconds(row["event_ts"])
        if view.ttl and now_us - row["event_ts"] > view.ttl // MICROSECOND:
            return field_.default, "EXPIRED", time
        if row.get(feature) is None:
            return field_.default, "NULL", time
        return field_.dtype.fit(row[feature], ""), "PRESENT", time
