"""Rows of databases: types, names, windows, snapshots and what counts as not read, compared with what psycopg gives."""

from __future__ import annotations

import math
import pickle
import sqlite3
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from feature_store.arrow.sources.opening import open_source
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions import SqlSource
from feature_store.errors import DataError
from tests.arrow.sources.databases import Postgres, StoredSqlite, source

_TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
_FLOATS = st.floats(allow_nan=False)
# Type -> its values.
TYPES: dict[str, st.SearchStrategy[Any]] = {
    "int2": st.integers(-(1 << 15), (1 << 15) - 1),
    "int4": st.integers(-(1 << 31), (1 << 31) - 1),
    "int8": st.integers(-(1 << 63), (1 << 63) - 1),
    "float4": st.floats(width=32, allow_nan=False),
    "float8": _FLOATS,
    "numeric(12, 3)": st.decimals(-999_999_999, 999_999_999, places=3),
    "numeric(38, 0)": st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal),
    "numeric": st.integers(-1000, 1000).map(lambda value: Decimal(value) / 4),
    "text": _TEXT,
    "varchar(20)": _TEXT,
    "bytea": st.binary(max_size=8),
    "bool": st.booleans(),
    "date": st.dates(date(1, 1, 2), date(9999, 12, 30)),
    "timestamp": _TIMES,
    "timestamptz": _TIMES.map(lambda value: value.replace(tzinfo=UTC)),
    "uuid": st.uuids(),
    "int4[]": st.lists(st.none() | st.integers(-5, 5), max_size=3),
    "float8[]": st.lists(_FLOATS, max_size=3),
    "text[]": st.lists(_TEXT, max_size=3),
}


def rows_of(wanted: SqlSource, folder: Path, *columns: str, times: TimeRange | None = None) -> list[dict[str, Any]]:
    opened = open_source(wanted, folder)
    names = columns or opened.schema.names
    return [row for batch in opened.batches(names, times) for row in batch.to_pylist()]


def as_read(value: Any) -> Any:
    """A value of psycopg as Arrow gives it."""
    return str(value) if isinstance(value, uuid.UUID) else value


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_of_all_types_are_those_that_psycopg_wrote(
    postgres: Postgres, tmp_path: Path, data: st.DataObject
) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(TYPES)), max_size=6))
    names = [f"C{i} \"x'" for i in range(len(kinds))]
    columns = [("at", "timestamptz"), ("made", "timestamp"), *zip(names, kinds, strict=True)]
    values = st.tuples(*(st.none() | TYPES[kind] for _, kind in columns))
    rows = data.draw(st.lists(values, max_size=12))
    postgres.run('DROP TABLE IF EXISTS "Odd ""Names"""')
    quoted = ", ".join(f'"{name.replace(chr(34), chr(34) * 2)}" {kind}' for name, kind in columns)
    postgres.run(f'CREATE TABLE "Odd ""Names""" ({quoted})')
    postgres.insert('"Odd ""Names"""', rows)
    wanted = [{name: as_read(value) for (name, _), value in zip(columns, row, strict=True)} for row in rows]
    table = source('Odd "Names"')
    assert rows_of(table, tmp_path) == wanted
    query = source('SELECT * FROM "Odd ""Names""" -- a comment')
    left = list(wanted)
    for row in rows_of(query, tmp_path):
        left.remove(row)
    assert not left
    assert rows_of(query, tmp_path, "made", "at") == [
        {"made": row["made"], "at": row["at"]} for row in rows_of(query, tmp_path)
    ], "the order depends on the columns"
    times = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(microseconds)
    drawn = [microseconds(row["at"].replace(tzinfo=None)) for row in wanted if row["at"] is not None]
    bound = times | st.sampled_from(drawn) if drawn else times
    start_us, end_us = sorted([data.draw(bound), data.draw(bound)])
    within = TimeRange("at", start_us, end_us)
    inside = [
        row for row in wanted if row["at"] is None or start_us <= microseconds(row["at"].replace(tzinfo=None)) < end_us
    ]
    assert rows_of(table, tmp_path, times=within) == inside
    assert open_source(table, tmp_path).count(within) == len(inside)


def microseconds(time: datetime) -> int:
    return (time - datetime(1970, 1, 1)) // timedelta(microseconds=1)


def test_types_without_an_arrow_type_are_text(postgres: Postgres, tmp_path: Path) -> None:
    postgres.run("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    postgres.run(
        "CREATE TABLE rows AS SELECT now() AS at, now() AS made, 'glad'::mood AS mood, '1.2.3.4'::inet AS ip,"
        " '{\"a\": 1}'::json AS j, '{\"b\": 2}'::jsonb AS jb, '[1,3)'::int4range AS span, '(1,2)'::point AS p,"
        " ARRAY['sad']::mood[] AS moods, 4000000000::oid AS o, 'f'::\"char\" AS c"
    )
    [row] = rows_of(source(), tmp_path)
    about = {name: row[name] for name in row if name not in ("at", "made")}
    assert about == {
        "mood": "glad",
        "ip": "1.2.3.4/32",
        "j": '{"a": 1}',
        "jb": '{"b": 2}',
        "span": "[1,3)",
        "p": "(1,2)",
        "moods": ["sad"],
        "o": 4_000_000_000,
        "c": "f",
    }
    assert rows_of(source("SELECT * FROM rows"), tmp_path) == [row], "a query is sorted by columns of any type"


def test_values_that_no_feature_can_have_are_errors_that_name_the_column(postgres: Postgres, tmp_path: Path) -> None:
    postgres.run("CREATE TABLE rows (at timestamptz, made timestamptz, n numeric(5, 2), grid int4[])")
    postgres.run("INSERT INTO rows VALUES (now(), now(), 'NaN', NULL)")
    with pytest.raises(DataError, match="column n"):
        rows_of(source(), tmp_path)
    assert rows_of(source(), tmp_path, "grid") == [{"grid": None}]


def test_a_job_reads_one_snapshot_by_all_its_connections(postgres: Postgres, tmp_path: Path) -> None:
    postgres.run("CREATE TABLE rows AS SELECT i, now() AS at, now() AS made FROM generate_series(1, 5000) i")
    opened = open_source(source(), tmp_path)
    pieces = opened.pieces(["i"], None, most_bytes=4_000)
    assert len(pieces) > 2, pieces
    begun = opened.batches(["i"])
    first = next(begun)
    postgres.run("INSERT INTO rows SELECT i, now(), now() FROM generate_series(5001, 6000) i")
    postgres.run("DELETE FROM rows WHERE i <= 100")
    postgres.run("UPDATE rows SET i = -i WHERE i < 200")
    numbers = list(range(1, 5001))
    assert [*first["i"].to_pylist(), *(value for batch in begun for value in batch["i"].to_pylist())] == numbers
    sent = pickle.loads(pickle.dumps(pieces))
    assert [value for piece in sent for batch in piece.batches(["i"]) for value in batch["i"].to_pylist()] == numbers
    assert sum(piece.rows for piece in pieces) == opened.total == 5000
    assert open_source(source(), tmp_path).version != opened.version
    del opened, begun
    gone = sent[0]
    pieces.clear()
    with pytest.raises(DataError, match="the snapshot is gone"):
        [*gone.batches(["i"])]


def test_an_index_changes_neither_rows_nor_their_order(postgres: Postgres, tmp_path: Path) -> None:
    postgres.run(
        "CREATE TABLE rows AS SELECT i, to_timestamp((i * 7919) % 100000) AS at, now() AS made FROM generate_series(0, 99999) i"
    )
    times = TimeRange("at", 500_000_000, 700_000_000)
    before = rows_of(source(), tmp_path, "i", times=times)
    assert len(before) == 200
    postgres.run("CREATE INDEX ON rows (at)")
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE rows")
    assert rows_of(source(), tmp_path, "i", times=times) == before
    assert rows_of(source(), tmp_path, "i", "at", times=times)[0]["i"] == before[0]["i"]


def unread(opened: Any, known: bytes) -> tuple[bytes, list[Any]]:
    found = opened.unread(known)
    return found.document, [
        value for piece in found.pieces for batch in piece.batches(["i"]) for value in batch["i"].to_pylist()
    ]


@pytest.mark.parametrize("created", ["made", None])
def test_the_second_read_has_the_new_rows_alone(postgres: Postgres, tmp_path: Path, created: str | None) -> None:
    day = "'2024-01-01'::timestamptz + i * interval '1 day'"
    postgres.run(f"CREATE TABLE rows AS SELECT i, {day} AS at, {day} AS made FROM generate_series(1, 100) i")
    table = source(created_timestamp=created)
    document, rows = unread(open_source(table, tmp_path), b"")
    assert rows == list(range(1, 101))
    assert unread(open_source(table, tmp_path), document) == (document, [])
    postgres.run(f"INSERT INTO rows SELECT i, {day}, {day} FROM generate_series(101, 110) i")
    document, rows = unread(open_source(table, tmp_path), document)
    assert rows == list(range(100, 111)), "rows from the latest time on"
    postgres.run("INSERT INTO rows SELECT 999, '2024-02-01', '2024-02-01'")
    document, rows = unread(open_source(table, tmp_path), document)
    assert len(rows) == 111, "a late row makes all rows count as not read"
    postgres.run("INSERT INTO rows SELECT 1000, NULL, NULL")
    document, rows = unread(open_source(table, tmp_path), document)
    assert 1000 in rows
    assert len(rows) < 5


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
def test_infinite_times_are_no_newest_time(postgres: Postgres, tmp_path: Path, kind: str) -> None:
    postgres.run(f"CREATE TABLE rows (i int, at {kind}, made {kind})")
    postgres.run(
        "INSERT INTO rows VALUES (1, 'infinity', 'infinity'), (2, '-infinity', NULL), (3, '2024-01-01', '2024-01-01')"
    )
    document, rows = unread(open_source(source(), tmp_path), b"")
    assert rows == [1, 2, 3]
    postgres.run("INSERT INTO rows VALUES (4, '2024-01-02', '2024-01-02')")
    assert 4 in unread(open_source(source(), tmp_path), document)[1]


def test_a_document_that_is_damaged_counts_as_nothing_read(postgres: Postgres, tmp_path: Path) -> None:
    postgres.run("CREATE TABLE rows AS SELECT i, now() AS at, now() AS made FROM generate_series(1, 10) i")
    for known in (b"x", b"[]", b'["", "\'; DROP TABLE rows; --", 0, 0]', b"\xff"):
        try:
            assert len(unread(open_source(source(), tmp_path), known)[1]) == 10
        except DataError:
            assert b"DROP" in known
    assert postgres.run("SELECT count(*) FROM rows") == [(10,)]


def test_sqlite_refuses_values_of_another_type_by_the_name_of_the_column(tmp_path: Path) -> None:
    stored = StoredSqlite(tmp_path)
    with sqlite3.connect(stored.path) as connection:
        connection.execute(
            "INSERT INTO rows VALUES (1, '2024-01-01', NULL, 1.5, 'a'), (2, '2024-01-02', NULL, 'no', 'b')"
        )
    connection.close()
    with pytest.raises(DataError, match="column score"):
        rows_of(stored.source, tmp_path)
    assert len(rows_of(stored.source, tmp_path, "title")) == 2
    with sqlite3.connect(stored.path) as connection:
        connection.execute("UPDATE rows SET score = 2, at = 'yesterday' WHERE user_id = 2")
    connection.close()
    with pytest.raises(DataError, match="column at"):
        rows_of(stored.source, tmp_path)


def test_a_query_of_sqlite_takes_the_types_of_its_values(tmp_path: Path) -> None:
    stored = StoredSqlite(tmp_path)
    stored.append(
        pa.table(
            {
                "user_id": [1, 2],
                "at": pa.array([1, None], pa.timestamp("us")),
                "made": pa.array([None, None], pa.timestamp("us")),
                "score": [None, 2.5],
                "title": [None, "b"],
            }
        )
    )
    query = source("SELECT *, score * 2 AS twice, x'00ff' AS raw, user_id > 1 AS big FROM rows")
    by_title = {row["title"]: row for row in rows_of(query, tmp_path)}
    assert by_title["b"]["twice"] == 5.0
    assert by_title["b"]["raw"] == b"\x00\xff"
    assert by_title[None]["at"] == datetime(1970, 1, 1, 0, 0, 0, 1)
    assert by_title[None]["twice"] is None
    assert math.isclose(by_title["b"]["score"], 2.5)
