"""SQL on Spark: of views, and of label rows. Users write it in DuckDB's words; its result is Parquet again."""

from __future__ import annotations

import glob
from typing import TYPE_CHECKING, Any

from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, from_microseconds
from feature_store.engines.rows import source_columns
from feature_store.engines.sources import path_rows
from feature_store.engines.spark.session import arrow_schema, sql_errors
from feature_store.engines.transformation import SOURCE, sql_of
from feature_store.errors import DataError, extra

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import DataFrame

    from feature_store.definitions.feature_view import FeatureView
    from feature_store.engines.join import Query
    from feature_store.engines.sources import Rows
    from feature_store.engines.spark.session import Session

_KINDS = {"timestamp": "TIMESTAMP_LTZ", "timestamp_ntz": "TIMESTAMP_NTZ"}


def selected(session: Session, view: FeatureView, rows: Rows, folder: Path, start_us: int, end_us: int) -> Rows:
    """What a view's SQL makes of its source.

    Args:
        session: where it runs.
        view: one with SQL.
        rows: its source.
        folder: where the result is written; not there yet.
        start_us, end_us: rows with event times outside of `[start_us, end_us)` may be left out.

    Raises:
        DataError: the SQL is not allowed or fails, or its result has not the columns that the view takes.
    """
    where = f"{view.name}.sql"
    query = sql_of(view, "spark")
    with sql_errors(where, "SQL that runs on the source"):
        found = session.query(query, {SOURCE: rows.dataset.files})
        columns = source_columns(view, arrow_schema(found), where)
        inside = _within(found, columns.event_timestamp, start_us, end_us)
        (found.filter(inside) if inside else found).write.parquet(str(folder))
    return path_rows(where, folder)


def queried(session: Session, query: Query, folder: Path) -> Rows:
    """The result of a query over Parquet files, in its order.

    Args:
        session: where it runs.
        query: in DuckDB's words: files are named in quotes where tables are.
        folder: where the result is written; not there yet.

    Raises:
        DataError: the query fails.
    """
    where = "labels of a query"
    text, tables = _translated(query, where)
    with sql_errors(where, "SQL that Spark runs"):
        session.query(text, tables).write.parquet(str(folder))
    return path_rows(where, folder)


def _within(found: DataFrame, event_timestamp: str, start_us: int, end_us: int) -> str:
    """See local_sql._within."""
    kind = _KINDS.get(found.schema[event_timestamp].dataType.typeName())
    if kind is None:
        return ""
    name = "`" + event_timestamp.replace("`", "``") + "`"
    bounds = []
    if start_us > MIN_TIMESTAMP_US:
        bounds.append(f"{name} >= CAST('{from_microseconds(start_us).isoformat()}' AS {kind})")
    if end_us <= MAX_TIMESTAMP_US:
        bounds.append(f"{name} < CAST('{from_microseconds(end_us).isoformat()}' AS {kind})")
    return f"{name} IS NULL OR ({' AND '.join(bounds)})" if bounds else ""


def _translated(query: Query, where: str) -> tuple[str, dict[str, list[str]]]:
    """A query in Spark's words, and the files of the tables that stand in it for their names."""
    with extra("sql", where):
        import sqlglot
        from sqlglot import expressions
    try:
        statement = sqlglot.parse_one(query.text, read="duckdb")
    except sqlglot.errors.SqlglotError as error:
        raise DataError(where, expected="SQL", got=str(error).partition("\n")[0]) from None
    tables: dict[str, list[str]] = {}
    for table in statement.find_all(expressions.Table):
        paths = _paths(table.this)
        if paths:
            name = f"labels_{len(tables)}"
            tables[name] = [file for path in paths for file in _files(query.folder, path, where)]
            table.set("this", expressions.to_identifier(name))
    return statement.sql(dialect="spark"), tables


def _paths(table: Any) -> list[str]:
    """What a table in DuckDB's words reads: `'file.parquet'`, `read_parquet('file')`, `read_parquet(['a', 'b'])`."""
    from sqlglot import expressions

    if isinstance(table, expressions.Identifier):
        return [table.name] if table.args.get("quoted") and "parquet" in table.name else []
    return [literal.name for literal in table.find_all(expressions.Literal)]


def _files(folder: Path, path: str, where: str) -> list[str]:
    files = sorted(glob.glob(str(folder / path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not files:
        raise DataError(where, expected=f"Parquet files under {folder}", got=path)
    return files
