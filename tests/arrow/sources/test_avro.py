"""Avro files pass the conformance suite of sources."""

from __future__ import annotations

import decimal
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from feature_store.arrow import avro_files
from feature_store.arrow.sources.opening import open_source, open_view, source_exists
from feature_store.arrow.types import fit, served_values
from feature_store.definitions import (
    Array,
    AvroSource,
    Bool,
    Bytes,
    Date,
    Decimal,
    Entity,
    FeatureView,
    Field,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    Timestamp,
)
from feature_store.definitions.dtypes import DType
from feature_store.errors import DataError
from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite

_SOURCE = AvroSource("rows", event_timestamp="at", created_timestamp="made")
_MICROS = {"type": "long", "logicalType": "timestamp-micros"}
_MILLIS = {"type": "long", "logicalType": "timestamp-millis"}


def put(folder: Path, fields: dict[str, Any], rows: list[dict[str, Any]], name: str = "a.avro", **options: Any) -> Path:
    (folder / "rows").mkdir(exist_ok=True)
    schema = {"type": "record", "name": "Row", "fields": [{"name": key, "type": kind} for key, kind in fields.items()]}
    path = folder / "rows" / name
    with path.open("wb") as file:
        fastavro.writer(file, fastavro.parse_schema(schema), rows, **options)
    return path


class StoredAvro:
    """Files with different units of times, orders of fields, codecs and sizes of blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = _SOURCE
        self._count = 0

    def append(self, rows: pa.Table) -> None:
        number = self._count
        unit = "micros" if number % 2 else "millis"
        time = {"type": "long", "logicalType": f"local-timestamp-{unit}"}
        fields: dict[str, Any] = {
            "user_id": "long" if number % 2 else "int",
            "at": ["null", time],
            "made": [time, "null"],
            "score": "double",
            "title": "string",
        }
        if number % 2:
            fields = dict(reversed(fields.items()))
        codec = "deflate" if number % 2 else "null"
        put(self.folder, fields, rows.to_pylist(), f"part-{number:04d}.avro", codec=codec, sync_interval=500)
        self._count += 1


@pytest.fixture
def stored(tmp_path: Path) -> StoredAvro:
    return StoredAvro(tmp_path)


class TestAvro(OfflineSourceSuite):
    pass


class TestAvroOnLocalEngine(SourceOnEngineSuite):
    pass


class TestAvroOnSpark(SourceOnEngineSuite):
    @pytest.fixture
    def engine(self, spark_engine: object) -> object:
        return spark_engine


def column(folder: Path, name: str, dtype: DType) -> list[Any]:
    """The values of a column, with "bad" for those that do not fit."""
    found: list[Any] = []
    for batch in open_source(_SOURCE, folder).batches([name]):
        fitted, bad = fit(batch[name], dtype)
        values = served_values(fitted.filter(pa.array(~bad)), dtype).to_pylist()
        found += ["bad" if wrong else values.pop(0) for wrong in bad.tolist()]
    return found


_KINDS: list[tuple[Any, DType, st.SearchStrategy[Any]]] = [
    ("boolean", Bool, st.booleans()),
    ("int", Int32, st.integers(-(1 << 31), (1 << 31) - 1)),
    ("long", Int64, st.integers(-(1 << 63), (1 << 63) - 1)),
    ("float", Float32, st.floats(width=32)),
    ("double", Float64, st.floats()),
    ("string", String, st.text()),
    ("bytes", Bytes, st.binary(max_size=20)),
    ({"type": "fixed", "name": "F", "size": 4}, Bytes, st.binary(min_size=4, max_size=4)),
    ({"type": "enum", "name": "E", "symbols": ["a", "b"]}, String, st.sampled_from(["a", "b"])),
    ({"type": "int", "logicalType": "date"}, Date, st.dates()),
    (_MICROS, Timestamp, st.datetimes(timezones=st.just(UTC))),
    (
        _MILLIS,
        Timestamp,
        st.datetimes(timezones=st.just(UTC)).map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000)),
    ),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4},
        Decimal(18, 4),
        st.integers(-(10**18) + 1, 10**18 - 1).map(lambda units: decimal.Decimal(units).scaleb(-4)),
    ),
    ({"type": "string", "logicalType": "uuid"}, String, st.uuids()),
    ({"type": "array", "items": "double"}, Array(Float64), st.lists(st.floats(), max_size=3)),
]


@given(st.lists(st.tuples(*(st.none() | values for _, _, values in _KINDS)), max_size=6), st.booleans())
@settings(max_examples=60)
def test_values_of_each_type_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], is_null_last: bool
) -> None:
    folder = tmp_path_factory.mktemp("avro")
    names = [f"c{number}" for number in range(len(_KINDS))]
    unions = [[kind, "null"] if is_null_last else ["null", kind] for kind, _, _ in _KINDS]
    put(folder, dict(zip(names, unions, strict=True)), [dict(zip(names, row, strict=True)) for row in rows])
    for place, (name, (_, dtype, _)) in enumerate(zip(names, _KINDS, strict=True)):
        wanted = [_shown(row[place]) for row in rows]
        assert list(map(_shown, column(folder, name, dtype))) == wanted, dtype


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return repr(value) if isinstance(value, (float, bytes, list, date, decimal.Decimal)) else str(value)


def test_times_that_no_datetime_can_hold_are_bad_rows(tmp_path: Path) -> None:
    """fastavro would raise an error for the file."""
    put(tmp_path, {"at": "long", "day": "int"}, [{"at": 1 << 62, "day": 1 << 30}, {"at": 5_000_000, "day": 1}])
    path = tmp_path / "rows" / "a.avro"
    schema = {
        "type": "record",
        "name": "Row",
        "fields": [{"name": "at", "type": _MICROS}, {"name": "day", "type": {"type": "int", "logicalType": "date"}}],
    }
    with path.open("rb") as file:
        rows = list(fastavro.reader(file))
    with path.open("wb") as file:  # fastavro writes integers for times as they are
        fastavro.writer(file, schema, rows)
    assert column(tmp_path, "at", Timestamp) == ["bad", datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=5)]
    assert column(tmp_path, "day", Date) == ["bad", date(1970, 1, 2)]


def test_columns_are_matched_by_name_and_added_ones_are_null(tmp_path: Path) -> None:
    put(tmp_path, {"at": _MICROS, "n": "int"}, [{"at": 1, "n": 2}], "a.avro")
    put(tmp_path, {"new": "string", "n": "long", "at": _MILLIS}, [{"at": 1, "n": 1 << 40, "new": "x"}], "b.avro")
    opened = open_source(_SOURCE, tmp_path)
    assert opened.schema.names == ["at", "n", "new"]
    assert column(tmp_path, "n", Int64) == [2, 1 << 40]
    assert column(tmp_path, "new", String) == [None, "x"]
    assert [batch.schema.field("new").type for batch in opened.batches(["new"])] == [pa.string(), pa.string()]
    view = FeatureView(
        "v",
        entities=[Entity("e", join_key="n")],
        source=AvroSource("rows", event_timestamp="at"),
        schema=[Field("new", Int64)],
    )
    assert view.source is not None
    with pytest.raises(DataError, match="column new: expected values of Int64, got a column of string"):
        open_view(view.source, view, tmp_path)


def test_records_and_maps_are_columns_that_no_view_takes_and_unions_are_refused(tmp_path: Path) -> None:
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": "int"}]}
    fields = {
        "at": _MICROS,
        "r": inner,
        "again": ["null", "Inner"],
        "m": {"type": "map", "values": "int"},
        "u": ["int", "string"],
    }
    put(tmp_path, fields, [{"at": 1, "r": {"x": 1}, "again": {"x": 2}, "m": {"k": 3}, "u": "text"}])
    opened = open_source(_SOURCE, tmp_path)
    (batch,) = opened.batches(["r", "again", "m"])
    assert batch.to_pylist() == [{"r": {"x": 1}, "again": {"x": 2}, "m": [("k", 3)]}]
    with pytest.raises(DataError, match=r"a\.avro: u is a union of several types"):
        list(opened.batches(["u"]))


def test_batches_do_not_depend_on_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avro_files, "_BATCH_ROWS", 7)
    put(tmp_path, {"at": "long"}, [{"at": number} for number in range(100)], sync_interval=16)
    found = [batch["at"].to_pylist() for batch in open_source(_SOURCE, tmp_path).batches(["at"])]
    assert [value for values in found for value in values] == list(range(100))
    assert max(map(len, found)) == 7
    (piece,) = open_source(_SOURCE, tmp_path).pieces(["at"], None, most_bytes=1)
    assert piece.rows == 100


@pytest.mark.parametrize("content", [b"", b"PAR1" * 10, b"Obj\x01", b"Obj\x01\x04\x16avro.schema\x02{"])
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.avro").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.avro cannot be read as Avro: "):
        open_source(_SOURCE, tmp_path)


def test_a_file_without_records_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    with (tmp_path / "rows" / "a.avro").open("wb") as file:
        fastavro.writer(file, "long", [1, 2])
    with pytest.raises(DataError, match=r"a\.avro does not hold records"):
        open_source(_SOURCE, tmp_path)


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_a_file_that_is_cut_is_refused(tmp_path: Path, codec: str) -> None:
    path = put(tmp_path, {"at": "long"}, [{"at": number} for number in range(5000)], codec=codec)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"a\.avro cannot be read as Avro: .*may be cut"):
        column(tmp_path, "at", Int64)


def test_the_second_read_has_the_new_files_alone(tmp_path: Path) -> None:
    assert not source_exists(_SOURCE, tmp_path)
    put(tmp_path, {"at": "long"}, [{"at": 1}], "a.avro")
    first = open_source(_SOURCE, tmp_path).unread(b"")
    put(tmp_path, {"at": "long"}, [{"at": 2}], "b.avro")
    second = open_source(_SOURCE, tmp_path).unread(first.document)
    assert [batch["at"].to_pylist() for piece in second.pieces for batch in piece.batches(["at"])] == [[2]]
