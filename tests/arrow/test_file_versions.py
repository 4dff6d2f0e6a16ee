"""Files that are replaced, truncated, removed or appended to during a read: nothing is recorded, nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store._intervals import BEGINNING
from feature_store.arrow.file_versions import file_versions, unchanged
from feature_store.arrow.pushed import pushed_rows
from feature_store.arrow.sources.opening import open_view
from feature_store.definitions import FeatureView, Field, Float64, Int64, ParquetSource
from feature_store.engines.engine import Engine
from feature_store.engines.local.engine import LocalEngine
from feature_store.engines.report import Silent
from feature_store.engines.sql.run import selected
from feature_store.errors import DataError
from feature_store.materialize.job import Target, materialize
from feature_store.materialize.span import Span
from feature_store.project.context import ProjectFolders
from feature_store.training.training_set import label_rows
from tests.engines.join_worlds import World
from tests.engines.offline_worlds import NOW_US, MemoryProgress, MemorySink, user, view_of

ROWS = 400_000  # more than one batch
ALWAYS = (BEGINNING, -BEGINNING)
VIEW = view_of(user, source=ParquetSource("rows", event_timestamp="at"), fields={"v": Float64})


def _write(path: Path, value: float, count: int = ROWS) -> None:
    path.parent.mkdir(exist_ok=True)
    at = pa.array([NOW_US] * count, pa.timestamp("us", "UTC"))
    table = pa.table({"user_id": range(count), "at": at, "v": [value] * count})
    pq.write_table(table, path, row_group_size=50_000, compression="none", use_dictionary=False)


def _replace(path: Path) -> None:
    """Replace a file as programs should: a whole new version, of the same size, takes its place."""
    beside = path.with_name("_new")
    _write(beside, 2.0)
    assert beside.stat().st_size == path.stat().st_size
    beside.rename(path)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _remove(path: Path) -> None:
    path.unlink()


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _overwrite(path: Path) -> None:
    _write(path, 2.0)


CHANGES = [_replace, _truncate, _remove, _append, _overwrite]
TOLD = r"b\.parquet was (changed|removed) while it was read, so nothing of it is recorded as done"


class Changing(Silent):
    """A report that changes a file at the start of a job, or after the first rows."""

    def __init__(self, change: Callable[[], None], *, at_first_rows: bool) -> None:
        self._change, self._at_first_rows, self.done = change, at_first_rows, False

    def started(self, view: str, total_rows: int | None) -> None:
        if not self._at_first_rows:
            self._once()

    def advanced(self, rows: int) -> None:
        self._once()

    def _once(self) -> None:
        if not self.done:
            self.done = True
            self._change()


def _job(folder: Path, engine: Engine, sink: MemorySink, progress: MemoryProgress, report: Any = None) -> Any:
    return materialize(
        VIEW,
        Span(None, NOW_US + 1),
        Target(sink, progress),
        folders=ProjectFolders(folder, folder),
        engine=engine,
        digest="d",
        report=report,
    )


def _check_job(folder: Path, engine: Engine, change: Callable[[Path], None], *, at_first_rows: bool) -> None:
    """Check that a failed job records and writes nothing, and that the next job gives what the files then hold."""
    _write(folder / "rows" / "a.parquet", 1.0)
    _write(folder / "rows" / "b.parquet", 1.0)
    sink, progress = MemorySink(VIEW), MemoryProgress()
    report = Changing(lambda: change(folder / "rows" / "b.parquet"), at_first_rows=at_first_rows)
    with pytest.raises(DataError, match=TOLD):
        _job(folder, engine, sink, progress, report)
    assert report.done
    assert (sink.rows, progress.finished_intervals(), progress.files_read()) == ({}, [], b"")
    _write(folder / "rows" / "b.parquet", 3.0, 10)
    assert _job(folder, engine, sink, progress).source_rows == ROWS + 10
    assert sink.rows[(9,)].values == (3.0,)
    assert progress.finished_intervals()


@pytest.mark.parametrize("at_first_rows", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_job_whose_file_changes_records_nothing(change: Any, at_first_rows: bool, tmp_path: Path) -> None:
    _check_job(tmp_path, LocalEngine(), change, at_first_rows=at_first_rows)


def test_a_job_on_spark_whose_file_changes_records_nothing(spark_engine: Any, tmp_path: Path) -> None:
    _write(tmp_path / "rows" / "b.parquet", 1.0)
    progress = MemoryProgress()
    report = Changing(lambda: _replace(tmp_path / "rows" / "b.parquet"), at_first_rows=False)
    with pytest.raises(DataError, match=TOLD):
        _job(tmp_path, spark_engine, MemorySink(VIEW), progress, report)
    assert (progress.finished_intervals(), progress.files_read()) == ([], b"")


def test_a_new_file_beside_those_that_are_read_does_not_disturb(tmp_path: Path) -> None:
    _write(tmp_path / "rows" / "a.parquet", 1.0)
    report = Changing(lambda: _write(tmp_path / "rows" / "c.parquet", 1.0, 5), at_first_rows=True)
    assert _job(tmp_path, LocalEngine(), MemorySink(VIEW), MemoryProgress(), report).source_rows == ROWS


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("change", [_truncate, _remove, _append])
def test_a_pushed_file_that_changes_is_told(change: Any, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"b{suffix}"
    if suffix == ".csv":
        path.write_text("user_id,at,v\n" + "1,2026-01-01,1.5\n" * ROWS)
    else:
        _write(path, 1.0)
    batches = pushed_rows(path, VIEW).batches(["v"])
    next(batches)
    change(path)
    with pytest.raises(DataError, match=r"push to stats: b\.\w+ was (changed|removed) while it was read"):
        list(batches)


@pytest.mark.parametrize("change", [_replace, _truncate, _remove])
def test_a_join_whose_source_changes_is_refused(change: Any, tmp_path: Path) -> None:
    _write(tmp_path / "rows" / "b.parquet", 1.0)
    labels = pa.table({"user_id": [1], "at": pa.array([NOW_US], pa.timestamp("us"))})
    world = World(LocalEngine(), tmp_path)
    world.report = Changing(lambda: change(tmp_path / "rows" / "b.parquet"), at_first_rows=True)
    with pytest.raises(DataError, match=r"b\.parquet was (changed|removed) while it was read"):
        world.table(labels, VIEW)


def test_sql_over_a_source_that_changes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = FeatureView(
        "stats",
        entities=[user],
        source=ParquetSource("rows", event_timestamp="at"),
        sql="SELECT user_id, at, CAST(v AS BIGINT) AS v FROM source",
        schema=[Field("v", Int64)],
    )
    _write(tmp_path / "rows" / "b.parquet", 1.0)
    rows = open_view(view.source, view, tmp_path)
    _replace(tmp_path / "rows" / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet was changed while it was read"):
        selected(view, rows, tmp_path, *ALWAYS, "512MB")


def test_a_version_that_was_just_written_differs_from_the_next(tmp_path: Path) -> None:
    """They differ though both have the same size and are written within one tick of the file system's clock."""
    path = tmp_path / "a"
    for i in range(20):
        path.write_text(f"{i:02d}")
        files: Sequence[Any] = file_versions([path])
        path.write_text(f"{i:02d}")
        with pytest.raises(DataError, match="a was changed"), unchanged("files", files):
            pass


def test_an_error_of_a_file_that_has_not_changed_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with pytest.raises(DataError, match=r"^odd$"), unchanged("files", file_versions([tmp_path / "a"])):
        raise DataError("odd")


def test_labels_may_not_be_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels .*none\.parquet"):
        LocalEngine().labels(label_rows(tmp_path / "none.parquet", tmp_path))  # type: ignore[arg-type]
