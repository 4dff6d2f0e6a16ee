"""Every Arrow type × push, materialize, labels and training set × both engines: the same value, or the same refusal."""

from __future__ import annotations

import itertools
import re
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store._intervals import BEGINNING
from feature_store.arrow.plain import plain, plain_table, plain_type
from feature_store.arrow.pushed import PushedRows, pushed_rows
from feature_store.arrow.quarantine import Quarantine
from feature_store.arrow.sources.opening import open_view
from feature_store.arrow.sources.source import OfflineSource
from feature_store.arrow.types import fit
from feature_store.definitions import (
    Array,
    Bool,
    Entity,
    FeatureView,
    Field,
    Float32,
    Float64,
    Int32,
    Int64,
    ParquetSource,
    String,
    Timestamp,
)
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, DType, to_microseconds
from feature_store.engines.engine import Engine, StageRequest
from feature_store.engines.local.engine import LocalEngine
from feature_store.engines.report import Silent
from feature_store.errors import DataError
from feature_store.training.training_set import label_rows
from tests.engines.join_worlds import World
from tests.engines.offline_worlds import NOW_US, FolderSink, Latest, rows_of

ALWAYS = (BEGINNING, -BEGINNING)
NOON = datetime(2026, 1, 2, 12, 30, 15, tzinfo=UTC)
NOON_US = to_microseconds(NOON)
DAY_US = to_microseconds(datetime(2026, 1, 2, tzinfo=UTC))
ID = uuid.UUID("0123456789abcdef0123456789abcdef")
LARGE = 2**53 + 1
WORDS = ["é\x00", "b"]


class Case(NamedTuple):
    """A column of one value and a null, the declared type, and the value that must come out."""

    values: pa.Array
    dtype: DType
    expected: Any


def _case(value: Any, kind: pa.DataType, dtype: DType, expected: Any) -> Case:
    return Case(pa.array([value, None], kind), dtype, expected)


def _extension(kind: Any, storage: list[Any]) -> pa.Array:
    return pa.ExtensionArray.from_storage(kind, pa.array(storage, kind.storage_type))


_RUNS = pc.run_end_encode(pa.array(["é", None]))
_CATEGORIES = pa.DictionaryArray.from_arrays(pa.array([1, None], pa.uint32()), pa.array(["a", "é"], pa.string_view()))
READ: dict[str, Case] = {
    "null": Case(pa.nulls(2), Float64, None),
    "bool": _case(True, pa.bool_(), Bool, True),
    "bool8": Case(_extension(pa.bool8(), [1, None]), Bool, True),
    **{f"int{bits}": _case(-(2 ** (bits - 1)), f"int{bits}", Int64, -(2 ** (bits - 1))) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": _case(2**bits - 1, f"uint{bits}", Int64, 2**bits - 1) for bits in (8, 16, 32)},
    "uint64": _case(2**63 - 1, pa.uint64(), Int64, 2**63 - 1),
    "int64 as Int32": _case(7, pa.int64(), Int32, 7),
    "int64 as Float64": _case(2**53, pa.int64(), Float64, 2.0**53),
    "float64 as Int64": _case(2.0**53 - 1, pa.float64(), Int64, 2**53 - 1),
    "half_float": Case(pa.array(np.array([1.5, 0], np.float16), mask=np.array([False, True])), Float32, 1.5),
    "float": _case(1.5, pa.float32(), Float32, 1.5),
    "double": _case(0.1, pa.float64(), Float64, 0.1),
    "decimal32": _case(Decimal("7.00"), pa.decimal32(9, 2), Int64, 7),
    "decimal64": _case(Decimal("7.5"), pa.decimal64(18, 2), Float64, 7.5),
    "decimal128": _case(Decimal(2**63 - 1), pa.decimal128(38, 0), Int64, 2**63 - 1),
    "decimal256": _case(Decimal(-(2**63)), pa.decimal256(76, 2), Int64, -(2**63)),
    "string": _case("é\x00", pa.string(), String, "é\x00"),
    "large_string": _case("é\x00", pa.large_string(), String, "é\x00"),
    "string_view": _case(
        "a text that is longer than twelve bytes", pa.string_view(), String, "a text that is longer than twelve bytes"
    ),
    "json": Case(_extension(pa.json_(pa.string()), ['{"a":1}', None]), String, '{"a":1}'),
    "uuid": Case(_extension(pa.uuid(), [ID.bytes, None]), String, str(ID)),
    "dictionary": Case(pa.array(["é", None]).dictionary_encode(), String, "é"),
    "dictionary of string_view": Case(_CATEGORIES, String, "é"),
    "dictionary of numbers": Case(pa.array([LARGE, None]).dictionary_encode(), Int64, LARGE),
    "run_end_encoded": Case(_RUNS, String, "é"),
    "date32": _case(date(2026, 1, 2), pa.date32(), Timestamp, DAY_US),
    "date64": _case(date(2026, 1, 2), pa.date64(), Timestamp, DAY_US),
    **{
        f"timestamp[{unit}, {zone}]": _case(
            NOON if zone else NOON.replace(tzinfo=None), pa.timestamp(unit, zone), Timestamp, NOON_US
        )
        for unit in ("s", "ms", "us", "ns")
        for zone in (None, "UTC", "Europe/Berlin", "+05:30")
    },
    **{
        name: _case([1, LARGE], kind, Array(Int64), [1, LARGE])
        for name, kind in {
            "list": pa.list_(pa.int64()),
            "large_list": pa.large_list(pa.int64()),
            "fixed_size_list": pa.list_(pa.int64(), 2),
            "list_view": pa.list_view(pa.int64()),
            "large_list_view": pa.large_list_view(pa.int64()),
        }.items()
    },
    "list of string_view": _case(WORDS, pa.list_(pa.string_view()), Array(String), WORDS),
    "list of fixed length": _case([1.5, 2.5], pa.list_(pa.float32()), Array(Float32, 2), [1.5, 2.5]),
    "fixed_shape_tensor": Case(
        _extension(pa.fixed_shape_tensor(pa.float32(), (2,)), [[1.5, 2.5], None]), Array(Float32, 2), [1.5, 2.5]
    ),
}
REFUSED: dict[str, Case] = {
    name: Case(values, dtype, hint)
    for name, values, dtype, hint in (
        ("binary", pa.array([b"a", None]), String, "decode it"),
        ("large_binary", pa.array([b"a", None], pa.large_binary()), String, "decode it"),
        ("binary_view", pa.array([b"a", None], pa.binary_view()), String, "decode it"),
        ("fixed_size_binary", pa.array([b"a", None], pa.binary(1)), String, "decode it"),
        ("time32", pa.array([1, None], pa.time32("s")), Timestamp, "store it as a number"),
        ("time64", pa.array([1, None], pa.time64("us")), Int64, "store it as a number"),
        ("duration", pa.array([1, None], pa.duration("us")), Int64, "store it as a number"),
        ("interval", pa.array([(1, 2, 3), None], pa.month_day_nano_interval()), Int64, "store it as a number"),
        ("struct", pa.array([{"a": 1}, None]), Int64, "column of its own"),
        ("map", pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())), Int64, "column of its own"),
        (
            "sparse_union",
            pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1, 2])]),
            Int64,
            "column of its own",
        ),
        (
            "dense_union",
            pa.UnionArray.from_dense(pa.array([0, 0], pa.int8()), pa.array([0, 1], pa.int32()), [pa.array([1, 2])]),
            Int64,
            "column of its own",
        ),
        ("opaque", _extension(pa.opaque(pa.int64(), "point", "gis"), [1, None]), Int64, "store it as int64"),
        ("text as Int64", pa.array(["1", None]), Int64, ""),
        ("int64 as String", pa.array([1, None]), String, ""),
        ("int64 as Timestamp", pa.array([1, None]), Timestamp, ""),
        ("int64 as Bool", pa.array([1, None]), Bool, ""),
        ("list as Int64", pa.array([[1], None]), Int64, ""),
        ("list of lists", pa.array([[[1]], None]), Array(Int64), ""),
    )
}
NOT_IN_PARQUET = {"dictionary of string_view", "run_end_encoded", "interval", "sparse_union", "dense_union"}
# pyarrow cannot make arrays of these two types, and cannot read them from files or streams of other programs.
NOT_IN_PYTHON = {"Type_INTERVAL_MONTHS", "Type_INTERVAL_DAY_TIME"}
ALL = READ | REFUSED
AT = pa.array([NOW_US, NOW_US], pa.timestamp("us", "UTC"))
thing = Entity("thing", join_key="id")


def _view(**fields: DType) -> FeatureView:
    schema = [Field(name, dtype) for name, dtype in fields.items()]
    return FeatureView(
        "stats", entities=[thing], source=ParquetSource("rows.parquet", event_timestamp="at"), schema=schema
    )


class Stored(NamedTuple):
    """What an engine wrote, by key."""

    rows: dict[Any, Latest]


def _staged(engine: Engine, view: FeatureView, rows: OfflineSource | PushedRows, folder: Path) -> Stored:
    quarantine, sink = Quarantine(folder / "bad", folder, view.name), FolderSink(folder / "sink")
    engine.stage(StageRequest(view, rows, *ALWAYS, folder / "staged", quarantine, Silent()))
    quarantine.close()
    assert quarantine.rows == 0
    list(engine.write(folder / "staged", view, 0, sink))
    return Stored(dict(row for batch in sink.taken() for row in rows_of(batch, view)))


def _python(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_the_table_has_every_type_that_pyarrow_has() -> None:
    known = {name for name in dir(pa.lib) if name.startswith("Type_")}
    tried = {case.values.type.id for case in ALL.values()}
    assert {name for name in known if getattr(pa.lib, name) not in tried} == NOT_IN_PYTHON


@pytest.mark.parametrize("name", READ)
def test_a_column_is_read_as_it_is(name: str) -> None:
    """Also a slice of a column, an empty slice, and a column of several chunks."""
    values, dtype, expected = READ[name]
    for part, wanted in ((values, [expected, None]), (values[1:], [None]), (values[:0], []), (values[:1], [expected])):
        fitted, bad = fit(part, dtype)
        assert fitted.to_pylist() == wanted and not bad.any()
        made = plain(part)
        made.validate(full=True)
        assert made.type == plain_type(part.type)
        assert made.take(pa.array([], pa.int64())).type == plain_type(part.type)  # compute kernels take it


@pytest.mark.parametrize("way", ["push", "materialize"])
def test_every_type_is_materialized(engine: Engine, tmp_path: Path, way: str) -> None:
    if way == "push" and engine.name == "spark":
        return  # `push` always runs on the local engine
    cases = {name: case for name, case in READ.items() if way == "push" or name not in NOT_IN_PARQUET}
    view = _view(**{f"f{i}": case.dtype for i, case in enumerate(cases.values())})
    table = pa.table({"id": [1, 2], "at": AT} | {f"f{i}": case.values for i, case in enumerate(cases.values())})
    if way == "push":
        rows = pushed_rows(table, view)
    else:
        pq.write_table(table, tmp_path / "rows.parquet")
        rows = open_view(view.source, view, tmp_path)
    stored = _staged(engine, view, rows, tmp_path).rows
    for i, (name, case) in enumerate(cases.items()):
        assert [_python(stored[(key,)].values[i]) for key in (1, 2)] == [case.expected, None], name


@pytest.mark.parametrize("name", REFUSED)
def test_a_type_that_cannot_fit_is_refused_alike(tmp_path: Path, name: str) -> None:
    values, dtype, hint = REFUSED[name]
    view = _view(f=dtype)
    table = pa.table({"id": [1, 2], "at": AT, "f": values})
    with pytest.raises(DataError) as raised:
        LocalEngine().stage(StageRequest(view, pushed_rows(table, view), *ALWAYS, tmp_path / "x", None, Silent()))  # type: ignore[arg-type]
    assert (raised.value.where, raised.value.got) == ("push to stats: column f", f"a column of {values.type}")
    assert raised.value.expected == f"values of {dtype}" and hint in raised.value.hint
    if name in NOT_IN_PARQUET:
        with pytest.raises(pa.ArrowNotImplementedError):
            pq.write_table(table, tmp_path / "rows.parquet")
        return
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError) as from_file:
        open_view(view.source, view, tmp_path)
    assert from_file.value.where == "source rows.parquet: column f"
    assert from_file.value.expected == raised.value.expected and hint in from_file.value.hint


# -- labels and training sets -----------------------------------------------------------------------------------------


def test_every_type_is_joined_to_labels_of_every_type(engine: Engine, tmp_path: Path) -> None:
    """Features of every type are joined to labels with columns of every type, which stay unchanged."""
    cases = {name: case for name, case in READ.items() if name not in NOT_IN_PARQUET}
    view = _view(**{f"f{i}": case.dtype for i, case in enumerate(cases.values())})
    columns = {f"f{i}": case.values for i, case in enumerate(cases.values())}
    pq.write_table(pa.table({"id": [1, 2], "at": AT} | columns), tmp_path / "rows.parquet")
    others = {name: case.values for name, case in ALL.items() if name not in NOT_IN_PARQUET or name in READ}
    given = plain_table(pa.table({"id": [2, 1], "at": AT} | others))
    found = World(engine, tmp_path).table(given, view)
    for i, (name, case) in enumerate(cases.items()):
        values = found[f"stats f{i}"].to_pylist()
        assert values == [None, case.expected], name
    for name, values in others.items():
        assert found[name].to_pylist() == plain(values).to_pylist(), name


@pytest.mark.parametrize(
    "keys",
    [
        pa.array(["é", "b"], pa.string_view()),
        pa.array(["é", "b"], pa.large_string()),
        pa.array(["é", "b"]).dictionary_encode(),
        pc.run_end_encode(pa.array(["é", "b"])),
        _extension(pa.json_(pa.string()), ["é", "b"]),
    ],
    ids=lambda keys: str(keys.type),
)
def test_an_entity_key_may_be_of_every_type_of_text(keys: pa.Array, tmp_path: Path) -> None:
    """In labels and in pushed rows."""
    by_name = Entity("name", dtype=String)
    view = FeatureView(
        "stats",
        entities=[by_name],
        source=ParquetSource("rows.parquet", event_timestamp="at"),
        schema=[Field("f", Int64)],
    )
    pq.write_table(pa.table({"name": ["é", "b"], "at": AT, "f": [LARGE, 2]}), tmp_path / "rows.parquet")
    labels = pa.table({"name": keys, "at": AT})
    assert World(LocalEngine(), tmp_path).table(plain_table(labels), view)["stats f"].to_pylist() == [LARGE, 2]
    rows = pushed_rows(labels.append_column("f", pa.array([LARGE, 2])), view)
    assert set(_staged(LocalEngine(), view, rows, tmp_path).rows) == {("é",), ("b",)}


@pytest.mark.parametrize("name", ["interval", "sparse_union", "dense_union"])
def test_a_column_of_labels_that_no_file_can_hold_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=rf"labels: column odd: expected a type that Parquet has, got {re.escape(str(ALL[name].values.type))}",
    ):
        label_rows(pa.table({"odd": ALL[name].values}), tmp_path)


@pytest.mark.parametrize("way", ["table", "file"])
def test_text_of_labels_that_is_not_utf8_is_refused(engine: Engine, way: str, tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2], "at": AT, "note": NOT_UTF8})
    with pytest.raises(DataError, match=r"labels.*: column note, row 1: expected text in UTF-8, got b'caf"):
        if way == "table":
            label_rows(table, tmp_path)
        pq.write_table(table, tmp_path / "labels.parquet")
        pq.write_table(pa.table({"id": [1, 2], "at": AT, "f": [1, 2]}), tmp_path / "rows.parquet")
        World(engine, tmp_path).table(tmp_path / "labels.parquet", _view(f=Int64))


# -- what does not fit ------------------------------------------------------------------------------------------------

NOT_UTF8 = pa.Array.from_buffers(pa.string(), 2, [None, *pa.array([b"ok", b"caf\xe9"]).buffers()[1:]])
_LISTS = pa.ListArray.from_arrays(pa.array([0, 1, 2]), NOT_UTF8)
BAD: dict[str, Case] = {
    name: Case(values, dtype, kept)
    for name, values, dtype, kept in (
        ("uint64", pa.array([1, 2**63], pa.uint64()), Int64, 2**63),
        ("int64 as Int32", pa.array([1, LARGE]), Int32, LARGE),
        ("float64", pa.array([1.0, 2.0**53]), Int64, 2.0**53),
        ("float32", pa.array([1.0, 2.0**24], pa.float32()), Int64, 2.0**24),
        ("half_float", pa.array(np.array([1, 2048], np.float16)), Int64, 2048.0),
        ("decimal32", pa.array([Decimal(1), Decimal("1.5")], pa.decimal32(9, 2)), Int64, Decimal("1.5")),
        ("decimal64", pa.array([Decimal(1), Decimal("1.5")], pa.decimal64(18, 2)), Int64, Decimal("1.5")),
        ("decimal128", pa.array([Decimal(1), Decimal(2**63)], pa.decimal128(38, 0)), Int64, Decimal(2**63)),
        ("decimal256", pa.array([Decimal(1), Decimal("1.5")], pa.decimal256(76, 2)), Int64, "1.50"),
        ("not UTF-8", NOT_UTF8, String, "caf\\xe9"),
        ("not UTF-8, large", NOT_UTF8.cast(pa.large_string()), String, "caf\\xe9"),
        ("list of not UTF-8", _LISTS, Array(String), ["caf\\xe9"]),
        ("list with null", pa.array([[1], [None]]), Array(Int64), [None]),
        ("list of another length", pa.array([[1, 2], [1]]), Array(Int64, 2), [1]),
        ("dictionary", pa.array([1, LARGE]).dictionary_encode(), Int32, LARGE),
    )
}


def test_what_does_not_fit_is_quarantined_and_read_by_everyone(engine: Engine, tmp_path: Path) -> None:
    """Each bad value is alone in a row, so that each row has its own reason."""
    view = _view(**{f"f{i}": case.dtype for i, case in enumerate(BAD.values())})
    ids, columns = list(range(len(BAD) + 1)), {}
    for i, case in enumerate(BAD.values()):
        columns[f"f{i}"] = case.values.take(pa.array([1 if row == i else 0 for row in ids]))
    at = pa.array([NOW_US // 10**6] * len(ids), pa.int64()).cast(pa.timestamp("s"))
    pq.write_table(pa.table({"id": ids, "at": at} | columns), tmp_path / "rows.parquet")
    quarantine = Quarantine(tmp_path / "bad", tmp_path, "stats")
    rows = open_view(view.source, view, tmp_path)
    engine.stage(StageRequest(view, rows, *ALWAYS, tmp_path / "staged", quarantine, Silent()))
    quarantine.close()
    assert quarantine.rows == len(BAD) and quarantine.path is not None
    files = sorted(quarantine.path.rglob("*.parquet")) if quarantine.path.is_dir() else [quarantine.path]
    kept = pa.concat_tables([pq.read_table(file) for file in files]).sort_by("id")
    assert kept["id"].to_pylist() == ids[:-1]
    for i, (name, case) in enumerate(BAD.items()):
        assert kept[f"f{i}"].to_pylist()[i] == case.expected, name
        assert f"f{i}: expected {case.dtype}, got " in kept["reason"].to_pylist()[i], name
    for file in files:
        assert len(duckdb.read_parquet(str(file)).fetchall()) == len(pq.read_table(file)) == len(pl.read_parquet(file))


# -- who wrote the file -----------------------------------------------------------------------------------------------


def _write_everything(folder: Path) -> int:
    """Write the same rows with every writer, each under ids of its own. Returns the number of writers."""
    times = [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999), NOON.replace(tzinfo=None)]
    versions = itertools.product(("1.0", "2.4", "2.6"), ("1.0", "2.0"))
    writers: list[Any] = [{"version": version, "data_page_version": page} for version, page in versions]
    writers += [{"compression": kind} for kind in ("none", "snappy", "gzip", "zstd", "lz4", "brotli")]
    writers += [
        {"use_deprecated_int96_timestamps": True},
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY", "number": "DELTA_BINARY_PACKED"}},
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY", "ratio": "BYTE_STREAM_SPLIT"}},
        {"row_group_size": 1},
        {"store_schema": False, "write_statistics": False},
    ]
    for i, options in enumerate([*writers, "polars", "duckdb", "pandas", "nanoseconds"]):
        rows = {"id": [3 * i, 3 * i + 1, 3 * i + 2], "text": ["é\x00", None, ""], "number": [LARGE, None, -1]}
        rows |= {"ratio": [0.1, float("nan"), None], "flag": [True, None, False], "words": [WORDS, [], None]}
        at = pa.array(times, pa.timestamp("us"))
        table = pa.table(rows | {"at": at})
        path = folder / f"{i:02d}.parquet"
        match options:
            case "polars":
                pl.from_arrow(table).write_parquet(path)
            case "duckdb":
                with duckdb.connect() as connection:
                    connection.register("found", table)
                    connection.execute(f"COPY found TO '{path}' (FORMAT parquet, PARQUET_VERSION v2)")
            case "pandas":
                table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get).to_parquet(path, index=True)
            case "nanoseconds":
                near = pa.array([NOON.replace(tzinfo=None)] * 3, pa.timestamp("ns"))
                pq.write_table(table.set_column(table.schema.get_field_index("at"), "at", near), path, version="2.6")
            case _:
                pq.write_table(table, path, **options)
    pq.write_table(table.slice(0, 0), folder / "99-empty.parquet")
    with pq.ParquetWriter(folder / "99-no-row-groups.parquet", table.schema):
        pass
    return i + 1


def test_every_writer_of_parquet_is_read(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    count = _write_everything(tmp_path / "rows")
    fields = {"text": String, "number": Int64, "ratio": Float64, "flag": Bool, "words": Array(String)}
    schema = [Field(name, dtype) for name, dtype in fields.items()]
    view = FeatureView("stats", entities=[thing], source=ParquetSource("rows", event_timestamp="at"), schema=schema)
    stored = _staged(engine, view, open_view(view.source, view, tmp_path), tmp_path).rows
    assert sorted(key for (key,) in stored) == list(range(3 * count))
    expected = [("é\x00", LARGE, 0.1, True, WORDS), (None, None, float("nan"), None, []), ("", -1, None, False, None)]
    for (key,), row in stored.items():
        if key % 3 == 1 and row.values[2] is None:  # pandas does not distinguish NaN from null
            assert row.values[:2] == (None, None)
            continue
        assert repr(tuple(map(_python, row.values))) == repr(expected[key % 3]), key
    times = {row.at_us for row in stored.values()}
    assert times == {MIN_TIMESTAMP_US, MAX_TIMESTAMP_US, NOON_US}


# -- frames -----------------------------------------------------------------------------------------------------------


def _frames() -> dict[str, Any]:
    rows = {"id": [1, 2], "at": [NOON, NOON], "f": ["é", None]}
    polars = pl.DataFrame(rows)
    return {
        "pandas": pd.DataFrame(rows),
        "pandas categories": pd.DataFrame(rows).astype({"f": "category"}),
        "pandas with pyarrow": pa.table(rows).to_pandas(types_mapper=pd.ArrowDtype),
        "pandas Int64": pd.DataFrame(rows).astype({"id": "Int64"}),
        "polars": polars,
        "polars categories": polars.with_columns(pl.col("f").cast(pl.Categorical)),
        "polars enum": polars.with_columns(pl.col("f").cast(pl.Enum(["é"]))),
        "duckdb": duckdb.from_arrow(pa.table(rows)),
        "arrow reader": pa.table(rows).to_reader(),
        "arrow batch": pa.table(rows).to_batches()[0],
    }


@pytest.mark.parametrize("name", _frames())
def test_frames_of_other_libraries_are_pushed_and_are_labels(name: str, tmp_path: Path) -> None:
    view = _view(f=String)
    stored = _staged(LocalEngine(), view, pushed_rows(_frames()[name], view), tmp_path).rows
    assert {key: (row.at_us, *row.values) for key, row in stored.items()} == {
        (1,): (NOON_US, "é"),
        (2,): (NOON_US, None),
    }
    labels = label_rows(_frames()[name], tmp_path)
    assert labels.column_names == ["id", "at", "f"] and labels["f"].to_pylist() == ["é", None]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (pl.LazyFrame({"id": [1]}), r"got LazyFrame. Hint: call its collect\(\) first"),
        (pl.Series([1]), "got a Series that Arrow does not take"),
        (
            pd.DataFrame([[1, 2]], columns=["id", "id"]),
            "got a DataFrame that Arrow does not take: Duplicate column names",
        ),
        (pd.DataFrame({"id": pd.arrays.SparseArray([0, 1])}), "Sparse pandas data"),
        (pd.DataFrame({"id": [1, "a"]}), "Conversion failed for column id with type object"),
        (pd.DataFrame({"id": [2**70]}), "too large"),
        (pd.DataFrame({"id": pd.Series(["\ud800"], dtype=object)}), "surrogates not allowed"),
        (pl.DataFrame({"id": pl.Series([1], dtype=pl.Int128)}), "got a DataFrame that Arrow does not take"),
        ([{"id": 1}], "got list"),
    ],
)
def test_what_no_frame_can_hold_is_refused(given: Any, message: str, tmp_path: Path) -> None:
    for read in (lambda: pushed_rows(given, _view(f=Int64)), lambda: label_rows(given, tmp_path)):
        with pytest.raises(DataError, match=f"expected a table of Arrow, pandas, polars or DuckDB.*{message}"):
            read()


@pytest.mark.parametrize(
    "names", [("a.b", "A.b", "a"), ("é", "E\u0301", "e"), ('"', "'", "`"), (" ", "\n", "\x01"), ("id ", "ID", "Id")]
)
def test_columns_may_have_any_names(engine: Engine, names: tuple[str, ...], tmp_path: Path) -> None:
    """The columns that the view does not read may have any names."""
    view = _view(f=Int64, F=Int64)
    odd = {name: pa.array([{"b": 1}, None]) for name in names}
    pq.write_table(pa.table(odd | {"id": [1, 2], "at": AT, "F": [5, 6], "f": [LARGE, None]}), tmp_path / "rows.parquet")
    stored = _staged(engine, view, open_view(view.source, view, tmp_path), tmp_path).rows
    assert [stored[(key,)].values for key in (1, 2)] == [(LARGE, 5), (None, 6)]
