from __future__ import annotations

import sys
import types
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.errors import DataError, NotFoundError, RequestError
from feature_store.pruning.dataset import Dataset, from_table, load_factory, scores

START = datetime(2024, 1, 1, tzinfo=UTC)
TABLE = pa.table(
    {
        "user": ["u", "v", "u"],
        "at": pa.array([START + timedelta(seconds=s) for s in (2, 1, 3)], pa.timestamp("ms", "UTC")),
        "liked": [True, False, True],
        "year": pa.array([1990, None, 2000], pa.int32()),
        "drama": [True, False, None],
        "vector": pa.array([[1.0, 2.0], None, [3.0, None]], pa.list_(pa.float32())),
        "title": ["a", "b", "c"],
    }
)
VIEWS = {"year": "movie", "drama": "movie", "vector": "taste"}
ROLES = {"label": "liked", "timestamp": "at", "entity": "user"}


def rows(n, time=None) -> Dataset:
    x = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    at = np.arange(n) if time is None else np.asarray(time)
    return Dataset(x, np.arange(n) % 2, ("a", "b", "b"), {"a": "v", "b": "w"}, np.arange(n), at)


@pytest.mark.parametrize("is_file", [False, True])
def test_from_a_table(tmp_path, is_file):
    if is_file:
        pq.write_table(TABLE, tmp_path / "t.parquet")
    data = from_table(tmp_path / "t.parquet" if is_file else TABLE, list(VIEWS), VIEWS, **ROLES)
    assert data.names == ("year", "drama", "vector", "vector")
    nan = np.nan
    expected = np.array([[nan, 0, nan, nan], [1990, 1, 1, 2], [2000, nan, 3, nan]], np.float32)
    np.testing.assert_array_equal(data.x, expected)
    assert data.x.dtype == np.float32
    assert data.y.tolist() == [0, 1, 1]
    assert data.entity.tolist() == [1, 0, 0]
    assert data.time.tolist() == [int(START.timestamp() * 1e6) + s * 1_000_000 for s in (1, 2, 3)]
    assert data.features == ("year", "drama", "vector")
    assert data.members == {"movie": ("year", "drama"), "taste": ("vector",)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": ["year", "nope", "no"]}, "got no nope, no"),
        ({"features": ["title"]}, "training set.title: expected numbers or booleans"),
        ({"label": "title"}, "expected labels"),
        ({"label": "year"}, "training set.year: expected a value in every row, got 1 nulls"),
        ({"timestamp": "year"}, "got 1 nulls"),
        ({"timestamp": "liked"}, "expected timestamps, got bool"),
        ({"table": TABLE.slice(0, 0)}, "expected rows"),
        ({"table": "nowhere.parquet"}, "training set nowhere.parquet"),
        ({"views": {}}, "the view of each feature, got none for year"),
        ({"table": TABLE.append_column("f", pa.array([0.0, np.nan, 1.0])), "label": "f"}, "NaN or inf"),
        (
            {"table": TABLE.append_column("l", pa.array([[0], [1, 2], []])), "features": ["l"]},
            "lists of numbers of one",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(change, reason):
    arguments = {"table": TABLE, "features": ["year"], "views": VIEWS} | ROLES | change
    with pytest.raises(DataError, match=reason):
        from_table(**arguments)


def test_rows_are_put_in_the_order_of_time():
    data = rows(4, time=[3, 1, 1, 0])
    assert data.time.tolist() == [0, 1, 1, 3]
    assert data.entity.tolist() == [3, 1, 2, 0]
    assert data.x[:, 0].tolist() == [9, 3, 6, 0]


def test_select_takes_all_columns_of_a_feature():
    data = rows(2).select(["b"])
    assert data.names == ("b", "b")
    assert data.x.tolist() == [[1, 2], [4, 5]]
    assert data.x.flags.c_contiguous
    with pytest.raises(NotFoundError, match="expected some of a, b, got c, d"):
        rows(2).select(["d", "a", "c"])


def test_a_split_never_parts_rows_of_one_time():
    parts = rows(10, time=[0, 1, 2, 3, 4, 5, 5, 5, 8, 9]).split_by_time((0.7, 0.3))
    assert [part.time.tolist() for part in parts] == [[0, 1, 2, 3, 4], [5, 5, 5, 8, 9]]
    assert [len(part) for part in rows(10).split_by_time((0.5, 0.2, 0.3))] == [5, 2, 3]


def test_thinned_rows_are_spread_evenly():
    assert rows(9).thinned(3).time.tolist() == [0, 4, 8]
    assert len(rows(9).thinned(9)) == 9


def test_splits_that_cannot_be():
    with pytest.raises(RequestError, match="add up to 1"):
        rows(10).split_by_time((0.5, 0.6))
    with pytest.raises(DataError, match="3 rows of 1 times"):
        rows(3, time=[1, 1, 1]).split_by_time((0.5, 0.5))


def test_shapes_must_fit():
    with pytest.raises(DataError, match="expected"):
        Dataset(np.zeros((2, 1), np.float32), np.zeros(3), ("a",), {"a": "v"}, np.zeros(2, int), np.zeros(2, int))


class Fixed:
    def __init__(self, out):
        self.out = out

    def predict(self, x):
        return self.out


class Chances(Fixed):
    predict_proba = Fixed.predict


def test_scores():
    x = np.zeros((2, 1), np.float32)
    assert scores(Fixed([1, 2]), x).tolist() == [1, 2]
    assert scores(Chances([[0.9, 0.1], [0.2, 0.8]]), x).tolist() == [0.1, 0.8]
    with pytest.raises(DataError, match="model Fixed: expected 2 finite scores, got NaN or inf"):
        scores(Fixed([1, np.nan]), x)
    with pytest.raises(DataError, match=r"got shape \(3,\)"):
        scores(Fixed([1, 2, 3]), x)


def test_factories_are_loaded_by_name(monkeypatch):
    module = types.ModuleType("my_models")
    module.make, module.number = Fixed, 3
    monkeypatch.setitem(sys.modules, "my_models", module)
    assert load_factory("my_models:make") is Fixed
    for path, error, reason in [
        ("my_models", RequestError, "expected module:function, got 'my_models'"),
        ("my_models:", RequestError, "module:function"),
        ("no_models:make", NotFoundError, "No module named 'no_models'"),
        ("my_models:none", NotFoundError, "has no attribute 'none'"),
        ("my_models:number", NotFoundError, "expected a function, got int"),
    ]:
        with pytest.raises(error, match=reason):
            load_factory(path)
