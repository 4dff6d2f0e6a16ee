"""Stored bytes: the layout of the first ten functions, as the first release wrote it."""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import timedelta

import numpy as np

from feature_store.aggregates.states import state_for
from feature_store.definitions import (
    Aggregation,
    DefinitionSet,
    Entity,
    Field,
    Float64,
    Int32,
    Int64,
    KafkaSource,
    StreamFeatureView,
    String,
    Timestamp,
)
from feature_store.functions import Part
from feature_store.online.publication import layout_digest
from feature_store.online.tile_layout import TileValueLayout
from feature_store.registry.compile import compile_plan

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
FIRST_TEN = ("count", "sum", "mean", "min", "max", "stddev", "first", "last", "distinct")
COLUMNS = {"x": Float64, "i": Int32, "seen": Int32, "action": String, "at": Timestamp}
VIEW = StreamFeatureView(
    "all_kinds",
    entities=[Entity("user", join_key="user_id")],
    source=KafkaSource(
        "events",
        topic="events",
        event_timestamp="ts",
        schema=[Field("user_id", Int64), *(Field(name, dtype) for name, dtype in COLUMNS.items())],
    ),
    aggregations=[
        *(Aggregation("x", function, windows=[MINUTE, HOUR]) for function in FIRST_TEN),
        Aggregation("i", "last_n", windows=[HOUR], n=3),
        Aggregation("at", "first", windows=[HOUR]),
        Aggregation("action", "distinct", windows=[HOUR]),
        Aggregation("x", "sum", windows=[HOUR], filter="action == 'buy'", name="bought"),
    ],
)
LAYOUT = TileValueLayout(compile_plan(DefinitionSet([VIEW]), project="test", version=1).tiles[0])


def test_the_bytes_of_decayed_sums_do_not_change() -> None:
    """The sum at the begin of the newest event's half-life, and the number of that half-life since 1970."""
    state = state_for(Part("decayed_sum", "x", "Float64", options='{"half_life":60000000}'))
    at = np.array([7 * 60_000_000, 9 * 60_000_000 + 30_000_000])
    made = state.update(np.array([8.0, 1.0]), at, np.zeros(1, np.intp))
    assert made["value"].tolist() == [8 / 4 + 2**0.5] and made["landmark"].tolist() == [9]
    assert (state.struct, state.fields) == ("dI4", {"value": "<f8", "landmark": "<u4"})


def test_the_bytes_of_a_sequence_do_not_change() -> None:
    """Records, newest first: the time, then the columns; categories as places from 1; unused records are 0."""
    stored = {"categories_of": {"action": ["view", "buy"]}, "columns": [["item", "Int64"], ["action", "Int32"]]}
    state = state_for(Part("sequence", "item", "Int64", n=3, options=json.dumps(stored)))
    columns = {"item": np.array([7, 8]), "action": np.array(["buy", "other"], object)}
    values, held = state.take({name: (column, np.zeros(2, bool)) for name, column in columns.items()})
    assert held.all()
    made = state.update(values, np.array([1_000_000, 2_000_000]), np.zeros(1, np.intp))[""]
    assert made.tobytes() == (
        struct.pack("<dqi", 2e6, 8, 0) + struct.pack("<dqi", 1e6, 7, 2) + bytes(20)  # both records are unaligned
    )
    assert (state.struct, state.lua_argument) == ("c60", "20,0,0")


def test_the_stored_layout_does_not_change() -> None:
    assert (LAYOUT.fingerprint.hex(), LAYOUT.size, layout_digest(LAYOUT.plan)) == (
        "0a414593",
        35064,
        "ae8eee9bb59daff2",
    )
    minute, hour = "I4I4dddI4dddc8dc8c128", "I4I4dddI4dddc8dc8c128dc4dc4dc4dc8c128d"
    assert LAYOUT.record_format == f"<d{minute}{hour}"
    shared = "count:1 sum:1 min:1 max:1 moments:3 first:2 last:2 sketch:1"
    assert LAYOUT.rings_text == f"70 {shared}|<{minute};49 {shared} last_n:6 first:2 sketch:1 sum:1|<{hour};"


def test_the_text_of_a_part_does_not_change() -> None:
    assert str(Part("sum", "x", "Float64")) == "Part(kind='sum', column='x', dtype='Float64', filter='', n=1)"
    assert repr(Part("s", "x", "Int64", options="{}")).endswith("n=1, options='{}')")


def test_a_document_has_only_the_parameters_that_were_given() -> None:
    """The digests of definitions are computed from documents."""
    document = Aggregation("x", "last_n", windows=[HOUR], n=3).model_dump(mode="json")
    assert document == {
        "column": "x",
        "function": "last_n",
        "windows": [3_600_000_000],
        "name": None,
        "filter": None,
        "hop": None,
        "n": 3,
    }
    found = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
    assert found == "882009958a607560"
    with_parameters = Aggregation("x", "quantile", windows=[HOUR], q=0.5)
    document = with_parameters.model_dump(mode="json")
    assert document["q"] == 0.5 and "buckets" not in document
    assert Aggregation(**document) == with_parameters
