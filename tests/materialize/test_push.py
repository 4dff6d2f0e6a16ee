"""Pushed rows: the latest are written, bad rows are quarantined, and the progress of jobs stays as it is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store._intervals import BEGINNING
from feature_store.definitions import Float64
from tests.engines.offline_worlds import (
    Row,
    oracle,
    slot,
    table_of,
    view_of,
)
from tests.materialize.job_worlds import (
    VIEW,
    World,
    at,
    bad_table,
    push,
    row,
)


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
