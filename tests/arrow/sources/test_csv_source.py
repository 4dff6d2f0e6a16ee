"""CSV files pass the conformance suite of sources."""

from __future__ import annotations

import base64
import csv
import gzip
import io
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal as Number
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings, strategies as st

from feature_store.arrow import csv_files
from feature_store.arrow.csv_files import CsvFormat
from feature_store.arrow.quarantine import Quarantine
from feature_store.arrow.rows import check, source_columns
from feature_store.arrow.schema_proposal import propose
from feature_store.arrow.sources.opening import open_source, open_view, source_exists
from feature_store.arrow.types import served_values
from feature_store.definitions import (
    Array,
    Bool,
    Bytes,
    CsvSource,
    Date,
    Decimal,
    Entity,
    FeatureView,
    Field,
    Float32,
    Float64,
    Int8,
    Int64,
    String,
    Timestamp,
)
from feature_store.definitions.dtypes import DType
from feature_store.engines.engine import StageRequest
from feature_store.engines.report import Silent
from feature_store.engines.source_check import check_source
from feature_store.errors import DataError, DefinitionError
from feature_store.testing.doubles import FolderSink
from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite

_SOURCE = CsvSource("rows", event_timestamp="at", created_timestamp="made")
_USER = Entity("user", join_key="user_id")


def text_of(rows: pa.Table, newline: str = "\r\n") -> str:
    """Rows as CSV. A null is an empty value without quotes."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator=newline)
    writer.writerow(rows.schema.names)
    for row in rows.to_pylist():
        writer.writerow(["" if value is None else _text(value) for value in row.values()])
    return written.getvalue()


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value) if isinstance(value, float) else str(value)


class StoredCsv:
    """Files of all kinds that are written: compressed or not, with either line end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = _SOURCE
        self._count = 0

    def append(self, rows: pa.Table) -> None:
        (self.folder / "rows").mkdir(exist_ok=True)
        number = self._count
        text = text_of(rows, newline="\n" if number % 2 else "\r\n").encode()
        path = self.folder / "rows" / f"part-{number:04d}.csv"
        if number % 3 == 1:
            path.with_suffix(".csv.gz").write_bytes(gzip.compress(text))
        elif number % 3 == 2:
            path.with_suffix(".csv.zst").write_bytes(pa.compress(text, "zstd", asbytes=True))
        else:
            path.write_bytes(text)
        self._count += 1


@pytest.fixture
def stored(tmp_path: Path) -> StoredCsv:
    return StoredCsv(tmp_path)


class TestCsv(OfflineSourceSuite):
    pass


class TestCsvOnLocalEngine(SourceOnEngineSuite):
    pass


class TestCsvOnSpark(SourceOnEngineSuite):
    @pytest.fixture
    def engine(self, spark_engine: object) -> object:
        return spark_engine


def put(folder: Path, text: str | bytes, name: str = "a.csv") -> None:
    (folder / "rows").mkdir(exist_ok=True)
    (folder / "rows" / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def read(folder: Path, source: CsvSource = _SOURCE) -> dict[str, list[Any]]:
    opened = open_source(source, folder)
    found = pa.Table.from_batches(opened.batches(opened.schema.names), opened.schema)
    return found.to_pydict()


# -- values ---------------------------------------------------------------------------------------------------------


def test_no_type_is_inferred(tmp_path: Path) -> None:
    put(tmp_path, "at,code,flag\n2026-01-01,007,1\n2026-01-02,1e3,true\n")
    view = FeatureView(
        "v",
        entities=[Entity("e", join_key="code", dtype=String)],
        source=CsvSource("rows", event_timestamp="at"),
        schema=[Field("flag", Bool)],
    )
    assert view.source is not None
    rows = open_view(view.source, view, tmp_path)
    (batch,) = rows.batches(["code", "flag", "at"])
    good, bad = check(batch, source_columns(view, rows.schema, rows.where), ["code"], 0)
    assert good["code"].to_pylist() == ["007", "1e3"]
    assert good["flag"].to_pylist() == [True, True]
    assert not len(bad)


def test_an_empty_value_is_null_and_a_quoted_one_is_an_empty_text(tmp_path: Path) -> None:
    put(tmp_path, 'at,word\n2026-01-01,\n2026-01-02,""\n2026-01-03," "\n\n2026-01-04,null\n')
    assert read(tmp_path)["word"] == [None, "", " ", "null"]


@pytest.mark.parametrize("engine_name", ["local", "spark"])
@pytest.mark.parametrize("sql", [None, "SELECT * FROM source WHERE title <> 'left out'"])
def test_values_that_do_not_fit_are_bad_rows(
    tmp_path: Path, engine_name: str, sql: str | None, request: pytest.FixtureRequest
) -> None:
    from feature_store.engines.local.engine import LocalEngine

    engine = LocalEngine() if engine_name == "local" else request.getfixturevalue("spark_engine")
    put(
        tmp_path,
        b"user_id,at,made,score,title\n"
        b"1,2026-01-01T00:00:00Z,,1.5,a\n"
        b"x,2026-01-01,,1.5,b\n"
        b"2,yesterday,,1.5,c\n"
        b'3,2026-01-01,,"1,5",d\n'
        b"4,2026-01-01,,4,e\n"
        b"5,2026-01-01,2026-01-01 05:00:00+05:00,1e400,f\n"
        b"6,2026-01-01,,nan,caf\xe9\n"
        b"7,2026-01-01,,-inf,\n"
        b"8,2026-01-01,,0,left out\n",
    )
    view = FeatureView(
        "stats", entities=[_USER], source=_SOURCE, schema=[Field("score", Float64), Field("title", String)], sql=sql
    )
    check_source(view, tmp_path)
    rows = open_view(_SOURCE, view, tmp_path)
    quarantine = Quarantine(tmp_path / "quarantine", tmp_path / "work", "stats")
    staged = tmp_path / "staged.parquet"
    begin, end = 0, 1 << 60
    if sql is not None:  # DuckDB reads only text in UTF-8
        put(tmp_path, (tmp_path / "rows" / "a.csv").read_bytes().replace(b"\xe9", b"e").replace(b"nan", b"none"))
        rows = open_view(_SOURCE, view, tmp_path)
    engine.stage(StageRequest(view, rows, begin, end, staged, quarantine, Silent()))
    quarantine.close() if engine_name == "local" else None
    sink = FolderSink(tmp_path / "sink")
    list(engine.write(staged, view, 0, sink))
    assert {key: row[2:] for key, row in sink.rows.items()} == {1: (1.5, "a"), 4: (4.0, "e")} | (
        {7: (float("-inf"), None), 8: (0.0, "left out")} if sql is None else {}
    )
    assert quarantine.path is not None
    bad = pq.read_table(quarantine.path if quarantine.path.exists() else quarantine.parts).to_pylist()
    reasons = {row["reason"] for row in bad}
    wanted = {
        "user_id: expected Int64, got 'x'",
        "at: expected Timestamp, got 'yesterday'",
        "score: expected Float64, got '1,5'",
        "score: expected Float64, got '1e400'",
    }
    assert wanted <= reasons
    assert len(bad) == len(wanted) + 1
    assert any("caf" in reason or "none" in reason for reason in reasons)


_TYPES: dict[DType, tuple[st.SearchStrategy[Any], Callable[[Any], str]]] = {
    Bool: (st.booleans(), lambda value: "true" if value else "0"),
    Int8: (st.integers(-128, 127), str),
    Int64: (st.integers(-(1 << 63), (1 << 63) - 1), str),
    Float64: (st.floats(), repr),
    Float32: (st.floats(width=32), repr),
    Decimal(18, 4): (st.integers(-(10**18) + 1, 10**18 - 1).map(lambda units: Number(units).scaleb(-4)), str),
    String: (st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), str),
    Bytes: (st.binary(max_size=20), lambda value: base64.b64encode(value).decode()),
    Date: (st.dates(), date.isoformat),
    Timestamp: (st.datetimes(timezones=st.just(UTC)), datetime.isoformat),
}


_ROW = st.tuples(*(st.none() | values for values, _ in _TYPES.values()))


@given(st.lists(_ROW, max_size=6), st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=60, phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_values_of_each_type_come_back(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[Any, ...]], delimiter: str, newline: str
) -> None:
    """The oracle is the list of values."""
    folder = tmp_path_factory.mktemp("csv")
    texts = [write for _, write in _TYPES.values()]
    names = [f"c{number}" for number in range(len(_TYPES))]
    lines = [["id", "at", *names]]
    for number, row in enumerate(values):
        written = ["" if value is None else _quoted(text(value)) for text, value in zip(texts, row, strict=True)]
        lines.append([str(number), "2026-01-01", *written])
    put(folder, "".join(delimiter.join(line) + newline for line in lines))
    source = CsvSource("rows", event_timestamp="at", delimiter=delimiter)
    fields = [Field(name, dtype) for name, dtype in zip(names, _TYPES, strict=True)]
    view = FeatureView("v", entities=[Entity("e", join_key="id")], source=source, schema=fields)
    rows = open_view(source, view, folder)
    taken = source_columns(view, rows.schema, rows.where)
    checked = [check(batch, taken, ["id"], 0) for batch in rows.batches(taken.names)]
    assert [row for part in checked for row in part.bad.to_pylist()] == []
    for place, field in enumerate(fields):
        found = [value for part in checked for value in served_values(part.good[field.name], field.dtype).to_pylist()]
        assert list(map(_shown, found)) == [_shown(row[place]) for row in values], field


def _quoted(text: str) -> str:
    """A value as RFC 4180 writes it; quotes are also around values that do not need them."""
    return '"' + text.replace('"', '""') + '"' if not text or not text.isalnum() else text


def _shown(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)


# -- files ----------------------------------------------------------------------------------------------------------


def test_a_column_that_some_files_lack_is_null_in_them(tmp_path: Path) -> None:
    put(tmp_path, "at,old\n2026-01-01,1\n", "a.csv")
    put(tmp_path, "new,at\n2,2026-01-02\n", "b.csv")
    assert read(tmp_path) == {"at": ["2026-01-01", "2026-01-02"], "old": ["1", None], "new": [None, "2"]}


def test_the_second_read_has_the_new_files_alone(tmp_path: Path) -> None:
    put(tmp_path, "at,n\n2026-01-01,1\n", "a.csv")
    put(tmp_path, "at,n\n2026-01-01,2\n", "b.csv")
    first = open_source(_SOURCE, tmp_path).unread(b"")
    assert len(first.pieces) == 2
    put(tmp_path, "at,n\n2026-01-01,3\n", "c.csv")
    put(tmp_path, "at,n\n2026-01-01,2\n2026-01-01,4\n", "b.csv")
    second = open_source(_SOURCE, tmp_path).unread(first.document)
    found = [value for piece in second.pieces for batch in piece.batches(["n"]) for value in batch["n"].to_pylist()]
    assert found == ["2", "4", "3"]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter(tmp_path: Path, delimiter: str) -> None:
    put(tmp_path, f"at{delimiter}a,b\n2026-01-01{delimiter}1,2\n")
    source = CsvSource("rows", event_timestamp="at", delimiter=delimiter)
    assert read(tmp_path, source) == {"at": ["2026-01-01"], "a,b": ["1,2"]}


def test_a_byte_order_mark_and_line_ends_of_all_systems(tmp_path: Path) -> None:
    put(tmp_path, "\ufeffat,n\r\n2026-01-01,1\r\n", "a.csv")
    put(tmp_path, "at,n\r2026-01-01,2\r", "b.csv")
    put(tmp_path, "\n\nat,n\n2026-01-01,3", "c.csv")
    assert read(tmp_path)["n"] == ["1", "2", "3"]


def test_names_of_columns_may_be_quoted(tmp_path: Path) -> None:
    put(tmp_path, 'at,"a ""b"",\nc"\n2026-01-01,1\n')
    assert read(tmp_path) == {"at": ["2026-01-01"], 'a "b",\nc': ["1"]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "a.csv is empty: it has no header"),
        (b"\n \n", "a.csv is empty: it has no header"),
        (b"at,n,n\n", "the header of a.csv has the column 'n' twice"),
        (b"at,n\xff\n", "expected readable data"),
    ],
)
def test_a_file_without_a_proper_header_is_refused(tmp_path: Path, text: bytes, problem: str) -> None:
    put(tmp_path, text)
    with pytest.raises(DataError, match=problem):
        open_source(_SOURCE, tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("at,n\n1,2\n1,2,3\n", "a.csv, line 3: the header has 2 columns, and this row 3 values. Hint: quote values"),
        ("at,n\n1,2\n\n1\n", "a.csv, line 4: the header has 2 columns, and this row 1 values"),
        ('at,n\n1,"2\n3"\n1,2,3\n', "a.csv, line 4: the header has 2 columns, and this row 3 values"),
        ('at,n\n1,2\n1,"2\n3,4\n', "a.csv, in the row after line 2: a quoted value does not end"),
        ("at,n\n1," + "x" * (20 << 20) + "\n", "a row of a.csv is longer than 8 MB. Hint: look for a quoted value"),
    ],
)
def test_a_file_that_is_no_table_names_the_line(tmp_path: Path, text: str, problem: str) -> None:
    put(tmp_path, text)
    with pytest.raises(DataError, match=problem):
        read(tmp_path)


def test_a_quote_within_a_value_without_quotes_is_a_character(tmp_path: Path) -> None:
    put(tmp_path, 'at,n\n2026-01-01,5" pipe\n2026-01-02,2\n')
    assert read(tmp_path)["n"] == ['5" pipe', "2"]


def test_a_compressed_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    text = "at,n\n" + "".join(f"2026-01-01,{number}\n" for number in range(5000))
    for name, whole in (
        ("a.csv.gz", gzip.compress(text.encode())),
        ("a.csv.zst", pa.compress(text.encode(), "zstd", asbytes=True)),
    ):
        put(tmp_path, whole, name)
        source = CsvSource(f"rows/{name}", event_timestamp="at")
        assert len(read(tmp_path, source)["n"]) == 5000
        put(tmp_path, whole[: len(whole) - 10], name)
        with pytest.raises(DataError, match="expected readable data"):
            read(tmp_path, source)


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 1000)
    put(tmp_path, "at,n\n" + "2026-01-01,1\n" * 100_000)
    batches = open_source(_SOURCE, tmp_path).batches(["n"])
    next(batches)
    put(tmp_path, "at,n\n" + "2026-01-01,1\n")
    with pytest.raises(DataError, match=r"a\.csv was changed while it was read"):
        list(batches)


@given(st.text('ab,\n\r"', max_size=60), st.integers(1, 9))
def test_lines_are_at_least_the_rows(tmp_path_factory: pytest.TempPathFactory, text: str, block: int) -> None:
    folder = tmp_path_factory.mktemp("csv")
    put(folder, text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(csv_files, "_BLOCK_BYTES", block)
        found = CsvFormat().rows(str(folder / "rows" / "a.csv"))
    rows = sum(1 for row in csv.reader(io.StringIO(text, newline="")) if row)
    assert rows <= found == len(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))


def test_a_folder_has_files_of_all_suffixes_and_a_file_any_name(tmp_path: Path) -> None:
    assert not source_exists(_SOURCE, tmp_path)
    for name in ("a.csv", "_c.csv", "d.txt", "e.parquet"):
        put(tmp_path, "at\n2026-01-01\n", name)
    assert [Path(version.path).name for version in open_source(_SOURCE, tmp_path).files] == ["a.csv"]
    assert open_source(CsvSource("rows/d.txt", event_timestamp="at"), tmp_path).files


# -- what a view takes ----------------------------------------------------------------------------------------------


def test_an_array_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "user_id,at,made,v\n1,2026-01-01,,[1]\n")
    view = FeatureView("v", entities=[_USER], source=_SOURCE, schema=[Field("v", Array(Float32, 1))])
    with pytest.raises(DataError, match=r"column v: expected values of Array.*has no arrays"):
        open_view(_SOURCE, view, tmp_path)


def test_a_proposal_has_the_limits_of_the_parsed_values(tmp_path: Path) -> None:
    put(tmp_path, "at,n,word\n2026-01-01,9,a\n2026-01-01,10,a\n2026-01-01,x,a\n2026-01-01,,a\n2026-01-01,3,a\n")
    opened = open_source(_SOURCE, tmp_path)
    number, word, unknown = propose(opened, ["n", "word", "at"], {"n": Int64, "word": String})
    assert number.field is not None
    assert (number.field.min, number.field.max) == (3, 10)
    assert word.field is not None
    assert word.field.allowed == ("a",)
    assert unknown.field is None or unknown.field.dtype == String


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n", "é", 5, None])
def test_a_delimiter_that_cannot_separate_is_refused(delimiter: Any) -> None:
    with pytest.raises(DefinitionError, match="delimiter"):
        CsvSource("rows", event_timestamp="at", delimiter=delimiter)
