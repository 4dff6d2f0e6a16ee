"""A whole project whose jobs are killed: after one more run it serves what it would serve without the kills."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store._intervals import BEGINNING
from feature_store.definitions.dtypes import from_microseconds
from feature_store.engines.local import latest as local_latest
from tests.engines.offline_worlds import NOW_US, SECOND_US

ROWS, ENTITIES, FILES, KILLS = 200_000, 40_000, 4, 16
CHUNK_ROWS = 2048  # about 20 chunks, of which a killed run may write up to three
DEFINITIONS = """
from feature_store import *
user = Entity("user", join_key="user_id")
stats = FeatureView("stats", entities=[user], schema=[Field("visits", Int32), Field("title", String)],
    source=ParquetSource("rows", event_timestamp="at", created_timestamp="made"))
"""
# Prints each step that it has come to and waits for an answer, so that the test can kill it at a chosen step.
RUN = f"""
import sys
from feature_store import FeatureStore
from feature_store.engines.local import engine as local, latest as local_latest

class Answered:
    def started(self, view, total_rows): self.tell("started " + view)
    def advanced(self, rows): self.tell("advanced")
    def finished(self): self.tell("finished")
    def tell(self, what):
        print(what, flush=True)
        sys.stdin.readline()

local_latest.CHUNK_ROWS = {CHUNK_ROWS}
with FeatureStore(sys.argv[1]) as store:
    store.materialize(report=Answered())
"""

Row = tuple[int | None, int, int | None, int, str]


def some_rows(chance: random.Random) -> list[Row]:
    rows: list[Row] = []
    for i in range(ROWS):
        key = None if chance.random() < 0.001 else chance.randrange(ENTITIES)
        visits = 2**31 if chance.random() < 0.001 else i
        made = None if chance.random() < 0.3 else NOW_US + chance.randrange(3)
        rows.append((key, NOW_US - chance.randrange(5) * SECOND_US, made, visits, f"t{i}"))
    return rows


def is_bad(row: Row) -> bool:
    return row[0] is None or row[3] >= 2**31


def latest(rows: list[Row]) -> dict[int, Row]:
    found: dict[int, Row] = {}
    for row in rows:
        if row[0] is None or is_bad(row):
            continue
        known = found.get(row[0])
        if known is None or _order(row) >= _order(known):
            found[row[0]] = row
    return found


def _order(row: Row) -> tuple[int, int]:
    return row[1], row[1] if row[2] is None else row[2]


def write_source(folder: Path, rows: list[Row]) -> None:
    (folder / "rows").mkdir()
    for i in range(FILES):
        keys, at, made, visits, titles = zip(*rows[i * ROWS // FILES : (i + 1) * ROWS // FILES], strict=True)
        times = pa.timestamp("us", "UTC")
        columns = {"user_id": keys, "at": pa.array(at, times), "made": pa.array(made, times), "visits": visits}
        pq.write_table(pa.table(columns | {"title": titles}), folder / "rows" / f"{i}.parquet")


@pytest.fixture
def folder(tmp_path: Path, redis_url: str) -> Path:
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store: {{url: '{redis_url}'}}\n")
    (tmp_path / "features.py").write_text(DEFINITIONS)
    return tmp_path


def killed(folder: Path, phase: str, answers: int) -> bool:
    """Run a job and kill it after `answers` more steps of a phase. Returns False when the job ended before that."""
    command = [sys.executable, "-c", RUN, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        begun = False
        for line in process.stdout:
            begun = begun or line == f"started {phase}\n"
            if begun and answers == 0:
                break
            answers -= begun
            process.stdin.write("\n")
            process.stdin.flush()
        else:
            return False
        process.kill()
    return True


def served(store: FeatureStore) -> dict[int, tuple[Any, Any, Any]]:
    found: dict[int, tuple[Any, Any, Any]] = {}
    for first in range(0, ENTITIES, 5000):
        users = list(range(first, first + 5000))
        response = store.get_online_features(["stats:visits", "stats:title"], {"user_id": users})
        columns = response.to_dict()
        times = response.event_timestamps["visits"]
        found.update(zip(users, zip(columns["visits"], columns["title"], times, strict=True), strict=True))
    return found


def expected(rows: list[Row]) -> dict[int, tuple[Any, Any, Any]]:
    nothing: dict[int, tuple[Any, Any, Any]] = dict.fromkeys(range(ENTITIES), (None, None, None))
    return nothing | {
        user: (visits, title, from_microseconds(at)) for user, (_, at, _, visits, title) in latest(rows).items()
    }


def test_jobs_of_several_processes_at_once_do_the_work_once(folder: Path) -> None:
    rows = some_rows(random.Random(2))
    write_source(folder, rows)
    with FeatureStore(folder) as store:
        store.apply()
    code = "import sys; from feature_store import FeatureStore as F; print(F(sys.argv[1]).materialize()[0].source_rows)"
    command = [sys.executable, "-c", code, str(folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sorted(int(process.communicate()[0]) for process in processes) == [0, 0, ROWS]
    with FeatureStore(folder) as store:
        assert served(store) == expected(rows)
    assert [path.name for path in (folder / ".feature_store" / "materialize" / "stats").rglob("*")] == ["lock"]


@pytest.mark.parametrize("seed", [1])
def test_a_job_killed_again_and_again_ends_as_if_nothing_had_happened(
    folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_latest, "CHUNK_ROWS", CHUNK_ROWS)
    chance = random.Random(seed)
    rows = some_rows(chance)
    write_source(folder, rows)
    with FeatureStore(folder) as store:
        store.apply()
    phases = ["stats", "stats: write"] * (KILLS // 2)
    chance.shuffle(phases)
    for phase in [*phases, "stats: write"]:
        if phase == "stats":  # the source has changed, so it is staged again
            os.utime(folder / "rows" / f"{chance.randrange(FILES)}.parquet")
            assert killed(folder, phase, chance.randrange(FILES + 2))
        else:
            assert killed(folder, phase, chance.randint(1, 2))
        with FeatureStore(folder) as store:
            assert store.online.finished_intervals()["stats"] == []

    with FeatureStore(folder) as store:
        (summary,) = store.materialize()
        assert served(store) == expected(rows)
        ((start, end),) = store.online.finished_intervals()["stats"]
        assert (start, end) == (BEGINNING, summary.intervals[-1][1])
        assert store.materialize()[0].source_rows == 0

    assert summary.resumed_chunks > 0
    assert summary.source_rows == ROWS
    bad = [row for row in rows if is_bad(row)]
    assert summary.quarantined == len(bad)
    quarantine = folder / ".feature_store" / "quarantine"
    assert str(summary.quarantine_file) in {str(path) for path in quarantine.iterdir()}
    for path in quarantine.iterdir():
        assert pq.read_table(path)["title"].to_pylist() == [row[4] for row in bad]
    assert [path.name for path in (folder / ".feature_store" / "materialize" / "stats").rglob("*")] == ["lock"]
