"""Rows in memory pass the conformance suite of sources."""

from __future__ import annotations

import pickle
import subprocess
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from feature_store.arrow.sources import memory
from feature_store.arrow.sources.opening import open_source, source_exists
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions import InMemorySource
from feature_store.definitions.batch_source import SOURCES
from feature_store.errors import DataError, DefinitionError
from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite

_AT = [datetime(2026, 1, day) for day in (1, 2, 3)]


class StoredInMemory:
    """Each append makes a new object with all rows, under the same name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._name = str(uuid.uuid4())
        self._rows: pa.Table | None = None
        self.source = self._made(
            pa.table(
                {
                    "user_id": pa.array([], pa.int64()),
                    "at": pa.array([], pa.timestamp("us")),
                    "made": pa.array([], pa.timestamp("us")),
                    "score": pa.array([], pa.float64()),
                    "title": pa.array([], pa.string()),
                }
            )
        )

    def append(self, rows: pa.Table) -> None:
        self._rows = rows if self._rows is None else pa.concat_tables([self._rows, rows])
        assert self._made(self._rows) == self.source

    def _made(self, rows: pa.Table) -> InMemorySource:
        return InMemorySource(rows, event_timestamp="at", created_timestamp="made", name=self._name)


@pytest.fixture
def stored(tmp_path: Path) -> StoredInMemory:
    return StoredInMemory(tmp_path)


class TestMemory(OfflineSourceSuite):
    pass


class TestMemoryOnLocalEngine(SourceOnEngineSuite):
    pass


class TestMemoryOnSpark(SourceOnEngineSuite):
    @pytest.fixture
    def engine(self, spark_engine: object) -> object:
        return spark_engine


def _rows(source: InMemorySource) -> list[dict[str, Any]]:
    opened = open_source(source, Path())
    return [row for batch in opened.batches(opened.schema.names) for row in batch.to_pylist()]


def test_equal_rows_of_any_library_are_one_version() -> None:
    columns = {"at": _AT, "n": [1, 2, 3], "word": ["a", "b", "c"]}
    table = pa.table(columns)
    tables = [
        columns,
        table,
        pa.concat_tables([table.slice(0, 1), table.slice(1)]),
        table.to_batches()[0],
        table.to_reader(),
        pl.DataFrame(columns).cast({"word": pl.Categorical}),
        pd.DataFrame(columns).astype({"at": "datetime64[us]"}),
        {"at": np.array(_AT, "datetime64[us]"), "n": np.array([1, 2, 3]), "word": np.array(["a", "b", "c"])},
    ]
    versions = set()
    for one in tables:
        source = InMemorySource(one, event_timestamp="at", name="equal")
        values = _rows(source)
        assert values == table.to_pylist()
        if open_source(source, Path()).schema == table.schema:  # pandas and polars have larger texts
            versions.add(open_source(source, Path()).version)
    assert len(versions) == 1


def test_the_rows_are_those_of_the_moment_when_the_source_was_made() -> None:
    frame = pd.DataFrame({"at": _AT, "n": [1.0, 2.0, 3.0]})
    array = np.array([1.0, 2.0, 3.0])
    of_frame = InMemorySource(frame, event_timestamp="at", name="frame")
    of_array = InMemorySource({"at": _AT, "n": array}, event_timestamp="at", name="array")
    frame.loc[0, "n"] = array[0] = 99.0
    assert [row["n"] for row in _rows(of_frame)] == [row["n"] for row in _rows(of_array)] == [1.0, 2.0, 3.0]


def test_the_newer_object_of_a_name_has_the_rows() -> None:
    older = InMemorySource({"at": _AT, "n": [1, 2, 3]}, event_timestamp="at", name="newest")
    opened = open_source(older, Path())
    newer = InMemorySource({"at": _AT, "n": [4, 5, 6]}, event_timestamp="at", name="newest")
    assert older == newer
    assert [row["n"] for row in _rows(older)] == [4, 5, 6]
    assert [batch["n"].to_pylist() for batch in opened.batches(["n"])] == [[1, 2, 3]]
    assert open_source(newer, Path()).version != opened.version


def test_without_a_name_other_rows_are_another_source() -> None:
    one = InMemorySource({"at": _AT, "n": [1, 2, 3]}, event_timestamp="at")
    same = InMemorySource({"at": _AT, "n": [1, 2, 3]}, event_timestamp="at")
    other = InMemorySource({"at": _AT, "n": [1, 2, 4]}, event_timestamp="at")
    assert one == same
    assert one.name != other.name
    assert [row["n"] for row in _rows(one)] == [1, 2, 3]


def test_a_definition_of_other_columns_than_the_newest_rows_is_refused() -> None:
    older = InMemorySource({"at": _AT, "n": [1, 2, 3]}, event_timestamp="at", name="changed")
    InMemorySource({"at": _AT, "n": ["a", "b", "c"]}, event_timestamp="at", name="changed")
    with pytest.raises(DataError, match=r"rows with other columns.*apply the definition of the newest rows"):
        open_source(older, Path())


def test_another_process_has_no_rows_and_says_what_to_do() -> None:
    source = InMemorySource({"at": _AT}, event_timestamp="at", name="elsewhere")
    document = source.model_dump(mode="json", by_alias=True)
    assert set(document) == {"kind", "event_timestamp", "created_timestamp", "schema", "name", "columns"}
    code = f"""
from pathlib import Path
from feature_store.arrow.sources.opening import open_source, source_exists
from feature_store.definitions.batch_source import SOURCES
from feature_store.errors import DataError
source = SOURCES.of_document({document!r})
assert not source_exists(source, Path())
try:
    open_source(source, Path())
except DataError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "source elsewhere: its rows are in the memory of the process that made it, and this is another process. Hint: "
        "make the InMemorySource in this process, too, or write the rows to a file and use a ParquetSource\n"
    )
    assert source_exists(SOURCES.of_document(document), Path())


def test_a_range_of_times_leaves_out_rows() -> None:
    source = InMemorySource({"at": [*_AT, None], "n": [1, 2, 3, 4]}, event_timestamp="at", name="range")
    start_us = 1_767_225_600_000_000 + 86_400_000_000
    found = open_source(source, Path()).batches(["n"], TimeRange("at", start_us, start_us + 1))
    assert [batch["n"].to_pylist() for batch in found] == [[2, 4]]


def test_a_piece_travels_without_the_rest_of_its_batch() -> None:
    source = InMemorySource({"at": [_AT[0]] * 10_000, "n": range(10_000)}, event_timestamp="at", name="travels")
    pieces = open_source(source, Path()).pieces(["n"], None, most_bytes=160)
    assert len(pieces) == 1000
    assert len(pickle.dumps(pieces[500])) < 2000


def test_rows_that_are_too_large_to_travel_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MOST_SENT_BYTES", 10)
    source = InMemorySource({"at": _AT, "n": [1, 2, 3]}, event_timestamp="at", name="large")
    (piece,) = open_source(source, Path()).pieces(["n"], None, most_bytes=1 << 20)
    assert [batch["n"].to_pylist() for batch in piece.batches(["n"])] == [[1, 2, 3]]
    with pytest.raises(DataError, match=r"source large: its rows take 0 MB, .*use a ParquetSource, or use the local"):
        pickle.dumps(piece)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (None, "expected a table of Arrow, pandas, polars or DuckDB, or a dict of columns, got NoneType"),
        ([{"at": 1}], "got list"),
        (pl.LazyFrame({"at": _AT}), "call its collect"),
        ({"at": _AT, "n": [1]}, "expected a dict of columns of one length"),
        ({"at": 5}, "expected a dict of columns"),
        ({}, "the table has no columns"),
        (pa.table([[1], [2]], names=["at", "at"]), "two columns of the same name"),
        (pd.DataFrame({"at": [1, "a"]}), "that Arrow does not take"),
    ],
)
def test_what_is_no_table_is_refused(table: Any, problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        InMemorySource(table, event_timestamp="at")


_COLUMNS = st.integers(0, 30).flatmap(
    lambda count: st.fixed_dictionaries(
        {
            "at": st.lists(st.none() | st.datetimes(), min_size=count, max_size=count),
            "whole": st.lists(st.none() | st.integers(-(1 << 63), (1 << 63) - 1), min_size=count, max_size=count),
            "real": st.lists(st.none() | st.floats(allow_nan=False), min_size=count, max_size=count),
            "text": st.lists(st.none() | st.text(), min_size=count, max_size=count),
            "span": st.lists(st.none() | st.lists(st.binary(max_size=3), max_size=3), min_size=count, max_size=count),
        }
    )
)


@given(_COLUMNS, st.integers(1, 2000))
def test_rows_and_pieces_are_the_values_of_the_columns(columns: dict[str, list[Any]], most_bytes: int) -> None:
    source = InMemorySource(columns, event_timestamp="at", name="oracle")
    wanted = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    assert _rows(source) == wanted
    pieces = pickle.loads(pickle.dumps(open_source(source, Path()).pieces([], None, most_bytes=most_bytes)))
    assert [row for piece in pieces for batch in piece.batches([*columns]) for row in batch.to_pylist()] == wanted
