"""Jobs: what they read, what they write, what they record, and how they go on where another was stopped."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from feature_store._intervals import BEGINNING
from feature_store.definitions import FeatureView, Field, Float64, String
from feature_store.engines.engine import Written
from feature_store.engines.local import engine as local, latest as local_latest
from feature_store.engines.local.engine import LocalEngine
from feature_store.errors import DataError, LostWriteError
from feature_store.materialize import job as jobs
from feature_store.materialize.job import Target
from feature_store.materialize.span import Span
from feature_store.materialize.staged import read_note
from feature_store.materialize.summary import Summary
from feature_store.project.context import ProjectFolders
from tests.engines.offline_worlds import (
    NOW_US,
    SECOND_US,
    SOURCE,
    Latest,
    MemoryProgress,
    MemorySink,
    Row,
    oracle,
    slot,
    table_of,
    user,
    view_of,
    write_files,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store.engines.engine import Destination, Stage
    from feature_store.online.batch import RowBatch
    from feature_store.online.writer import WriteCounts

VIEW = view_of(user)
MANY = 40_000  # of about 17,000 users: at least 5 chunks of 2,048 to 4,096 rows


class World:
    """A folder with a source, and jobs on it."""

    def __init__(self, folder: Path, view: FeatureView = VIEW) -> None:
        self.folder, self.view = folder, view
        self.sink, self.progress = MemorySink(view), MemoryProgress()
        self.folders = ProjectFolders(folder, folder)
        self.rows: list[Row] = []

    def write(self, rows: list[Row], name: str = "rows") -> None:
        self.rows = [*self.rows, *rows]
        folder = self.folder / "rows"
        folder.mkdir(exist_ok=True)
        pq.write_table(table_of(self.view, rows, pa.timestamp("us")), folder / f"{name}.parquet")

    def run(self, end: int | None, start: int | None = None, *, lookback: int = 0, **other: Any) -> Summary:
        """A job; times in seconds after now."""
        times = (None if time is None else at(time) for time in (start, end))
        span = Span(*times, lookback * SECOND_US)
        target = Target(other.pop("destination", self.sink), other.pop("progress", self.progress))
        how: dict[str, Any] = {"folders": self.folders, "engine": LocalEngine(), "digest": "d"}
        return jobs.materialize(self.view, span, target, **(how | other))

    def finished(self) -> list[tuple[int, int]]:
        return self.progress.finished_intervals()

    def left(self) -> set[str]:
        """The names of what stands in the working folder."""
        return {
            str(path.relative_to(self.folders.work("materialize") / self.view.name)) for path in self._work().rglob("*")
        }

    def _work(self) -> Path:
        return self.folders.work("materialize") / self.view.name


def at(seconds: int) -> int:
    return NOW_US + seconds * SECOND_US


def row(key: int, seconds: int, value: float = 0.5) -> Row:
    return Row((key,), at(seconds), None, (value, f"t{value}"))


def many(seconds: int = 0, seed: int = 1) -> list[Row]:
    chance = random.Random(seed)
    return [row(chance.randrange(MANY // 2), seconds + chance.randrange(10), chance.random()) for _ in range(MANY)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_latest, "CHUNK_ROWS", 2048)


# -- which rows -----------------------------------------------------------------------------------------------------


def test_the_latest_rows_of_an_interval_are_written_and_counted(world: World) -> None:
    world.write([row(1, 0), row(1, 1, 1.5), row(2, 2), row(3, 9)])
    summary = world.run(3, 0)
    assert world.sink.rows == oracle(world.rows, at(0), at(3))[0]
    assert (summary.view, summary.intervals) == ("stats", ((at(0), at(3)),))
    assert (summary.source_rows, summary.latest_rows, summary.written, summary.older) == (3, 2, 2, 0)
    assert (summary.quarantined, summary.quarantine_file, summary.resumed_chunks) == (0, None, 0)
    assert world.finished() == [(at(0), at(3))]
    assert world.progress.jobs == {}
    assert world.left() == {"lock"}


def test_rows_that_the_store_has_newer_are_counted_as_older(world: World) -> None:
    world.write([row(1, 0), row(2, 1)])
    world.run(5)
    world.write([row(1, -1), row(2, 2)], "rows")
    assert world.run(5, -5).older == 1


def test_a_given_start_is_read_again_each_time(world: World) -> None:
    world.write([row(1, 0)])
    assert [world.run(5, 0).source_rows for _ in range(3)] == [1, 1, 1]
    assert world.finished() == [(at(0), at(5))]


def test_without_a_start_only_what_is_missing_is_read(world: World) -> None:
    world.write([row(i, i) for i in range(-50, 10)])
    assert world.run(0).intervals == ((BEGINNING, at(0)),)
    assert world.run(5).intervals == ((at(0), at(5)),)
    assert world.run(5).intervals == ()
    world.run(9, 7)
    assert world.run(10).intervals == ((at(5), at(7)), (at(9), at(10)))
    assert world.finished() == [(BEGINNING, at(10))]
    assert world.sink.rows == oracle(world.rows, BEGINNING, at(10))[0]


def test_an_earlier_end_than_the_last_reads_nothing(world: World) -> None:
    world.write([row(1, 0)])
    world.run(5)
    assert world.run(3).intervals == ()


def test_lookback_reads_times_again(world: World) -> None:
    world.write([row(1, 0), row(2, 4)])
    world.run(5)
    summary = world.run(6, lookback=2)
    assert (summary.intervals, summary.source_rows, summary.late_rows) == (((at(3), at(6)),), 1, 0)


# -- rows that are computed otherwise --------------------------------------------------------------------------------


def doubled(view: FeatureView, by: int) -> FeatureView:
    value = view.fields[0].name
    return view.model_copy(update={"sql": f"SELECT * REPLACE ({value} * {by} AS {value}) FROM source"})


def test_rows_of_other_sql_are_computed_anew_over_all_times(world: World) -> None:
    plain = world.view
    world.write([row(1, 0, 1.5), row(2, 1, 2.5)])
    world.run(5)
    world.view = doubled(plain, 2)
    assert world.run(6).latest_rows == 2, "nothing of it is computed yet"
    assert {key: latest.values[0] for key, latest in world.sink.rows.items()} == {(1,): 3.0, (2,): 5.0}
    assert world.run(7).latest_rows == 0, "now all is"
    world.view = plain
    assert world.run(8).latest_rows == 2


def test_rows_of_another_source_are_read_over_all_times(world: World) -> None:
    world.write([row(1, 0)])
    world.run(5)
    shutil.copytree(world.folder / "rows", world.folder / "moved")
    source = world.view.source
    assert source is not None
    world.view = world.view.model_copy(update={"source": source.model_copy(update={"path": "moved"})})
    assert world.run(6).latest_rows == 1


def test_a_job_over_given_times_leaves_the_other_times_of_other_sql_to_be_computed(world: World) -> None:
    world.write([row(1, 0), row(2, 3)])
    world.run(5)
    world.view = doubled(world.view, 2)
    assert world.run(5, 2).latest_rows == 1
    assert world.run(6).latest_rows == 2


@pytest.mark.usefixtures("small_chunks")
def test_a_killed_job_of_other_sql_is_not_taken_for_done(world: World) -> None:
    world.write(many())
    world.run(20)
    world.view = doubled(world.view, 2)
    world.sink.fails_at = len(world.sink.writes) + 1
    with pytest.raises(ConnectionError):
        world.run(21)
    world.sink.fails_at = None
    world.run(22)
    wanted = {key: latest.values[0] * 2 for key, latest in oracle(world.rows, at(0), at(20))[0].items()}
    assert {key: latest.values[0] for key, latest in world.sink.rows.items()} == pytest.approx(wanted)


# -- rows that come late --------------------------------------------------------------------------------------------


def test_a_new_file_brings_rows_of_times_that_are_finished(world: World) -> None:
    world.write([row(1, 0), row(1, 4, 1.5)])
    world.run(5)
    world.write([row(1, 4, 9.5), row(2, 1), row(3, 7)], "some")
    summary = world.run(8)
    assert (summary.source_rows, summary.late_rows) == (4, 3)
    assert summary.intervals == ((at(5), at(8)), (at(1), at(4) + 1)), "all files are read over the times that came late"
    assert world.sink.rows == oracle(world.rows, at(0), at(8))[0]
    assert world.run(9).late_rows == 0
    assert world.finished() == [(BEGINNING, at(9))]


def test_of_a_file_that_is_written_anew_only_the_times_of_row_groups_that_differ_are_read(world: World) -> None:
    path = world.folder / "rows" / "rows.parquet"
    path.parent.mkdir()

    def write() -> None:
        pq.write_table(table_of(VIEW, rows, pa.timestamp("us")), path, row_group_size=10)

    rows = [row(chance, second, chance / 8) for second in range(20) for chance in range(5)]
    write()
    world.run(20)
    rows[23] = row(3, 4, 99.5)
    rows += [row(8, 22), row(9, 25)]
    write()
    summary = world.run(24)
    assert (summary.source_rows, summary.late_rows) == (11, 10), "of one row group; and a row of the new one"
    assert world.sink.rows == oracle(rows, at(0), at(24))[0]


def test_a_new_file_that_looks_like_one_that_was_read_is_read(world: World) -> None:
    """The same counts, sizes, least and greatest values, as files of one day with a row for some keys have."""
    world.write([row(1, 4), row(5, 4), row(9, 4)], "a")
    world.run(5)
    world.write([row(1, 4), row(7, 4), row(9, 4)], "b")
    assert world.run(6).late_rows == 6
    assert set(world.sink.rows) == {(1,), (5,), (7,), (9,)}


def test_files_that_are_touched_copied_or_renamed_bring_nothing(world: World) -> None:
    world.write([row(1, 0)], "a")
    world.write([row(2, 1)], "b")
    world.run(5)
    folder = world.folder / "rows"
    os.utime(folder / "a.parquet", (1, 1))
    (folder / "b.parquet").rename(folder / "c.parquet")
    shutil.copy(folder / "a.parquet", folder / "d.parquet")
    assert world.run(6).source_rows == 0


def test_a_job_over_given_times_leaves_other_late_rows_to_be_found(world: World) -> None:
    world.write([row(1, 0)])
    world.run(5)
    world.write([row(2, 1), row(3, 4)], "late")
    assert world.run(5, 3).source_rows == 1
    assert world.run(6).late_rows == 2
    assert world.sink.rows == oracle(world.rows, at(0), at(6))[0]


def test_late_rows_of_a_killed_job_are_found_by_the_next(world: World) -> None:
    world.write([row(1, 0)])
    world.run(5)
    world.write([row(2, 1), row(3, 6)], "late")
    for writes in (0, 1):
        world.sink.fails_at = len(world.sink.writes) + writes
        with pytest.raises(ConnectionError):
            world.run(8)
    world.sink.fails_at = None
    assert world.run(9).late_rows == 2
    assert world.sink.rows == oracle(world.rows, at(0), at(9))[0]


def test_late_rows_of_sql_are_found_whatever_times_it_makes(tmp_path: Path) -> None:
    sql = """SELECT * REPLACE (date_trunc('day', "at") AS "at") FROM source"""
    fields = [Field("score", Float64), Field("title", String)]
    world = World(tmp_path, FeatureView("stats", entities=[user], source=SOURCE, sql=sql, schema=fields))
    world.write([row(1, 0)])
    world.run(5)
    world.write([row(2, 7)], "new")
    assert world.run(8).late_rows == 2
    assert {key for (key,) in world.sink.rows} == {1, 2}
    assert world.run(9).source_rows == 0


def test_what_is_kept_of_files_may_be_of_another_release_or_cut(world: World) -> None:
    world.write([row(1, 0)])
    world.run(5)
    whole = world.progress.files
    for document in (b"", b"1" + whole[1:], whole[:-1], b"x"):
        world.progress.files = document
        assert world.run(5).source_rows == 1, "all is read again"
        assert (world.run(5).late_rows, world.progress.files) == (0, whole)


def test_lookback_counts_from_the_last_end_and_leaves_no_gap(world: World) -> None:
    world.write([row(i, i) for i in range(20)])
    world.run(4, 2)
    world.run(10, 8)
    summary = world.run(12, lookback=1)
    assert summary.intervals == ((BEGINNING, at(2)), (at(4), at(8)), (at(9), at(12)))
    assert world.finished() == [(BEGINNING, at(12))]
    assert world.sink.rows == oracle(world.rows, BEGINNING, at(12))[0]


SECONDS = st.integers(0, 12)


@given(st.lists(st.tuples(st.none() | SECONDS, SECONDS, st.integers(0, 4)), max_size=6))
def test_intervals_without_a_start_are_the_missing_ones_and_the_lookback(
    runs: list[tuple[int | None, int, int]],
) -> None:
    progress, done = MemoryProgress(), set[int]()
    for start, end, lookback in runs:
        finished = progress.finished_intervals()
        intervals = Span(start, end, lookback).intervals(finished, end)
        beginning = -3  # stands for all before
        read = [second for low, high in intervals for second in range(max(low, beginning), high)]
        assert len(read) == len(set(read)), "a second is read twice"
        if start is not None:
            assert read == list(range(start, end))
        else:
            last = max(done) + 1 if done else beginning
            again = set(range(max(min(last, end) - lookback, beginning), end)) if done and lookback else set()
            assert set(read) == (set(range(beginning, end)) - done) | again
        for interval in intervals:
            if interval[0] < interval[1]:
                progress.record_interval("job", 0, interval)
        done |= set(read)


@pytest.mark.parametrize("end", [5, 9, None])
def test_nothing_beyond_the_clock_is_read_or_recorded(world: World, end: int | None) -> None:
    world.write([row(1, 0), row(1, 6, 1.5)])
    world.progress.now = at(5)
    summary = world.run(end)
    assert (summary.source_rows, summary.intervals) == (1, ((BEGINNING, at(5)),))
    assert world.finished() == [(BEGINNING, at(5))]
    world.progress.now = at(7)
    assert world.run(9).source_rows == 1
    assert world.sink.rows == oracle(world.rows, BEGINNING, at(7))[0]


def test_an_interval_that_begins_beyond_the_clock_is_refused(world: World) -> None:
    world.write([row(1, 0)])
    world.progress.now = at(5)
    with pytest.raises(DataError, match="counts as now, by Redis's clock"):
        world.run(9, 5)


class Lossy(MemoryProgress):
    """Progress of a Redis that is lost at some records, with all that was noted of the job since a chunk."""

    def __init__(self, sink: MemorySink, losses: list[tuple[int, int]]) -> None:
        super().__init__()
        self._sink, self._losses = sink, losses
        self._snapshots: dict[int, tuple[dict[Any, Latest], dict[str, int]]] = {}

    def chunks_done(self, job: str) -> int:
        self._snapshots[super().chunks_done(job)] = dict(self._sink.rows), dict(self.jobs)
        return super().chunks_done(job)

    def record_chunk(self, job: str, done: int) -> None:
        self._lose(done)
        super().record_chunk(job, done)
        self._snapshots[done] = dict(self._sink.rows), dict(self.jobs)

    def record_interval(self, job: str, chunks: int, interval: tuple[int, int], files_read: bytes = b"") -> None:
        self._lose(chunks + 1)
        super().record_interval(job, chunks, interval, files_read)

    def _lose(self, at_record: int) -> None:
        for loss in self._losses:
            if loss[0] == at_record:
                self._losses.remove(loss)
                rows, noted = self._snapshots[min(loss[1], max(self._snapshots))]
                self._sink.rows, self.jobs = dict(rows), dict(noted)
                raise LostWriteError("rows", problem="Redis was restarted")


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("losses", [[(1, 0)], [(3, 2)], [(3, 0)], [(4, 1), (5, 4)], [(6, 5)], [(6, 0)]])
def test_what_redis_loses_while_a_job_runs_is_written_again(world: World, losses: list[tuple[int, int]]) -> None:
    world.write(many())
    world.progress = Lossy(world.sink, losses)
    summary = world.run(20)
    assert world.sink.rows == oracle(world.rows, at(0), at(20))[0]
    assert summary.latest_rows == len(world.sink.rows), "each row is counted once"
    assert world.finished() == [(BEGINNING, at(20))]


def test_a_job_gives_up_when_redis_is_lost_again_and_again(world: World) -> None:
    world.write([row(1, 0)])
    world.progress = Lossy(world.sink, [(1, 0)] * 9)
    with pytest.raises(LostWriteError):
        world.run(20)
    assert world.finished() == []


@pytest.mark.parametrize("start", [5, 6])
def test_an_empty_interval_is_refused(world: World, start: int) -> None:
    world.write([row(1, 0)])
    with pytest.raises(DataError, match="materialize stats: expected a start before the end"):
        world.run(5, start)
    assert world.finished() == []


def test_a_view_without_a_source_is_pushed_and_not_materialized(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"materialize stats: the view has no source.*push"):
        World(tmp_path, view_of(user, source=None)).run(5)


def test_without_a_file_nothing_is_recorded(world: World) -> None:
    with pytest.raises(DataError, match="source rows"):
        world.run(5)
    assert world.finished() == []


def test_a_working_folder_that_cannot_be_made_is_told(world: World) -> None:
    world.write([row(1, 0)])
    (world.folder / "materialize").write_text("a file")
    with pytest.raises(DataError, match="working folder"):
        world.run(5)


# -- rows that do not fit -------------------------------------------------------------------------------------------


def bad_table() -> pa.Table:
    times = pa.array([at(0), at(1), at(2), None], pa.timestamp("us"))
    return pa.table({"slot_id": [1, 2**31, None, 4], "at": times, "made": times, "score": [0.5, 1.5, 2.5, 3.5]})


def test_bad_rows_are_set_aside_with_the_reason_and_counted(tmp_path: Path) -> None:
    world = World(tmp_path, view_of(slot, fields={"score": Float64}))
    write_files(tmp_path / "rows", bad_table(), files=2)
    summary = world.run(5, 0)
    assert summary.quarantine_file is not None
    quarantined = pq.read_table(summary.quarantine_file)
    assert quarantined["score"].to_pylist() == [1.5, 2.5, 3.5]
    assert quarantined["reason"].to_pylist() == [
        "slot_id: expected Int32, got 2147483648",
        "slot_id: expected Int32, got null",
        "at: expected Timestamp, got null",
    ]
    assert (summary.source_rows, summary.latest_rows, summary.quarantined) == (4, 1, 3)
    assert [path.name for path in world.folders.quarantine.iterdir()] == [summary.quarantine_file.rpartition("/")[2]]
    assert world.left() == {"lock"}
    assert world.sink.rows == {(1,): Latest(at(0), at(0), (0.5,))}


def test_each_job_has_a_quarantine_file_of_its_own(tmp_path: Path) -> None:
    world = World(tmp_path, view_of(slot, fields={"score": Float64}))
    write_files(tmp_path / "rows", bad_table())
    files = {world.run(5, 0).quarantine_file for _ in range(3)}
    assert len(files) == len(list(world.folders.quarantine.iterdir())) == 3


def test_without_bad_rows_there_is_no_quarantine(world: World) -> None:
    world.write([row(1, 0)])
    world.run(5)
    assert not world.folders.quarantine.exists()


def test_a_job_that_resumes_still_tells_of_the_bad_rows(tmp_path: Path) -> None:
    world = World(tmp_path, view_of(slot, fields={"score": Float64}))
    write_files(tmp_path / "rows", bad_table())
    world.sink.fails_at = 0
    with pytest.raises(ConnectionError):
        world.run(5, 0)
    world.sink.fails_at = None
    summary = world.run(5, 0)
    assert (summary.source_rows, summary.quarantined, summary.resumed_chunks) == (4, 3, 0)
    assert summary.quarantine_file is not None
    assert len(pq.read_table(summary.quarantine_file)) == 3
    assert len(list(world.folders.quarantine.iterdir())) == 1


# -- jobs that are stopped ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("chunk", range(4))
@pytest.mark.parametrize("start", [None, 0])
def test_a_stopped_job_goes_on_at_the_chunk_where_it_stopped(world: World, chunk: int, start: int | None) -> None:
    world.write(many())
    world.write([row(10**6, 15), row(1, 18)], "later")
    world.sink.fails_at = chunk
    with pytest.raises(ConnectionError):
        world.run(10, start)
    assert world.finished() == []
    world.sink.fails_at = None
    summary = world.run(20, start)
    assert world.sink.rows == oracle(world.rows, at(0), at(20))[0]
    assert summary.resumed_chunks == chunk
    assert world.finished() == [(BEGINNING if start is None else at(0), at(20))]
    assert world.left() == {"lock"}
    assert world.progress.jobs == {}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("chunk", range(1, 4))
def test_the_same_job_run_again_writes_no_chunk_twice(world: World, chunk: int) -> None:
    world.write(many())
    world.sink.fails_at = chunk
    with pytest.raises(ConnectionError):
        world.run(20, 0)
    world.sink.fails_at = None
    summary = world.run(20, 0)
    assert summary.resumed_chunks == chunk
    assert sum(world.sink.writes) == len(world.sink.rows)
    assert world.sink.rows == oracle(world.rows, at(0), at(20))[0]


@pytest.mark.usefixtures("small_chunks")
def test_a_job_for_less_than_what_is_staged_reads_the_source(world: World) -> None:
    world.write(many())
    world.sink.fails_at = 2
    with pytest.raises(ConnectionError):
        world.run(20, 0)
    world.sink = MemorySink(VIEW)
    assert world.run(5, 0).resumed_chunks == 0
    assert world.sink.rows == oracle(world.rows, at(0), at(5))[0]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("changed", ["source", "digest"])
def test_what_was_staged_for_something_else_is_staged_anew(world: World, changed: str) -> None:
    world.write(many())
    world.sink.fails_at = 3
    with pytest.raises(ConnectionError):
        world.run(20, 0)
    world.sink = MemorySink(VIEW)
    if changed == "source":
        world.rows = []
        world.write(many(seed=2))
    changes: dict[str, dict[str, Any]] = {"digest": {"digest": "e"}}
    summary = world.run(20, 0, **changes.get(changed, {}))
    assert summary.resumed_chunks == 0
    assert world.sink.rows == oracle(world.rows, at(0), at(20))[0]
    assert world.left() == {"lock"}
    assert world.progress.jobs == {}, "nobody will ask for the chunks of the other job again"


@pytest.mark.usefixtures("small_chunks")
def test_a_job_that_is_stopped_again_and_again_ends_as_one_that_was_not(world: World) -> None:
    world.write(many())
    chance, stops = random.Random(3), 0
    for end in range(10, 100):
        world.sink.fails_at = len(world.sink.writes) + chance.randrange(2)
        with contextlib.suppress(ConnectionError):
            world.run(end)
            break
        stops += 1
    assert stops >= 4
    world.sink.fails_at = None
    world.run(100)
    assert world.sink.rows == oracle(world.rows, at(0), at(100))[0]
    assert world.finished() == [(BEGINNING, at(100))]
    assert world.left() == {"lock"}


class Sliced(LocalEngine):
    """Chunks of three rows, which LocalEngine's files cannot have."""

    def chunk_count(self, target: Path) -> int:
        return -(-int(pq.read_metadata(target).num_rows) // 3)

    def write(self, target: Path, view: FeatureView, first: int, destination: Destination) -> Iterator[Written]:
        with destination.open() as sink:
            for whole in local._chunks(target, view, 0):
                for chunk in range(first, self.chunk_count(target)):
                    batch = whole.slice(chunk * 3, chunk * 3 + 3)
                    yield Written(len(batch), sink.write(batch))


@settings(max_examples=50)
@given(
    st.lists(st.builds(row, st.integers(0, 15), SECONDS, st.floats(0, 1)), min_size=1, max_size=40),
    st.lists(st.tuples(st.none() | SECONDS, SECONDS, st.integers(0, 4), st.none() | st.integers(0, 4)), max_size=8),
)
def test_whatever_runs_and_stops_each_finished_interval_is_written(
    rows: list[Row], runs: list[tuple[int | None, int, int, int | None]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name))
        world.write(rows)
        for start, end, lookback, chunks in runs:
            if start is not None and start >= end:
                continue
            world.sink.fails_at = None if chunks is None else len(world.sink.writes) + chunks
            with contextlib.suppress(ConnectionError):
                world.run(end, start, lookback=lookback, engine=Sliced())
                assert world.left() == {"lock"}
            for low, high in world.finished():
                for key, latest in oracle(rows, low, high)[0].items():
                    assert (latest.at_us, latest.made_us) <= world.sink.rows[key][:2]
        world.sink.fails_at = None
        world.run(20, engine=Sliced())
        for key, latest in oracle(rows, BEGINNING, at(20))[0].items():
            assert (latest.at_us, latest.made_us) == world.sink.rows[key][:2]
        assert world.finished() == [(BEGINNING, at(20))]


@pytest.mark.usefixtures("small_chunks")
def test_a_job_stopped_between_its_last_chunk_and_its_record_is_only_recorded(world: World) -> None:
    class Unrecording(MemoryProgress):
        def record_interval(self, *_: object) -> None:
            raise ConnectionError("Redis is gone")

    world.write(many())
    world.progress = Unrecording()
    with pytest.raises(ConnectionError):
        world.run(20)
    chunks = len(world.sink.writes)
    progress = MemoryProgress()
    progress.jobs, world.progress = world.progress.jobs, progress
    assert world.run(30).resumed_chunks == chunks
    assert world.finished() == [(BEGINNING, at(30))]


class Stopped(LocalEngine):
    """An engine that is killed in the middle: what it had begun is left."""

    def stage(self, asked: Stage) -> int:
        asked.target.with_suffix(".unfinished").write_text("half")
        spill = asked.target.parent / "spill-x"
        spill.mkdir()
        (spill / "block").write_text("spilled")
        asked.target.write_text("staged, but no note says so")
        raise ConnectionError("the engine is gone")


@pytest.mark.parametrize("end", [10, 20])
def test_half_files_of_a_killed_job_are_cleared_and_never_used(world: World, end: int) -> None:
    world.write([row(1, 0)])
    with pytest.raises(ConnectionError):
        world.run(10, engine=Stopped())
    assert len(world.left()) > 3
    (world.folders.work("materialize") / "stats" / "quarantine.unfinished").write_text("half")
    world.run(end)
    assert world.left() == {"lock"}
    assert world.sink.rows == oracle(world.rows, at(0), at(end))[0]


def test_half_a_note_is_no_note(world: World) -> None:
    world.write([row(1, 0)])
    (world.folders.work("materialize") / "stats").mkdir(parents=True)
    (world.folders.work("materialize") / "stats" / "x.unfinished").write_text("[[1")
    world.run(10)
    assert world.left() == {"lock"}


def test_a_chunk_count_of_another_job_of_that_name_does_not_count(world: World) -> None:
    """Chunks are noted, but the staged file that they are of is gone: everything is written again."""
    world.write([row(1, 0)])
    world.progress.record_interval = lambda *_: world.sink.fail()  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        world.run(10)
    assert list(world.progress.jobs.values()) == [1]
    (note,) = (world.folders.work("materialize") / "stats").glob("*.json")
    note.unlink()
    del world.progress.record_interval
    assert world.run(10).written == 1


@pytest.mark.parametrize("note", ["[[1, 2], 3, 0, null]", "[", "[]", "{}"])
def test_rows_that_another_release_staged_are_staged_again(world: World, note: str) -> None:
    world.write([row(1, 0)])
    world.sink.fails_at = 0
    with pytest.raises(ConnectionError):
        world.run(10)
    (path,) = (world.folders.work("materialize") / "stats").glob("*.json")
    path.write_text(note)
    world.sink.fails_at = None
    assert world.run(10).written == 1
    assert world.left() == {"lock"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["0" * 16, -(1 << 62), 1 << 62]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"[" * 100_000, b"9" * 10_000, b"\xff", b" " * 10_000_000]),
        st.tuples(st.text(max_size=16) | st.just("0" * 16), st.tuples(json_values, json_values) | json_values, json_values,
                  json_values, json_values).map(lambda parts: json.dumps(parts).encode()),
        json_values.map(lambda value: json.dumps(value).encode()),
    )
)  # fmt: skip
def test_a_note_of_any_bytes_is_sound_or_none(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "note.json"
        path.write_bytes(text)
        note = read_note(path)
    if note is not None:
        (start, end), counts = note.interval, (note.source_rows, note.quarantined)
        assert BEGINNING <= start < end <= -BEGINNING
        assert all(0 <= count < 1 << 62 for count in counts)
        assert len(note.id) == 16


def test_a_note_that_was_written_is_read_again(world: World) -> None:
    world.write([row(1, 0)])
    world.sink.fails_at = 0
    with pytest.raises(ConnectionError):
        world.run(10)
    (path,) = (world.folders.work("materialize") / "stats").glob("*.json")
    note = read_note(path)
    assert note is not None and note.interval == (BEGINNING, at(10)) and note.source_rows == 1


# -- several at once ------------------------------------------------------------------------------------------------


class Meeting(MemorySink):
    """A sink that notices when two write at once."""

    def __init__(self, view: FeatureView) -> None:
        super().__init__(view)
        self.inside, self.met = threading.Semaphore(1), False

    def write(self, batch: RowBatch) -> WriteCounts:
        if not self.inside.acquire(blocking=False):
            self.met = True
            self.inside.acquire()
        try:
            return super().write(batch)
        finally:
            self.inside.release()


@pytest.mark.usefixtures("small_chunks")
def test_jobs_of_one_view_wait_for_one_another_and_find_the_work_done(world: World) -> None:
    world.write(many())
    world.sink = Meeting(VIEW)
    summaries: list[Summary] = []
    threads = [threading.Thread(target=lambda: summaries.append(world.run(20))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(summary.source_rows for summary in summaries) == [0, 0, 0, MANY]
    assert not world.sink.met
    assert world.sink.rows == oracle(world.rows, at(0), at(20))[0]
    assert world.left() == {"lock"}


def test_pushes_and_jobs_of_one_view_do_not_disturb_one_another(world: World) -> None:
    world.write(many())
    pushed = [row(-1 - i, 0) for i in range(8)]
    table = [table_of(VIEW, [each], pa.timestamp("us")) for each in pushed]
    errors: list[BaseException] = []

    def run(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    works = [lambda each=each: push(world, each) for each in table] + [lambda: world.run(20)] * 2
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert world.sink.rows == oracle([*world.rows, *pushed], at(0), at(20))[0]


# -- what is pushed -------------------------------------------------------------------------------------------------


def push(world: World, table: Any) -> Summary:
    return jobs.push(world.view, table, engine=LocalEngine(), destination=world.sink, folders=world.folders)


def test_the_latest_of_what_is_pushed_is_written(world: World) -> None:
    rows = [row(1, 1), row(1, 0), row(2, 5), Row((2,), at(5), at(6), (None, None))]
    summary = push(world, table_of(VIEW, rows, pa.timestamp("us")))
    assert world.sink.rows == oracle(rows, BEGINNING, -BEGINNING)[0]
    assert (summary.intervals, summary.source_rows, summary.latest_rows, summary.written) == ((), 4, 2, 2)
    assert [path.name for path in (world.folders.work("materialize") / "push-stats").iterdir()] == ["lock"]


def test_what_is_pushed_is_not_recorded_and_staged_rows_of_a_job_stay(world: World) -> None:
    world.write([row(1, 0)])
    world.sink.fails_at = 0
    with pytest.raises(ConnectionError):
        world.run(10)
    staged = world.left()
    world.sink.fails_at = None
    push(world, table_of(VIEW, [row(2, 0)], pa.timestamp("us")))
    assert world.left() == staged
    assert world.finished() == []


def test_a_push_that_fails_leaves_nothing_for_the_next(world: World) -> None:
    world.sink.fails_at = 0
    with pytest.raises(ConnectionError):
        push(world, table_of(VIEW, [row(1, 0)], pa.timestamp("us")))
    world.sink.fails_at = None
    push(world, table_of(VIEW, [row(2, 0)], pa.timestamp("us")))
    assert set(world.sink.rows) == {(2,)}


def test_bad_rows_of_a_push_are_set_aside(tmp_path: Path) -> None:
    world = World(tmp_path, view_of(slot, fields={"score": Float64}))
    summary = push(world, bad_table())
    assert (summary.source_rows, summary.written, summary.quarantined) == (4, 1, 3)
    assert summary.quarantine_file is not None
    assert pq.read_table(summary.quarantine_file)["score"].to_pylist() == [1.5, 2.5, 3.5]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_any_time_that_is_bad_can_be_set_aside(tmp_path: Path, unit: str) -> None:
    world = World(tmp_path, view_of(slot, fields={"score": Float64}))
    far = pa.array([2**62, None, -(2**62), 0], pa.int64()).cast(pa.timestamp(unit))
    summary = push(world, pa.table({"slot_id": [1, 2, 3, 2**31], "at": far, "score": [0.5] * 4}))
    assert summary.quarantined == (2 if unit == "ns" else 4)
    assert summary.quarantine_file is not None
    assert len(pq.read_table(summary.quarantine_file)) == summary.quarantined


# -- what is reported -----------------------------------------------------------------------------------------------


class Told:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.phases: list[list[Any]] = []
        self.open = False

    def started(self, view: str, total_rows: int | None) -> None:
        assert not self.open
        self.open = True
        self.phases.append([view, total_rows, 0])

    def advanced(self, rows: int) -> None:
        self.phases[-1][2] += rows

    def finished(self) -> None:
        self.open = False


@pytest.mark.usefixtures("small_chunks")
def test_a_report_is_told_of_every_row_read_and_written(world: World) -> None:
    world.write(many())
    told = Told()
    summary = world.run(20, report=told)
    assert told.phases == [["stats", MANY, MANY], ["stats: write", None, summary.latest_rows]]
    assert not told.open


def test_a_summary_is_a_document() -> None:
    assert Summary("stats", ((1, 2),), 3).to_document()["source_rows"] == 3


# -- what is expected of values -------------------------------------------------------------------------------------


def expecting(folder: Path, **about: Any) -> World:
    fields = [Field("score", Float64, min=0, max_null_rate=0.5), Field("text", String)]
    return World(folder, FeatureView("stats", entities=[user], source=VIEW.source, schema=fields, **about))


def test_values_that_are_not_expected_keep_the_whole_interval_from_being_written(tmp_path: Path) -> None:
    world = expecting(tmp_path)
    world.write([row(1, 0, 1.0), row(2, 1, -3.0), row(3, 2, -4.0)])
    for _ in range(2):  # run again, it says the same
        with pytest.raises(DataError) as raised:
            world.run(5)
        assert raised.value.where == "stats.score"
        assert raised.value.expected == "at least 0"
        assert "another value in 2 of 3 rows, such as -" in raised.value.got
        assert "no row was written" in raised.value.hint
    assert (world.sink.rows, world.finished()) == ({}, [])
    world.write([row(2, 3, 3.0), row(3, 3, 3.0)], "corrections")
    assert world.run(5).written == 3, "only the latest rows are looked at"
    assert world.finished() == [(BEGINNING, at(5))]


def test_a_share_of_nulls(tmp_path: Path) -> None:
    world = expecting(tmp_path)
    world.write([row(1, 0), Row((2,), at(0), None, (None, None))])
    assert world.run(1).written == 2
    world.write([Row((3,), at(2), None, (None, None))], "more")
    with pytest.raises(DataError, match=r"null in at most 0\.5 of rows, got 1 of 1"):
        world.run(5)


def test_a_view_may_only_be_warned(tmp_path: Path) -> None:
    world = expecting(tmp_path, on_breach="warn")
    world.write([row(1, 0, 1.0), row(2, 1, -3.0)])
    summary = world.run(5)
    assert summary.written == 2
    assert [(breach.field, breach.rows, breach.of) for breach in summary.breaches] == [("score", 1, 2)]
    assert summary.to_document()["breaches"][0]["expected"] == "at least 0"


def test_what_is_pushed_is_looked_at_too(tmp_path: Path) -> None:
    world = expecting(tmp_path)
    with pytest.raises(DataError, match="at least 0"):
        push(world, table_of(world.view, [row(1, 0, -1.0)], pa.timestamp("us")))
    assert world.sink.rows == {}
    assert push(world, table_of(world.view, [row(1, 0, 1.0)], pa.timestamp("us"))).written == 1
