"""Skew of served values: planted faults are found, and nothing else is reported."""

from __future__ import annotations

import json
import random
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st
from scipy.spatial.distance import jensenshannon

from feature_store import FeatureStore
from feature_store.arrow.comparison import JENSEN_SHANNON, L_INFINITY, distance, jensen_shannon
from feature_store.arrow.served_log import log_files, read_log
from feature_store.cli import main
from feature_store.definitions.pruned import pruning_of
from feature_store.errors import DataError, NotFoundError, RequestError
from feature_store.monitoring import ParquetSink, ServedLog
from feature_store.online import OnlineClient
from tests.monitoring.served_worlds import NOW, make_project, some_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOP = timedelta(minutes=1)
WINDOWS = """
from datetime import timedelta
from feature_store import *
user = Entity("user", join_key="user_id")
activity = FeatureView("activity", entities=[user],
    source=ParquetSource("events.parquet", event_timestamp="at", schema=[Field("user_id", Int64), Field("price", Float64)]),
    aggregations=[Aggregation("price", "sum", windows=[timedelta(minutes=48)]), Aggregation("price", "count", windows=[timedelta(days=30)])])
profile = FeatureView("profile", entities=[user], source=ParquetSource("profile.parquet", event_timestamp="at"), schema=[Field("age", Int32)])
ranking = FeatureService("ranking", features=[activity, profile])
"""
USERS = 40


@pytest.fixture
def store(tmp_path: Path, redis_url: str) -> Iterator[FeatureStore]:
    with make_project(tmp_path, redis_url) as made:
        yield made


@pytest.fixture
def windows(tmp_path: Path, redis_url: str) -> Iterator[FeatureStore]:
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    (tmp_path / "features.py").write_text(WINDOWS)
    chance = np.random.default_rng(1)
    count = 5_000
    at = [NOW - timedelta(seconds=int(s)) for s in chance.integers(1, 6000, count)]
    events = {"user_id": chance.integers(0, USERS, count), "at": pa.array(at, pa.timestamp("us", "UTC")), "price": chance.random(count)}  # fmt: skip
    pq.write_table(pa.table(events), tmp_path / "events.parquet")
    ages = {"user_id": range(USERS), "at": pa.array([NOW - timedelta(days=1)] * USERS), "age": pa.array(chance.integers(18, 80, USERS), pa.int32())}  # fmt: skip
    pq.write_table(pa.table(ages), tmp_path / "profile.parquet")
    with FeatureStore(tmp_path) as made:
        made.apply()
        made.materialize(end=NOW)
        yield made


def serve(store: FeatureStore, requests: list[dict[str, Any]], **options: Any) -> Path:
    functions: Any = store.definitions.on_demand_feature_views
    folder = store.config.folder / "log"
    with (
        ServedLog(ParquetSink(folder), 1.0) as log,
        OnlineClient(store.online_url, "shop", transforms=functions, observers=[log]) as client,
    ):
        client.plan()  # before the requests, whose deadline may be too short for it
        for i, rows in enumerate(requests):
            client.get_online_features("ranking", rows, now=NOW, request_id=f"r{i}", **options)
        assert log.flush(60)
    return folder


def change(log: Path, name: str, changed: Callable[[pa.ChunkedArray], pa.Array]) -> None:
    """Replace a column of the log. The log becomes one file, as a slow log may have several."""
    first, *others = sorted(log.rglob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file, partitioning=None) for file in (first, *others)])
    column = changed(table[name])
    pq.write_table(table.set_column(table.column_names.index(name), name, column), first)
    for file in others:
        file.unlink()


def test_what_is_served_is_what_the_offline_data_say(store: FeatureStore) -> None:
    chance = random.Random(3)
    log = serve(store, [some_request(chance) for _ in range(300)])
    report = store.monitoring.skew_of_log(log)
    assert report.rows == report.records > 500
    assert {feature.compared.differing for feature in report.features} == {0}
    assert all(feature.compared.equal == report.rows for feature in report.features)
    assert all(feature.distance is None or feature.distance.value == 0 for feature in report.features)
    assert report.beyond(0.0, 0.0) == []


@pytest.mark.parametrize("name", ["score", "title", "likes", "is_new", "age", "seen", "vector"])
def test_a_corruption_of_one_percent_is_found(store: FeatureStore, name: str) -> None:
    chance = random.Random(4)
    log = serve(store, [some_request(chance) for _ in range(400)])
    planted: list[int] = []

    def corrupt(column: pa.ChunkedArray) -> pa.Array:
        values = column.to_pylist()
        there = [i for i, value in enumerate(values) if value is not None and value == value]
        planted.extend(chance.sample(there, len(values) // 100))
        for i in planted:
            values[i] = _other(values[i])
        return pa.array(values, column.type if not pa.types.is_dictionary(column.type) else column.type.value_type)

    change(log, name, corrupt)
    report = store.monitoring.skew_of_log(log)
    assert report.beyond() == [name]
    (found,) = [feature for feature in report.features if feature.compared.feature == name]
    assert found.compared.differing == len(planted) >= 8
    assert 0.005 < found.differing_share < 0.015
    assert found.compared.example is not None and found.compared.example["served_at"] == NOW.isoformat()
    assert found.compared.online != found.compared.offline
    assert report.beyond(0.02) == []


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [*value[:-1], value[-1] + 1]
    return value + (timedelta(seconds=1) if not isinstance(value, (int, float)) else 1)


def test_windows_that_are_one_tile_late_are_found(windows: FeatureStore) -> None:
    """The log's times are one hop later than the times that the windows were computed for."""
    log = serve(windows, [{"user_id": list(range(USERS))}])
    assert windows.monitoring.skew_of_log(log).beyond() == []
    change(log, "served_at", lambda column: pc.add(column, pa.scalar(HOP)))
    report = windows.monitoring.skew_of_log(log)
    assert report.beyond() == ["price_sum_48m"]
    shifted = report.features[0]
    assert shifted.differing_share > 0.5, "nearly every user has an event in one hop of 48, in or out"
    assert shifted.compared.worst is not None and shifted.compared.worst > 0.01


def test_what_was_not_read_in_time_is_left_out(store: FeatureStore) -> None:
    chance = random.Random(5)
    log = serve(store, [some_request(chance) for _ in range(20)], deadline_ms=0.0)
    report = store.monitoring.skew_of_log(log)
    assert report.beyond() == []
    assert {feature.left_out for feature in report.features} == {report.rows}


def test_distances_from_a_training_set(store: FeatureStore) -> None:
    chance = random.Random(6)
    log = serve(store, [some_request(chance) for _ in range(300)])
    same = pq.read_table(next(iter(log.rglob("*.parquet"))), partitioning=None)
    reference = store.config.folder / "train.parquet"
    pq.write_table(same, reference)
    assert store.monitoring.skew_of_log(log, training_set=reference).beyond(0.0, 0.0) == []
    shifted = same.set_column(same.column_names.index("score"), "score", pa.array([5.0] * len(same)))
    pq.write_table(shifted, reference)
    report = store.monitoring.skew_of_log(log, training_set=reference)
    assert report.reference == "the training set"
    assert report.beyond(0.0, 0.5) == ["score"]
    pq.write_table(same.drop_columns(["score"]), reference)
    with pytest.raises(DataError, match=r"training set: column score"):
        store.monitoring.skew_of_log(log, training_set=reference)


def test_logs_of_several_services_or_lists_of_features(store: FeatureStore) -> None:
    chance = random.Random(7)
    requests = [some_request(chance) for _ in range(5)]
    log = serve(store, requests)
    store.prune("ranking", pruning_of(store.applied(), "ranking", ["spent"], plan="p", stage="drop"))
    serve(store, requests)
    with pytest.raises(DataError, match="others, of version 1"):
        store.monitoring.skew_of_log(log)
    assert store.monitoring.skew_of_log(log, version=2).versions == (2,)
    with pytest.raises(NotFoundError):
        store.monitoring.skew_of_log(log, "numbers")
    with ServedLog(ParquetSink(log), 1.0) as numbers:
        with OnlineClient(store.online_url, "shop", observers=[numbers]) as client:
            client.get_online_features("numbers", {"user_id": 1}, now=NOW)
        assert numbers.flush(60)
    with pytest.raises(RequestError, match="numbers, ranking"):
        store.monitoring.skew_of_log(log)


def test_a_sample_is_the_same_in_every_run(store: FeatureStore) -> None:
    chance = random.Random(8)
    log = serve(store, [some_request(chance) for _ in range(100)])
    one, other = store.monitoring.skew_of_log(log, sample=50), store.monitoring.skew_of_log(log, sample=50)
    assert one == other and one.rows == 50 < one.records


# -- distances ------------------------------------------------------------------------------------------------------

SHARES = st.lists(st.integers(0, 100), min_size=5, max_size=5).filter(any)


@given(one=SHARES, other=SHARES)
def test_jensen_shannon_is_that_of_scipy(one: list[int], other: list[int]) -> None:
    p, q = np.array(one) / sum(one), np.array(other) / sum(other)
    assert jensen_shannon(p, q) == pytest.approx(np.nan_to_num(jensenshannon(p, q, 2)) ** 2, abs=1e-9)


VALUES = st.lists(st.none() | st.sampled_from(["a", "b", "c"]), min_size=1, max_size=30)


@given(one=VALUES, other=VALUES)
def test_l_infinity_is_the_largest_difference_of_shares(one: list[Any], other: list[Any]) -> None:
    expected = max(
        abs(one.count(value) / len(one) - other.count(value) / len(other)) for value in ("a", "b", "c", None)
    )
    found = distance(pa.array(one, pa.string()), pa.array(other, pa.string()))
    assert found is not None and found.measure == L_INFINITY
    assert found.value == pytest.approx(expected)


def test_distances_of_numbers() -> None:
    chance = np.random.default_rng(0)
    normal = chance.normal(size=10_000)
    measured = {}
    for shift in (0.0, 0.1, 1.0, 10.0):
        found = distance(pa.array(normal), pa.array(chance.normal(shift, size=5_000)))
        assert found is not None and found.measure == JENSEN_SHANNON
        measured[shift] = found.value
    assert measured[0.0] < 0.005 < measured[1.0] < 0.5 < measured[10.0] <= 1
    assert measured[0.0] < measured[0.1] < measured[1.0]
    with_nulls = pa.array(normal.tolist() + [None] * 10_000)
    half = distance(pa.array(normal), with_nulls)
    assert half is not None and 0.2 < half.value < 0.5
    nan, infinite = pa.array([float("nan")] * 10), pa.array([float("inf")] * 10)
    for one, other, value in ((nan, nan, 0.0), (nan, infinite, 1.0), (infinite, infinite, 0.0)):
        found = distance(one, other)
        assert found is not None and found.value == value
    few = distance(pa.array([1, 1, 2]), pa.array([1, 2, 2]))
    assert few is not None and few.measure == L_INFINITY and few.value == pytest.approx(1 / 3)
    assert distance(pa.array([[1.0]]), pa.array([[1.0]])) is None


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command(store: FeatureStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(9)
    log = serve(store, [some_request(chance) for _ in range(200)])
    monkeypatch.chdir(store.config.folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["feature-store", "skew", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, error = capsys.readouterr()
        return ended.value.code if isinstance(ended.value.code, int) else 0, out, error

    asked = ["--from-served-log", "log"]
    code, out, error = run(*asked, "--json")
    assert code == 0, error
    document = json.loads(out)
    assert document["service"] == "ranking" and document["beyond"] == []
    assert {"feature", "served", "recomputed", "differing_share", "left_out", "distance"} <= document["features"][
        0
    ].keys()
    change(log, "score", lambda column: pa.array([9.0, *column.to_pylist()[1:]]))
    code, out, _ = run(*asked, "--service", "ranking", "--max-distance", "0.5")
    assert code == 3
    assert "Beyond the limits: score." in out
    assert "served 9.0, offline" in out
    assert run(*asked, "--max-differing", "0.01")[0] == 0
    change(log, "score", lambda column: pa.array([9.0] * len(column)))
    assert run(*asked, "--max-differing", "1", "--max-distance", "0.5")[0] == 3
    assert store.registry.reports("skew")["ranking"].document["differing"] > 0, "kept, for the score"
    assert run()[0] == run("--service", "ranking", "--max-distance", "1")[0] == run(*asked, "user_id=1")[0] == 2
    code, _, error = run("--from-served-log", "nothing")
    assert code == 1 and "served log nothing" in error


def test_requests_of_no_rows_of_references_and_of_pruned_services(store: FeatureStore) -> None:
    functions: Any = store.definitions.on_demand_feature_views
    folder = store.config.folder / "log"
    one, two = {"user_id": 1, "movie_id": ["m1"], "now_year": 2000}, {"user_id": 1, "movie_id": ["m1", "m2"], "now_year": 2000}  # fmt: skip
    with (
        ServedLog(ParquetSink(folder), 1.0) as log,
        OnlineClient(store.online_url, "shop", transforms=functions, observers=[log]) as client,
    ):
        client.get_online_features("ranking", one | {"movie_id": []}, now=NOW, log_fields={"position": []})
        client.get_online_features("ranking", one, now=NOW, log_fields={"position": [3]})
        client.get_online_features(["of_user:visits", "of_both:likes"], {"user_id": [1, 2], "movie_id": "m1"}, now=NOW)
        dropped = ["spent", "title", "vector", "likes"]
        store.prune(
            "ranking", pruning_of(store.applied(), "ranking", dropped, plan="p", stage="mask", answer="default")
        )
        answer = client.get_online_features("ranking", two, now=NOW)
        assert log.flush(60)
    assert (log.counts.written, log.counts.failed) == (4, 0)
    found = {
        (file.about.service, file.about.version, file.about.plan): len(read_log([file])) for file in log_files(folder)
    }
    assert found == {("ranking", 1, None): 1, ("(references)", 1, None): 2, ("ranking", 2, "p"): 2}
    pruned = read_log(log_files(folder, "ranking", 2))
    assert pruned.select(answer.names).to_pydict() == answer.to_dict()
    report = store.monitoring.skew_of_log(folder, "ranking", version=2)
    assert report.beyond() == []
    assert {feature.compared.feature for feature in report.features if feature.left_out == 2} == set(dropped)
