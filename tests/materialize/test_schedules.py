"""Scheduled views: what is due is run once, up to its scheduled time, whoever calls."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store._intervals import BEGINNING
from feature_store.definitions.schedule import time_before
from feature_store.definitions.times import from_microseconds
from feature_store.materialize import schedules as module
from feature_store.materialize.schedules import ViewSchedule
from feature_store.registry.runs import Lease

FEATURES = """
from feature_store import *
user = Entity("user", join_key="user_id")
def view(name, schedule):
    source = ParquetSource(f"{name}.parquet", event_timestamp="at")
    return FeatureView(name, entities=[user], source=source, schema=[Field(f"{name}_score", Int64)], schedule=schedule)
hourly, daily, unscheduled = view("hourly", "0 * * * *"), view("daily", "0 3 * * *"), view("unscheduled", None)
"""
VIEWS = ("hourly", "daily", "unscheduled")


@pytest.fixture
def folder(tmp_path: Path, redis_url: str) -> Path:
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    (tmp_path / "features.py").write_text(FEATURES)
    now = datetime.now(UTC)
    at = pa.array([now - timedelta(days=9), now + timedelta(days=1)], pa.timestamp("us", "UTC"))
    for name in VIEWS:
        pq.write_table(pa.table({"user_id": [1, 2], "at": at, f"{name}_score": [7, 8]}), tmp_path / f"{name}.parquet")
    with FeatureStore(tmp_path) as store:
        store.apply()
    return tmp_path


def found(store: FeatureStore) -> dict[str, ViewSchedule]:
    return {one.view: one for one in store.monitoring.schedules()}


def last(store: FeatureStore, schedule: str) -> int:
    return time_before(schedule, store.online.now_us())


def test_what_is_due_is_run_once_and_up_to_its_scheduled_time(folder: Path) -> None:
    with FeatureStore(folder) as store:
        before = found(store)
        assert {name: one.is_due for name, one in before.items()} == {
            "hourly": True,
            "daily": True,
            "unscheduled": False,
        }
        assert before["daily"].missed == ((BEGINNING, before["daily"].due_us),)
        runs = {run.view: run for run in store.run_due()}
        assert {name: run.error for name, run in runs.items()} == {"daily": None, "hourly": None}
        for name, run in runs.items():
            assert run.summary is not None
            assert run.summary.intervals == ((BEGINNING, before[name].due_us),)
            assert run.summary.written == 1, "the row of the future is not in the interval"
        assert store.run_due() == []
        after = found(store)
        assert [after[name].missed for name in VIEWS] == [(), (), ()]
        run = after["daily"].run
        assert run is not None
        assert (run.state, run.due_us, run.problem) == ("done", before["daily"].due_us, "")


def test_a_time_that_was_missed_is_covered_by_the_next_run(folder: Path) -> None:
    with FeatureStore(folder) as store:
        long_ago = last(store, "0 3 * * *") - 3 * 86_400_000_000
        store.materialize(end=from_microseconds(long_ago), views=["daily"])
        assert found(store)["daily"].missed == ((long_ago, last(store, "0 3 * * *")),)
        (run,) = [one for one in store.run_due() if one.view == "daily"]
        assert run.summary is not None
        assert run.summary.intervals == ((long_ago, run.due_us),)


def test_a_run_by_hand_counts(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.materialize(views=["daily", "hourly"])
        assert store.run_due() == []


def test_a_gap_between_runs_of_a_view_without_a_schedule_is_missed(folder: Path) -> None:
    start, end = datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 6, tzinfo=UTC)
    with FeatureStore(folder) as store:
        assert found(store)["unscheduled"].missed == (), "nothing says when it should have been run"
        store.materialize(start, end, ["unscheduled"])
        assert [one for _, one in found(store)["unscheduled"].missed] == [1_767_571_200_000_000]
        store.materialize(views=["unscheduled"])
        assert found(store)["unscheduled"].missed == ()


def test_a_view_that_fails_keeps_no_other_from_running_and_is_due_again(folder: Path) -> None:
    whole = (folder / "daily.parquet").read_bytes()
    (folder / "daily.parquet").write_bytes(b"torn")
    with FeatureStore(folder) as store:
        runs = {run.view: run for run in store.run_due()}
        assert runs["hourly"].error is None
        assert "daily.parquet" in str(runs["daily"].error)
        failed = found(store)["daily"]
        assert failed.is_due
        assert failed.run is not None
        assert (failed.run.state, "daily.parquet" in failed.run.problem) == ("failed", True)
        (folder / "daily.parquet").write_bytes(whole)
        assert [(run.view, run.error) for run in store.run_due()] == [("daily", None)]


def test_a_view_that_another_process_runs_is_left_out_until_its_lease_ends(folder: Path) -> None:
    with FeatureStore(folder) as store:
        now_us = store.online.now_us()
        assert store.registry.runs.begin(Lease("daily", "another", now_us + 60_000_000), 1, now_us)
        assert found(store)["daily"].is_running
        assert [run.view for run in store.run_due()] == ["hourly"]
    with FeatureStore(folder) as store:  # it died a minute ago
        assert store.registry.runs.renew(Lease("daily", "another", store.online.now_us() - 1))
        assert [run.view for run in store.run_due()] == ["daily"]


def test_a_lease_is_renewed_while_the_job_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE_US", 200_000)
    renewed = threading.Event()
    with FeatureStore(folder) as store:
        renew = store.registry.runs.renew

        def noted(lease: Lease) -> bool:
            is_renewed = renew(lease)
            renewed.set()
            return is_renewed

        monkeypatch.setattr(store.registry.runs, "renew", noted)
        with module._running(store.context, "daily", 1) as outcome:
            assert outcome is not None
            began = store.registry.runs.of_views()["daily"]
            assert renewed.wait(30)
            assert store.registry.runs.of_views()["daily"].lease_us > began.lease_us
        assert store.registry.runs.of_views()["daily"].state == "done"


RUN = "import sys; from feature_store import FeatureStore; print(*(run.view for run in FeatureStore(sys.argv[1]).run_due()))"


def test_of_processes_that_are_called_at_once_each_view_is_run_by_one(folder: Path) -> None:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, "-c", RUN, str(folder)], **pipes) for _ in range(3)]
    answers = [process.communicate(timeout=200) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], answers
    with FeatureStore(folder) as store:
        assert store.run_due() == []
        assert [one.missed for one in store.monitoring.schedules() if one.schedule] == [(), ()]


def test_a_process_that_is_killed_while_it_runs_a_view_is_followed_by_another(folder: Path) -> None:
    die = "import os; from feature_store.materialize import views; views.materialize = lambda *a, **k: os._exit(9)"
    killed = subprocess.run([sys.executable, "-c", f"{die}\n{RUN}", str(folder)], capture_output=True, check=False)
    assert killed.returncode == 9, killed.stderr
    with FeatureStore(folder) as store:
        dead = found(store)["daily"]
        assert dead.is_running
        assert dead.run is not None
        lease = Lease("daily", dead.run.holder, store.online.now_us() - 1)
        assert store.registry.runs.renew(lease), "as if its minute had passed"
        assert {run.view for run in store.run_due()} == {"daily", "hourly"}
