"""Expectations of values, against a loop over single values."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from feature_store._intervals import BEGINNING
from feature_store.arrow.inspection import FieldCounts, Inspection, expects, inspect
from feature_store.arrow.quarantine import Quarantine
from feature_store.arrow.sources.opening import open_view
from feature_store.definitions import Bool, FeatureView, Field, Float32, Float64, Int32, ParquetSource, String
from feature_store.engines.engine import Engine, StageRequest
from feature_store.engines.local.engine import LocalEngine
from feature_store.engines.report import Silent
from feature_store.engines.spark.engine import SparkEngine
from feature_store.online.batch import RowBatch, Values
from feature_store.online.codec import object_column
from tests.engines.offline_worlds import NOW_US, Row, table_of, user, write_files

SOURCE = ParquetSource("rows", event_timestamp="at", created_timestamp="made")
FIELDS = [
    Field("score", Float64, min=0, max=5, max_null_rate=0.25),
    Field("count", Int32, min=1),
    Field("share", Float32, max=0.1),
    Field("kind", String, allowed=["a", "b"]),
    Field("flag", Bool, allowed=[True]),
    Field("level", Int32, allowed=[1, 2, 3], max_null_rate=0),
    Field("free", Float64),
]
VIEW = FeatureView("v", entities=[user], source=SOURCE, schema=FIELDS)
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "score": st.sampled_from([0.0, -0.0, 5.0, -1e-300, 5.1, math.nan, math.inf, -math.inf]),
    "count": st.integers(-2, 3),
    "share": st.sampled_from([0.1, 0.100001, 0.0, math.nan]),
    "kind": st.sampled_from(["a", "b", "A", ""]),
    "flag": st.booleans(),
    "level": st.integers(0, 4),
    "free": st.floats(),
}
ROWS = st.lists(st.fixed_dictionaries({name: st.none() | cell for name, cell in CELLS.items()}), max_size=12)


def batch(rows: list[dict[str, Any]]) -> RowBatch:
    columns = {}
    for field in FIELDS:
        values = [row[field.name] for row in rows]
        nulls = np.array([value is None for value in values], bool)
        if field.dtype == String:
            column = object_column(values)
        else:
            column = np.array([0 if value is None else value for value in values], field.dtype.numpy)
        columns[field.name] = Values(column, nulls if nulls.any() else None)
    times = np.full(len(rows), NOW_US)
    return RowBatch({"user_id": np.arange(len(rows))}, times, times, columns)


def is_expected(field: Field, value: Any) -> bool:
    if value is None:
        return True
    value = float(np.float32(value)) if field.dtype == Float32 else value
    in_range = (field.min is None or value >= field.min) and (field.max is None or value <= field.max)
    return in_range and (field.allowed is None or value in field.allowed)


@given(ROWS, st.integers(0, 12))
def test_what_is_not_expected_is_counted_however_rows_are_divided(rows: list[dict[str, Any]], cut: int) -> None:
    found = inspect(batch(rows[:cut]), VIEW).plus(inspect(batch(rows[cut:]), VIEW))
    assert found.rows == len(rows)
    assert set(found.fields) == {field.name for field in FIELDS if field.name != "free"}
    for field in FIELDS[:-1]:
        counts, values = found.fields[field.name], [row[field.name] for row in rows]
        assert counts.nulls == sum(value is None for value in values)
        assert counts.unexpected == sum(not is_expected(field, value) for value in values)
        assert bool(counts.example) == bool(counts.unexpected)
    breached = {(breach.field, "null in at most" in breach.expected) for breach in found.breaches(VIEW)}
    wanted = {(name, False) for name, counts in found.fields.items() if counts.unexpected}
    wanted |= {("score", True)} if found.fields["score"].nulls > 0.25 * len(rows) else set()
    wanted |= {("level", True)} if found.fields["level"].nulls else set()
    assert breached == wanted


def test_a_breach_says_what_and_where() -> None:
    row = {"score": 7.0, "count": 1, "share": 0.0, "kind": "c", "flag": True, "level": None, "free": 1.0}
    told = [str(breach) for breach in inspect(batch([row | {"score": 1.0}, row]), VIEW).breaches(VIEW)]
    assert told == [
        "score: expected at least 0; at most 5, got another value in 1 of 2 rows, such as 7.0 of user_id=1",
        "kind: expected one of a, b, got another value in 2 of 2 rows, such as 'c' of user_id=0",
        "level: expected null in at most 0 of rows, got 2 of 2",
    ]


def test_nothing_is_expected_of_fields_that_say_nothing() -> None:
    view = FeatureView("v", entities=[user], source=SOURCE, schema=[Field("free", Float64)])
    assert not expects(view)
    assert expects(VIEW)
    assert Inspection().breaches(VIEW) == []


@pytest.fixture(params=["local", "spark"])
def engine(request: pytest.FixtureRequest) -> LocalEngine | SparkEngine:
    return LocalEngine() if request.param == "local" else request.getfixturevalue("spark_engine")


def test_every_engine_inspects_what_it_has_staged(engine: Engine, tmp_path: Path) -> None:
    fields = [Field("score", Float64, min=0, max_null_rate=0.5), Field("text", String, allowed=["x"])]
    view = FeatureView("v", entities=[user], source=SOURCE, schema=fields)
    rows = [Row((key,), NOW_US, None, (None if key % 3 == 0 else key - 50.0, "x")) for key in range(100)]
    rows += [Row((7,), NOW_US - 1, None, (-1e9, "an older row is not written, and not looked at"))]
    write_files(tmp_path / "rows", table_of(view, rows, pa.timestamp("us")), 3)
    target, quarantine = tmp_path / "staged", Quarantine(tmp_path / "quarantine", tmp_path, "v")
    source = open_view(SOURCE, view, tmp_path)
    engine.stage(StageRequest(view, source, BEGINNING, -BEGINNING, target, quarantine, Silent()))
    found = engine.inspect(target, view)
    assert found.rows == 100
    below = sum(key < 50 for key in range(100) if key % 3)
    assert (found.fields["score"].nulls, found.fields["score"].unexpected) == (34, below)
    assert found.fields["text"] == FieldCounts()
    assert found.fields["score"].example.endswith(tuple(f"of user_id={key}" for key in range(50)))
    json.dumps(asdict(found))
