"""Arrow IPC files pass the conformance suite of sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pytest

from feature_store.arrow.sources import arrow_files
from feature_store.arrow.sources.opening import open_source, source_exists
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions import ArrowSource
from feature_store.errors import DataError
from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite

_SOURCE = ArrowSource("rows", event_timestamp="at", created_timestamp="made")


def write(path: Path, rows: pa.Table, batch_rows: int = 16, **options: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    with pa.ipc.new_file(path, rows.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(rows, max_chunksize=batch_rows)


class StoredArrow:
    """Files of all kinds that are written: some compressed, some with dictionaries, with both suffixes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = _SOURCE
        self._count = 0

    def append(self, rows: pa.Table) -> None:
        number = self._count
        if number % 2:
            title = rows["title"].combine_chunks().dictionary_encode()
            rows = rows.set_column(rows.schema.get_field_index("title"), "title", title)
        path = self.folder / "rows" / f"part-{number:04d}.{'feather' if number % 2 else 'arrow'}"
        write(path, rows, compression="zstd" if number % 2 else None)
        self._count += 1


@pytest.fixture
def stored(tmp_path: Path) -> StoredArrow:
    return StoredArrow(tmp_path)


class TestArrow(OfflineSourceSuite):
    pass


class TestArrowOnLocalEngine(SourceOnEngineSuite):
    pass


class TestArrowOnSpark(SourceOnEngineSuite):
    @pytest.fixture
    def engine(self, spark_engine: object) -> object:
        return spark_engine


def rows(*times_us: int | None) -> pa.Table:
    return pa.table({"at": pa.array(times_us, pa.timestamp("us")), "n": range(len(times_us))})


def test_the_second_read_has_the_new_files_alone(tmp_path: Path) -> None:
    write(tmp_path / "rows" / "a.arrow", rows(1, 2))
    write(tmp_path / "rows" / "b.arrow", rows(3))
    first = open_source(_SOURCE, tmp_path).unread(b"")
    assert len(first.pieces) == 2
    write(tmp_path / "rows" / "aa.feather", rows(4, 5))
    (tmp_path / "rows" / "b.arrow").unlink()
    second = open_source(_SOURCE, tmp_path).unread(first.document)
    assert [piece.file.version.path for piece in second.pieces] == [str(tmp_path / "rows" / "aa.feather")]
    write(tmp_path / "rows" / "a.arrow", rows(1, 2, 3))
    third = open_source(_SOURCE, tmp_path).unread(second.document)
    assert [batch["n"].to_pylist() for piece in third.pieces for batch in piece.batches(["n"])] == [[0, 1, 2]]


def test_a_second_read_opens_the_files_that_were_read_for_their_schemas_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows" / "a.arrow", rows(1, 2))
    known = open_source(_SOURCE, tmp_path).unread(b"").document
    write(tmp_path / "rows" / "b.arrow", rows(3))
    opened = open_source(_SOURCE, tmp_path)
    used: list[str] = []
    read_counts = arrow_files.ArrowFile.counts

    def noted(file: arrow_files.ArrowFile) -> list[int]:
        used.append(Path(file.version.path).name)
        return read_counts(file)

    monkeypatch.setattr(arrow_files.ArrowFile, "counts", noted)
    assert len(opened.unread(known).pieces) == 1
    assert used == ["b.arrow"]


def test_a_range_of_times_leaves_out_rows(tmp_path: Path) -> None:
    write(tmp_path / "rows" / "a.arrow", rows(1, 2, 3, None, 9, 9, 9, 9), batch_rows=2)
    opened = open_source(_SOURCE, tmp_path)
    found = [batch.to_pydict() for batch in opened.batches(["n"], TimeRange("at", 2, 4))]
    assert found == [{"n": [1]}, {"n": [2, 3]}]


def test_a_file_without_rows_has_no_pieces_with_rows(tmp_path: Path) -> None:
    write(tmp_path / "rows" / "a.arrow", rows())
    write(tmp_path / "rows" / "b.arrow", rows(1))
    opened = open_source(_SOURCE, tmp_path)
    assert sum(piece.rows for piece in opened.pieces(["n"], None, most_bytes=1)) == 1
    assert [batch["n"].to_pylist() for batch in opened.batches(["n"]) if len(batch)] == [[0]]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "a.arrow is not an Arrow IPC file"),
        (b"FEA1" + bytes(20), "a Feather file of version 1"),
        (b"ARROW1" + bytes(20), "expected readable data"),
        (b"PAR1" + bytes(20), "not an Arrow IPC file"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.arrow").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        open_source(_SOURCE, tmp_path)


def test_a_stream_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    with pa.ipc.new_stream(tmp_path / "rows" / "a.arrow", rows(1).schema) as writer:
        writer.write_table(rows(1))
    with pytest.raises(DataError, match="streams of IPC are not supported"):
        open_source(_SOURCE, tmp_path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.table([[1], [2]], names=["at", "at"])
    write(tmp_path / "rows" / "a.arrow", table)
    with pytest.raises(DataError, match="two columns of the same name"):
        open_source(_SOURCE, tmp_path)


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows" / "a.arrow"
    write(path, rows(*range(1000)), batch_rows=10)
    opened = open_source(_SOURCE, tmp_path)
    batches = opened.batches(["n"])
    next(batches)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"a\.arrow was changed while it was read"):
        list(batches)


def test_a_folder_has_files_of_both_suffixes_and_a_file_any_name(tmp_path: Path) -> None:
    assert not source_exists(_SOURCE, tmp_path)
    for name in ("b.arrow", "a.feather", "_c.arrow", "d.parquet", "e.ipc"):
        write(tmp_path / "rows" / name, rows(1))
    opened = open_source(_SOURCE, tmp_path)
    assert [Path(version.path).name for version in opened.files] == ["a.feather", "b.arrow"]
    assert open_source(ArrowSource("rows/e.ipc", event_timestamp="at"), tmp_path).files
