"""Training sets from the served log."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.cli import main
from feature_store.definitions.pruned import pruning_of
from feature_store.errors import DataError, NotFoundError
from feature_store.monitoring import ParquetSink, ServedLog
from feature_store.online import OnlineClient
from tests.monitoring.served_worlds import NOW, expected_rows, make_project, some_request


@pytest.fixture
def store(tmp_path: Path, redis_url: str) -> Iterator[FeatureStore]:
    with make_project(tmp_path, redis_url) as made:
        yield made


def serve(store: FeatureStore, requests: dict[str, dict[str, Any]], rate: float = 1.0) -> dict[str, Any]:
    """Serve and log requests, `{request id: entity rows}`. Returns the answers by request id."""
    functions: Any = store.definitions.on_demand_feature_views
    log = ServedLog(ParquetSink(store.config.folder / "log"), rate, by="request_id")
    with log, OnlineClient(store.online_url, "shop", transforms=functions, observers=[log]) as client:
        answers = {
            one: client.get_online_features("ranking", rows, now=NOW, request_id=one, log_fields={"variant": one[-1]})
            for one, rows in requests.items()
        }
        assert log.flush(60)
    return answers


def some_requests(count: int, seed: int = 1) -> dict[str, dict[str, Any]]:
    chance = random.Random(seed)
    return {f"r{i}": some_request(chance) for i in range(count)}


def test_labels_get_what_was_served_by_row_number(store: FeatureStore) -> None:
    """Compared with the answers. The labels have any order, and some are of requests that were not logged."""
    requests = some_requests(200)
    answers = serve(store, requests, rate=0.5)
    chance = random.Random(2)
    asked = [(one, chance.randrange(len(answers[one]))) for one in chance.choices(list(requests), k=500)]
    asked += [("never served", 0), ("r0", 99)]
    labels = pa.table(
        {"request_id": [one for one, _ in asked], "request_row": [row for _, row in asked], "y": range(len(asked))}
    )
    log = store.config.folder / "log"
    made = store.training.from_log(log, labels, "ranking", take=["served_at", "variant"])
    table = made.to_arrow()
    names = answers["r0"].names
    assert table.column_names == ["request_id", "request_row", "y", "served_at", "variant", *names]
    # A slow run writes several files, and a column of text may have another type in each.
    files = [pq.ParquetFile(file).read(["request_id"]) for file in log.rglob("*.parquet")]
    logged = {one for file in files for one in file["request_id"].to_pylist()}
    assert 50 < len(logged) < 150
    wanted = [i for i, (one, row) in enumerate(asked) if one in logged and row < len(answers[one])]
    assert table["y"].to_pylist() == wanted
    expected = {one: expected_rows(answers[one], requests[one]) for one in logged}
    for found, i in zip(table.to_pylist(), wanted, strict=True):
        one, row = asked[i]
        for name in names:
            assert repr(found[name]) == repr(expected[one][row][name]) or found[name] == expected[one][row][name]
        assert (found["variant"], found["served_at"]) == (one[-1], NOW)
    assert made.manifest.labels == f"labels: 502 rows, of which {len(wanted)} were logged"
    missing = sum(expected[asked[i][0]][asked[i][1]]["served_status"][0] != 0 for i in wanted)
    assert made.manifest.missing["visits"] == missing > 0


def test_labels_get_what_was_served_by_join_keys(store: FeatureStore) -> None:
    requests = {"a": {"user_id": 1, "movie_id": ["m1", "m2"], "now_year": 2020}, "b": {"user_id": 2, "movie_id": "m1", "now_year": 2021}}  # fmt: skip
    answers = serve(store, requests)
    labels = pa.table({"request_id": ["b", "a", None, "a"], "user_id": pa.array([2, 1, 1, 9], pa.int32()), "movie_id": ["m1", "m2", "m1", "m1"], "y": [1.0, 0.0, 0.0, 0.0]})  # fmt: skip
    table = store.training.from_log(store.config.folder / "log", labels, "ranking").to_arrow()
    assert table["y"].to_pylist() == [1.0, 0.0]
    assert table["age"].to_pylist() == [answers["b"].to_dict()["age"][0], answers["a"].to_dict()["age"][1]]
    columns = store.get_historical_features(
        labels.append_column("event_timestamp", pa.array([NOW] * 4)).append_column("now_year", pa.array([2020] * 4)),
        "ranking",
    ).to_arrow()
    names = answers["a"].names
    assert table.select(names).schema.remove_metadata() == columns.select(names).schema, "as of any training set"


def test_matrices_are_those_that_were_served(store: FeatureStore) -> None:
    functions: Any = store.definitions.on_demand_feature_views
    with ServedLog(ParquetSink(store.config.folder / "log"), 1.0) as log:
        with OnlineClient(store.online_url, "shop", transforms=functions, observers=[log]) as client:
            answer = client.get_online_features("numbers", {"user_id": [3, 1, 4, 1, 5]}, now=NOW, request_id="r")
        assert log.flush(60)
    labels = pa.table({"request_id": ["r"] * 5, "request_row": range(5)})
    made = store.training.from_log(store.config.folder / "log", labels, "numbers")
    np.testing.assert_array_equal(made.to_numpy(), answer.to_numpy())
    assert made.columns == answer.columns


def test_records_of_another_feature_list_are_refused(store: FeatureStore) -> None:
    requests = some_requests(3)
    serve(store, requests)
    store.prune("ranking", pruning_of(store.applied(), "ranking", ["spent", "title"], plan="p", stage="drop"))
    serve(store, some_requests(3, seed=9))
    labels = pa.table({"request_id": ["r0"], "request_row": [0], "y": [1]})
    log = store.config.folder / "log"
    with pytest.raises(DataError, match=r"others, of version 1 of the serving plan.*--version"):
        store.training.from_log(log, labels, "ranking")
    old = store.training.from_log(log, labels, "ranking", version=1)
    new = store.training.from_log(log, labels, "ranking", version=2)
    assert set(old.manifest.features) - set(new.manifest.features) == {"spent", "title"}
    assert new.manifest.definitions_digest and not old.manifest.definitions_digest
    with pytest.raises(NotFoundError, match="of version 3"):
        store.training.from_log(log, labels, "ranking", version=3)


def test_what_is_ambiguous_or_lacking_is_refused(store: FeatureStore) -> None:
    serve(store, {"a": {"user_id": 1, "movie_id": ["m1", "m1"], "now_year": 2020}})
    log = store.config.folder / "log"

    def make(take: tuple[str, ...] = (), **labels: Any) -> Any:
        return store.training.from_log(log, pa.table({"request_id": ["a"]} | labels), "ranking", take=take)

    with pytest.raises(DataError, match=r"one record, got several of request_id='a', user_id=1.*request_row"):
        make(user_id=[1], movie_id=["m1"])
    with pytest.raises(DataError, match="column user_id"):
        make(movie_id=["m1"])
    with pytest.raises(DataError, match="column visits"):
        make(request_row=[0], visits=[1])
    with pytest.raises(DataError, match=r"column nothing: expected a column of the log"):
        make(("nothing",), request_row=[0])
    with pytest.raises(DataError, match=r"request_row.*Int32"):
        make(request_row=["0"])


def test_the_command(store: FeatureStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    serve(store, some_requests(5))
    folder = store.config.folder
    labels = {"request_id": ["r1", "r2", "x"], "request_row": [0, 0, 0], "y": [1, 0, 1]}
    pq.write_table(pa.table(labels), folder / "labels.parquet")
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["feature-store", "training-set", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, error = capsys.readouterr()
        return ended.value.code if isinstance(ended.value.code, int) else 0, out, error

    asked = ["--service", "ranking", "--out", "train.parquet", "--from-served-log", "log"]
    code, out, error = run(*asked, "--labels", "labels.parquet", "--take", "variant", "--json")
    assert code == 0, error
    assert json.loads(out)["rows"] == 2
    assert pq.read_table(folder / "train.parquet").select(["y", "variant"]).to_pydict() == {"y": [1, 0], "variant": ["1", "2"]}  # fmt: skip
    assert "3 rows, of which 2 were logged" in run(*asked, "--labels", "labels.parquet")[1]
    assert run(*asked)[0] == 2
    assert run(*asked[:4], "--labels", "labels.parquet", "--take", "variant")[0] == 2
    code, _, error = run(*asked[:5], "nothing", "--labels", "labels.parquet")
    assert code == 1 and "served log nothing" in error and "Traceback" not in error


def test_times_are_those_of_requests(store: FeatureStore) -> None:
    functions: Any = store.definitions.on_demand_feature_views
    later = NOW + timedelta(hours=3, microseconds=7)
    with ServedLog(ParquetSink(store.config.folder / "log"), 1.0) as log:
        with OnlineClient(store.online_url, "shop", transforms=functions, observers=[log]) as client:
            client.get_online_features("numbers", {"user_id": 1}, now=later, request_id="r")
        assert log.flush(60)
    labels = pa.table({"request_id": ["r"], "user_id": [1]})
    made = store.training.from_log(store.config.folder / "log", labels, "numbers", take=["served_at"])
    assert made.to_arrow()["served_at"].to_pylist() == [later]


def test_features_that_are_pruned_and_answered_are_their_defaults(store: FeatureStore) -> None:
    dropped = ["spent", "title", "vector", "likes"]
    pruning = pruning_of(store.applied(), "ranking", dropped, plan="p", stage="drop", answer="default")
    store.prune("ranking", pruning)
    labels = {"user_id": [1, 2], "movie_id": ["m1", "m2"], "now_year": [2020, 2021], "event_timestamp": [NOW, NOW]}
    made = store.get_historical_features(pa.table(labels), "ranking")
    served = store.get_online_features("ranking", {name: labels[name] for name in list(labels)[:3]}, now=NOW)
    assert made.to_arrow().select(served.names).to_pydict() == served.to_dict()
    assert [made.manifest.missing[name] for name in dropped] == [2] * 4
