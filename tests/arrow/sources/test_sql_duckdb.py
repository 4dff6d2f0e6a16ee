"""Rows of a DuckDB file are those that DuckDB writes to Parquet, and nobody changes them meanwhile."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.arrow.sources.opening import open_source, source_exists
from feature_store.arrow.time_range import TimeRange
from feature_store.errors import DataError
from tests.arrow.sources.databases import StoredDuckDb, source

# Declared type -> an expression of the number `i` of a row. The types that Parquet has, and that have a row of docs/sources.md.
COLUMNS = {
    "tiny": ("tinyint", "i % 100 - 50"),
    "large": ("ubigint", "18446744073709551615 - i"),
    "flag": ("boolean", "i % 3 = 0"),
    "single": ("float", "i / 7"),
    "double": ("double", "CASE WHEN i % 5 = 0 THEN 'nan'::double ELSE i / 7 END"),
    "money": ("decimal(12, 3)", "i / 8"),
    "name": ("varchar", "chr(233) || i"),
    "raw": ("blob", "encode('b' || i)"),
    "day": ("date", "DATE '1969-12-20' + i::int"),
    "zoned": ("timestamptz", "TIMESTAMPTZ '1969-12-31 23:00:00+02' + to_microseconds(i * 123456789)"),
    "seconds": ("timestamp_s", "TIMESTAMP '2024-02-29 00:00:00' + to_seconds(i)"),
    "mood": ("mood", "CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END"),
    "numbers": ("integer[]", "[i, i + 1]"),
    "pair": ("float[2]", "[i, -i]"),
}
AT = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def stored(tmp_path: Path) -> StoredDuckDb:
    return StoredDuckDb(tmp_path)


def read(stored: StoredDuckDb, table_or_query: str = "rows", times: TimeRange | None = None) -> pa.Table:
    rows = open_source(source(table_or_query), stored.folder)
    return pa.Table.from_batches(rows.batches(rows.schema.names, times), rows.schema)


def test_rows_of_all_types_are_those_that_duckdb_writes_to_parquet(stored: StoredDuckDb) -> None:
    declared = ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items())
    values = ", ".join(
        f"CASE WHEN i % 11 = {at} THEN NULL ELSE {text} END" for at, (_, text) in enumerate(COLUMNS.values())
    )
    written = stored.folder / "rows.parquet"
    stored.run(
        "CREATE TYPE mood AS ENUM ('a', 'b'); DROP TABLE rows;"
        'CREATE TABLE rows ("at" timestamp, made timestamp, ' + declared + ");"
        f"INSERT INTO rows SELECT TIMESTAMP '2024-01-01' + to_seconds(i), NULL, {values} FROM range(70000) r(i);"
        'DELETE FROM rows WHERE hash("at") % 3 = 0;'
        f"COPY rows TO '{written}'"
    )
    found, expected = read(stored), pq.read_table(written)
    assert found.schema.names == expected.schema.names
    for name in found.schema.names:
        kind = found.schema.field(name).type
        assert found[name].combine_chunks().equals(expected[name].cast(kind).combine_chunks()) or (
            name == "double" and repr(found[name].to_pylist()) == repr(expected[name].to_pylist())
        ), name


@pytest.mark.parametrize("kind", ["timestamp", "timestamptz", "timestamp_ns", "timestamp_s", "date"])
def test_a_window_selects_its_rows_and_those_without_a_time(stored: StoredDuckDb, kind: str) -> None:
    choose = random.Random(kind)
    times: list[Any] = [AT + timedelta(hours=choose.randrange(-100, 100)) for _ in range(60)] + [None] * 3
    with duckdb.connect(stored.path) as connection:
        connection.execute(
            f"SET TimeZone = 'Asia/Tokyo'; DROP TABLE rows; CREATE TABLE rows (\"at\" {kind}, made timestamp)"
        )
        text = "?::timestamptz" if kind == "timestamptz" else f"?::timestamp::{kind}"
        given = [
            [time and time.isoformat() if kind == "timestamptz" else time and time.replace(tzinfo=None)]
            for time in times
        ]
        connection.executemany(f"INSERT INTO rows VALUES ({text}, NULL)", given)
    start = int((AT - timedelta(hours=30)).timestamp() * 1e6)
    window = TimeRange("at", start, start + 60 * 3_600_000_000)
    microseconds = [
        None if time is None else int((time.replace(hour=0) if kind == "date" else time).timestamp() * 1e6)
        for time in times
    ]
    expected = [time for time in microseconds if time is None or window.start_us <= time < window.end_us]
    found = read(stored, times=window)["at"].cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
    assert found == expected
    assert open_source(source(), stored.folder).count(window) == len(expected)


def test_a_view_and_a_query_are_sorted_and_what_is_missing_is_told(stored: StoredDuckDb) -> None:
    stored.run(
        "INSERT INTO rows SELECT i, TIMESTAMP '2024-01-01' + to_days((hash(i) % 50)::int), NULL, i, 'x' FROM range(500) r(i);"
        "CREATE VIEW newest AS SELECT * FROM rows"
    )
    by_query = read(stored, "SELECT * FROM rows")
    assert read(stored, "newest").equals(by_query)
    keys = [(row["at"], row["user_id"]) for row in by_query.to_pylist()]
    assert keys == sorted(keys)
    assert not source_exists(source("orders"), stored.folder)
    with pytest.raises(DataError, match="Table with name orders does not exist"):
        read(stored, "orders")


def test_while_a_job_reads_no_process_writes_and_the_other_way_round(stored: StoredDuckDb) -> None:
    stored.run("INSERT INTO rows SELECT i, now()::timestamp, NULL, i, 'x' FROM range(500) r(i)")
    script = f"""
import duckdb
connection = duckdb.connect({str(stored.path)!r})
connection.execute("DELETE FROM rows")
print("open", flush=True)
input()
"""
    rows = open_source(source(), stored.folder)
    refused = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, input="\n")
    assert "Conflicting lock" in refused.stderr
    assert [batch.num_rows for batch in rows.batches(["at"])] == [500]
    del rows
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(DataError, match="Conflicting lock") as caught:
            open_source(source(), stored.folder)
        assert caught.value.hint.startswith("another process writes to the database's file")
        writer.communicate("\n")
    assert open_source(source(), stored.folder).total == 0
