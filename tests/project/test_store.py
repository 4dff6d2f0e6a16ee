"""The whole life of a project: definitions are applied, materialized, changed and served, also concurrently."""

from __future__ import annotations

import concurrent.futures
import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.errors import ConflictError, NotFoundError, NotPublishedError, OnlineStoreError
from tests.project.dying import apply_killed_at
from tests.raw_redis import raw_client

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 1, 10, tzinfo=UTC)
USERS = 20_000
FEATURES = """
from datetime import timedelta
from feature_store import *
user = Entity("user", join_key="user_id")
stats = FeatureView("stats", entities=[user], source=ParquetSource("stats.parquet", event_timestamp="at"),
    schema=[Field("visits", Int64)])
pushed = FeatureView("pushed", entities=[user], schema=[Field("score", Float32)])
ranking = FeatureService("ranking", features=[stats, pushed])
"""
MORE = FEATURES.replace('Field("visits", Int64)', 'Field("visits", Int64), Field("spent", Float64, default=-1.0)')


@pytest.fixture
def folder(tmp_path: Path, redis_url: str) -> Path:
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    (tmp_path / "features.py").write_text(FEATURES)
    _write_source(tmp_path)
    return tmp_path


def _write_source(folder: Path, day: int = 1, made: datetime = NOW) -> None:
    ids = list(range(USERS))
    at = pa.array([NOW - timedelta(days=9 - day)] * USERS, pa.timestamp("us", "UTC"))
    columns = {"user_id": ids, "at": at, "visits": [i * day for i in ids], "spent": [i / 2 for i in ids]}
    columns["made"] = pa.array([made] * USERS, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table(columns), folder / "stats.parquet")


def _served(store: FeatureStore, features: list[str], users: list[int]) -> dict[str, list[Any]]:
    return store.get_online_features(features, {"user_id": users}, now=NOW).to_dict()


def _pushed(user: int, score: float) -> pa.Table:
    return pa.table({"user_id": [user], "event_timestamp": [NOW], "score": pa.array([score], pa.float32())})


def test_a_new_field_is_filled_from_the_source_and_what_was_pushed_stays(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.apply()
        (summary,) = store.materialize(end=NOW)
        assert summary.written == USERS
        store.push("pushed", _pushed(7, 0.5))
    (folder / "features.py").write_text(MORE)
    with FeatureStore(folder) as store:
        assert "rewrites" in str(store.plan())
        assert store.apply().version.version == 2
        found = _served(store, ["stats:visits", "stats:spent", "pushed:score"], [7, 19_999, 20_000])
        assert found == {"visits": [7, 19_999, None], "spent": [3.5, 9999.5, -1.0], "score": [0.5, None, None]}
        assert store.materialize(end=NOW)[0].source_rows == 0  # the interval counts for the new generation, too


def test_creation_times_that_begin_to_count_are_those_of_the_source(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize(end=NOW)
    made = NOW - timedelta(days=20)  # created before their event times, as forecasts are
    _write_source(folder, made=made)
    (folder / "features.py").write_text(
        FEATURES.replace('event_timestamp="at"', 'event_timestamp="at", created_timestamp="made"')
    )
    with FeatureStore(folder) as store:
        assert "rewrites" in str(store.plan())
        store.apply()
        at = NOW - timedelta(days=8)
        for days, visits in ((1, 70), (-1, 71)):
            rows = {"user_id": [7], "at": [at], "made": [made + timedelta(days=days)], "visits": [visits]}
            store.push("stats", pa.table(rows))
        assert _served(store, ["stats:visits"], [7, 8]) == {"visits": [70, 8]}


def test_readers_are_served_whole_answers_while_layouts_change(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize(end=NOW)
        client, users, wrong, reads = store.client, list(range(0, USERS, 997)), [], 0
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            for text in (MORE, FEATURES, MORE):
                (folder / "features.py").write_text(text)
                applying = pool.submit(_apply, folder)
                while not applying.done():
                    response = client.get_online_features("ranking", {"user_id": users}, now=NOW)
                    found, reads = response.to_dict(), reads + 1
                    if found["visits"] != users or found.get("spent", [i / 2 for i in users]) != [i / 2 for i in users]:
                        wrong.append(found)
                applying.result()
        assert not wrong
        assert reads > 10


def _apply(folder: Path) -> int:
    with FeatureStore(folder) as store:
        return store.apply(allow_destructive=True).version.version


@pytest.mark.timeout(900)
def test_an_apply_that_is_killed_at_any_step_leaves_the_old_version_served_and_the_next_finishes_it(
    folder: Path,
) -> None:
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize(end=NOW)
    texts, step = [MORE, FEATURES], 0
    (folder / "features.py").write_text(texts[0])
    while apply_killed_at(folder, step):
        with FeatureStore(folder) as store:
            assert _served(store, ["stats:visits"], [3, 19_999]) == {"visits": [3, 19_999]}
            store.apply(allow_destructive=True)
            assert _served(store, ["stats:visits"], [3, 19_999]) == {"visits": [3, 19_999]}
            plan = store.client.plan()
            assert not plan.filling
            assert not plan.retired
            groups = {(group.name, group.generation) for group in plan.groups}
        with raw_client(store.config.online_store.url or "") as client:
            stored = {tuple(key.split(b":")[2:4]) for key in client.scan_iter("{shop:*}r:*", count=1000)}
        assert stored == {(name.encode(), str(generation).encode()) for name, generation in groups}
        step += 1
        (folder / "features.py").write_text(texts[step % 2])
    # Announce the new generation, copy or fill it, serve it, drop the old one, and forget that: two steps each.
    assert step >= 8


def test_of_concurrent_applies_one_wins_and_the_others_are_told(folder: Path) -> None:
    with FeatureStore(folder) as first, FeatureStore(folder) as second:
        assert first.registry.latest() is None
        assert second.definitions  # reads the files before they change
        (folder / "features.py").write_text(MORE)
        outcomes: list[str] = []
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(store.apply) for store in (first, second)]:
                try:
                    outcomes.append(f"version {future.result().version.version}")
                except (ConflictError, OnlineStoreError) as error:
                    outcomes.append(type(error).__name__)
        versions = first.registry.history()
    assert "version 1" in outcomes
    # The slower apply either found the faster one's version, built on it, or raised an error.
    written = {f"version {version.version}" for version in versions}
    assert written == {outcome for outcome in outcomes if outcome.startswith("version")}
    with FeatureStore(folder) as store:
        store.apply()
        newest = store.registry.latest()
        assert newest is not None
        assert store.client.plan().version == newest.version


def test_nothing_is_materialized_or_served_before_an_apply(folder: Path) -> None:
    with FeatureStore(folder) as store:
        with pytest.raises(NotFoundError, match="apply"):
            store.materialize()
        with pytest.raises(NotFoundError, match="apply"):
            store.push("pushed", _pushed(1, 1.0))
        with pytest.raises(NotPublishedError, match="apply"):
            store.get_online_features("ranking", {"user_id": 1})


def test_materialize_writes_what_is_applied_and_not_what_is_in_the_files(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.apply()
    (folder / "features.py").write_text("broken(")
    with FeatureStore(folder) as store:
        assert store.materialize(end=NOW)[0].written == USERS


def test_an_older_row_does_not_replace_a_newer_one(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.apply()
        _write_source(folder, day=3)
        store.materialize(end=NOW)
        _write_source(folder, day=1)
        summary = store.materialize(start=NOW - timedelta(days=30), end=NOW)[0]
        assert (summary.written, summary.older) == (0, USERS)
        assert _served(store, ["stats:visits"], [5]) == {"visits": [15]}


def test_late_rows_are_found_by_the_files_that_bring_them(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize(end=NOW)
        assert store.materialize(end=NOW)[0].written == 0
        _write_source(folder, day=3)
        summary = store.materialize(end=NOW)[0]
        assert (summary.written, summary.late_rows) == (USERS, USERS)
        assert store.materialize(end=NOW)[0].written == 0
        assert store.materialize(end=NOW, lookback=timedelta(days=8))[0].written == USERS


def test_teardown_and_delete_touch_one_project(tmp_path: Path, folder: Path, redis_url: str) -> None:
    stores = {}
    for project in ("foo", "xfoo", "foo_x"):
        (folder / "feature_store.yaml").write_text(
            f"project: {project}\nregistry: {tmp_path}/shared.db\nonline_store:\n  url: {redis_url}\n"
        )
        stores[project] = FeatureStore(folder)
        stores[project].apply()
        stores[project].push("pushed", _pushed(1, 2.0))
    assert stores["foo"].delete("user", {"user_id": 1}) == 1
    left = [stores["foo"].config.state_folder / name for name in ("training", "spark", "backfill", "quarantine")]
    for job in left:
        job.mkdir(parents=True, exist_ok=True)
    stores["foo"].teardown()
    assert [job.name for job in left if job.exists()] == ["quarantine"]
    for project in ("xfoo", "foo_x"):
        assert _served(stores[project], ["pushed:score"], [1]) == {"score": [2.0]}
        assert stores[project].registry.latest() is not None
    with pytest.raises(NotPublishedError):
        _served(stores["foo"], ["pushed:score"], [1])
    for store in stores.values():
        store.close()


def test_a_store_without_a_url_starts_a_server_and_keeps_its_data(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: shop\n")
    (tmp_path / "features.py").write_text(FEATURES)
    _write_source(tmp_path)
    with FeatureStore(tmp_path) as store:
        store.apply()
        store.materialize(end=NOW)
        pid = store.online.info()["process_id"]
    with pytest.raises(ProcessLookupError):
        _await_end(pid)
    with FeatureStore(tmp_path) as store:
        assert _served(store, ["stats:visits"], [5]) == {"visits": [5]}


def _await_end(pid: int) -> None:
    for _ in range(200):
        os.kill(pid, 0)
        time.sleep(0.05)
