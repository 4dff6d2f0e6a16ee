"""A registry and a Redis of the release before Redis kept progress: their rows are used, their progress is not."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store._intervals import BEGINNING
from tests.raw_redis import raw_client

DEFINITIONS = """
from feature_store import *
user = Entity("user", join_key="user_id")
stats = FeatureView("stats", entities=[user], schema=[Field("visits", Int64){more}],
    source=ParquetSource("rows", event_timestamp="at"))
ranking = FeatureService("ranking", features=[stats])
"""
NOW = datetime.now(UTC)


def write(folder: Path, name: str, user: int, visits: int, at: datetime) -> None:
    table = pa.table({"user_id": [user], "visits": [visits], "height": [0.5], "at": [at]})
    pq.write_table(table, folder / "rows" / f"{name}.parquet")


@pytest.fixture
def folder(tmp_path: Path, redis_url: str) -> Path:
    (tmp_path / "rows").mkdir()
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store: {{url: '{redis_url}'}}\n")
    (tmp_path / "features.py").write_text(DEFINITIONS.format(more=""))
    write(tmp_path, "first", 1, 7, NOW - timedelta(days=2))
    with FeatureStore(tmp_path) as store:
        store.apply()
        store.materialize()
    as_before(tmp_path, redis_url)
    return tmp_path


def as_before(folder: Path, url: str) -> None:
    """Remove what this release adds, and record progress as the earlier release did: three days ahead of the clock."""
    with raw_client(url) as client:
        client.delete(*client.scan_iter("{shop:0}p:*"))
        plan = json.loads(client.get("{shop:0}plan"))
        del plan["registry"]
        client.set("{shop:0}plan", json.dumps(plan))
    with sqlite3.connect(folder / ".feature_store" / "registry.db") as connection:
        for table in ("fs_registry", "fs_runs", "fs_schema"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("DELETE FROM fs_intervals")
        ahead = int((NOW + timedelta(days=3)).timestamp() * 1e6)
        connection.execute("INSERT INTO fs_intervals VALUES ('shop', 'stats', 1, ?, ?)", (BEGINNING, ahead))
        connection.execute("CREATE TABLE fs_jobs (project TEXT, job TEXT, chunks_done INTEGER)")
    connection.close()


def visits(store: FeatureStore) -> Any:
    return store.get_online_features("ranking", {"user_id": [1, 2]}).to_dict()["visits"]


def test_the_first_job_reads_everything_once_and_the_next_only_what_is_new(folder: Path) -> None:
    with FeatureStore(folder) as store:
        assert visits(store) == [7, None], "rows are served as they are"
        write(folder, "second", 2, 8, NOW - timedelta(days=1))
        assert store.materialize()[0].source_rows == 2
        assert visits(store) == [7, 8]
        assert store.materialize()[0].source_rows == 0
        assert store.apply().changes.is_empty
        assert store.online.require_published().plan.registry == store.registry.id() != ""


def test_a_changed_layout_is_filled_over_what_was_asked_for(folder: Path) -> None:
    (folder / "features.py").write_text(DEFINITIONS.format(more=', Field("height", Float32)'))
    with FeatureStore(folder) as store:
        store.apply()
        assert store.get_online_features("ranking", {"user_id": [1]}).to_dict() == {"visits": [7], "height": [0.5]}
        assert store.materialize()[0].source_rows == 0, "it was read by the fill"
