"""Training sets of whole projects equal what is served, for any label rows; and their files and manifests."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.engines.local import join as local_join
from feature_store.engines.report import Silent
from feature_store.errors import DataError, FeatureStoreError, NotFoundError, RequestError, TransformError

AT = datetime(2026, 1, 10, 12, tzinfo=UTC)
USERS, MOVIES = 30, 20
FEATURES = """
from datetime import timedelta
import numpy as np
from feature_store import *

user = Entity("user", join_key="user_id")
movie = Entity("movie", join_key="movie_id", dtype=String)

of_user = FeatureView("of_user", entities=[user], ttl=timedelta(hours=5),
    source=ParquetSource("of_user", event_timestamp="at", created_timestamp="made"),
    schema=[Field("visits", Int32, default=-1), Field("spent", Float32), Field("is_new", Bool), Field("seen", Timestamp),
            Field("name", String, default="nobody"), Field("tastes", Array(String), default=["none"])])
of_movie = FeatureView("of_movie", entities=[movie], source=ParquetSource("of_movie.parquet", event_timestamp="at"),
    schema=[Field("year", Int64), Field("vector", Array(Float32, 3)), Field("title", String), Field("scores", Array(Float64)),
            Field("aired", Array(Timestamp, 1)), Field("double", Float64, default=float("inf"))])
of_both = FeatureView("of_both", entities=[user, movie], ttl=timedelta(days=1),
    source=ParquetSource("of_both.parquet", event_timestamp="at"), schema=[Field("likes", Int64)])
pushed = FeatureView("pushed", entities=[user], schema=[Field("score", Float32)])

request = RequestSource("request", [Field("now_year", Int32), Field("device", String, default="phone"),
                                    Field("since", Timestamp)])

@on_demand_feature_view(
    sources=[of_movie[["year", "title", "vector", "scores", "aired"]], of_user[["visits", "name", "seen", "tastes", "is_new"]],
             of_both[["likes"]].rename({"likes": "liked"}), request],
    schema=[Field("age", Float32), Field("words", String), Field("norm", Float64, default=9.5), Field("waited", Timestamp),
            Field("odd", Bool), Field("shown", Int64)])
def mixed(inputs):
    listed = [f"{t}/{n}/{d}/{'+'.join(w)}/{len(s)}" for t, n, d, w, s in
              zip(inputs["title"], inputs["name"], inputs["device"], inputs["tastes"], inputs["scores"])]
    return {"age": (inputs["now_year"] - inputs["year"]).astype("float32"), "words": np.array(listed, object),
            "norm": np.square(inputs["vector"].astype("f8")).sum(axis=1),
            "waited": (inputs["since"] - inputs["seen"]).astype("int64"), "odd": inputs["is_new"] & (inputs["visits"] % 2 == 1),
            "shown": inputs["liked"] + inputs["aired"][:, 0] // 10**6}

@on_demand_feature_view(sources=[of_user[["visits", "name"]], request], schema=[Field("hello", String), Field("twice", Int64)])
def greeting(inputs):
    return {"hello": np.array([f"{n} on {d}" for n, d in zip(inputs["name"], inputs["device"])], object),
            "twice": 2 * inputs["visits"].astype("int64")}

ranking = FeatureService("ranking", features=[
    of_user, of_movie[["year", "vector", "title", "scores", "aired", "double"]].rename({"title": "film"}), of_both, mixed,
    greeting])
few = FeatureService("few", features=[of_user[["visits", "spent"]]])
from_push = FeatureService("from_push", features=[pushed])
"""


def _maybe(chance: np.random.Generator, values: list[Any], share: float = 0.2) -> list[Any]:
    return [None if chance.random() < share else value for value in values]


def _times(chance: np.random.Generator, count: int, hours: int) -> Any:
    back = chance.integers(1, hours * 3600, count)
    return pa.array([AT - timedelta(seconds=int(seconds)) for seconds in back], pa.timestamp("us", "UTC"))


def write_sources(folder: Path) -> None:
    """Several rows of most entities, nulls in every column, and some expired rows. All were created before AT."""
    chance = np.random.default_rng(4)
    n = 150
    at = _times(chance, n, 10)
    users = {
        "user_id": chance.integers(0, USERS, n),
        "at": at,
        "made": pa.array(_maybe(chance, at.to_pylist()), pa.timestamp("us", "UTC")),
        "visits": pa.array(_maybe(chance, chance.integers(0, 9, n).tolist()), pa.int32()),
        "spent": pa.array(_maybe(chance, chance.random(n).tolist()), pa.float32()),
        "is_new": _maybe(chance, (chance.random(n) < 0.5).tolist()),
        "seen": pa.array(_maybe(chance, _times(chance, n, 99).to_pylist()), pa.timestamp("ms", "UTC")),
        "name": _maybe(chance, [f"ü{i}" for i in range(n)]),
        "tastes": pa.array(_maybe(chance, [["a", "ö"][: i % 3] for i in range(n)]), pa.list_(pa.string())),
    }
    (folder / "of_user").mkdir()
    for i in range(3):
        pq.write_table(pa.table(users).slice(i * 50, 50), folder / "of_user" / f"part-{i}.parquet")
    n = 60
    vectors = chance.random((n, 3), np.float32).tolist()
    movies = {
        "movie_id": [f"m{i}" for i in chance.integers(0, MOVIES, n)],
        "at": _times(chance, n, 5000),
        "year": pa.array(_maybe(chance, chance.integers(1900, 2025, n).tolist()), pa.int64()),
        "vector": pa.array(_maybe(chance, vectors), pa.list_(pa.float32(), 3)),
        "title": _maybe(chance, [f"t{i}" for i in range(n)]),
        "scores": pa.array(_maybe(chance, [[0.5] * (i % 4) for i in range(n)]), pa.list_(pa.float64())),
        "aired": pa.array(_maybe(chance, [[AT]] * n), pa.list_(pa.timestamp("us", "UTC"))),
        "double": pa.array(_maybe(chance, chance.random(n).tolist()), pa.float64()),
    }
    pq.write_table(pa.table(movies), folder / "of_movie.parquet")
    n = 300
    both = {
        "user_id": chance.integers(0, USERS, n),
        "movie_id": [f"m{i}" for i in chance.integers(0, MOVIES, n)],
        "at": _times(chance, n, 48),
        "likes": pa.array(_maybe(chance, chance.integers(-(2**60), 2**60, n).tolist()), pa.int64()),
    }
    pq.write_table(pa.table(both), folder / "of_both.parquet")


@pytest.fixture
def store(tmp_path: Path, redis_url: str) -> Any:
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    (tmp_path / "features.py").write_text(FEATURES)
    write_sources(tmp_path)
    with FeatureStore(tmp_path) as opened:
        opened.apply()
        yield opened


def label_table(count: int = 200, at: datetime = AT) -> pa.Table:
    chance = np.random.default_rng(9)
    return pa.table(
        {
            "label": chance.integers(0, 2, count),
            "movie_id": pa.array([f"m{i}" for i in chance.integers(-2, MOVIES + 2, count)], pa.string()),
            "user_id": chance.integers(-2, USERS + 2, count),
            "event_timestamp": pa.array([at] * count, pa.timestamp("us", "UTC")),
            "now_year": pa.array(chance.integers(2000, 2030, count), pa.int32()),
            "since": pa.array([at] * count, pa.timestamp("us", "UTC")),
        }
    )


def _requests(labels: pa.Table) -> dict[str, list[Any]]:
    return labels.drop(["label", "event_timestamp"]).to_pydict()


def test_spark_makes_the_training_set_that_local_makes(store: FeatureStore, spark_engine: Any, tmp_path: Path) -> None:
    """With on-demand functions, whose code the executors do not have."""
    labels = label_table()
    hours = [AT - timedelta(hours=i % 12) for i in range(len(labels))]
    labels = labels.set_column(3, "event_timestamp", pa.array(hours, pa.timestamp("us", "UTC")))
    local = store.get_historical_features(labels, "ranking")
    spark = store.get_historical_features(labels, "ranking", engine="spark")
    assert spark.to_arrow().equals(local.to_arrow())
    assert (spark.manifest.engine, spark.manifest.missing) == ("spark", local.manifest.missing)
    spark.write_parquet(tmp_path / "out" / "train.parquet")
    assert pq.read_table(tmp_path / "out" / "train.parquet").equals(local.to_arrow())
    assert (tmp_path / "out" / "train.manifest.json").is_file()
    assert len(store.get_historical_features(label_table(0), "ranking", engine="spark").to_arrow()) == 0


@pytest.mark.parametrize("device", [False, True])
def test_a_training_set_is_what_was_served(store: FeatureStore, device: bool) -> None:
    """Every type, defaults, nulls, missing and expired rows, renamed features, and on-demand functions of all these."""
    store.materialize(end=AT)
    labels = label_table()
    if device:
        devices = ["tv" if i % 3 else None for i in range(len(labels))]
        labels = labels.append_column("device", pa.array(devices, pa.string()))
    offline = store.get_historical_features(labels, "ranking").to_arrow()
    online = store.get_online_features("ranking", _requests(labels), now=AT)
    assert offline.schema.names == [*labels.schema.names, *online.names]
    assert offline.select(labels.schema.names).equals(labels)
    served = online.to_dict()
    for name in online.names:
        assert offline[name].to_pylist() == served[name], name
    assert offline.select(online.names).schema.equals(online.to_arrow().schema)
    statuses = {status.name for name in online.names for status in online.status[name]}
    assert statuses == {"PRESENT", "NULL", "MISSING", "EXPIRED"}


def test_the_matrix_is_the_one_that_was_served(store: FeatureStore) -> None:
    store.materialize(end=AT)
    labels = label_table()
    asked = [
        *(f"of_user:{name}" for name in ("visits", "spent", "is_new")),
        *(f"of_movie:{name}" for name in ("vector", "double", "year")),
        "mixed:age",
        "mixed:norm",
        "mixed:odd",
    ]
    training_set = store.get_historical_features(labels, asked)
    served = store.get_online_features(asked, _requests(labels), now=AT)
    matrix = training_set.to_numpy()
    assert training_set.columns == served.columns
    assert matrix.flags.c_contiguous
    for i, name in enumerate(served.columns):
        np.testing.assert_array_equal(matrix[:, i], served.to_numpy()[:, i], name)
    for name, feature in {"words": "mixed:words", "likes": "of_both:likes"}.items():  # texts; identifiers
        with pytest.raises(RequestError, match=f"column {name}"):
            store.get_historical_features(labels, [feature]).to_numpy()


def test_missing_values_are_counted_whether_a_default_stands_there_or_not(store: FeatureStore) -> None:
    store.materialize(end=AT)
    labels = label_table()
    made = store.get_historical_features(labels, "ranking")
    online = store.get_online_features("ranking", _requests(labels), now=AT)
    expected = {name: sum(status.name != "PRESENT" for status in online.status[name]) for name in online.names}
    assert made.manifest.missing == expected
    assert made.manifest.missing_rates["visits"] == expected["visits"] / len(labels) > 0


def test_each_label_has_its_own_time(store: FeatureStore) -> None:
    labels = label_table()
    hours = [AT - timedelta(hours=i % 12) for i in range(len(labels))]
    mixed = labels.set_column(3, "event_timestamp", pa.array(hours, pa.timestamp("us", "UTC")))
    whole = store.get_historical_features(mixed, "ranking").to_arrow()
    for hour in sorted(set(hours)):
        rows = [i for i, at in enumerate(hours) if at == hour]
        alone = store.get_historical_features(mixed.take(rows), "ranking").to_arrow()
        assert whole.take(rows).equals(alone)
    assert len({str(value) for value in whole["visits"].to_pylist()}) > 5


def test_label_rows_may_come_from_anywhere(store: FeatureStore, tmp_path: Path, monkeypatch: Any) -> None:
    labels = label_table(50)
    expected = store.get_historical_features(labels, "ranking").to_arrow()
    pq.write_table(labels, store.config.folder / "labels.parquet")
    frame = labels.to_pandas()
    frame.index = frame.index[::-1]
    monkeypatch.chdir("/")
    for given in (
        frame,
        labels.to_batches()[0],
        store.config.folder / "labels.parquet",
        str(store.config.folder / "labels.parquet"),
        "-- all of them\nSELECT * FROM 'labels.parquet'",
        "with labels as (select * from 'labels.parquet') select * from labels",
    ):
        found = store.get_historical_features(given, "ranking").to_arrow()
        assert found.to_pylist() == expected.to_pylist(), given
    for odd in ({"user_id": [1]}, None, 7):
        with pytest.raises(
            DataError, match=r"labels: expected a table of Arrow, pandas, polars or DuckDB.*got (dict|NoneType|int)"
        ):
            store.get_historical_features(odd, "ranking")


def test_pandas_in_and_out(store: FeatureStore) -> None:
    frame = pd.DataFrame(
        {"user_id": [1.0, None, 3.0], "when": pd.to_datetime([AT] * 3), "weight": ["a", "b", None]}, index=[7, 8, 9]
    )
    found = store.get_historical_features(frame, "few", timestamp_column="when").to_pandas()
    assert found.columns.tolist() == ["user_id", "when", "weight", "visits", "spent"]
    assert found["weight"].iloc[1] == "b"
    assert found["visits"].iloc[1] == -1  # without a key there is no row, so the default is served
    assert len(found) == 3


def test_features_may_be_asked_for_one_by_one(store: FeatureStore) -> None:
    labels = label_table(20)
    found = store.get_historical_features(labels, ["of_user:spent", "mixed:age"])
    assert found.to_arrow().schema.names[-2:] == ["spent", "age"]
    assert found.manifest.service == ("of_user:spent", "mixed:age")
    with pytest.raises(NotFoundError, match="nothing"):
        store.get_historical_features(labels, "nothing")
    with pytest.raises(RequestError, match="of_user:nothing"):
        store.get_historical_features(labels, ["of_user:nothing"])


def test_no_labels_make_an_empty_training_set(store: FeatureStore) -> None:
    found = store.get_historical_features(label_table(0), "ranking")
    assert len(found) == len(found.to_arrow()) == 0
    assert found.to_arrow().schema == store.get_historical_features(label_table(5), "ranking").to_arrow().schema
    assert set(found.manifest.missing_rates.values()) == {0.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(["movie_id"]), "labels: column movie_id: expected a column of String, got none"),
        (lambda t: t.drop(["now_year"]), "labels: column now_year: expected a column of Int32"),
        (lambda t: t.drop(["event_timestamp"]), "labels: column event_timestamp: expected a column of Timestamp"),
        (lambda t: t.append_column("film", t["label"]), "column film: expected a name that no feature has.*rename"),
        (lambda t: t.append_column("user_id", t["label"]), "column user_id: expected one column of that name"),
        (lambda t: t.set_column(2, "user_id", t["movie_id"]), "column user_id: expected values of Int64"),
        (
            lambda t: t.set_column(4, "now_year", pa.array([None] * len(t), pa.int32())),
            "now_year, row 0: expected Int32, got null.*default",
        ),
        (
            lambda t: t.set_column(4, "now_year", pa.array([1] * (len(t) - 1) + [2**40])),
            "now_year, row 299: expected Int32, got 1099511627776",
        ),
    ],
)
def test_label_rows_that_do_not_fit_are_refused(
    store: FeatureStore, change: Any, message: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(local_join, "BATCH_ROWS", 100)
    with pytest.raises(DataError, match=f"(?s){message}"):
        store.get_historical_features(change(label_table(300)), "ranking")


def test_a_view_without_history_is_refused(store: FeatureStore) -> None:
    with pytest.raises(RequestError, match=r"view pushed: expected a source"):
        store.get_historical_features(label_table(5), "from_push")


def test_nothing_is_applied(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: shop\n")
    with FeatureStore(tmp_path) as opened, pytest.raises(NotFoundError, match="apply"):
        opened.get_historical_features(label_table(5), "few")


def test_an_unknown_engine_is_refused(store: FeatureStore) -> None:
    with pytest.raises(FeatureStoreError, match="engine"):
        store.get_historical_features(label_table(5), "few", engine="abacus")


def test_on_demand_code_that_was_not_applied_is_refused(store: FeatureStore) -> None:
    (store.config.folder / "features.py").write_text(FEATURES.replace("2 * inputs", "3 * inputs"))
    with FeatureStore(store.config.folder) as changed:
        with pytest.raises(TransformError, match="greeting"):
            changed.get_historical_features(label_table(5), "ranking")
        assert len(changed.get_historical_features(label_table(5), "few")) == 5


def test_training_sets_need_no_online_store(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: shop\nonline_store:\n  url: redis://127.0.0.1:1\n")
    (tmp_path / "features.py").write_text(FEATURES)
    write_sources(tmp_path)
    with FeatureStore(tmp_path) as opened:
        opened.registry.commit(opened.definitions, base=None, author="ada")
        assert len(opened.get_historical_features(label_table(5), "ranking")) == 5


def test_the_manifest_says_what_it_was_made_of(store: FeatureStore, tmp_path: Path) -> None:
    bad = pa.table({"user_id": [1], "at": [AT], "made": [AT], "visits": [2**40]})
    pq.write_table(bad, tmp_path / "bad.parquet")
    columns = pq.read_schema(tmp_path / "of_user" / "part-0.parquet")
    rest = {f.name: pa.nulls(1, f.type) for f in columns if f.name not in bad.schema.names}
    pq.write_table(
        pa.table({**{name: bad[name] for name in bad.schema.names}, **rest}), tmp_path / "of_user" / "z.parquet"
    )
    made = store.get_historical_features(label_table(40), "ranking")
    manifest = made.manifest
    assert (manifest.project, manifest.definitions_version, manifest.engine) == ("shop", 1, "local")
    assert manifest.definitions_digest == store.registry.latest().digest  # type: ignore[union-attr]
    assert (manifest.service, manifest.rows, manifest.labels) == ("ranking", 40, "labels")
    assert list(manifest.features) == list(manifest.missing) == made.to_arrow().schema.names[6:]
    sources = {source.view: source for source in manifest.sources}
    assert sorted(sources) == ["of_both", "of_movie", "of_user"]
    of_user = sources["of_user"]
    assert (of_user.rows, of_user.quarantined, len(of_user.files)) == (151, 1, 4)
    reason = pq.read_table(of_user.quarantine_file)["reason"][0].as_py()
    assert reason == "visits: expected Int32, got 1099511627776"
    about = os.stat(of_user.files[0].path)  # noqa: PTH116
    assert (of_user.files[0].bytes, of_user.files[0].modified_ns) == (about.st_size, about.st_mtime_ns)
    assert manifest.made_at.tzinfo is UTC
    made.write_parquet(tmp_path / "out" / "train.parquet")
    assert pq.read_table(tmp_path / "out" / "train.parquet").equals(made.to_arrow())
    document = json.loads((tmp_path / "out" / "train.manifest.json").read_text())
    assert document["format"] == 1
    assert document["missing_rates"] == manifest.missing_rates
    assert document["sources"][0]["files"][0]["bytes"] > 0
    assert not list((store.config.state_folder / "training").iterdir())


class ChangesSource(Silent):
    """A report that rewrites a source after its rows are joined and before the training set is assembled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def started(self, view: str, total_rows: int | None) -> None:
        if view == "training set":
            pq.write_table(pq.read_table(self._path).slice(1), self._path)


def test_a_source_that_changes_during_the_join_is_an_error(store: FeatureStore) -> None:
    report = ChangesSource(store.config.folder / "of_both.parquet")
    with pytest.raises(DataError, match=r"of_both\.parquet was changed while it was read"):
        store.get_historical_features(label_table(5), "ranking", report=report)


def test_skew_between_serving_and_training_is_none(store: FeatureStore) -> None:
    store.materialize(end=AT)
    report = store.monitoring.skew("ranking", AT, {"now_year": [2020], "since": [AT]}, sample=50)
    assert report.differing == 0
    assert report.rows == 50
