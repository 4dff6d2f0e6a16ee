"""What only Spark has: tasks that are killed or run twice, resumed jobs, errors of tasks, clusters, spark-submit."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store._intervals import BEGINNING
from feature_store.engines.engine import Engine
from feature_store.engines.local.engine import LocalEngine
from feature_store.engines.report import Silent
from feature_store.engines.spark import engine as spark, session as sessions
from feature_store.engines.spark.engine import SparkEngine
from feature_store.engines.spark.session import Session
from feature_store.errors import DataError, EngineError, StaleWriteError, StoreConnectionError
from feature_store.materialize import job as jobs
from feature_store.materialize.job import Target
from feature_store.materialize.span import Span
from feature_store.materialize.summary import Summary
from feature_store.project.context import ProjectFolders
from tests.engines.killing import Killing
from tests.engines.offline_worlds import (
    NOW_US,
    FolderSink,
    MemoryProgress,
    Row,
    oracle,
    rows_of,
    table_of,
    user,
    view_of,
    write_files,
)
from tests.raw_redis import raw_client
from tests.spark_settings import JAVA, SPARK

VIEW = view_of(user)
ROWS, ENTITIES = 40_000, 12_000
DEFINITIONS = """
from feature_store import *
user = Entity("user", join_key="user_id")
stats = FeatureView("stats", entities=[user], schema=[Field("score", Float64), Field("title", String)],
    source=ParquetSource("rows", event_timestamp="at", created_timestamp="made"))
"""


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark, "TASK_BYTES", 512 << 10)  # 8,000 rows: 5 parts
    monkeypatch.setattr(spark, "FILES_PER_CHUNK", 2)


def some_rows(count: int = ROWS, entities: int = ENTITIES) -> list[Row]:
    chance = random.Random(count)
    return [
        Row(
            (chance.randrange(entities),),
            NOW_US + chance.randrange(5),
            chance.choice([None, NOW_US + chance.randrange(5)]),
            (float(i), f"t{i}"),
        )
        for i in range(count)
    ]


def write_project(folder: Path, redis_url: str, rows: list[Row]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "feature_store.yaml").write_text(f"project: shop\nonline_store: {{url: '{redis_url}'}}\nengine: spark\n")
    (folder / "features.py").write_text(DEFINITIONS)
    write_files(folder / "rows", table_of(VIEW, rows, pa.timestamp("us")), files=2, row_group_size=1000)
    with FeatureStore(folder) as store:
        store.apply()
    return folder


@pytest.fixture
def folder(tmp_path: Path, redis_url: str) -> Path:
    return write_project(tmp_path / "shop", redis_url, some_rows())


def stored(redis_url: str) -> dict[bytes, bytes]:
    """All rows and variable values, byte for byte, without the plan and the epoch."""
    with raw_client(redis_url) as client:
        keys = [key for key in client.scan_iter(count=5000) if b"}r:" in key or b"}v:" in key]
        return dict(zip(keys, client.mget(keys), strict=True))


def expected_bytes(folder: Path, redis_url: str) -> dict[bytes, bytes]:
    """What the local engine writes to the same project in one run. The rows are deleted afterwards."""
    with FeatureStore(folder) as store:
        (view,) = store.applied().feature_views.values()
        run(view, folder, folder / "expected", LocalEngine(), store.online.destination("stats"))
    found = stored(redis_url)
    with raw_client(redis_url) as client:
        client.delete(*found)
    assert len(found) == 2 * len(oracle(some_rows(), BEGINNING, -BEGINNING)[0])
    return found


def run(view: Any, folder: Path, work: Path, engine: Engine, destination: Any, **other: Any) -> Summary:
    target = Target(destination, other.pop("progress", None) or MemoryProgress())
    how: dict[str, Any] = {"folders": ProjectFolders(folder, work), "engine": engine, "digest": "d"}
    return jobs.materialize(view, Span(None, -BEGINNING), target, **(how | other))


# -- tasks that die, or run twice -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("times", "sends"), [(1, 3), (1, 9)])
def test_a_task_killed_in_the_middle_of_writing_and_retried_leaves_the_same_bytes(
    spark_engine: SparkEngine, folder: Path, redis_url: str, times: int, sends: int
) -> None:
    expected = expected_bytes(folder, redis_url)
    with FeatureStore(folder) as store:
        destination = Killing(store.online.destination("stats"), folder, times, sends)
        summary = run(VIEW, folder, folder, spark_engine, destination)
    assert len(list(folder.glob("killed-*"))) == times
    assert stored(redis_url) == expected
    assert summary.latest_rows == len(expected) // 2
    assert summary.source_rows == ROWS


@pytest.mark.usefixtures("small_chunks")
def test_a_task_that_dies_at_every_try_ends_the_job_which_then_goes_on(
    spark_engine: SparkEngine, folder: Path, redis_url: str
) -> None:
    expected = expected_bytes(folder, redis_url)
    progress = MemoryProgress()
    with FeatureStore(folder) as store:
        destination = store.online.destination("stats")
        with pytest.raises(EngineError, match="Spark: expected the job to succeed"):
            run(VIEW, folder, folder, spark_engine, Killing(destination, folder, 99, 9), progress=progress)
        assert progress.finished_intervals() == []
        run(VIEW, folder, folder, spark_engine, destination, progress=progress)
    assert stored(redis_url) == expected
    assert progress.finished_intervals() == [(BEGINNING, -BEGINNING)]
    assert progress.jobs == {}


def test_tasks_that_run_twice_at_once_leave_the_same_bytes(
    spark_engine: SparkEngine, folder: Path, redis_url: str
) -> None:
    expected = expected_bytes(folder, redis_url)
    errors: list[BaseException] = []

    def job(i: int) -> None:
        try:
            with FeatureStore(folder) as store:
                run(VIEW, folder, folder / str(i), spark_engine, store.online.destination("stats"))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=job, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert stored(redis_url) == expected


# -- jobs -----------------------------------------------------------------------------------------------------------


class StoppedAt(MemoryProgress):
    """Progress in a Redis that goes away after `chunks` chunks."""

    chunks = 0

    def record_chunk(self, job: str, done: int) -> None:
        if done > self.chunks:
            raise ConnectionError("Redis is gone")
        super().record_chunk(job, done)


@pytest.mark.usefixtures("small_chunks")
def test_a_stopped_job_goes_on_at_the_chunk_where_it_stopped(spark_engine: SparkEngine, tmp_path: Path) -> None:
    rows = some_rows()
    write_files(tmp_path / "rows", table_of(VIEW, rows, pa.timestamp("us")), files=2, row_group_size=1000)
    sink, progress = FolderSink(tmp_path / "sink"), StoppedAt()
    written = []
    for chunks in range(3):
        progress.chunks = chunks
        with pytest.raises(ConnectionError):
            run(VIEW, tmp_path, tmp_path, spark_engine, sink, progress=progress)
        written.append(sink.taken())
    progress.chunks = 99
    summary = run(VIEW, tmp_path, tmp_path, spark_engine, sink, progress=progress)
    assert summary.resumed_chunks == 2
    # Each stop came after a chunk was written and before it was recorded. Only that chunk is written again.
    served: dict[Any, Any] = {}
    for batches in (*written[:2], written[2]):
        served |= {key: row for batch in batches for key, row in rows_of(batch, VIEW)}
    assert served == oracle(rows, BEGINNING, -BEGINNING)[0]
    assert progress.jobs == {}
    assert [path.name for path in (tmp_path / "materialize" / "stats").rglob("*")] == ["lock"]


# Prints when a chunk is written, then waits for an answer that never comes.
KILLED_RUN = """
import sys
from feature_store import FeatureStore
from feature_store.engines.report import Silent
from feature_store.engines.spark import engine

class Waiting(Silent):
    def started(self, view, total_rows): self.is_writing = view.endswith("write")
    def advanced(self, rows):
        if self.is_writing:
            print("written", flush=True)
            sys.stdin.readline()

engine.TASK_BYTES, engine.FILES_PER_CHUNK = 512 << 10, 2
with FeatureStore(sys.argv[1]) as store:
    store.materialize(report=Waiting())
"""


@pytest.mark.usefixtures("small_chunks")
def test_a_driver_that_is_killed_is_gone_on_with(spark_engine: SparkEngine, folder: Path, redis_url: str) -> None:
    expected = expected_bytes(folder, redis_url)
    config = folder / "feature_store.yaml"
    kept = config.read_text()
    config.write_text(kept + f"spark: {json.dumps(SPARK)}\n")
    command = [sys.executable, "-c", KILLED_RUN, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.kill()
    assert 0 < len(stored(redis_url)) < len(expected)
    config.write_text(kept)
    with FeatureStore(folder) as store:
        (summary,) = store.materialize()
        assert store.materialize()[0].source_rows == 0
    assert (summary.source_rows, summary.resumed_chunks) == (ROWS, 1)
    assert stored(redis_url) == expected


def test_what_one_engine_has_staged_the_other_does_not_read(spark_engine: SparkEngine, tmp_path: Path) -> None:
    write_files(tmp_path / "rows", table_of(VIEW, some_rows(1000, 100), pa.timestamp("us")))
    sink, progress = FolderSink(tmp_path / "sink"), StoppedAt()
    engines: list[Engine] = [spark_engine, LocalEngine(), spark_engine]
    for engine in engines:
        with pytest.raises(ConnectionError):
            run(VIEW, tmp_path, tmp_path, engine, sink, progress=progress)
    progress.chunks = 99
    summary = run(VIEW, tmp_path, tmp_path, LocalEngine(), sink, progress=progress)
    assert (summary.source_rows, summary.latest_rows, summary.resumed_chunks) == (1000, 100, 0)


class Told(Silent):
    """A report that keeps its calls."""

    def __init__(self) -> None:
        self.phases: list[list[Any]] = []

    def started(self, view: str, total_rows: int | None) -> None:
        self.phases.append([view, total_rows, []])

    def advanced(self, rows: int) -> None:
        self.phases[-1][2].append(rows)


@pytest.mark.usefixtures("small_chunks")
def test_a_report_is_told_of_rows_while_they_are_read_and_written(
    spark_engine: SparkEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "POLL_SECONDS", 0.01)
    write_files(tmp_path / "rows", table_of(VIEW, some_rows(), pa.timestamp("us")), files=2, row_group_size=1000)
    told = Told()
    summary = run(VIEW, tmp_path, tmp_path, spark_engine, FolderSink(tmp_path / "sink"), report=told)
    (name, total, read), (writing, _, written) = told.phases
    assert (name, total, sum(read)) == ("stats", ROWS, ROWS)
    assert (writing, sum(written)) == ("stats: write", summary.latest_rows)
    assert len(read) > 1
    assert len(written) == 3


def test_bad_rows_of_many_tasks_are_in_one_folder(
    spark_engine: SparkEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark, "TASK_BYTES", 1)
    rows = [row._replace(key=(None,)) if i % 7 == 0 else row for i, row in enumerate(some_rows(5000, 100))]
    write_files(tmp_path / "rows", table_of(VIEW, rows, pa.timestamp("us")), row_group_size=1000)
    summary = run(VIEW, tmp_path, tmp_path, spark_engine, FolderSink(tmp_path / "sink"))
    bad = [row for row in rows if row.key == (None,)]
    assert (summary.source_rows, summary.quarantined) == (5000, len(bad))
    found = pq.read_table(summary.quarantine_file)
    assert found["title"].to_pylist() == [row.values[1] for row in bad]
    assert set(found["reason"].to_pylist()) == {"user_id: expected Int64, got null"}
    assert len(list(Path(str(summary.quarantine_file)).iterdir())) == 5


def test_the_configured_engine_materializes(spark_engine: SparkEngine, folder: Path, redis_url: str) -> None:
    expected = expected_bytes(folder, redis_url)
    with FeatureStore(folder) as store:
        (summary,) = store.materialize()
        assert (summary.source_rows, summary.written) == (ROWS, len(expected) // 2)
        assert store.materialize()[0].source_rows == 0
    assert stored(redis_url) == expected
    assert spark_engine.session.spark.range(3).count() == 3, "a session that others started stays"


def test_a_changed_layout_is_filled_by_the_configured_engine(
    spark_engine: SparkEngine, folder: Path, redis_url: str
) -> None:
    rows = oracle(some_rows(), BEGINNING, -BEGINNING)[0]
    with FeatureStore(folder) as store:
        store.materialize()
    (folder / "features.py").write_text(DEFINITIONS.replace('Field("title", String)', 'Field("score2", Float64)'))
    table = table_of(VIEW, some_rows(), pa.timestamp("us"))
    for path in (folder / "rows").iterdir():
        path.unlink()
    write_files(folder / "rows", table.append_column("score2", table["score"]), files=2)
    with FeatureStore(folder) as store:
        store.apply()
        found = store.get_online_features(["stats:score2"], {"user_id": [key for (key,) in rows]}).to_dict()
    assert found["score2"] == [row.values[0] for row in rows.values()]


# -- errors ---------------------------------------------------------------------------------------------------------


def test_an_error_of_a_task_is_raised_as_it_was(spark_engine: SparkEngine, folder: Path) -> None:
    with FeatureStore(folder) as store:
        destination = store.online.destination("stats")
    (folder / "features.py").write_text(DEFINITIONS.replace(', Field("title", String)', ""))
    with FeatureStore(folder) as store:
        store.apply(allow_destructive=True)
    with pytest.raises(StaleWriteError, match="the layout that the job began with"):
        run(VIEW, folder, folder, spark_engine, destination)


def test_a_store_that_is_gone_is_told_of(spark_engine: SparkEngine, folder: Path, tmp_path: Path) -> None:
    with FeatureStore(folder) as store:
        destination = store.online.destination("stats")
    gone = type(destination)(f"unix://:secret@{tmp_path}/none.sock", "shop", destination.segment)
    assert "secret" not in repr(gone)
    with pytest.raises(StoreConnectionError) as raised:
        run(VIEW, folder, folder, spark_engine, gone)
    assert "secret" not in f"{raised.value} {raised.value.__cause__}"


def test_a_file_that_goes_while_it_is_read_is_told_of(
    spark_engine: SparkEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = Session.collect

    def collect_without_a_file(self: Session, frame: Any) -> list[Any]:
        (folder / "rows" / "part-1.parquet").unlink(missing_ok=True)
        return collect(self, frame)

    monkeypatch.setattr(Session, "collect", collect_without_a_file)
    with pytest.raises(DataError, match=r"part-1\.parquet was removed while it was read"):
        run(VIEW, folder, folder, spark_engine, FolderSink(folder / "sink"))


def _broken(_: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    raise ZeroDivisionError("by zero")
    yield


def _unknown(_: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    raise ModuleNotFoundError("No module named 'pyarrow'")
    yield


@pytest.mark.parametrize(
    ("task", "got", "hint"),
    [
        (_broken, "ZeroDivisionError: by zero", ""),
        (_unknown, "ModuleNotFoundError: No module named 'pyarrow'", "docs/spark.md"),
    ],
)
def test_any_other_failure_of_a_task_says_in_one_line_why(
    spark_engine: SparkEngine, task: Any, got: str, hint: str
) -> None:
    session = spark_engine.session
    with pytest.raises(EngineError) as raised:
        session.collect(session.tasks(1, task, "n long"))
    assert raised.value.got == got
    assert hint in raised.value.hint


# -- a cluster ------------------------------------------------------------------------------------------------------

CLUSTER_JOB = Path(__file__).with_name("cluster_job.py")


def test_a_job_that_is_submitted_to_a_cluster_survives_the_loss_of_an_executor(folder: Path, redis_url: str) -> None:
    expected = expected_bytes(folder, redis_url)
    import pyspark

    home = Path(pyspark.__file__).parent
    environment = os.environ | {"SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": _python_path()}
    settings = {
        "spark.master": "local-cluster[2,1,1024]",
        "spark.ui.enabled": "false",
        "spark.driver.extraJavaOptions": JAVA,
        "spark.executor.extraJavaOptions": JAVA,
    }
    options = [text for name, value in settings.items() for text in ("--conf", f"{name}={value}")]
    submitted = [str(home / "bin" / "spark-submit"), *options, str(CLUSTER_JOB), str(folder)]
    ran = subprocess.run(submitted, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-5000:]
    document = json.loads(ran.stdout.splitlines()[-1])
    assert document["killed_executors"] == 1
    assert (document["source_rows"], document["latest_rows"]) == (ROWS, len(expected) // 2)
    assert stored(redis_url) == expected
    assert redis_url not in ran.stderr, "where the store is may hold a password"


def _python_path() -> str:
    return os.pathsep.join(path for path in sys.path if path)
