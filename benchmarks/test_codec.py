"""Rows to bytes and back, without Redis: segments of 25 floats, ten types, strings."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.write import ROWS, row_batch
from feature_store.definitions import DefinitionSet, Entity, FeatureView, Field, Float32, Int64, String
from feature_store.online.batch import RowBatch, Values
from feature_store.online.codec import decode_variable, encode_segments, encode_variables, object_column
from feature_store.online.layout import RowLayout, SegmentLayout
from feature_store.registry.compile import compile_plan

_USER = Entity("user", join_key="user_id")
_FLOATS = FeatureView("left", entities=[_USER], schema=[Field(f"left_{i}", Float32) for i in range(25)])
_TEXTS = FeatureView("texts", entities=[_USER], schema=[Field("title", String), Field("count", Int64)])


def _segment(view: FeatureView) -> SegmentLayout:
    plan = compile_plan(DefinitionSet([view]), project="codec", version=1)
    return RowLayout(plan.groups[0]).segments[view.name]


def _texts() -> RowBatch:
    titles = object_column([f"The title of number {i}" for i in range(ROWS)])
    times, ids = np.full(ROWS, 1_700_000_000_000_000), np.arange(ROWS)
    return RowBatch({"user_id": ids}, times, times, {"title": Values(titles), "count": Values(ids)})


def test_encode_floats(benchmark: Any) -> None:
    benchmark.group = f"codec, {ROWS:,} rows"
    benchmark(encode_segments, _segment(_FLOATS), row_batch(1))


def test_encode_strings(benchmark: Any) -> None:
    benchmark.group = f"codec, {ROWS:,} rows"
    layout, batch = _segment(_TEXTS), _texts()
    benchmark(encode_variables, layout, batch, encode_segments(layout, batch))


def test_decode_floats(benchmark: Any) -> None:
    benchmark.group = f"codec, {ROWS:,} rows"
    layout = _segment(_FLOATS)
    stored = encode_segments(layout, row_batch(1)).tobytes()
    names = [f"field left_{i}" for i in range(25)]
    benchmark(lambda: np.stack([np.frombuffer(stored, layout.record)[name] for name in names], axis=1))


def test_decode_strings(benchmark: Any) -> None:
    benchmark.group = f"codec, {ROWS:,} rows"
    layout, batch = _segment(_TEXTS), _texts()
    stored = encode_variables(layout, batch, encode_segments(layout, batch))
    benchmark(lambda: [decode_variable(value, layout, layout.fields["title"]) for value in stored])
