"""The prune commands, on a model that needs three of its seven features."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.cli import main

NOW = datetime(2026, 1, 10, tzinfo=UTC)
USERS, ROWS = 400, 12_000
NAMES = ["good", "better", "noise0", "noise1", "twin", "age", "height"]
FEATURES = """
from feature_store import *
user = Entity("user", join_key="user_id")
item = Entity("item", join_key="item_id")
stats = FeatureView("stats", entities=[user], source=ParquetSource("stats.parquet", event_timestamp="at"),
    schema=[Field("good", Float32), Field("better", Float32), Field("noise0", Float32), Field("noise1", Float32), Field("twin", Float32)])
about = FeatureView("about", entities=[item], source=ParquetSource("about.parquet", event_timestamp="at"),
    schema=[Field("age", Float32), Field("height", Float32)])
ranking = FeatureService("ranking", features=[stats, about])
"""
MODEL = """
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
def make(seed):
    return make_pipeline(StandardScaler(), LogisticRegression())
def load():
    import numpy as np
    x = np.random.default_rng(0).normal(size=(500, 7))
    return make(0).fit(x, x[:, 1] > 0)
"""


def write_data(folder: Path) -> None:
    chance = np.random.default_rng(0)
    at = NOW - timedelta(days=9)
    stats: dict[str, Any] = {name: chance.normal(size=USERS).astype("f4") for name in NAMES[:4]}
    stats["twin"] = (stats["better"] + chance.normal(size=USERS) * 1e-3).astype("f4")
    about = {name: chance.normal(size=USERS).astype("f4") for name in NAMES[5:]}
    for name, key, columns in (("stats", "user_id", stats), ("about", "item_id", about)):
        times = pa.array([at] * USERS, pa.timestamp("us", "UTC"))
        pq.write_table(pa.table({key: np.arange(USERS), "at": times, **columns}), folder / f"{name}.parquet")
    users, items = chance.integers(0, USERS, ROWS), chance.integers(0, USERS, ROWS)
    score = stats["good"][users] + 2 * stats["better"][users] + chance.logistic(size=ROWS)
    times = pa.array([NOW - timedelta(days=5) + timedelta(seconds=i) for i in range(ROWS)], pa.timestamp("us", "UTC"))
    labels = {"user_id": users, "item_id": items, "event_timestamp": times, "y": score > 0}
    pq.write_table(pa.table(labels), folder / "labels.parquet")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, redis_url: str) -> Any:
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    (tmp_path / "features.py").write_text(FEATURES)
    (tmp_path / "prune_me.py").write_text(MODEL)
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "prune_me", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["feature-store", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, error = capsys.readouterr()
        return ended.value.code if isinstance(ended.value.code, int) else 0, out, error

    assert call("apply")[0] == 0
    assert call("materialize", "--end", NOW.isoformat())[0] == 0
    return call


def done(result: tuple[int, str, str]) -> Any:
    code, out, error = result
    assert code == 0, error
    return json.loads(out)


TRAINING = ["--training-set", "train.parquet", "--label", "y", "--entity", "user_id", "--model", "prune_me:make"]
SERVICE = ["--service", "ranking"]
REQUEST = ["--request", "user=1,item=50"]


def test_what_a_model_does_not_need_goes_and_comes_back(run: Any) -> None:
    assert run("training-set", *SERVICE, "--entities", "labels.parquet", "--out", "train.parquet")[0] == 0
    measured = done(run("prune", "measure", *SERVICE, *TRAINING, "--seeds", "2", "--rows", "8000", "--json"))
    worth = {one["feature"]: one["importance"] for one in measured["features"]}
    assert sorted(worth, key=worth.__getitem__)[-1] in ("better", "twin")

    made = done(run("prune", "plan", *SERVICE, *REQUEST, "--keep", "0.98", "--json"))
    assert "good" in made["kept"] and len({"better", "twin"} & set(made["kept"])) == 1
    assert {"noise0", "noise1", "age", "height"} <= set(made["dropped"])
    assert made["after"]["keys"] == 1 and made["before"]["keys"] == 51

    code, _, error = run("prune", "apply", made["plan"])
    assert code == 1 and "the plan is not verified" in error
    verified = done(run("prune", "verify", made["plan"], *TRAINING, "--margin", "0.005", "--json"))
    assert verified["verified"] and verified["verification"]["later_rows"] == 3600

    with FeatureStore() as store:
        before = store.get_online_features("ranking", {"user_id": [1, 2], "item_id": 3}, now=NOW).to_dict()
        assert done(run("prune", "apply", made["plan"][:6], "--stage", "drop", "--json"))["version"] == 2
        found = store.get_online_features("ranking", {"user_id": [1, 2], "item_id": 3}, now=NOW)
        assert found.to_dict() == {name: before[name] for name in made["kept"]}
        assert found.prune_plan == made["plan"]
        accounts = done(run("prune", "show", *SERVICE, *REQUEST, "--json"))["features"]
        assert {one["feature"] for one in accounts if one["dropped_by"]} == set(made["dropped"])
        assert run("prune", "curve", made["plan"], "--out", "out/curve.svg", "--out", "out/curve.png")[0] == 0
        assert Path("out/curve.svg").stat().st_size and Path("out/curve.png").stat().st_size
        assert done(run("prune", "rollback", *SERVICE, "--json"))["version"] == 3
        again = store.get_online_features("ranking", {"user_id": [1, 2], "item_id": 3}, now=NOW)
        assert again.to_dict() == before


def test_people_are_shown_the_profit_and_loss(run: Any, tmp_path: Path) -> None:
    rows = "".join(f"{name},{i}\n" for i, name in enumerate(NAMES))
    (tmp_path / "importance.csv").write_text("feature,importance\n" + rows)
    code, out, error = run("prune", "import", "importance.csv", *SERVICE)
    assert code == 0, error
    assert "7 importances by" in out
    code, out, _ = run("prune", "show", *SERVICE, *REQUEST)
    assert code == 0 and "ranking" in out and "in Redis" in out and "decode" not in out
    code, out, _ = run("prune", "show", *SERVICE, *REQUEST, "--timed")
    assert code == 0 and "round trip" in out and "decode, µs" in out
    timed = done(run("prune", "show", *SERVICE, *REQUEST, "--timed", "--json"))["features"]
    assert all(one["decode_ns"] > 0 and 0 <= one["round_trip"] <= 1 and one["daily_bytes"] is not None for one in timed)
    code, out, _ = run("prune", "plan", *SERVICE, *REQUEST, "--max-features", "2", "--out", "plan.json")
    assert code == 0 and "2 of 7 features" in out and "dropped: importance 0" in out
    assert json.loads((tmp_path / "plan.json").read_text())["kept"] == ["age", "height"]


def test_a_fitted_model_reports_its_importances(run: Any) -> None:
    imported = done(run("prune", "import", "--fitted", "prune_me:load", *SERVICE, "--json"))
    assert imported["method"] == "size of coef_"
    assert max(imported["features"], key=lambda one: one["importance"])["feature"] == NAMES[1]
    for wrong in (["importance.csv", "--fitted", "prune_me:load"], []):
        code, _, error = run("prune", "import", *wrong, *SERVICE)
        assert code == 1 and "name either a file or --fitted" in error


def test_a_plan_fits_in_a_time_that_is_measured(run: Any, tmp_path: Path) -> None:
    rows = "".join(f"{name},{i}\n" for i, name in enumerate(NAMES))
    (tmp_path / "importance.csv").write_text("feature,importance\n" + rows)
    assert run("prune", "import", "importance.csv", *SERVICE)[0] == 0
    all_of_it = done(run("prune", "plan", *SERVICE, *REQUEST, "--slo-ms", "10000", "--json"))
    assert len(all_of_it["dropped"]) <= 1, "what is worth nothing may go"
    code, _, error = run("prune", "plan", *SERVICE, *REQUEST, "--slo-ms", "0.000001", "--require", "good")
    assert code == 1 and "the required features exceed the budget" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", *SERVICE, *REQUEST, "--keep", "0.9"], "expected importances of its features, got none"),
        (["plan", *SERVICE, *REQUEST], "a budget is required"),
        (["plan", *SERVICE, "--request", "user", "--keep", "1"], "expected ENTITY=COUNT"),
        (["show", *SERVICE, "--request", "user=1"], "expected the number of item entities"),
        (["rollback", *SERVICE], "no prune plan is applied to it"),
        (["apply", "1234"], "prune plan 1234: expected a plan, got none"),
        (["import", "importance.csv", *SERVICE], "row 2 goode (1); missing: better"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(run: Any, tmp_path: Path, arguments: list[str], message: str) -> None:
    rows = ["good,1", "goode,1", *(f"{name},1" for name in NAMES[2:])]
    (tmp_path / "importance.csv").write_text("\n".join(["feature,importance", *rows]))
    code, _, error = run("prune", *arguments)
    assert code == 1
    assert message in error
