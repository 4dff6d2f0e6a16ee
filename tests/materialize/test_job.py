"""Jobs: the rows that they read and write, what they record, and what they report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from feature_store._intervals import BEGINNING
from feature_store.definitions import FeatureView, Field, Float64, String
from feature_store.errors import DataError
from feature_store.materialize.span import Span
from feature_store.materialize.summary import Summary
from tests.engines.offline_worlds import (
    Latest,
    MemoryProgress,
    Row,
    oracle,
    slot,
    table_of,
    user,
    view_of,
    write_files,
)
from tests.materialize.job_worlds import (
    MANY,
    SECONDS,
    VIEW,
    World,
    at,
    bad_table,
    many,
    push,
    row,
)

# -- which rows -------------------------------------------------------------------------------------------------------


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


# -- intervals --------------------------------------------------------------------------------------------------------


def test_lookback_counts_from_the_last_end_and_leaves_no_gap(world: World) -> None:
    world.write([row(i, i) for i in range(20)])
    world.run(4, 2)
    world.run(10, 8)
    summary = world.run(12, lookback=1)
    assert summary.intervals == ((BEGINNING, at(2)), (at(4), at(8)), (at(9), at(12)))
    assert world.finished() == [(BEGINNING, at(12))]
    assert world.sink.rows == oracle(world.rows, BEGINNING, at(12))[0]


@given(st.lists(st.tuples(st.none() | SECONDS, SECONDS, st.integers(0, 4)), max_size=6))
def test_intervals_without_a_start_are_the_missing_ones_and_the_lookback(
    runs: list[tuple[int | None, int, int]],
) -> None:
    progress, done = MemoryProgress(), set[int]()
    for start, end, lookback in runs:
        finished = progress.finished_intervals()
        intervals = Span(start, end, lookback).intervals(finished, end)
        beginning = -3  # stands for all earlier times
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


# -- rows that do not fit ---------------------------------------------------------------------------------------------


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


# -- reports ----------------------------------------------------------------------------------------------------------


class Told:
    """A report that keeps its calls."""

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


# -- expectations -----------------------------------------------------------------------------------------------------


def expecting(folder: Path, **about: Any) -> World:
    fields = [Field("score", Float64, min=0, max_null_rate=0.5), Field("text", String)]
    return World(folder, FeatureView("stats", entities=[user], source=VIEW.source, schema=fields, **about))


def test_values_that_are_not_expected_keep_the_whole_interval_from_being_written(tmp_path: Path) -> None:
    world = expecting(tmp_path)
    world.write([row(1, 0, 1.0), row(2, 1, -3.0), row(3, 2, -4.0)])
    for _ in range(2):  # the second run raises the same error
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
