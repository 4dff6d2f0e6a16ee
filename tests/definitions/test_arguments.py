"""Wrong arguments of definitions raise errors of this library."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import feature_store
from feature_store import (
    Aggregation,
    Array,
    ArrowSource,
    AvroSource,
    CsvSource,
    DeltaSource,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    IcebergSource,
    InMemorySource,
    Int64,
    JsonLinesSource,
    KafkaSource,
    OnDemandFeatureView,
    ParquetSource,
    RequestSource,
    SqlSource,
    StreamFeatureView,
    on_demand_feature_view,
)
from feature_store.errors import DefinitionError

USER = Entity("user", join_key="user_id")
FIELD = Field("a", Float32)
HOUR = timedelta(hours=1)
MEAN = Aggregation("a", "mean", windows=[HOUR])
EVENTS = KafkaSource("k", topic="t", event_timestamp="ts", schema=[Field("user_id", Int64), FIELD])
VIEW: dict[str, Any] = {"entities": [USER], "schema": [FIELD]}
STREAM: dict[str, Any] = {"entities": [USER], "source": EVENTS, "aggregations": [MEAN]}


def double(inputs: Any) -> Any:
    return inputs


MAKERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "Entity": (Entity, {"name": "e", "join_key": "k", "dtype": Int64}),
    "Field": (Field, {"name": "f", "dtype": Float32, "default": 1.0, "min": 0, "max": 2, "allowed": [1.0]}),
    "Array": (Array, {"element": Float32, "length": 3}),
    "ParquetSource": (
        ParquetSource,
        {"path": "x", "event_timestamp": "ts", "created_timestamp": "c", "field_mapping": {"a": "b"}, "schema": []},
    ),
    "ArrowSource": (
        ArrowSource,
        {"path": "x", "event_timestamp": "ts", "created_timestamp": "c", "field_mapping": {"a": "b"}, "schema": []},
    ),
    "AvroSource": (
        AvroSource,
        {"path": "x", "event_timestamp": "ts", "created_timestamp": "c", "field_mapping": {"a": "b"}, "schema": []},
    ),
    "CsvSource": (
        CsvSource,
        {
            "path": "x",
            "event_timestamp": "ts",
            "created_timestamp": "c",
            "field_mapping": {"a": "b"},
            "schema": [],
            "delimiter": ";",
        },
    ),
    "DeltaSource": (
        DeltaSource,
        {
            "path": "x",
            "event_timestamp": "ts",
            "created_timestamp": "c",
            "field_mapping": {"a": "b"},
            "schema": [],
            "version": 1,
        },
    ),
    "IcebergSource": (
        IcebergSource,
        {
            "table": "c.n.t",
            "event_timestamp": "ts",
            "created_timestamp": "c",
            "field_mapping": {"a": "b"},
            "schema": [],
            "snapshot_id": 1,
        },
    ),
    "InMemorySource": (
        InMemorySource,
        {
            "table": {"ts": [1], "a": [2]},
            "event_timestamp": "ts",
            "created_timestamp": "c",
            "field_mapping": {"a": "b"},
            "name": "m",
            "schema": [],
        },
    ),
    "JsonLinesSource": (
        JsonLinesSource,
        {
            "path": "x",
            "event_timestamp": "ts",
            "created_timestamp": "c",
            "field_mapping": {"a": "b"},
            "schema": [],
            "timestamp_unit": "s",
        },
    ),
    "KafkaSource": (
        KafkaSource,
        {"name": "k", "topic": "t", "event_timestamp": "ts", "schema": [FIELD], "timestamp_unit": "ms"},
    ),
    "SqlSource": (
        SqlSource,
        {
            "table_or_query": "x",
            "connection": "w",
            "event_timestamp": "ts",
            "created_timestamp": "c",
            "field_mapping": {"a": "b"},
            "schema": [],
        },
    ),
    "RequestSource": (RequestSource, {"name": "r", "schema": [FIELD]}),
    "Aggregation": (Aggregation, {"column": "a", "function": "sum", "windows": [HOUR], "hop": None, "filter": None}),
    "FeatureView": (FeatureView, VIEW | {"name": "v", "ttl": HOUR, "freshness": HOUR, "source": None, "sql": None}),
    "StreamFeatureView": (StreamFeatureView, STREAM | {"name": "s", "freshness": HOUR}),
    "FeatureService": (
        FeatureService,
        {"name": "s", "features": [FeatureView("v", **VIEW)], "owner": "me", "tags": {}},
    ),
    "OnDemandFeatureView": (
        OnDemandFeatureView,
        {"name": "o", "schema": [FIELD], "function": double, "sources": [FeatureView("v", **VIEW)[["a"]]]},
    ),
}
ODD = (None, 3600, -1, 2.5, float("nan"), True, "1h", "", "\x1b[31m", b"x", [], [None], ["x"], {}, {"a": 1}, object())
ODD_TYPES = (float, int, HOUR, USER, FIELD, EVENTS, MEAN, {1, 2}, Path("p"), (), range(2), 10**30, print)
PYDANTIC = ("Input should", "validation error", "valid dictionary", "pydantic", "identifier in duration", "Value error")


@pytest.mark.parametrize("kind", MAKERS)
def test_odd_arguments_are_accepted_or_raise_a_definition_error(kind: str) -> None:
    make, good = MAKERS[kind]
    make(**good)
    for argument in good.keys() - {"function"}:
        for odd in (*ODD, *ODD_TYPES):
            try:
                make(**good | {argument: odd})
            except DefinitionError as error:
                assert not any(word in str(error) for word in PYDANTIC), (argument, odd, str(error))
                assert error.expected or error.problem, (argument, odd, str(error))
                assert len(error.got) <= 200, (argument, odd)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FeatureView("v", entities=USER, schema=[FIELD]), "put it in brackets: entities=[user]"),
        (lambda: FeatureView("v", entities=[USER], schema=FIELD), "put it in brackets: schema=[a]"),
        (lambda: FeatureService("s", features=FeatureView("v", **VIEW)), "put it in brackets: features=[v]"),
        (lambda: Aggregation("a", "sum", windows=HOUR), "put it in brackets: windows=[timedelta(seconds=3600)]"),
        (lambda: StreamFeatureView("s", **STREAM | {"aggregations": MEAN}), "put it in brackets: aggregations="),
        (lambda: on_demand_feature_view(sources=USER, schema=[FIELD])(double), "put it in brackets: sources=[user]"),
        (lambda: FeatureView("v", **VIEW, ttl=3600), "ttl: expected a timedelta, got 3600. Hint: write timedelta(sec"),
        (lambda: Aggregation("a", "sum", windows=["1h"]), "windows[0]: expected a timedelta, got '1h'"),
        (lambda: FeatureView("v", entities=[], schema=[FIELD]), "entities: expected at least 1, got none"),
        (lambda: Entity("u", dtype=Float32), "Entity('u').dtype: expected Int64, Int32 or String, got Float32"),
        (lambda: Field("a", float), "got <class 'float'>. Hint: write Float64, from feature_store"),
        (lambda: Entity("u", value_type=Int64), "Hint: it is called 'dtype' here"),
        (lambda: Entity("u", owners="me"), "Hint: did you mean 'owner'?"),
        (lambda: FeatureService("s", features=["v:a"]), 'a view, or some features of one: view[["a", "b"]]'),
    ],
)
def test_errors_of_common_slips_say_what_to_write(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        make()
    assert says in str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "Array"])
def test_help_shows_the_arguments_and_not_pydantic(kind: str) -> None:
    made = getattr(feature_store, kind)
    assert list(inspect.signature(made).parameters) == list(inspect.signature(made.__init__).parameters)[1:]
    text = pydoc.render_doc(made, renderer=pydoc.plaintext)
    assert len(text.splitlines()) < 140
    assert "model_dump" not in text
    one = MAKERS[kind][0](**MAKERS[kind][1])
    shown = {name for name in dir(one) if not name.startswith("_")}
    assert {*type(one).model_fields} <= shown
    assert not shown & {"model_dump", "copy", "json", "parse_raw"}


def test_a_view_has_its_schema() -> None:
    assert FeatureView("v", **VIEW).schema == (FIELD,)
    assert EVENTS.schema == EVENTS.fields
    assert RequestSource("r", [FIELD]).schema == (FIELD,)
    assert ParquetSource(Path("data/x.parquet"), event_timestamp="ts").path == "data/x.parquet"
