"""Sources whose columns have other names in the data: sources with their own methods, and sources with the defaults."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.arrow.sources.opening import open_source
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions import ParquetSource
from feature_store.errors import DataError, DefinitionError
from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite

_MAPPING = {"usr": "user_id", "ts": "at", "score": "title", "title": "score"}  # also an exchange of two names
_NAMES_IN_DATA = {name: column for column, name in _MAPPING.items()}


class StoredWithOtherNames:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = ParquetSource("rows", event_timestamp="at", created_timestamp="made", field_mapping=_MAPPING)
        self._count = 0

    def append(self, rows: pa.Table) -> None:
        path = self.folder / "rows" / f"part-{self._count:04d}.parquet"
        path.parent.mkdir(exist_ok=True)
        names = [_NAMES_IN_DATA.get(name, name) for name in rows.schema.names]
        pq.write_table(rows.rename_columns(names), path, row_group_size=16)
        self._count += 1


@pytest.fixture
def stored(tmp_path: Path) -> StoredWithOtherNames:
    return StoredWithOtherNames(tmp_path)


class TestOtherNames(OfflineSourceSuite):
    pass


class TestOtherNamesOnLocalEngine(SourceOnEngineSuite):
    pass


def _written(folder: Path, **columns: list[object]) -> None:
    pq.write_table(pa.table(columns), folder / "rows.parquet")


def _mapped(mapping: dict[str, str]) -> ParquetSource:
    return ParquetSource("rows.parquet", event_timestamp="at", field_mapping=mapping)


def test_a_piece_reads_columns_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    _written(tmp_path, at=[1, 2], a=[3, 4], b=[5, 6])
    (piece,) = open_source(_mapped({"a": "b", "b": "a"}), tmp_path).pieces(["a", "b"], None, most_bytes=1)
    (batch,) = pickle.loads(pickle.dumps(piece)).batches(["b", "at", "a", "b"])
    assert batch.to_pydict() == {"b": [3, 4], "at": [1, 2], "a": [5, 6]}


def test_a_range_of_times_leaves_out_row_groups_by_the_name_in_the_data(tmp_path: Path) -> None:
    times = pa.array([1, 2, 3, 4], pa.timestamp("us"))
    pq.write_table(pa.table({"ts": times}), tmp_path / "rows.parquet", row_group_size=1)
    opened = open_source(_mapped({"ts": "at"}), tmp_path)
    assert len(opened.pieces(["at"], TimeRange("at", 2, 4), most_bytes=1)) == 2
    assert opened.count(TimeRange("at", 2, 4)) == 2
    assert opened.sequence(TimeRange("at", 2, 4)).total == 2


def test_a_column_that_is_not_in_the_data_is_refused(tmp_path: Path) -> None:
    _written(tmp_path, at=[1], user=[2])
    with pytest.raises(DataError, match=r"column users of field_mapping is not in the source.*did you mean 'user'"):
        open_source(_mapped({"users": "user_id"}), tmp_path)


def test_a_name_that_a_column_of_the_data_has_is_refused(tmp_path: Path) -> None:
    _written(tmp_path, at=[1], user=[2], user_id=[3])
    with pytest.raises(DataError, match="gives a column the name user_id, which another column has"):
        open_source(_mapped({"user": "user_id"}), tmp_path)


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"a": "c", "b": "c"}, "it gives two columns the name 'c'"),
        ({"at": "time"}, "renames the timestamp 'at'.*write 'time'"),
        ({"": "a"}, "field_mapping"),
        ({"a": 1}, r"field_mapping.*expected text, got 1"),
        (["a"], "expected a mapping"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(mapping: object, problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        ParquetSource("rows.parquet", event_timestamp="at", field_mapping=mapping)


def test_a_source_without_a_mapping_has_the_document_of_releases_that_had_none() -> None:
    source = ParquetSource("rows.parquet", event_timestamp="at")
    document = {"path": "rows.parquet", "event_timestamp": "at", "created_timestamp": None}
    assert source.location() == document
    assert source.model_dump(mode="json", by_alias=True) == {"schema": []} | document
    assert hash(source) == hash(ParquetSource("rows.parquet", event_timestamp="at", field_mapping={}))


def test_another_mapping_is_another_version(tmp_path: Path) -> None:
    _written(tmp_path, at=[1], a=[2], b=[3])
    versions = {open_source(_mapped(mapping), tmp_path).version for mapping in ({}, {"a": "x"}, {"a": "b", "b": "a"})}
    assert len(versions) == 3
