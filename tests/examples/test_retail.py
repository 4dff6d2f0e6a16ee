"""The retail example: its definitions, and its features recomputed by SQL over the raw receipts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.definitions.graph import graph_of
from feature_store.pruning.importance import checked
from feature_store.pruning.importance_file import read_importances

EXAMPLE = Path(__file__).parents[2] / "examples" / "retail"
LABELS = 400
# Per feature: an aggregate of the lines, which lines belong to a label, and the days before the week that count.
BY_HAND = {
    "household_sales_28d": ("sum(sales)", "l.household_id = t.household_id", 28),
    "household_baskets_7d": ("count(DISTINCT basket)", "l.household_id = t.household_id", 7),
    "category_private_lines_28d": ("count(l.day) FILTER (private)", "l.category_id = t.category_id", 28),
    "bought_lines_112d": ("count(l.day)", "l.household_id = t.household_id AND l.category_id = t.category_id", 112),
    "days_since_bought": ("any_value(t.today) - max(day)", "l.household_id = t.household_id AND l.category_id = t.category_id", 112),
    "department_sales_56d": ("sum(sales)", "l.household_id = t.household_id AND l.department_id = t.department_id", 56),
}  # fmt: skip


@pytest.fixture(scope="session")
def data() -> Path:
    """The repository's own copy of the data, made unless it is there."""
    done = subprocess.run(
        [sys.executable, EXAMPLE / "tables.py"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return EXAMPLE / "data"


def project(tmp_path: Path, redis_url: str, data: Path) -> Path:
    (tmp_path / "features.py").symlink_to(EXAMPLE / "features.py")
    (tmp_path / "data").symlink_to(data)
    (tmp_path / "feature_store.yaml").write_text(f"project: retail\nonline_store:\n  url: {redis_url}\n")
    return tmp_path


@pytest.mark.parametrize(("row_groups", "groups"), [("entity", 5), ("view", 18)])
def test_views_share_rows_or_do_not(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, data: Path, row_groups: str, groups: int
) -> None:
    monkeypatch.setenv("ROW_GROUPS", row_groups)
    with FeatureStore(project(tmp_path, redis_url, data)) as store:
        plan = store.apply().plan
        columns = graph_of(store.applied()).columns("coming_week")
        assert len(plan.groups) == groups and len(columns) == 153
        assert len({column.view for column in columns}) == 18
        checked(read_importances(EXAMPLE / "importances.json"), [column.name for column in columns])


def test_features_are_those_of_the_receipts_before_the_week(tmp_path: Path, redis_url: str, data: Path) -> None:
    labels = pq.read_table(data / "labels.parquet")
    assert len(labels) > 600_000 and 0.03 < pc.mean(labels["bought"]).as_py() < 0.1
    few = labels.take(np.linspace(0, len(labels) - 1, LABELS).astype(int))
    with FeatureStore(project(tmp_path, redis_url, data)) as store:
        store.apply()
        found = store.get_historical_features(few, "coming_week").to_arrow()
    for name, wanted in by_hand(few, data).items():
        got = np.array(found[name].to_pylist(), float)
        np.testing.assert_allclose(np.nan_to_num(got), np.nan_to_num(wanted), rtol=2e-5, err_msg=name)


def by_hand(labels: Any, data: Path) -> dict[str, np.ndarray[Any, Any]]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("labels", labels)
        connection.execute(f"CREATE VIEW l AS SELECT *, household_id || '/' || store_id || '/' || event_timestamp AS basket FROM '{data}/lines.parquet'")  # fmt: skip
        connection.execute("CREATE TABLE t AS SELECT *, row_number() OVER () AS place FROM labels")
        found = {}
        for name, (what, whose, days) in BY_HAND.items():
            query = f"""
                SELECT t.place, {what} AS value FROM t LEFT JOIN l ON {whose}
                    AND l.event_timestamp < t.event_timestamp
                    AND l.event_timestamp >= t.event_timestamp - INTERVAL {days} DAYS
                GROUP BY t.place ORDER BY t.place
            """
            found[name] = connection.sql(query).to_arrow_table()["value"].to_numpy().astype(float)
        return found
