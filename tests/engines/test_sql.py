"""SQL of views: both engines give the same values for every construct that docs/sql.md lists, and refuse all others."""

from __future__ import annotations

import math
import random
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from feature_store.arrow.sources.opening import open_view
from feature_store.arrow.sources.source import OfflineSource
from feature_store.definitions import Entity, FeatureView, Field, Int64, ParquetSource
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US
from feature_store.engines.spark.engine import SparkEngine
from feature_store.engines.sql import run as local_sql, transformation
from feature_store.engines.sql.parts import cut_by, row_by_row
from feature_store.engines.sql.transformation import parts_of, sql_of
from feature_store.errors import DataError

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text()
key = Entity("key", join_key="k")
INTEGERS = [None, 0, 1, -1, 3, -7, 2**31 - 1, -(2**31) + 1, 2, 5]
LARGE = [None, 0, 1, -1, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63) + 1, 10, -10]
FLOATS = [None, 0.0, -0.0, 2.5, -2.5, 1e300, math.nan, math.inf, -math.inf, 0.1, 123456789.123456]
TEXTS = [
    None,
    "",
    " ",
    "abc",
    " a b ",
    "Zürich",
    "ſtraße",
    "日本 語",
    "👩‍👩‍👧 x",
    "12",
    "1.5e3",
    "x%_y",
    "2024-02-29",
    "naïve",
]
TIMES = [
    None,
    datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
    datetime(2024, 2, 29, tzinfo=UTC),
    datetime(2024, 3, 31, 1, 0, 0, 500000, UTC),
    datetime(1900, 1, 1, tzinfo=UTC),
    datetime(2199, 12, 31, 23, 0, tzinfo=UTC),
]
DECIMALS = [
    None,
    Decimal("0"),
    Decimal("1.2500"),
    Decimal("-1.2500"),
    Decimal("99999999999999.9999"),
    Decimal("0.0001"),
]
LISTS = [None, [], [1], [3, None, 1], [2, 2, -5]]


def rows_of_all_kinds(folder: Path) -> None:
    """Files with some rows of each key. Their columns differ in width and number, as in files of different age."""
    chance = random.Random(16)
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    folder.mkdir()
    for file in range(5):
        count = 30
        columns: dict[str, Any] = {
            "k": pa.array([chance.randrange(12) for _ in range(count)], pa.int64()),
            "ts": pa.array(
                [begin + timedelta(minutes=file * 1000 + i) for i in range(count)], pa.timestamp("us", "UTC")
            ),
            "i": pa.array(chance.choices(LARGE, k=count), pa.int64()),
            "n": pa.array(chance.choices(INTEGERS, k=count), pa.int32()),
            "f": pa.array(chance.choices(FLOATS, k=count), pa.float64()),
            "s": pa.array(chance.choices(TEXTS, k=count), pa.string()),
            "t": pa.array(chance.choices(TIMES, k=count), pa.timestamp("us", "UTC")),
            "d": pa.array([None if one is None else one.date() for one in chance.choices(TIMES, k=count)], pa.date32()),
            "m": pa.array(chance.choices(DECIMALS, k=count), pa.decimal128(18, 4)),
            "b": pa.array(chance.choices([None, True, False], k=count), pa.bool_()),
            "l": pa.array(chance.choices(LISTS, k=count), pa.list_(pa.int32())),
        }
        if file == 3:  # an older file: one column is narrower, another is missing
            columns["i"] = pa.array([i % 7 for i in range(count)], pa.int16())
            del columns["b"]
        pq.write_table(pa.table(columns), folder / f"part-{file}.parquet")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sql")
    rows_of_all_kinds(folder / "rows")
    return folder


def view_of(sql: str) -> FeatureView:
    return FeatureView(
        "v", entities=[key], source=ParquetSource("rows", event_timestamp="ts"), schema=[Field("one", Int64)], sql=sql
    )


def with_one(sql: str) -> str:
    return f"SELECT *, 1::BIGINT AS one FROM ({sql})"


def rows(view: FeatureView, folder: Path) -> OfflineSource:
    assert view.source is not None
    return open_view(view.source, view, folder)


ALL_TIMES = MIN_TIMESTAMP_US, MAX_TIMESTAMP_US + 1


def locally(view: FeatureView, folder: Path, work: Path) -> pa.Table:
    work.mkdir(parents=True, exist_ok=True)
    return table(local_sql.selected(view, rows(view, folder), work, *ALL_TIMES, local_sql.MEMORY_LIMIT))


def on_spark(engine: SparkEngine, view: FeatureView, folder: Path, work: Path) -> pa.Table:
    from feature_store.engines.spark.sql import selected

    return table(selected(engine.session, view, rows(view, folder), work / "spark", *ALL_TIMES))


def table(found: OfflineSource) -> pa.Table:
    return ds.dataset(list(found.parquet_files or ())).to_table()


def listed(found: pa.Table) -> list[str]:
    """Rows as text, in a fixed order: NaN equals NaN, and 0.0 differs from -0.0."""
    return sorted(repr(row) for row in found.to_pylist())


def constructs(title: str) -> dict[str, list[str]]:
    """The rows of a table of docs/sql.md: `{kind: constructs}`."""
    section = PAGE.partition(f"### {title}\n")[2].partition("\n### ")[0]
    lines = re.findall(r"^\| (\w[^|]*?) \| (.*) \|$", section, re.MULTILINE)
    return {what: [one.replace("\\|", "|") for one in re.findall(r"`(.+?)`", text)] for what, text in lines}


OF_EACH_ROW = constructs("Of each row")
OF_ROWS_THAT_MEET = constructs("Of rows that meet")


def test_the_page_lists_constructs() -> None:
    assert sum(map(len, OF_EACH_ROW.values())) > 100
    assert sum(map(len, OF_ROWS_THAT_MEET.values())) > 20


def test_constructs_of_each_row_give_the_same_on_both_engines(
    source: Path, tmp_path: Path, spark_engine: SparkEngine
) -> None:
    found = [construct for some in OF_EACH_ROW.values() for construct in some]
    columns = ", ".join(f"{construct} AS x{i}" for i, construct in enumerate(found))
    view = view_of(f"SELECT k, ts, 1::BIGINT AS one, {columns} FROM source")
    assert row_by_row(sql_of(view).tree)
    ours, theirs = locally(view, source, tmp_path), on_spark(spark_engine, view, source, tmp_path)
    assert len(ours) == 150
    assert ours.schema.names == theirs.schema.names
    assert ours.schema.types == theirs.schema.types
    for i, construct in enumerate(found):
        pick = ["k", "ts", f"x{i}"]
        assert listed(ours.select(pick)) == listed(theirs.select(pick)), construct


@pytest.mark.parametrize("construct", [one for some in OF_ROWS_THAT_MEET.values() for one in some])
def test_constructs_of_rows_that_meet_give_the_same_on_both_engines(
    construct: str, source: Path, tmp_path: Path, spark_engine: SparkEngine
) -> None:
    view = view_of(with_one(construct))
    needs_all = construct in OF_ROWS_THAT_MEET["all rows"]
    tree = sql_of(view).tree
    assert needs_all == (not row_by_row(tree) and cut_by(tree, ["k", "ts", "s"], ["k"]) is None)
    ours, theirs = locally(view, source, tmp_path), on_spark(spark_engine, view, source, tmp_path)
    assert len(ours)
    assert ours.schema.types == theirs.schema.types
    assert listed(ours) == listed(theirs)


def test_a_source_without_rows(tmp_path: Path, spark_engine: SparkEngine) -> None:
    (tmp_path / "rows").mkdir()
    empty = pa.table({"k": pa.array([], pa.int64()), "ts": pa.array([], pa.timestamp("us", "UTC"))})
    for i in range(2):
        pq.write_table(empty, tmp_path / "rows" / f"part-{i}.parquet")
    view = view_of("SELECT k, max(ts) AS ts, count(*) AS one FROM source GROUP BY k")
    ours, theirs = locally(view, tmp_path, tmp_path / "w"), on_spark(spark_engine, view, tmp_path, tmp_path / "w")
    assert ours.schema.types == theirs.schema.types
    assert len(ours) == len(theirs) == 0


def test_sql_that_fails_on_a_row_says_so_on_both_engines(
    source: Path, tmp_path: Path, spark_engine: SparkEngine
) -> None:
    view = view_of("SELECT k, ts, CAST(s AS BIGINT) AS one FROM source")
    for run in (lambda: locally(view, source, tmp_path), lambda: on_spark(spark_engine, view, source, tmp_path)):
        with pytest.raises(DataError, match=r"v\.sql: expected SQL that runs on the source, got Conversion Error"):
            run()


# -- cut into parts ---------------------------------------------------------------------------------------------------

_EXPRESSIONS = st.sampled_from(["n", "i", "m", "k", "n + 1", "coalesce(n, 0)", "length(s)", "CASE WHEN b THEN n END"])
_FILTERS = st.sampled_from(["", "WHERE n > 0", "WHERE b", "WHERE s IS NOT NULL AND k <> 3"])
_AGGREGATES = st.sampled_from(["count({})", "max({})", "min({})", "count(DISTINCT {})", "list({} ORDER BY ts)"])
_INNER = st.builds(
    "SELECT {} FROM source {}".format,
    st.sampled_from(["*", "k, ts, n, i, m, s, b", "* REPLACE (n + 1 AS n)", "k AS k, ts, n AS i, i AS n, m, s, b"]),
    _FILTERS,
)
_GROUPED = st.builds(
    "SELECT k, max(ts) AS ts, {} AS x FROM ({}) GROUP BY {}".format,
    st.builds(str.format, _AGGREGATES, _EXPRESSIONS),
    _INNER,
    st.sampled_from(["k", "1", "ALL", "k, n % 3", "ROLLUP (k)"]),
)
_WINDOWED = st.builds(
    "SELECT k, ts, {} OVER ({} ORDER BY ts, k) AS x FROM ({}) {}".format,
    st.builds(str.format, st.sampled_from(["max({})", "lag({})", "first_value({})"]), _EXPRESSIONS),
    st.sampled_from(["PARTITION BY k", "PARTITION BY k, b", "PARTITION BY b", ""]),
    _INNER,
    st.sampled_from(["", "QUALIFY row_number() OVER (PARTITION BY k ORDER BY ts DESC) = 1"]),
)
_JOINED = st.builds(
    "SELECT p.k, p.ts, q.x AS x FROM ({}) p {} JOIN ({}) q {}".format,
    _INNER,
    st.sampled_from(["", "LEFT", "FULL", "RIGHT"]),
    _GROUPED,
    st.sampled_from(["USING (k)", "ON p.k = q.k", "ON p.k = q.k AND p.ts <= q.ts", "ON p.n = q.k"]),
)
_UNITED = st.builds("{} {} {}".format, _GROUPED, st.sampled_from(["UNION ALL", "UNION", "EXCEPT"]), _GROUPED)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sql=st.one_of(_GROUPED, _WINDOWED, _JOINED, _UNITED), parts=st.integers(2, 5))
def test_what_is_cut_gives_what_the_whole_gives(source: Path, sql: str, parts: int) -> None:
    """Against brute force: the union of the results of all parts is the result of the whole."""
    view = view_of(sql)
    try:
        tree = sql_of(view).tree
        columns = ["k", "ts", "i", "n", "f", "s", "t", "d", "m", "b", "l"]
        cut = '"ts"' if row_by_row(tree) else cut_by(tree, columns, ["k"])
    except DataError:
        return
    if cut is None:
        return
    with duckdb.connect() as connection:
        connection.read_parquet(str(source / "rows" / "*.parquet"), union_by_name=True).create("everything")
        connection.execute("CREATE VIEW source AS FROM everything")
        try:
            whole = connection.sql(sql).fetchall()
        except duckdb.Error:
            return  # such as a UNION of two sides with different types
        found = []
        for part in range(parts):
            connection.execute(f"CREATE OR REPLACE VIEW source AS FROM everything WHERE hash({cut}) % {parts} = {part}")
            found += connection.sql(sql).fetchall()
    assert sorted(map(repr, found)) == sorted(map(repr, whole))


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT k, ts, random() AS x FROM source", r"random\(\)"),
        ("SELECT k, ts FROM source WHERE ts < now()", r"now\(\)"),
        ("SELECT k, ts, today() AS x FROM source", r"today\(\)"),
        ("SELECT k, current_timestamp AS ts FROM source", "current_timestamp"),
        ("SELECT k, ts, age(ts) AS x FROM source", r"age\(\)"),
        ("SELECT k, ts, gen_random_uuid() AS x FROM source", "gen_random_uuid"),
        ("SELECT k, ts, current_setting('memory_limit') AS x FROM source", "current_setting"),
        ("SELECT k, ts, current_user AS x FROM source", "current_user"),
        ("SELECT k, max(ts) AS ts, first(n) AS x FROM source GROUP BY k", r"first\(\) without ORDER BY"),
        ("SELECT k, max(ts) AS ts, list(n) AS x FROM source GROUP BY k", r"list\(\) without ORDER BY"),
        ("SELECT k, max(ts) AS ts, json_group_array(n) AS x FROM source GROUP BY k", r"json_group_array\(\)"),
        ("SELECT k, ts, row_number() OVER (PARTITION BY k) AS x FROM source", r"row_number\(\) without ORDER BY"),
        ("SELECT k, ts FROM (SELECT * FROM source LIMIT 5)", "LIMIT without ORDER BY"),
        ("SELECT DISTINCT ON (k) k, ts FROM source", "DISTINCT ON without ORDER BY"),
        ("SELECT k, ts FROM source USING SAMPLE 10", "a sample"),
        ("SELECT k, ts FROM source TABLESAMPLE 10%", "a sample"),
        ("SELECT a.k, b.ts FROM source a POSITIONAL JOIN source b", "POSITIONAL JOIN"),
        ("SELECT k, max(ts) AS ts, approx_quantile(n, 0.5) AS x FROM source GROUP BY k", "approx_quantile"),
        ("SELECT * FROM glob('/*')", r"glob\(\)"),
        ("DESCRIBE source", "DESCRIBE"),
        # The name of a WITH query is known only within the statement that has it.
        ('SELECT * FROM (WITH "x.parquet" AS (FROM source) FROM source), "x.parquet"', r"x\.parquet"),
        ("WITH a AS (FROM b), b AS (FROM source) FROM a", "no other table than `source`, got b"),
        ("SELECT * FROM main.source", r"got main\.source"),
        ("SELECT * FROM information_schema.tables", "information_schema"),
    ],
)
def test_sql_that_does_not_depend_on_rows_alone_is_refused(sql: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as refused:
        sql_of(view_of(sql))
    assert refused.value.hint


def test_every_unstable_function_is_refused() -> None:
    known = transformation.functions()
    assert {"random", "now", "nextval", "uuid"} <= known.unstable
    for name in sorted(known.unstable | transformation.TIME_FUNCTIONS):
        with pytest.raises(DataError):
            sql_of(view_of(f"SELECT k, ts, {name}() AS x FROM source"))


def test_the_page_names_what_the_code_refuses() -> None:
    refused = PAGE.partition("## What is refused")[2].partition("## Conformance")[0]
    for name in transformation.ORDERED_AGGREGATES | transformation.APPROXIMATE_AGGREGATES:
        assert f"`{name}`" in refused, name
    windows = transformation.ORDERED_WINDOWS - {"first", "last", "fill", "rank_dense"}  # synonyms
    for name in windows:
        assert f"`{name}`" in refused, name


@pytest.mark.parametrize(
    "statement",
    ["FROM '{}'", "FROM read_text('{}')", "COPY source TO '{}'", "ATTACH '{}'", "INSTALL httpfs", "SET threads = 7"],
)
def test_duckdb_itself_is_locked(source: Path, tmp_path: Path, statement: str) -> None:
    """Should a check miss something, DuckDB still reads no file but the source's, and no setting can be changed."""
    secret = tmp_path / "secret.parquet"
    pq.write_table(pa.table({"x": [1]}), secret)
    files = [str(file) for file in sorted((source / "rows").iterdir())]
    with local_sql.locked_source("SQL", [("k", "BIGINT")], files, tmp_path / "spill") as connection:
        assert connection.sql("SELECT count(*) FROM source").fetchall() == [(150,)]
        with pytest.raises(duckdb.Error):
            connection.execute(statement.format(secret)).fetchall()


def test_the_oracle_sees_every_part() -> None:
    tree = sql_of(view_of("WITH a AS (SELECT k, max(n) AS x FROM source GROUP BY k) FROM a")).tree
    assert {"SELECT_NODE", "BASE_TABLE", "COLUMN_REF"} <= {part.get("type") for part in parts_of(tree)}
    assert date(2024, 2, 29) in [one.date() for one in TIMES if one is not None]
