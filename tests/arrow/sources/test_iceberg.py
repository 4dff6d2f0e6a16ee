"""Iceberg tables pass the conformance suite of sources; features of the format; errors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFileContent, FileFormat
from pyiceberg.table.snapshots import Operation
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import DoubleType, LongType

from feature_store.arrow.sources.lake import data_files
from feature_store.arrow.sources.lake.iceberg_snapshots import ReadSnapshot, added_since
from feature_store.arrow.sources.opening import open_source, source_exists
from feature_store.arrow.sources.source import OfflineSource, Piece
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions import IcebergSource
from feature_store.errors import DataError
from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite
from tests.arrow.sources.iceberg_tables import SOURCE, StoredIceberg, catalog_in, delete_places

_DAY_US = 86_400_000_000


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlCatalog:
    return catalog_in(tmp_path, monkeypatch)


@pytest.fixture
def stored(tmp_path: Path, catalog: SqlCatalog) -> StoredIceberg:
    return StoredIceberg(tmp_path, catalog)


class TestIceberg(OfflineSourceSuite):
    pass


class TestIcebergOnLocalEngine(SourceOnEngineSuite):
    pass


class TestIcebergOnSpark(SourceOnEngineSuite):
    @pytest.fixture
    def engine(self, spark_engine: object) -> object:
        return spark_engine


def rows(*times_us: int | None, first: int = 0) -> pa.Table:
    count = len(times_us)
    numbers = pa.array(range(first, first + count), pa.int64())
    return pa.table({"at": pa.array(times_us, pa.timestamp("us")), "n": numbers})


def created(catalog: SqlCatalog, *tables: pa.Table) -> Any:
    table = catalog.create_table("sales.rows", (*tables, rows(1))[0].schema)
    for one in tables:
        table.append(one)
    return table


def opened(snapshot_id: int | None = None) -> OfflineSource:
    return open_source(SOURCE.model_copy(update={"snapshot_id": snapshot_id}), Path("nowhere"))


def values(rows: OfflineSource | Iterable[Piece], name: str = "n", times: TimeRange | None = None) -> list[Any]:
    parts = [rows] if isinstance(rows, OfflineSource) else rows
    return [value for part in parts for batch in part.batches([name], times) for value in batch[name].to_pylist()]


def data_paths(table: Any) -> list[Path]:
    return [Path(task.file.file_path.removeprefix("file://")) for task in table.refresh().scan().plan_files()]


# -- snapshots ----------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_read_whatever_is_committed_meanwhile(catalog: SqlCatalog) -> None:
    table = created(catalog, rows(1, 2))
    opened_rows = opened()
    pieces = opened_rows.pieces(["n"], None, most_bytes=1)
    table.overwrite(rows(3, first=7))
    assert values(opened_rows) == values(pieces) == [0, 1]
    assert values(opened()) == [7]
    first = table.snapshots()[0].snapshot_id
    assert values(opened(first)) == [0, 1]
    assert opened(first).version == opened_rows.version != opened().version
    assert opened_rows.pinned == {"snapshot_id": first}
    with pytest.raises(DataError, match=r"there is no snapshot 5. Hint: snapshots are removed when they expire"):
        opened(5)


def test_a_table_without_snapshots_has_no_rows(catalog: SqlCatalog) -> None:
    assert not source_exists(SOURCE, Path())
    created(catalog)
    assert source_exists(SOURCE, Path())
    empty = opened()
    times = TimeRange("at", 0, 1)
    assert (values(empty), empty.total, empty.pieces(["n"], times, most_bytes=1), dict(empty.pinned)) == ([], 0, [], {})
    known = empty.unread(b"")
    assert known.pieces == ()
    catalog.load_table("sales.rows").append(rows(1))
    assert values(opened().unread(known.document).pieces) == [0]


# -- what was not read --------------------------------------------------------------------------------------------------


def test_only_files_that_were_added_are_read_again(catalog: SqlCatalog) -> None:
    table = created(catalog, rows(1, 2), rows(3, first=2))
    known = opened().unread(b"")
    assert values(known.pieces) == [0, 1, 2]
    assert opened().unread(known.document).pieces == ()
    table.append(rows(4, first=3))
    assert values(opened().unread(known.document).pieces) == [3]
    table.refresh().delete("n = 1")
    assert values(opened().unread(known.document).pieces) == [3, 0], "the rest of a file is written again"
    for wrong in (b"x", b"a\nb", known.document + b"1", b"other" + known.document):
        assert sorted(values(opened().unread(wrong).pieces)) == [0, 2, 3]
    catalog.drop_table("sales.rows")
    created(catalog, rows(1, first=8))
    assert values(opened().unread(known.document).pieces) == [8], "another table of the same name"


def test_a_compaction_adds_nothing_unless_rows_before_it_were_not_read() -> None:
    def snapshot(number: int, operation: Operation) -> Any:
        summary = mock.Mock(operation=operation)
        return mock.Mock(snapshot_id=number, parent_snapshot_id=number - 1 or None, summary=summary)

    kinds = [Operation.APPEND, Operation.REPLACE, Operation.APPEND, Operation.REPLACE, Operation.OVERWRITE]
    snapshots = [snapshot(number, kind) for number, kind in enumerate(kinds, start=1)]

    def added(known: int, now: int, table: str = "t") -> set[int] | None:
        return added_since(snapshots, ReadSnapshot(table, known), ReadSnapshot("t", now))

    assert [added(1, 2), added(1, 3), added(1, 4), added(2, 4), added(3, 4), added(3, 5)] == [
        set(),
        {3},
        {3, 4},
        {3, 4},
        set(),
        {5},
    ]
    assert added(0, 2) == {1, 2}
    assert added(5, 5) == set()
    assert (added(1, 2, "other"), added(4, 2), added(9, 5), added(1, 9)) == (None, None, None, None)


# -- schemas ------------------------------------------------------------------------------------------------------------


def test_columns_are_found_by_their_ids(catalog: SqlCatalog) -> None:
    old = rows(1, 2).append_column("s", pa.array(["a", None])).append_column("small", pa.array([1, 2], pa.int32()))
    table = created(catalog, old)
    with table.update_schema() as change:
        change.rename_column("s", "title")
        change.update_column("small", LongType())
        change.delete_column("n")
    with table.update_schema() as change:
        change.add_column("s", DoubleType())
        change.add_column("n", LongType())
    table.append(pa.table({"at": rows(3)["at"], "small": [2**40], "title": ["b"], "s": [0.5], "n": [9]}))
    found = opened()
    assert [values(found, name) for name in ("title", "small", "s", "n")] == [
        ["a", None, "b"],
        [1, 2, 2**40],
        [None, None, 0.5],
        [None, None, 9],
    ]
    assert values(found, "title", TimeRange("at", 2, 9)) == [None, "b"]
    before = opened(table.snapshots()[0].snapshot_id)
    assert (before.schema.names, values(before, "s"), values(before, "n")) == (old.schema.names, ["a", None], [0, 1])


def test_files_without_ids_are_read_by_the_name_mapping(catalog: SqlCatalog, tmp_path: Path) -> None:
    table = created(catalog)
    pq.write_table(rows(1, 2), tmp_path / "a b%20.parquet")
    table.add_files([str(tmp_path / "a b%20.parquet")])
    with table.update_schema() as change:
        change.rename_column("n", "number")
    assert values(opened(), "number") == [0, 1]
    with table.transaction() as change:
        change.remove_properties("schema.name-mapping.default")
    with pytest.raises(DataError, match="have no field ids: give the table a name mapping"):
        values(opened(), "number")


# -- partitions and ranges of times -------------------------------------------------------------------------------------


def test_partitions_by_a_transform_of_the_time_are_pruned(
    catalog: SqlCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = created(catalog)
    with table.update_spec() as change:
        change.add_field("at", DayTransform(), "day")
    for day in range(4):
        path = tmp_path / f"{day}.parquet"
        pq.write_table(rows(day * _DAY_US, day * _DAY_US + 5, first=day * 2), path)
        table.add_files([str(path)])
    pq.write_table(rows(None, first=8), tmp_path / "null.parquet")
    table.add_files([str(tmp_path / "null.parquet")])
    used: list[str] = []
    parquet_fragment = data_files.parquet_fragment
    monkeypatch.setattr(data_files, "parquet_fragment", lambda file: used.append(file.path) or parquet_fragment(file))
    found = opened()
    assert values(found, times=TimeRange("at", _DAY_US + 5, 2 * _DAY_US + 1)) == [3, 4, 8]
    assert {Path(path).name for path in used} == {"1.parquet", "2.parquet", "null.parquet"}
    assert len(found.pieces(["n"], TimeRange("at", 0, 1), most_bytes=1)) == 2


def test_a_partition_column_that_the_files_lack_has_the_value_of_the_partition(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = rows(1).schema.append(pa.field("day", pa.date32())).append(pa.field("place", pa.string()))
    table = catalog.create_table("sales.rows", schema)
    with table.update_spec() as change:
        change.add_field("day", IdentityTransform(), "day")
        change.add_field("place", IdentityTransform(), "renamed")
    whole = rows(1).append_column("day", pa.array([400], pa.date32())).append_column("place", pa.array(["é/ "]))
    table.append(whole)
    (path,) = data_paths(table)
    pq.write_table(pq.read_table(path, partitioning=None).select(["at", "n"]), path)
    monkeypatch.setattr(data_files.DataFile, "_check", lambda _: None)  # the new file has another size
    found = opened()
    assert values(found, "place") == ["é/ "]
    assert [str(day) for day in values(found, "day")] == ["1971-02-05"]
    assert values(found, "n") == [0]


# -- deleted rows -------------------------------------------------------------------------------------------------------


def test_rows_that_are_deleted_by_positions_are_left_out(catalog: SqlCatalog) -> None:
    table = created(catalog, rows(*range(10)), rows(*range(10, 20), first=10))
    paths = [f"file://{path}" for path in sorted(data_paths(table))]
    (first,) = [path for path in paths if pq.read_table(path.removeprefix("file://"))["n"][0].as_py() == 0]
    known = opened().unread(b"").document
    delete_places(table, first, [0, 3])
    delete_places(table.refresh(), first, [9, 3])
    wanted = [1, 2, 4, 5, 6, 7, 8, *range(10, 20)]
    found = opened()
    assert values(found) == wanted
    assert values(found.pieces(["n"], None, most_bytes=1)) == wanted
    assert values(found, times=TimeRange("at", 2, 5)) == [2, 4]
    assert found.total is None
    assert found.unread(known).pieces == ()
    assert values(opened(table.snapshots()[1].snapshot_id)) == list(range(20))


@pytest.mark.parametrize(
    "about", [{"file_format": FileFormat.PUFFIN}, {"content": DataFileContent.EQUALITY_DELETES, "equality_ids": [2]}]
)
def test_rows_that_are_deleted_in_another_way_are_refused(catalog: SqlCatalog, about: dict[str, Any]) -> None:
    table = created(catalog, rows(1, 2))
    delete_places(table, f"file://{data_paths(table)[0]}", [0], **about)
    with pytest.raises(DataError, match=r"(?i)source lake\.sales\.rows: .*delet"):
        opened()


# -- errors -------------------------------------------------------------------------------------------------------------


def test_a_catalog_or_table_that_there_is_not_is_refused(catalog: SqlCatalog) -> None:
    for call in (source_exists, open_source):
        with pytest.raises(DataError, match="set PYICEBERG_CATALOG__OTHER__URI, or name it in"):
            call(IcebergSource("other.sales.rows", event_timestamp="at"), Path())
    for name in ("lake.sales.rows", "lake.none.rows", "lake.sales.deep.rows"):
        with pytest.raises(DataError, match=r"the catalog has no table|does not exist"):
            open_source(IcebergSource(name, event_timestamp="at"), Path())


def test_no_secret_of_a_catalog_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "uri": "postgresql+psycopg2://ann:hunter22@127.0.0.1:9/x?password=tiger77",
        "s3__secret_access_key": "leaked-key",
    }.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__LAKE__{name.upper()}", value)
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__TYPE", "no-type leaked-key hunter22")
    with pytest.raises(DataError) as raised:
        open_source(SOURCE, Path())
    assert not any(secret in str(raised.value) for secret in ("hunter22", "leaked-key"))


def test_a_lost_or_broken_file_is_an_error_that_names_it(catalog: SqlCatalog, tmp_path: Path) -> None:
    table = created(catalog, rows(*range(1000)))
    found = opened()
    (path,) = data_paths(table)
    whole = path.read_bytes()
    for content, problem in [
        (whole[:-9], "bytes, and snapshot"),
        (bytes(len(whole)), "readable data"),
        (None, "missing"),
    ]:
        path.write_bytes(content) if content is not None else path.unlink()
        with pytest.raises(DataError, match=problem) as raised:
            values(found)
        assert path.name in str(raised.value)
    for metadata in (tmp_path / "warehouse" / "sales" / "rows" / "metadata").iterdir():
        metadata.write_bytes(b"{")
    with pytest.raises(DataError, match="expected a readable Iceberg table"):
        opened()
