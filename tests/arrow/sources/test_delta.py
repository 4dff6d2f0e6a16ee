"""Delta Lake tables pass the conformance suite of sources; features of the format; errors."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from feature_store.arrow.sources.lake import data_files
from feature_store.arrow.sources.opening import open_source, source_exists
from feature_store.arrow.sources.source import OfflineSource, Piece
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions import DeltaSource, Entity, FeatureView, Field, Float64, String
from feature_store.engines.local.engine import LocalEngine
from feature_store.errors import DataError
from feature_store.materialize.job import Target, materialize
from feature_store.materialize.span import Span
from feature_store.project.context import ProjectFolders
from feature_store.testing.doubles import FolderSink, MemoryProgress
from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite
from tests.arrow.sources.delta_tables import WrittenTable, deletion_vector, removal

_SOURCE = DeltaSource("rows", event_timestamp="at", created_timestamp="made")


class StoredDelta:
    """A table with a checkpoint after every second commit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = _SOURCE
        self._count = 0

    def append(self, rows: pa.Table) -> None:
        write_deltalake(self.folder / "rows", rows, mode="append")
        self._count += 1
        if self._count % 2 == 0:
            DeltaTable(self.folder / "rows").create_checkpoint()


@pytest.fixture
def stored(tmp_path: Path) -> StoredDelta:
    return StoredDelta(tmp_path)


class TestDelta(OfflineSourceSuite):
    pass


class TestDeltaOnLocalEngine(SourceOnEngineSuite):
    pass


class TestDeltaOnSpark(SourceOnEngineSuite):
    @pytest.fixture
    def engine(self, spark_engine: object) -> object:
        return spark_engine


def table(*times_us: int | None, first: int = 0) -> pa.Table:
    count = len(times_us)
    return pa.table({"at": pa.array(times_us, pa.timestamp("us")), "n": list(range(first, first + count))})


def numbers(rows: OfflineSource | Iterable[Piece], times: TimeRange | None = None) -> list[Any]:
    parts = [rows] if isinstance(rows, OfflineSource) else rows
    return [value for part in parts for batch in part.batches(["n"], times) for value in batch["n"].to_pylist()]


def opened(folder: Path, version: int | None = None) -> OfflineSource:
    return open_source(_SOURCE.model_copy(update={"version": version}), folder)


# -- versions -----------------------------------------------------------------------------------------------------------


def test_a_version_is_read_whatever_is_committed_meanwhile(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "rows", table(1, 2))
    rows = opened(tmp_path)
    pieces = rows.pieces(["n"], None, most_bytes=1)
    write_deltalake(tmp_path / "rows", table(3, first=7), mode="overwrite")
    DeltaTable(tmp_path / "rows").delete("n = 7")
    assert numbers(rows) == numbers(pieces) == [0, 1]
    assert numbers(opened(tmp_path)) == []
    assert [numbers(opened(tmp_path, version)) for version in range(3)] == [[0, 1], [7], []]
    assert len({opened(tmp_path, version).version for version in range(3)}) == 3


def test_a_version_that_there_is_not_is_refused(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "rows", table(1))
    with pytest.raises(DataError, match=r"there is no version 3; the newest is 0. Hint: leave out version="):
        opened(tmp_path, 3)


def test_a_version_whose_log_was_removed_is_refused(tmp_path: Path) -> None:
    for first in range(3):
        write_deltalake(tmp_path / "rows", table(1, first=first), mode="append")
    DeltaTable(tmp_path / "rows").create_checkpoint()
    (tmp_path / "rows" / "_delta_log" / f"{0:020d}.json").unlink()
    with pytest.raises(DataError, match="version 1 cannot be read"):
        opened(tmp_path, 1)
    assert numbers(opened(tmp_path)) == [0, 1, 2]


def test_vacuum_while_a_version_is_read_is_an_error(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "rows", table(1, 2))
    rows = opened(tmp_path)
    pieces = rows.pieces(["n"], None, most_bytes=1)
    write_deltalake(tmp_path / "rows", table(3), mode="overwrite")
    DeltaTable(tmp_path / "rows").vacuum(0, dry_run=False, enforce_retention_duration=False)
    for read in (rows, pieces):
        with pytest.raises(DataError, match=r"parquet of version 0 is missing.*run this again"):
            numbers(read)
    with pytest.raises(DataError, match="of version 0 is missing"):
        numbers(opened(tmp_path, 0))


# -- what was not read --------------------------------------------------------------------------------------------------


def test_only_files_that_were_added_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    write_deltalake(path, table(1, 2))
    known = opened(tmp_path).unread(b"")
    assert numbers(known.pieces) == [0, 1]
    write_deltalake(path, table(3, first=2), mode="append")
    DeltaTable(path).optimize.compact()
    compacted = opened(tmp_path).unread(known.document)
    assert sorted(numbers(compacted.pieces)) == [0, 1, 2], "the compacted file holds a row that was not read"
    again = opened(tmp_path).unread(compacted.document)
    assert again.pieces == ()
    DeltaTable(path).create_checkpoint()
    DeltaTable(path).optimize.z_order(["n"])
    assert opened(tmp_path).unread(compacted.document).pieces == ()
    DeltaTable(path).update(updates={"n": "9"}, predicate="n = 1")
    assert sorted(numbers(opened(tmp_path).unread(compacted.document).pieces)) == [0, 2, 9]


def test_all_counts_as_not_read_if_the_log_does_not_show_it(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    write_deltalake(path, table(1, 2))
    document = opened(tmp_path).unread(b"").document
    for first in (2, 3):
        write_deltalake(path, table(1, first=first), mode="append")
    DeltaTable(path).create_checkpoint()
    assert numbers(opened(tmp_path).unread(document).pieces) == [2, 3]
    for wrong in (b"x", b"a\nb\nc", document[:-1], document + b"0", document.replace(b"\n0\n", b"\n7\n")):
        assert numbers(opened(tmp_path).unread(wrong).pieces) == [0, 1, 2, 3]
    (path / "_delta_log" / f"{1:020d}.json").unlink()
    assert numbers(opened(tmp_path).unread(document).pieces) == [0, 1, 2, 3]
    shutil.rmtree(path)
    write_deltalake(path, table(5, first=8))
    assert numbers(opened(tmp_path).unread(document).pieces) == [8], "another table in the same folder"


# -- pruning ------------------------------------------------------------------------------------------------------------


def test_files_outside_a_range_of_times_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows"
    for day in range(4):
        write_deltalake(path, table(day * 10_000, day * 10_000 + 999, first=day * 2), mode="append")
    write_deltalake(path, table(None, first=8), mode="append")
    used: list[str] = []
    parquet_fragment = data_files.parquet_fragment
    monkeypatch.setattr(data_files, "parquet_fragment", lambda file: used.append(file.path) or parquet_fragment(file))
    times = TimeRange("at", 10_999, 20_000)
    rows = opened(tmp_path)
    assert numbers(rows, times) == [3, 8], "a statistic of 10.000 ms may stand for a time of 10.999 ms"
    assert len(used) == 2
    used.clear()
    assert numbers(rows.pieces(["n"], times, most_bytes=1), times) == [3, 8]
    assert len(set(used)) == 2
    used.clear()
    assert next(rows.sequence(TimeRange("at", 11_999, 20_000)).batches(["n"]))["n"].to_pylist() == [8]
    assert len(used) == 1


def test_a_partition_column_is_a_time(tmp_path: Path) -> None:
    days = pa.array([0, 1, 2, None], pa.date32())
    write_deltalake(tmp_path / "rows", pa.table({"at": days, "n": [0, 1, 2, 3]}), partition_by=["at"])
    rows = opened(tmp_path)
    day_us = 86_400_000_000
    assert sorted(numbers(rows, TimeRange("at", day_us, 2 * day_us))) == [1, 3]
    (piece,) = rows.pieces(["at"], None, most_bytes=1 << 30)[:1]
    assert {value for batch in piece.batches(["at"]) for value in batch["at"].to_pylist()} <= {
        None,
        *(datetime.date(1970, 1, 1 + day) for day in range(3)),
    }


# -- features of the format ---------------------------------------------------------------------------------------------


def test_deleted_rows_are_left_out_and_columns_are_mapped(tmp_path: Path) -> None:
    fields = [
        ("at", "timestamp_ntz", {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": "col-1"}),
        ("n", "long", {"delta.columnMapping.id": 2, "delta.columnMapping.physicalName": "col-2"}),
        ("late col", "string", {"delta.columnMapping.id": 3, "delta.columnMapping.physicalName": "col-3"}),
    ]
    features, settings = ["columnMapping", "deletionVectors", "timestampNtz"], {"delta.columnMapping.mode": "name"}
    written = WrittenTable(tmp_path / "rows", fields, features=features, settings=settings)
    added = written.file("a.parquet", table(*range(100)).rename_columns(["col-1", "col-2"]), row_group_size=30)
    written.commit({"add": added})
    known = opened(tmp_path).unread(b"").document
    deleted = [0, 29, 30, 31, *range(60, 100)]
    written.commit(removal(added), {"add": added | {"deletionVector": deletion_vector(deleted)}})
    wanted = [n for n in range(100) if n not in deleted]
    rows = opened(tmp_path)
    assert rows.schema.names == ["at", "n", "late col"]
    assert numbers(rows) == wanted
    assert numbers(rows.pieces(["n"], None, most_bytes=1)) == wanted
    assert numbers(rows, TimeRange("at", 25, 40)) == [n for n in wanted if 25 <= n < 40]
    assert next(rows.batches(["late col"]))["late col"].to_pylist() == [None] * 28
    sequence = rows.sequence(TimeRange("at", 30, 1000))
    assert sequence.total == 28
    found = [batch["n"].to_pylist() for batch in sequence.gather(["n"], pa.array([1, 3, 26]).to_numpy())]
    assert [n for part in found for n in part] == [33, 35, 58]
    assert numbers(rows.unread(known).pieces) == wanted, "the file is read again, without the deleted rows"
    assert numbers(opened(tmp_path, 1)) == list(range(100))


def test_columns_are_found_by_their_ids(tmp_path: Path) -> None:
    about = {"delta.columnMapping.id": 5, "delta.columnMapping.physicalName": "col-5"}
    settings = {"delta.columnMapping.mode": "id"}
    written = WrittenTable(tmp_path / "rows", [("n", "long", about)], features=["columnMapping"], settings=settings)
    for name, number in (("other", b"5"), ("col-5", b"6")):
        schema = pa.schema([pa.field(name, pa.int64(), metadata={b"PARQUET:field_id": number})])
        written.commit({"add": written.file(f"{name}.parquet", pa.table([[1, 2]], schema=schema))})
    assert sorted(numbers(opened(tmp_path)), key=str) == [1, 2, None, None]


def test_types_of_files_become_those_of_the_table(tmp_path: Path) -> None:
    written = WrittenTable(tmp_path / "rows", [("n", "long", {}), ("at", "timestamp", {})], features=["typeWidening"])
    times = pa.array([1_000_000, None], pa.timestamp("us"))
    narrow = pa.table({"n": pa.array([1, None], pa.int32()), "at": times})
    written.commit({"add": written.file("a.parquet", narrow, use_deprecated_int96_timestamps=True)})
    rows = opened(tmp_path)
    (batch,) = rows.batches(["n", "at"])
    assert batch.schema.types == [pa.int64(), pa.timestamp("us", "UTC")]
    assert batch["n"].to_pylist() == [1, None]
    assert numbers(rows, TimeRange("at", 0, 10)) == [None]
    written.commit({"add": written.file("b.parquet", pa.table({"n": ["one"], "at": times[:1]}))})
    with pytest.raises(DataError, match=r"b\.parquet: column n: expected values of the table's type int64"):
        numbers(opened(tmp_path))


def test_a_feature_that_is_not_known_is_refused_by_its_name(tmp_path: Path) -> None:
    WrittenTable(tmp_path / "rows", [("n", "long", {})], features=["clusteredColumns"])
    with pytest.raises(DataError, match="clusteredColumns"):
        opened(tmp_path)


# -- errors -------------------------------------------------------------------------------------------------------------


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    assert not source_exists(_SOURCE, tmp_path)
    with pytest.raises(DataError, match="there is no Delta table in"):
        opened(tmp_path)
    (tmp_path / "rows").mkdir()
    with pytest.raises(DataError, match="name the folder that holds the table's _delta_log"):
        opened(tmp_path)
    (tmp_path / "rows" / "_delta_log").mkdir()
    with pytest.raises(DataError, match="source rows: "):
        opened(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"null\n", b'{"add":{"path":"q"}}\n', b'{"metaData":1}\n', b"\xff\x00"])
def test_a_commit_that_is_half_written_is_an_error(tmp_path: Path, content: bytes) -> None:
    write_deltalake(tmp_path / "rows", table(1))
    rows = opened(tmp_path)
    (tmp_path / "rows" / "_delta_log" / f"{1:020d}.json").write_bytes(content)
    with pytest.raises(DataError, match="expected a readable Delta table") as raised:
        opened(tmp_path)
    assert "\n" not in str(raised.value)
    assert numbers(rows) == [0]


def test_a_commit_that_breaks_after_the_table_was_opened_is_an_error(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "rows", table(1))
    document = opened(tmp_path).unread(b"").document
    write_deltalake(tmp_path / "rows", table(2), mode="append")
    rows = opened(tmp_path)
    (tmp_path / "rows" / "_delta_log" / f"{1:020d}.json").write_bytes(b"{")
    with pytest.raises(DataError, match="expected a readable Delta table"):
        rows.unread(document)


def test_a_data_file_that_is_cut_or_lost_or_no_parquet_is_an_error(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "rows", table(*range(1000)))
    (path,) = (tmp_path / "rows").glob("*.parquet")
    whole = path.read_bytes()
    for content, problem in [
        (whole[: len(whole) // 2], "bytes, and version 0 records"),
        (bytes(len(whole)), "expected readable data"),
        (None, "is missing"),
    ]:
        path.write_bytes(content) if content is not None else path.unlink()
        with pytest.raises(DataError, match=problem) as raised:
            numbers(opened(tmp_path))
        assert path.name in str(raised.value)


def test_a_data_file_on_another_machine_is_refused(tmp_path: Path) -> None:
    written = WrittenTable(tmp_path / "rows", [("n", "long", {})])
    added = written.file("a.parquet", pa.table({"n": [1]}))
    written.commit({"add": added | {"path": "s3://bucket/a.parquet"}})
    with pytest.raises(DataError, match="s3://bucket/a"):
        opened(tmp_path)


# -- jobs ---------------------------------------------------------------------------------------------------------------


class _FailingSink(FolderSink):
    """A sink that fails at the first batch, as a job that is killed between staging and writing."""

    def write(self, batch: Any) -> Any:
        raise ConnectionError


def test_a_killed_job_that_runs_again_after_a_commit_serves_the_newest_version(tmp_path: Path) -> None:
    def rows(made: int, score: float) -> pa.Table:
        times = pa.array([1_700_000_000_000_000], pa.timestamp("us"))
        made_at = pa.array([1_700_000_000_000_000 + made], pa.timestamp("us"))
        return pa.table({"user_id": [1], "at": times, "made": made_at, "score": [score], "title": [str(score)]})

    write_deltalake(tmp_path / "rows", rows(1, 1.0))
    schema = [Field("score", Float64), Field("title", String)]
    view = FeatureView("stats", entities=[Entity("user", join_key="user_id")], source=_SOURCE, schema=schema)
    progress, folders = MemoryProgress(), ProjectFolders(tmp_path, tmp_path / "state")

    def run(sink: FolderSink) -> Any:
        target = Target(sink, progress)
        return materialize(view, Span(None, None, 0), target, folders=folders, engine=LocalEngine(), digest="1")

    with pytest.raises(ConnectionError):
        run(_FailingSink(tmp_path / "failing"))
    assert progress.files_read() == b""
    write_deltalake(tmp_path / "rows", rows(2, 2.0), mode="append")
    sink = FolderSink(tmp_path / "sink")
    run(sink)
    assert [row[2:] for row in sink.rows.values()] == [(2.0, "2.0")]
    assert run(sink).source_rows == 0
    lost = next((tmp_path / "rows").glob("*.parquet"))
    write_deltalake(tmp_path / "rows", rows(3, 3.0), mode="append")
    known = progress.files_read()
    lost.unlink()
    with pytest.raises(DataError, match="is missing"):
        run(sink)
    assert progress.files_read() == known, "nothing is recorded"
    assert [row[2:] for row in sink.rows.values()] == [(2.0, "2.0")]


def test_a_file_that_has_none_of_the_columns_has_nulls(tmp_path: Path) -> None:
    written = WrittenTable(tmp_path / "rows", [("n", "long", {})])
    written.commit({"add": written.file("a.parquet", pa.table({"dropped": [1, 2]}))})
    assert numbers(opened(tmp_path)) == [None, None]
