"""Which files belong to a source, and its rows when the files differ."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from feature_store._intervals import BEGINNING
from feature_store.arrow.pushed import PushedRows, pushed_rows, taken_columns
from feature_store.arrow.rows import check, source_columns
from feature_store.arrow.sources.files import PARQUET, source_files
from feature_store.arrow.sources.opening import open_source, open_view
from feature_store.arrow.sources.source import OfflineSource
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions import (
    Array,
    FeatureView,
    Float32,
    Float64,
    Int32,
    Int64,
    ParquetSource,
    String,
    Timestamp,
)
from feature_store.errors import DataError
from tests.engines.offline_worlds import NOW_US, user, view_of

ALWAYS = (BEGINNING, -BEGINNING)


def source(path: str) -> ParquetSource:
    return ParquetSource(path, event_timestamp="at")


def write(path: Path, values: pa.Array | Sequence[Any], at: pa.Array | None = None, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = pa.array([NOW_US] * len(values), pa.timestamp("us")) if at is None else at
    pq.write_table(pa.table({"user_id": list(range(len(values))), "at": times, "v": values}), path, **more)


def view(path: str, dtype: Any = Int64) -> FeatureView:
    return view_of(user, source=source(path), fields={"v": dtype})


def read(rows: OfflineSource | PushedRows, of: FeatureView, interval: tuple[int, int] = ALWAYS) -> list[Any]:
    columns = taken_columns(of, rows)
    batches = rows.batches(columns.names, TimeRange(columns.event_timestamp, *interval))
    return [value for batch in batches for value in batch["v"].to_pylist()]


def test_the_unfinished_work_of_other_programs_is_no_part_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "year=2026/c.parquet"):
        write(tmp_path / "rows" / name, [1])
    for name in ("_temporary/x.parquet", ".hidden.parquet", "_x.parquet", "deep/.staging/x.parquet"):
        write(tmp_path / "rows" / name, [2])
    for name in ("_SUCCESS", "_metadata", "a.parquet.crc", "readme.txt"):
        (tmp_path / "rows" / name).write_text("no Parquet")
    (tmp_path / "rows" / "folder.parquet").mkdir()
    found = source_files("rows", tmp_path, PARQUET)
    assert [str(file.relative_to(tmp_path / "rows")) for file in found] == [
        "a.parquet",
        "b.parquet",
        "year=2026/c.parquet",
    ]
    assert read(open_view(view("rows").source, view("rows"), tmp_path), view("rows")) == [1, 1, 1]


def test_a_folder_inside_a_hidden_folder_is_read(tmp_path: Path) -> None:
    write(tmp_path / "_data" / ".x" / "a.parquet", [1])
    assert len(source_files("_data/.x", tmp_path, PARQUET)) == 1


@pytest.mark.parametrize("path", ["rows/*.parquet", "rows/[ab].parquet", "**/?.parquet"])
def test_a_glob_is_its_files_in_order(tmp_path: Path, path: str) -> None:
    write(tmp_path / "rows" / "b.parquet", [2])
    write(tmp_path / "rows" / "a.parquet", [1])
    assert read(open_view(source(path), view(path), tmp_path), view(path)) == [1, 2]
    assert len(source_files(str(tmp_path / path), Path("/nowhere"), PARQUET)) == 2


@pytest.mark.parametrize("path", ["_data/*.parquet", "_data/*/*.parquet", "_data/**/*.parquet"])
def test_a_glob_passes_over_unfinished_work_too(tmp_path: Path, path: str) -> None:
    for name in ("a.parquet", "_a.parquet", ".a.parquet", "b/b.parquet", "_temporary/c.parquet", "b/_b.parquet"):
        write(tmp_path / "_data" / name, [1])
    assert {file.name for file in source_files(path, tmp_path, PARQUET)} <= {"a.parquet", "b.parquet"}


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    name = "it's [1] ü %20 #.data"
    write(tmp_path / name, [1])
    assert read(open_view(source(name), view(name), tmp_path), view(name)) == [1]


@pytest.mark.parametrize("path", ["none.parquet", "none", "*.parquet", "empty"])
def test_no_file_is_an_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as raised:
        source_files(path, tmp_path, PARQUET)
    assert raised.value.where == f"source {path}"
    assert str(tmp_path) in raised.value.expected


@pytest.mark.parametrize("content", [b"", b"PAR1", b"user_id,at,v\n1,2,3\n" * 10])
def test_a_file_that_is_not_parquet_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "rows" / "a.parquet", [1])
    (tmp_path / "rows" / "broken.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.parquet"):
        open_view(source("rows"), view("rows"), tmp_path)


def test_files_of_different_types_that_fit_are_read_as_the_wider(tmp_path: Path) -> None:
    write(tmp_path / "rows" / "a.parquet", pa.array([1], pa.int32()))
    write(
        tmp_path / "rows" / "b.parquet", pa.array([2**40], pa.int64()), pa.array([NOW_US // 1000], pa.timestamp("ms"))
    )
    write(tmp_path / "rows" / "c.parquet", pa.nulls(1))
    rows = open_view(source("rows"), view("rows"), tmp_path)
    assert read(rows, view("rows")) == [1, 2**40, None]
    assert rows.total == 3
    assert read(rows, view("rows"), (NOW_US, NOW_US + 1)) == [1, 2**40, None]


@pytest.mark.parametrize(
    ("a", "b"), [(pa.int64(), pa.uint64()), (pa.int64(), pa.float64()), (pa.float32(), pa.int64())], ids=str
)
def test_numbers_of_several_kinds_are_read_as_numbers(tmp_path: Path, a: pa.DataType, b: pa.DataType) -> None:
    write(tmp_path / "rows" / "a.parquet", pa.array([1, 2]).cast(a))
    write(tmp_path / "rows" / "b.parquet", pa.array([3, 2**53 - 1]).cast(b))
    assert read(open_view(source("rows"), view("rows"), tmp_path), view("rows")) == [1, 2, 3, 2**53 - 1]


@pytest.mark.parametrize("b", [pa.int32(), pa.uint64(), pa.float32(), pa.float64()], ids=str)
def test_an_integer_is_never_rounded_because_another_file_has_other_numbers(tmp_path: Path, b: pa.DataType) -> None:
    write(tmp_path / "rows" / "a.parquet", [2**53 + 1])
    write(tmp_path / "rows" / "b.parquet", pa.array([1]).cast(b))
    with contextlib.suppress(DataError):
        assert read(open_view(source("rows"), view("rows"), tmp_path), view("rows")) == [2**53 + 1, 1]


SMALL, LARGE = pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize("a", [pa.string(), pa.large_string(), SMALL], ids=str)
@pytest.mark.parametrize("b", [pa.string(), pa.large_string(), LARGE], ids=str)
def test_text_of_several_kinds_is_read_as_text(tmp_path: Path, a: pa.DataType, b: pa.DataType) -> None:
    write(tmp_path / "rows" / "a.parquet", pa.array(["x", "y"]).cast(a))
    write(tmp_path / "rows" / "b.parquet", pa.array(["z", None]).cast(b))
    of = view_of(user, source=source("rows"), fields={"v": String})
    assert read(open_view(of.source, of, tmp_path), of) == ["x", "y", "z", None]


@pytest.mark.parametrize("a", [pa.list_(pa.float32()), pa.large_list(pa.float32())], ids=str)
@pytest.mark.parametrize("b", [pa.list_(pa.float64()), pa.list_(pa.float32(), 2)], ids=str)
def test_arrays_of_several_kinds_are_read_as_arrays(tmp_path: Path, a: pa.DataType, b: pa.DataType) -> None:
    write(tmp_path / "rows" / "a.parquet", pa.array([[0.5, 1.0]], a))
    write(tmp_path / "rows" / "b.parquet", pa.array([[1.5, 2.0]], b))
    of = view_of(user, source=source("rows"), fields={"v": Array(Float32, 2)})
    assert read(open_view(of.source, of, tmp_path), of) == [[0.5, 1.0], [1.5, 2.0]]


@pytest.mark.parametrize(
    "a", [pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("us", "Asia/Tokyo")], ids=str
)
def test_times_with_and_without_a_zone_are_the_same_times(tmp_path: Path, a: pa.DataType) -> None:
    write(tmp_path / "rows" / "a.parquet", [1], pa.array([NOW_US], a))
    write(tmp_path / "rows" / "b.parquet", [2], pa.array([NOW_US], pa.timestamp("us", "UTC")))
    rows = open_view(source("rows"), view("rows"), tmp_path)
    assert read(rows, view("rows"), (NOW_US, NOW_US + 1)) == [1, 2]
    assert read(rows, view("rows"), (NOW_US - 1, NOW_US)) == []


def test_columns_may_be_in_any_order_and_others_of_any_type(tmp_path: Path) -> None:
    times = pa.array([NOW_US], pa.timestamp("us"))
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table({"at": times, "v": [1], "user_id": [1], "x": ["a"]}), tmp_path / "rows" / "a.parquet")
    pq.write_table(pa.table({"x": [1], "user_id": [1], "v": [2], "at": times}), tmp_path / "rows" / "b.parquet")
    assert read(open_view(source("rows"), view("rows"), tmp_path), view("rows")) == [1, 2]


@pytest.mark.parametrize(
    "values", [pa.array(["text"]), pa.array([[1]]), pa.array([True])], ids=["text", "list", "bool"]
)
def test_a_file_with_a_column_that_cannot_fit_is_named(tmp_path: Path, values: pa.Array) -> None:
    write(tmp_path / "rows" / "a.parquet", [1])
    write(tmp_path / "rows" / "b.parquet", values)
    with pytest.raises(DataError, match=r"source b\.parquet: column v: expected values of Int64, got a column of"):
        open_view(source("rows"), view("rows"), tmp_path)


def test_a_column_that_only_another_file_has_is_null(tmp_path: Path) -> None:
    write(tmp_path / "rows" / "a.parquet", [1])
    pq.write_table(
        pa.table({"user_id": [1], "at": pa.array([NOW_US], pa.timestamp("us"))}), tmp_path / "rows/b.parquet"
    )
    opened = open_view(source("rows"), view("rows"), tmp_path)
    assert [value for batch in opened.batches(["v"]) for value in batch["v"].to_pylist()] == [1, None]


def test_old_timestamps_of_spark_far_in_the_future_do_not_wrap(tmp_path: Path) -> None:
    far = [253_402_300_799_000_000, -62_135_596_800_000_000, NOW_US]
    at = pa.array(far, pa.timestamp("us"))
    write(tmp_path / "a.parquet", at, at, use_deprecated_int96_timestamps=True)
    of = view("a.parquet", Timestamp)
    rows = open_view(of.source, of, tmp_path)
    found = [value for batch in rows.batches(["at"]) for value in batch["at"].cast(pa.int64()).to_pylist()]
    assert found == far
    assert len(read(rows, of, (far[0], far[0] + 1))) == 1


def test_rows_outside_the_interval_are_not_read(tmp_path: Path) -> None:
    at = pa.array([NOW_US + i for i in range(-2, 3)] + [None], pa.timestamp("us"))
    write(tmp_path / "a.parquet", [0, 1, 2, 3, 4, 5], at)
    rows = open_view(source("a.parquet"), view("a.parquet"), tmp_path)
    assert read(rows, view("a.parquet"), (NOW_US - 1, NOW_US + 1)) == [1, 2, 5], "a row without a time is to be told of"


def test_a_large_row_group_is_read_in_parts(tmp_path: Path) -> None:
    rows = 2_000_000
    at = pa.array(np.full(rows, NOW_US)).cast(pa.timestamp("us"))
    values = pa.array(np.random.default_rng(0).integers(0, 2**62, rows))  # 16 MB that cannot be compressed
    write(tmp_path / "a.parquet", values, at, row_group_size=rows)
    before, most, read_rows = pa.total_allocated_bytes(), 0, 0
    source_rows = open_view(source("a.parquet"), view("a.parquet"), tmp_path)
    for batch in source_rows.batches(["user_id", "v", "at"]):
        read_rows += len(batch)
        time.sleep(0.01)  # time for a thread that would read ahead
        most = max(most, pa.total_allocated_bytes() - before)
    assert read_rows == rows
    assert most < 24 * rows / 2, "less than half of the rows are held at once"


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()], ids=str)
def test_dates_count_as_their_midnights(tmp_path: Path, kind: pa.DataType) -> None:
    day = 86_400_000_000
    at = pa.array([day * i for i in range(4)], pa.timestamp("us")).cast(kind)
    write(tmp_path / "a.parquet", [0, 1, 2, 3], at)
    rows = open_view(source("a.parquet"), view("a.parquet"), tmp_path)
    assert read(rows, view("a.parquet"), (day, 3 * day)) == [1, 2]
    assert 1 in read(rows, view("a.parquet"), (day, day + 1))


def test_the_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    write(tmp_path / "rows" / "a.parquet", [1])
    prints = [open_source(source("rows"), tmp_path).version]
    assert open_source(source("rows"), tmp_path).version == prints[0]
    write(tmp_path / "rows" / "b.parquet", [1])
    prints.append(open_source(source("rows"), tmp_path).version)
    os.utime(tmp_path / "rows" / "a.parquet", ns=(1, 1))
    prints.append(open_source(source("rows"), tmp_path).version)
    (tmp_path / "rows" / "b.parquet").rename(tmp_path / "rows" / "c.parquet")
    prints.append(open_source(source("rows"), tmp_path).version)
    write(tmp_path / "rows" / "_other.parquet", [1])
    assert open_source(source("rows"), tmp_path).version == prints[-1]
    assert len(set(prints)) == 4


# -- pieces ---------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(1, 300),
    st.tuples(st.integers(-1, 10), st.integers(-1, 10)),
)
def test_the_rows_of_all_pieces_are_those_of_the_source(
    files: list[list[int]], group_rows: int, most_bytes: int, bounds: tuple[int, int]
) -> None:
    """`files` has the seconds of each file's rows. `v` is the place of a row in the source."""
    interval = (NOW_US + min(bounds) * 10**6, NOW_US + max(bounds) * 10**6)
    with tempfile.TemporaryDirectory() as name:
        place = 0
        for i, seconds in enumerate(files):
            at = pa.array([NOW_US + second * 10**6 for second in seconds], pa.timestamp("us"))
            write(Path(name) / "rows" / f"{i}.parquet", range(place, place + len(at)), at, row_group_size=group_rows)
            place += len(at)
        rows = open_view(view("rows").source, view("rows"), Path(name))
        pieces = rows.pieces(["user_id", "v", "at"], TimeRange("at", *interval), most_bytes=most_bytes)
        times = TimeRange("at", *interval)
        found = [[v for batch in piece.batches(["v"], times) for v in batch["v"].to_pylist()] for piece in pieces]
        assert [v for piece in found for v in piece] == read(rows, view("rows"), interval)
        for piece, places in zip(pieces, found, strict=True):
            assert all(piece.first <= v < piece.first + piece.rows for v in places)
            assert piece.rows * 24 <= most_bytes or len(piece.row_groups) == 1


def test_a_piece_of_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "gone.parquet", [1])
    (piece,) = open_view(source("gone.parquet"), view("gone.parquet"), tmp_path).pieces(["v"], None, most_bytes=1)
    (tmp_path / "gone.parquet").unlink()
    with pytest.raises(DataError, match=r"source gone\.parquet: gone\.parquet was removed while it was read"):
        next(piece.batches(["v"]))


# -- pushed rows ----------------------------------------------------------------------------------------------------

PUSHED = view_of(user, source=None, fields={"v": Float64})
TABLE = pa.table({"user_id": [1, 2], "event_timestamp": pa.array([NOW_US] * 2, pa.timestamp("us")), "v": [0.5, None]})


@pytest.mark.parametrize(
    ("table", "total"),
    [
        (TABLE, 2),
        (TABLE.to_batches()[0], 2),
        (TABLE.slice(0, 0), 0),
        (pa.concat_tables([TABLE, TABLE]), 4),
    ],
    ids=["table", "batch", "empty", "chunked"],
)
def test_arrow_data_is_pushed(table: Any, total: int) -> None:
    rows = pushed_rows(table, PUSHED)
    assert rows.total == total
    assert read(rows, PUSHED) == [0.5, None] * (total // 2)


def test_a_reader_is_pushed_without_knowing_how_many_rows_it_has() -> None:
    rows = pushed_rows(TABLE.to_reader(), PUSHED)
    assert rows.total is None
    assert read(rows, PUSHED) == [0.5, None]


@pytest.mark.parametrize("as_text", [True, False])
def test_a_parquet_file_is_pushed(tmp_path: Path, as_text: bool) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet")
    rows = pushed_rows(str(tmp_path / "a.parquet") if as_text else tmp_path / "a.parquet", PUSHED)
    assert rows.total == 2
    assert read(rows, PUSHED) == [0.5, None]


def test_a_data_frame_is_pushed() -> None:
    frame = TABLE.to_pandas().set_index(np.array([7, 9]))
    rows = pushed_rows(frame, PUSHED)
    assert "__index_level_0__" not in rows.schema.names
    assert len(read(rows, PUSHED)) == 2


def test_identifiers_that_pandas_has_made_floats_of_are_never_rounded() -> None:
    import pandas as pd

    frame = pd.DataFrame({"user_id": [2**53 + 1, 2**53 + 3], "event_timestamp": [pd.Timestamp(0)] * 2, "v": [0.5, 1.5]})
    missing = pd.DataFrame({"user_id": [None], "event_timestamp": [pd.Timestamp(0)], "v": [2.5]})
    for table, good in ((frame, [2**53 + 1, 2**53 + 3]), (pd.concat([frame, missing.astype({"user_id": float})]), [])):
        (batch,) = pushed_rows(table, PUSHED).batches(["user_id", "v", "event_timestamp"])
        columns = source_columns(PUSHED, batch.schema, "push", pushed=True)
        assert check(batch, columns, PUSHED.join_keys, 0).good["user_id"].to_pylist() == good


def test_a_data_frame_that_arrow_cannot_hold_is_refused() -> None:
    import pandas as pd

    frame = pd.DataFrame({"user_id": [1, "a"], "event_timestamp": [1, 2], "v": [object(), 2]})
    with pytest.raises(DataError, match="push to stats"):
        pushed_rows(frame, PUSHED)


@pytest.mark.parametrize(
    "table", [None, 1, {"user_id": [1]}, [TABLE], b"rows.csv"], ids=["none", "int", "dict", "list", "bytes"]
)
def test_what_is_no_table_is_refused(table: Any) -> None:
    message = (
        r"push to stats: expected a table of Arrow, pandas, polars or DuckDB, or the path of a \.csv or \.parquet file"
    )
    with pytest.raises(DataError, match=message):
        pushed_rows(table, PUSHED)


@pytest.mark.parametrize("name", ["rows.json", "rows", "rows.csv.gz"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match=r"expected a \.csv or \.parquet file"):
        pushed_rows(tmp_path / name, PUSHED)


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.parquet", r"there is no file .*none\.parquet"), ("broken.parquet", "expected readable data")],
)
def test_a_pushed_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=f"push to stats: {message}"):
        pushed_rows(tmp_path / name, PUSHED)


def test_the_small_integers_of_a_view_are_taken_from_large_ones() -> None:
    small = view_of(user, source=None, fields={"v": Int32})
    assert read(pushed_rows(TABLE.set_column(2, "v", pa.array([1, 2**31])), small), small) == [1, 2**31]
