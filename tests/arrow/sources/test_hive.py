"""Partitioned folders pass the conformance suite of sources; the names of folders; files that differ; errors."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from feature_store.arrow.sources.lake import data_files
from feature_store.arrow.sources.opening import open_source
from feature_store.arrow.sources.source import OfflineSource
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions import Entity, FeatureView, Field, Float64, ParquetSource, String
from feature_store.engines.local.engine import LocalEngine
from feature_store.errors import DataError, DefinitionError
from feature_store.materialize.job import Target, materialize
from feature_store.materialize.span import Span
from feature_store.project.context import ProjectFolders
from feature_store.testing.doubles import FolderSink, MemoryProgress
from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite

_SOURCE = ParquetSource("rows", event_timestamp="at", created_timestamp="made", partitioning="hive")
DAY_US = 86_400_000_000


class StoredFolders:
    """Each append makes a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = _SOURCE
        self._count = 0

    def append(self, rows: pa.Table) -> None:
        inside = self.folder / "rows" / f"part={self._count:04d}" / "kind=all"
        inside.mkdir(parents=True)
        pq.write_table(rows, inside / "part-0.parquet", row_group_size=16)
        self._count += 1


@pytest.fixture
def stored(tmp_path: Path) -> StoredFolders:
    return StoredFolders(tmp_path)


class TestHive(OfflineSourceSuite):
    pass


class TestHiveOnLocalEngine(SourceOnEngineSuite):
    pass


class TestHiveOnSpark(SourceOnEngineSuite):
    @pytest.fixture
    def engine(self, spark_engine: object) -> object:
        return spark_engine


def write(folder: Path, inside: str, **columns: Any) -> None:
    """Write a file whose `n` says which it is, with a time a row unless the folders hold it."""
    place = folder / "rows" / inside
    place.mkdir(parents=True, exist_ok=True)
    rows = len(next(iter(columns.values())))
    times = {} if "at=" in inside else {"at": pa.array([DAY_US] * rows, pa.timestamp("us"))}
    pq.write_table(pa.table(columns | times), place / f"part-{len(list(place.iterdir()))}.parquet")


def opened(folder: Path) -> OfflineSource:
    return open_source(_SOURCE, folder)


def texts(rows: OfflineSource, column: str, times: TimeRange | None = None) -> list[Any]:
    """The values of a column, as the folder or the file holds them."""
    parts = [batch.column(column) for batch in rows.batches([column], times)]
    return [value for part in parts for value in getattr(part, "storage", part).to_pylist()]


# -- the names of folders ----------------------------------------------------------------------------------------------


def test_a_definition_without_partitioning_has_the_document_of_earlier_releases() -> None:
    plain = ParquetSource("rows", event_timestamp="at")
    assert "partitioning" not in plain.model_dump(mode="json")
    assert _SOURCE.model_dump(mode="json")["partitioning"] == "hive"
    with pytest.raises(DefinitionError, match="partitioning"):
        ParquetSource("rows", event_timestamp="at", partitioning="directory")


def test_keys_times_and_features_are_read_from_the_names_of_folders_as_declared(tmp_path: Path) -> None:
    """`007` stays a text, and a key of digits is a number: what the view declares decides, not what the name looks
    like."""
    write(tmp_path, "at=2026-01-05/user_id=7/title=007", score=[1.5])
    write(tmp_path, "at=2026-01-06/user_id=8/title=__HIVE_DEFAULT_PARTITION__", score=[2.5])
    write(tmp_path, "at=2026-01-06/user_id=x/title=1", score=[3.5])
    source = ParquetSource("rows", event_timestamp="at", partitioning="hive")
    fields = [Field("score", Float64), Field("title", String)]
    view = FeatureView("stats", entities=[Entity("user", join_key="user_id")], source=source, schema=fields)
    sink = FolderSink(tmp_path / "sink")
    summary = materialize(
        view,
        Span(),
        Target(sink, MemoryProgress()),
        folders=ProjectFolders(tmp_path, tmp_path / "state"),
        engine=LocalEngine(),
        digest="d",
    )
    assert (summary.source_rows, summary.latest_rows, summary.quarantined) == (3, 2, 1), "x is no number"
    assert summary.quarantine_file is not None
    (bad,) = pq.read_table(summary.quarantine_file).to_pylist()
    assert "x" in bad.values() or "x" in str(bad)
    at = {day: int(datetime.datetime(2026, 1, day, tzinfo=datetime.UTC).timestamp() * 1e6) for day in (5, 6)}
    assert sink.rows == {7: (at[5], at[5], 1.5, "007"), 8: (at[6], at[6], 2.5, None)}


@settings(max_examples=60)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_the_values_are_those_that_arrow_reads(names: list[str]) -> None:
    """Arrow writes the folders, with its own rule of which characters to escape."""
    with tempfile.TemporaryDirectory() as folder:
        rows = pa.table(
            {"shop": names, "n": list(range(len(names))), "at": pa.array([DAY_US] * len(names), pa.timestamp("us"))}
        )
        flavor = ds.partitioning(pa.schema([("shop", pa.string())]), flavor="hive")
        ds.write_dataset(rows, f"{folder}/rows", format="parquet", partitioning=flavor)
        found = opened(Path(folder))
        assert dict(zip(texts(found, "n"), texts(found, "shop"), strict=True)) == dict(enumerate(names))


def test_folders_outside_a_range_of_times_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in ("1970-01-01", "1970-01-02", "1970-01-03T12", "__HIVE_DEFAULT_PARTITION__", "soon"):
        write(tmp_path, f"at={day}", n=[day])
    used: list[str] = []
    parquet_fragment = data_files.parquet_fragment
    monkeypatch.setattr(data_files, "parquet_fragment", lambda file: used.append(file.path) or parquet_fragment(file))
    rows, times = opened(tmp_path), TimeRange("at", DAY_US, 2 * DAY_US)
    inside = ["1970-01-02", "__HIVE_DEFAULT_PARTITION__", "soon"]
    assert texts(rows, "n", times) == inside, "a time that cannot be read is for the check of rows"
    assert len(used) == 3
    assert [piece.rows for piece in rows.pieces(["n"], times, most_bytes=1)] == [1, 1, 1]
    assert rows.sequence(times).total == 3
    assert len(texts(rows, "n")) == 5


def test_a_folder_wins_over_a_column_of_that_name(tmp_path: Path) -> None:
    write(tmp_path, "shop=a", shop=["stored"], n=[1])
    assert texts(opened(tmp_path), "shop") == ["a"]


# -- files that differ -------------------------------------------------------------------------------------------------


def test_columns_that_came_later_are_null_in_earlier_files_and_types_widen(tmp_path: Path) -> None:
    write(tmp_path, "day=1", n=pa.array([1], pa.int32()), small=pa.array([0.5], pa.float32()))
    write(tmp_path, "day=2", n=pa.array([1 << 40]), later=["x"], small=pa.array([0.25]), nothing=pa.nulls(1))
    write(tmp_path, "day=3", n=pa.array([3], pa.int16()), later=[None], nothing=["y"])
    rows = opened(tmp_path)
    assert texts(rows, "n") == [1, 1 << 40, 3]
    assert texts(rows, "later") == [None, "x", None]
    assert texts(rows, "small") == [0.5, 0.25, None]
    assert texts(rows, "nothing") == [None, None, "y"]
    assert {str(rows.schema.field(name).type) for name in ("n", "small", "later")} == {"int64", "double", "string"}


@pytest.mark.parametrize("other", [pa.array(["1"]), pa.array([1.5]), pa.array([True])])
def test_types_that_do_not_go_together_name_both_files(tmp_path: Path, other: pa.Array) -> None:
    write(tmp_path, "day=1", n=pa.array([1]))
    write(tmp_path, "day=1", n=other)
    with pytest.raises(
        DataError, match=r"column n: expected a type that goes with int64, of part-0.parquet, got .* of part-1"
    ):
        opened(tmp_path)


def test_only_files_that_were_added_or_changed_are_read_again(tmp_path: Path) -> None:
    write(tmp_path, "day=1", n=[1])
    known = opened(tmp_path).unread(b"")
    write(tmp_path, "day=2", n=[2])
    added = opened(tmp_path).unread(known.document)
    assert [batch["n"].to_pylist() for piece in added.pieces for batch in piece.batches(["n"])] == [[2]]
    assert opened(tmp_path).unread(added.document).pieces == ()
    (tmp_path / "rows/day=1/part-0.parquet").rename(tmp_path / "rows/day=2/part-1.parquet")
    moved = opened(tmp_path).unread(added.document)
    assert [batch["n"].to_pylist() for piece in moved.pieces for batch in piece.batches(["n"])] == [[1]], (
        "its day changed"
    )


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    write(tmp_path, "day=1", n=[1, 2])
    rows = opened(tmp_path)
    pieces = rows.pieces(["n"], None, most_bytes=1)
    file = tmp_path / "rows/day=1/part-0.parquet"
    pq.write_table(pa.table({"n": [3, 4], "at": pa.array([DAY_US] * 2, pa.timestamp("us"))}), file)
    for part in (rows, *pieces):
        with pytest.raises(DataError, match=r"part-0\.parquet was changed while it was read"):
            list(part.batches(["n"]))
    file.unlink()
    with pytest.raises(DataError, match="was removed"):
        list(pieces[0].batches(["n"]))


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (["."], "no folder of part-0.parquet has a name with a column and a value"),
        (["2026/01"], "no folder of part-0.parquet has a name with a column and a value"),
        (["day=1", "."], "expected the columns day in the names of folders"),
        (["day=1/shop=2", "shop=2/day=1"], "got shop, day of"),
        (["day=1", "month=1"], "got month of"),
    ],
)
def test_folders_that_hold_no_or_different_columns_are_refused(tmp_path: Path, folders: list[str], says: str) -> None:
    for inside in folders:
        write(tmp_path, inside, n=[1])
    with pytest.raises(DataError, match=says.replace(".", r"\.")):
        opened(tmp_path)


def test_a_glob_begins_below_its_fixed_part(tmp_path: Path) -> None:
    for inside in ("day=1", "day=2", "day=12"):
        write(tmp_path, inside, n=[inside])
    source = ParquetSource("rows/day=1*/*.parquet", event_timestamp="at", partitioning="hive")
    assert texts(open_source(source, tmp_path), "day") == ["1", "12"]
