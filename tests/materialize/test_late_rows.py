"""Jobs read intervals again when their view computes other rows, or when rows come late."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store._intervals import BEGINNING
from feature_store.definitions import FeatureView, Field, Float64, String
from tests.engines.offline_worlds import (
    SOURCE,
    oracle,
    table_of,
    user,
)
from tests.materialize.job_worlds import (
    VIEW,
    World,
    at,
    many,
    row,
)

# -- views that compute other rows ------------------------------------------------------------------------------------


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


# -- rows that come late ----------------------------------------------------------------------------------------------


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
    """The two files have the same counts, sizes, least and greatest values, as files of one day often do."""
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
