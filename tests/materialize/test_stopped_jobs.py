"""A job goes on where another was stopped. Jobs wait for each other, and write again what Redis lost."""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from feature_store._intervals import BEGINNING
from feature_store.definitions import FeatureView
from feature_store.engines.engine import RowDestination, StageRequest, Written
from feature_store.engines.local import engine as local
from feature_store.engines.local.engine import LocalEngine
from feature_store.errors import LostWriteError
from feature_store.materialize.staged import read_note
from feature_store.materialize.summary import Summary
from feature_store.online.batch import RowBatch
from feature_store.online.writer import WriteCounts
from tests.engines.offline_worlds import (
    Latest,
    MemoryProgress,
    MemorySink,
    Row,
    oracle,
    table_of,
)
from tests.materialize.job_worlds import (
    MANY,
    SECONDS,
    VIEW,
    World,
    at,
    many,
    push,
    row,
)

# -- jobs that are stopped --------------------------------------------------------------------------------------------


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
    """An engine with chunks of three rows, which LocalEngine's files cannot have."""

    def chunk_count(self, target: Path) -> int:
        return -(-int(pq.read_metadata(target).num_rows) // 3)

    def write(self, target: Path, view: FeatureView, first: int, destination: RowDestination) -> Iterator[Written]:
        with destination.open() as sink:
            for whole in local.staged_batches(target, view, 0):
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
    """An engine that is killed while it stages, and leaves unfinished files."""

    def stage(self, request: StageRequest) -> int:
        request.target.with_suffix(".unfinished").write_text("half")
        spill = request.target.parent / "spill-x"
        spill.mkdir()
        (spill / "block").write_text("spilled")
        request.target.write_text("staged, but no note says so")
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
    """Chunks are recorded, but the note about their staged file is gone. So everything is written again."""
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


# -- a Redis that loses rows ------------------------------------------------------------------------------------------


class Lossy(MemoryProgress):
    """Progress in a Redis that goes back to an older chunk at some records.

    Args:
        sink: has the rows, which go back, too.
        losses: `(record, chunk)`: at which record Redis goes back, and to which chunk.
    """

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


# -- several at once --------------------------------------------------------------------------------------------------


class Meeting(MemorySink):
    """A sink that notes whether two jobs write at once."""

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
