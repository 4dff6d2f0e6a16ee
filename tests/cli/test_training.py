"""The command training-set."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.cli import main

if TYPE_CHECKING:
    from pathlib import Path

FEATURES = """
from feature_store import *
user = Entity("user", join_key="user_id")
stats = FeatureView("stats", entities=[user], source=ParquetSource("stats.parquet", event_timestamp="at"),
    schema=[Field("visits", Int32), Field("spent", Float64, default=0.0)])
ranking = FeatureService("ranking", features=[stats])
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, redis_url: str) -> Any:
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    (tmp_path / "features.py").write_text(FEATURES)
    times = pa.array([0, 5, 5], pa.timestamp("s"))
    stats = {"user_id": [1, 1, 2], "at": times, "visits": [1, 2, 2**40], "spent": [0.5, None, 1.0]}
    pq.write_table(pa.table(stats), tmp_path / "stats.parquet")
    labels = {"user_id": [1, 2, 1], "event_timestamp": pa.array([9, 9, 1], pa.timestamp("s")), "y": [1, 0, 1]}
    pq.write_table(pa.table(labels), tmp_path / "labels.parquet")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["feature-store", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, error = capsys.readouterr()
        return ended.value.code if isinstance(ended.value.code, int) else 0, out, error

    assert call("apply")[0] == 0
    return call


ASKED = ["training-set", "--service", "ranking", "--out", "train.parquet", "--entities"]


def test_a_training_set_is_written_with_its_manifest(run: Any, tmp_path: Path) -> None:
    code, out, error = run(*ASKED, "labels.parquet", "--json")
    assert code == 0, error
    document = json.loads(out)
    assert pq.read_table(tmp_path / "train.parquet").select(["y", "visits", "spent"]).to_pydict() == {
        "y": [1, 0, 1],
        "visits": [2, None, 1],
        "spent": [0.0, 0.0, 0.5],
    }
    assert document.pop("out") == "train.parquet"
    assert document == json.loads((tmp_path / "train.manifest.json").read_text())
    assert document["rows"] == 3
    assert document["missing"] == {"visits": 1, "spent": 2}
    assert document["labels"] == "labels labels.parquet"


def test_people_are_shown_rates_and_progress(run: Any) -> None:
    code, out, bars = run(*ASKED, "labels.parquet")
    assert code == 0
    assert "33.3%" in out
    assert "3 rows × 2 features" in out
    assert "stats: 1 rows do not fit" in out
    assert "stats" in bars
    assert "training set" in bars


def test_labels_may_be_a_query(run: Any, tmp_path: Path) -> None:
    query = "SELECT user_id, event_timestamp AS t FROM 'labels.parquet' WHERE y = 1"
    assert run(*ASKED, query, "--timestamp-column", "t", "--engine", "local")[0] == 0
    assert pq.read_table(tmp_path / "train.parquet")["visits"].to_pylist() == [2, 1]


def test_spark_writes_a_folder(run: Any, tmp_path: Path, spark_engine: Any) -> None:
    code, out, error = run(*ASKED, "labels.parquet", "--engine", "spark", "--json")
    assert code == 0, error
    assert json.loads(out)["engine"] == "spark"
    assert (tmp_path / "train.parquet").is_dir()
    assert pq.read_table(tmp_path / "train.parquet")["visits"].to_pylist() == [2, None, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [("none.parquet", "none.parquet"), ("SELECT 1", "user_id"), ("SELECT nothing", "SQL that DuckDB runs")],
)
def test_what_is_wrong_is_told_in_one_line(run: Any, tmp_path: Path, labels: str, message: str) -> None:
    code, out, error = run(*ASKED, labels)
    assert (code, out) == (1, "")
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "train.parquet").exists()


def test_the_versions_of_sources_that_a_manifest_records_are_read(run: Any, tmp_path: Path) -> None:
    assert run(*ASKED, "labels.parquet")[0] == 0
    whole = (tmp_path / "train.parquet").read_bytes()
    assert run(*ASKED, "labels.parquet", "--as-recorded", "train.manifest.json")[0] == 0
    assert (tmp_path / "train.parquet").read_bytes() == whole
    pq.write_table(pq.read_table("stats.parquet").slice(1), tmp_path / "stats.parquet")
    code, _, error = run(*ASKED, "labels.parquet", "--as-recorded", "train.manifest.json")
    assert code == 1
    assert "no longer has the rows that the manifest records" in error
    code, _, error = run(*ASKED, "labels.parquet", "--as-recorded", "x.json", "--from-served-log", "log")
    assert code == 2
    assert "a served log has no sources" in error
