"""A project whose rows are in PostgreSQL: applied, materialized again and again, killed, and without its password anywhere."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feature_store import FeatureStore
from feature_store.errors import DataError
from tests.arrow.sources.databases import Postgres
from tests.raw_redis import raw_client

SECRET = "s3cret-Pa55word"
FEATURES = """
from feature_store import *
user = Entity("user", join_key="user_id")
stats = FeatureView("stats", entities=[user], schema=[Field("score", Float64), Field("title", String)],
    source=SqlSource("rows", connection="warehouse", event_timestamp="at", created_timestamp="made"))
ranking = FeatureService("ranking", features=[stats])
"""
MORE = (
    "INSERT INTO rows SELECT i % 3000 + 1, timestamptz '2024-01-01' + i * interval '1 second',"
    " timestamptz '2024-02-01' + i * interval '1 second', i / 2.0, repeat('x', 200) || i FROM generate_series({}, {}) i"
)


@pytest.fixture
def project(postgres: Postgres, redis_url: str, tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    url = postgres.url.replace("://postgres:@", "://postgres:${PGPASSWORD_OF_TESTS}@")
    (folder / "feature_store.yaml").write_text(
        f"project: shop\nonline_store: {{url: '{redis_url}'}}\nconnections: {{warehouse: '{url}'}}\n"
    )
    (folder / "features.py").write_text(FEATURES)
    postgres.run("CREATE TABLE rows (user_id int8, at timestamptz, made timestamptz, score float8, title text)")
    postgres.run(MORE.format(1, 60_000))
    return folder


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD_OF_TESTS", SECRET)


def rows_in(redis_url: str) -> dict[bytes, bytes]:
    """The stored rows, by key."""
    with raw_client(redis_url) as client:
        return {key: client.dump(key) for key in client.scan_iter("{shop:*}r:*")}


def test_jobs_read_new_rows_alone_and_no_secret_is_stored(project: Path, postgres: Postgres, redis_url: str) -> None:
    with FeatureStore(project) as store:
        store.apply()
        assert store.materialize()[0].source_rows == 60_000
        assert store.materialize()[0].source_rows == 0
        postgres.run(MORE.format(60_001, 60_010))
        [summary] = store.materialize()
        assert 10 <= summary.late_rows <= 11, "the new rows, and those of the latest time that was read"
        served = store.get_online_features("ranking", {"user_id": [60_010 % 3000 + 1]}).to_dict()
        assert served["stats__score" if "stats__score" in served else "score"] == [30_005.0]
        shown = str(store.context.config.shown())
    assert SECRET not in shown
    kept = b"".join(path.read_bytes() for path in (project / ".feature_store").rglob("*") if path.is_file())
    assert SECRET.encode() not in kept
    with raw_client(redis_url) as client:
        assert not [key for key in client.scan_iter("*") if SECRET.encode() in client.dump(key)]


def test_a_job_on_a_database_that_is_gone_records_nothing(project: Path, postgres: Postgres, redis_url: str) -> None:
    with FeatureStore(project) as store:
        store.apply()
    there = (project / "feature_store.yaml").read_text()
    (project / "feature_store.yaml").write_text(there.replace("postgres:${PGPASSWORD_OF_TESTS}@", "me:x@127.0.0.1:1"))
    with FeatureStore(project) as store, pytest.raises(DataError, match="source warehouse: rows"):
        store.materialize()
    assert not rows_in(redis_url)
    (project / "feature_store.yaml").write_text(there)
    with FeatureStore(project) as store:
        assert store.materialize()[0].source_rows == 60_000


@pytest.mark.parametrize(("kind", "number"), [("read", 1), ("send", 8), ("send", 12)])
def test_a_job_that_is_killed_and_run_again_writes_the_same_bytes(
    project: Path, redis_url: str, kind: str, number: int
) -> None:
    with FeatureStore(project) as store:
        store.apply()
    command = [sys.executable, "-m", "tests.arrow.sources.killed", str(project), kind, str(number)]
    killed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with FeatureStore(project) as store:
        store.materialize()
        resumed = rows_in(redis_url)
        store.teardown()
    with FeatureStore(project) as store:
        store.apply()
        store.materialize()
    assert resumed
    assert rows_in(redis_url) == resumed
