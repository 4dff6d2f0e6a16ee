"""Label rows that do not fit are refused before anything is read or joined."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.errors import DataError, NotFoundError

DEFINITIONS = """
from feature_store import *
user = Entity("user", join_key="user_id")
view = FeatureView("view", entities=[user], schema=[Field("x", Float32)],
                   source=ParquetSource("x.parquet", event_timestamp="at"))
request = RequestSource("request", [Field("n", Float32)])
@on_demand_feature_view(sources=[view, request], schema=[Field("y", Float32)])
def plus(inputs):
    return {"y": inputs["x"] + inputs["n"]}
ranking = FeatureService("ranking", features=[view, plus])
"""
AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def store(tmp_path: Path, redis_url: str) -> Iterator[FeatureStore]:
    (tmp_path / "feature_store.yaml").write_text(f"project: labels\nonline_store: {{url: '{redis_url}'}}\n")
    (tmp_path / "features.py").write_text(DEFINITIONS)
    rows = {"user_id": [1], "at": pa.array([AT], pa.timestamp("us", "UTC")), "x": pa.array([1.0], pa.float32())}
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    with FeatureStore(tmp_path) as opened:
        opened.apply()
        yield opened


class Read:
    """A report that notes the views whose sources are read."""

    def __init__(self) -> None:
        self.views: list[str] = []

    def started(self, view: str, _total: int | None) -> None:
        self.views.append(view)

    def advanced(self, _rows: int) -> None: ...

    def finished(self) -> None: ...


@pytest.mark.parametrize(("n", "says"), [([1.0, None], "row 1: expected Float32, got null"), (["a", "b"], "column n")])
def test_fields_of_requests_are_checked_before_the_join(store: FeatureStore, n: list[Any], says: str) -> None:
    labels = pa.table({"user_id": [1, 1], "event_timestamp": pa.array([AT] * 2), "n": n})
    read = Read()
    with pytest.raises(DataError, match=says):
        store.get_historical_features(labels, "ranking", report=read)
    assert read.views == []
    good = labels.set_column(2, "n", pa.array([1.0, 2.0], pa.float32()))
    made = store.get_historical_features(good, "ranking", report=read)
    assert made.to_arrow()["y"].to_pylist() == [2.0, 3.0]
    assert read.views[0] == "view"
    assert repr(made).startswith("<TrainingSet of 'ranking': 2 rows × 2 features")


def test_a_file_of_labels_that_is_not_there_is_named(store: FeatureStore) -> None:
    with pytest.raises(DataError, match=r"labels nope\.parquet: there is no such file") as caught:
        store.get_historical_features("nope.parquet", "ranking")
    assert "current folder" in caught.value.hint


def test_a_name_that_is_nearly_right_is_suggested(store: FeatureStore) -> None:
    with pytest.raises(NotFoundError) as caught:
        store.get_online_features("rankin", {"user_id": 1, "n": 1.0})
    assert caught.value.hint == "did you mean 'ranking'?"
