"""Runs the SQL of views and of label queries: DuckDB reads Parquet files and writes a Parquet file.

Both engines use this module. The local engine runs the SQL on all files at once; each Spark task (`spark/sql.py`) runs
it on some of the files. Before a view's SQL runs, DuckDB is locked: it can read the source's files and write to its
spill folder, but it can open no other file, load no extension and change no setting.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from feature_store.arrow.chunks import ChunkWriter
from feature_store.arrow.encoded import CSV, encoding_of, with_text_encoded
from feature_store.arrow.reading import reading
from feature_store.arrow.rows import source_columns
from feature_store.arrow.sources.export import exported_files
from feature_store.arrow.sources.parquet.rows import ParquetRows
from feature_store.arrow.sources.source import OfflineSource
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, from_microseconds
from feature_store.definitions.feature_view import FeatureView
from feature_store.engines.join import LabelQuery
from feature_store.engines.sql.duck import connected, first_line, memory_hint
from feature_store.engines.sql.transformation import SOURCE, sql_of
from feature_store.errors import DataError

MEMORY_LIMIT = "1GB"
_BATCH_ROWS, _GROUP_ROWS = 4096, 128 * 1024  # small batches, since rows may be wide


class Selection(NamedTuple):
    """A view's SQL, the columns of its source and the interval of interest, as plain data.

    Attributes:
        view: a view with SQL.
        text: the SQL, checked.
        where: names the SQL in errors.
        columns: (name, DuckDB's type) of each column of the source, over all its files. A single file may lack a
            column or have a narrower type.
        start_us, end_us: the interval `[start_us, end_us)`, microseconds since 1970. Result rows with event times
            outside of it may be left out.
        is_text: whether the source has columns of encoded text, so that text in the result is parsed as of CSV.
    """

    view: FeatureView
    text: str
    where: str
    columns: tuple[tuple[str, str], ...]
    start_us: int
    end_us: int
    is_text: bool

    def result_schema(self, found: duckdb.DuckDBPyRelation) -> pa.Schema:
        """The schema of the result: text that the SQL takes from encoded columns is parsed when rows are checked."""
        schema = _schema(found)
        return with_text_encoded(schema, CSV) if self.is_text else schema


def selection(view: FeatureView, rows: OfflineSource, files: Sequence[str], start_us: int, end_us: int) -> Selection:
    """The `Selection` of a view's SQL.

    Args:
        view: a view with SQL.
        rows: the view's source.
        files: Parquet files with the schemas of the source.
        start_us, end_us: the interval `[start_us, end_us)`, microseconds since 1970. Result rows with event times
            outside of it may be left out.

    Raises:
        DataError: the SQL is not allowed (see `transformation`), or a file cannot be read.
    """
    sql = sql_of(view)
    with connected(_failure(sql.where)) as connection:
        described = _parquet(connection, files)
        columns = tuple((name, str(kind)) for name, kind in zip(described.columns, described.types, strict=True))
    return Selection(view, sql.text, sql.where, columns, start_us, end_us, encoding_of(rows.schema) is not None)


def selected(
    view: FeatureView, rows: OfflineSource, folder: Path, start_us: int, end_us: int, memory_limit: str
) -> ParquetRows:
    """The result of a view's SQL on its source, in a Parquet file.

    Args:
        view: a view with SQL.
        rows: the view's source.
        folder: takes the result, and the rows that DuckDB spills while it runs.
        start_us, end_us: the interval `[start_us, end_us)`, microseconds since 1970. Result rows with event times
            outside of it may be left out.
        memory_limit: DuckDB's memory limit, such as "512MB".

    Raises:
        DataError: the SQL is not allowed, it fails, or its result lacks a column of the view.
    """
    target = folder / f"{view.name}.selected.parquet"
    with rows.unchanged():
        files = exported_files(rows, folder / f"{view.name}.source")
        request = selection(view, rows, files, start_us, end_us)
        write_selected(request, files, target, folder, {"memory_limit": memory_limit})
    return ParquetRows(request.where, [target])


def write_selected(
    request: Selection, files: Sequence[str], target: Path, spill: Path, settings: dict[str, Any] | None = None
) -> pa.Schema:
    """Run a selection on some files of its source and write the result to a Parquet file.

    Args:
        request: the SQL to run.
        files: Parquet files of the source, at least one.
        target: the path of the result.
        spill: a folder for rows that do not fit in memory.
        settings: further settings of DuckDB. They override the settings of this module.

    Returns:
        The schema of the result.

    Raises:
        DataError: the SQL fails, or its result lacks a column of the view.
    """
    with locked_source(request.where, request.columns, files, spill, settings) as connection:
        found = connection.sql(request.text)
        schema = request.result_schema(found)
        columns = source_columns(request.view, schema, request.where)
        inside = _within(schema.field(columns.event_timestamp), request.start_us, request.end_us)
        _write(found.filter(inside) if inside else found, schema, target)
    return schema


@contextlib.contextmanager
def locked_source(
    where: str,
    columns: Sequence[tuple[str, str]],
    files: Sequence[str],
    spill: Path,
    settings: dict[str, Any] | None = None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A locked connection with the table `source`: it can read no other file and change no setting.

    Args:
        where: names the SQL in errors.
        columns: the columns of the source: (name, DuckDB's type).
        files: the Parquet files of the source, at least one.
        spill: a folder for rows that do not fit in memory.
        settings: further settings of DuckDB.

    Raises:
        DataError: DuckDB cannot read the files, or raises an error within the block.
    """
    with connected(_failure(where), _settings(spill) | (settings or {})) as connection:
        _read(connection, columns, files)
        _lock(connection, files, spill)
        yield connection


def selected_schema(request: Selection) -> pa.Schema:
    """The schema of a selection's result. No row is read.

    Raises:
        DataError: the SQL cannot run on the source, or its result lacks a column of the view.
    """
    with connected(_failure(request.where)) as connection:
        listed = ", ".join(f"NULL::{kind} AS {quoted(name)}" for name, kind in request.columns)
        connection.execute(f"CREATE VIEW {SOURCE} AS SELECT {listed} LIMIT 0")
        schema = request.result_schema(connection.sql(request.text))
    source_columns(request.view, schema, request.where)
    return schema


def write_cut(request: Selection, files: Sequence[str], column: str, parts: int, folder: Path, spill: Path) -> None:
    """Partition the rows of some files by the hash of a column, into the folders `part=0` to `part=<parts - 1>`.

    Raises:
        DataError: a file cannot be read or written.
    """
    with connected(_failure(request.where), _settings(spill)) as connection:
        _read(connection, request.columns, files)
        connection.execute(
            f"COPY (SELECT *, hash({quoted(column)}) % {parts} AS part FROM {SOURCE}) "
            f"TO {literal(str(folder))} (FORMAT parquet, PARTITION_BY (part), COMPRESSION lz4_raw)"
        )


def write_queried(query: LabelQuery, target: Path, spill: Path) -> None:
    """Write the label rows that a query returns to a Parquet file, in the order of the result.

    Raises:
        DataError: the query fails.
    """
    settings = _settings(spill) | {"file_search_path": str(query.folder)}
    with connected(_failure("labels of a query", "SQL that DuckDB runs"), settings) as connection:
        found = connection.sql(query.text)
        _write(found, _schema(found), target)


def quoted(name: str) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def _failure(where: str, expected: str = "SQL that runs on the source") -> Callable[[str], DataError]:
    return lambda message: DataError(where, expected=expected, got=first_line(message), hint=memory_hint(message))


def _settings(spill: Path) -> dict[str, Any]:
    return {"memory_limit": MEMORY_LIMIT, "temp_directory": str(spill)}


def _parquet(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> duckdb.DuckDBPyRelation:
    return connection.read_parquet(list(files), union_by_name=True, hive_partitioning=False)


def _read(connection: duckdb.DuckDBPyConnection, columns: Sequence[tuple[str, str]], files: Sequence[str]) -> None:
    """Create the view `source` over files. A column that a file lacks is NULL; a narrower type is cast."""
    found = _parquet(connection, files)
    there = set(found.columns)
    listed = [
        f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" if name in there else f"NULL::{kind} AS {quoted(name)}"
        for name, kind in columns
    ]
    found.project(", ".join(listed)).create_view(SOURCE)


def _lock(connection: duckdb.DuckDBPyConnection, files: Sequence[str], spill: Path) -> None:
    """Restrict the connection to these files and the spill folder, and forbid further settings."""
    connection.execute(f"SET allowed_paths = [{', '.join(literal(file) for file in files)}]")
    connection.execute(f"SET allowed_directories = [{literal(str(spill))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _schema(found: duckdb.DuckDBPyRelation) -> pa.Schema:
    return found.limit(0).to_arrow_table().schema


def _write(found: duckdb.DuckDBPyRelation, schema: pa.Schema, target: Path) -> None:
    with reading(str(target)), ChunkWriter(target, schema, _GROUP_ROWS) as chunks:
        for batch in found.to_arrow_reader(_BATCH_ROWS):
            chunks.add(batch if batch.schema == schema else batch.cast(schema))


def _within(field: pa.Field, start_us: int, end_us: int) -> str:
    """An SQL condition for rows in the interval; empty if no condition is needed.

    Rows without a time also pass, so that a later check can put them into quarantine.
    """
    if not pa.types.is_timestamp(field.type):
        return ""
    name = quoted(field.name)
    kind = "TIMESTAMP" if field.type.tz is None else "TIMESTAMPTZ"
    bounds = []
    if start_us > MIN_TIMESTAMP_US:
        bounds.append(f"{name} >= {kind} '{from_microseconds(start_us).isoformat()}'")
    if end_us <= MAX_TIMESTAMP_US:
        bounds.append(f"{name} < {kind} '{from_microseconds(end_us).isoformat()}'")
    return f"{name} IS NULL OR ({' AND '.join(bounds)})" if bounds else ""
