"""Databases that tests fill: tables of PostgreSQL, by psycopg, of DuckDB, and of SQLite, by Python's own module."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa

from feature_store.definitions import SqlSource

COLUMNS = ("user_id", "at", "made", "score", "title")


def configure(folder: Path, url: str) -> None:
    """Write a feature_store.yaml that has the URL as the connection `warehouse`."""
    folder.mkdir(exist_ok=True)
    (folder / "feature_store.yaml").write_text(f"project: shop\nconnections:\n  warehouse: '{url}'\n")


def source(table_or_query: str = "rows", **about: Any) -> SqlSource:
    """A source with the columns of the suite."""
    given = {"connection": "warehouse", "event_timestamp": "at", "created_timestamp": "made"} | about
    return SqlSource(table_or_query, **given)


class Postgres:
    """A database of a server of PostgreSQL.

    Args:
        url: its URL, for psycopg and for ADBC.
        folder: where to write feature_store.yaml.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        configure(folder, url)

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement, and commit."""
        with psycopg.connect(self.url) as connection:
            done = connection.execute(statement, values or None)
            return done.fetchall() if done.description else []

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Append rows to a table."""
        with psycopg.connect(self.url) as connection:
            places = ", ".join(["%s"] * len(rows[0])) if rows else ""
            connection.cursor().executemany(f"INSERT INTO {table} VALUES ({places})", rows)


class StoredPostgres:
    """A table of PostgreSQL with the rows of the suite; see FillableSource."""

    def __init__(self, database: Postgres, folder: Path) -> None:
        self.database, self.folder, self.source = database, folder, source()
        database.run("DROP TABLE IF EXISTS rows")

    def append(self, rows: pa.Table) -> None:
        columns = "user_id int8, at timestamp, made timestamp, score float8, title text"
        self.database.run(f"CREATE TABLE IF NOT EXISTS rows ({columns})")
        self.database.insert("rows", [tuple(row.values()) for row in rows.to_pylist()])


class StoredSqlite:
    """A table of SQLite with the rows of the suite; see FillableSource."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, source()
        self.path = folder / "rows.db"
        configure(folder, "sqlite:///rows.db")
        with sqlite3.connect(self.path) as connection:
            columns = "user_id integer, at timestamp, made datetime, score real, title text"
            connection.execute(f"CREATE TABLE rows ({columns})")
        connection.close()

    def append(self, rows: pa.Table) -> None:
        with sqlite3.connect(self.path) as connection:
            texts = [rows[name].cast(pa.string()) if name in ("at", "made") else rows[name] for name in COLUMNS]
            values = list(zip(*(column.to_pylist() for column in texts), strict=True))
            connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", values)
        connection.close()


class StoredDuckDb:
    """A table of DuckDB with the rows of the suite; see FillableSource."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, source()
        self.path = folder / "rows.duckdb"
        configure(folder, "duckdb:///rows.duckdb")
        self.run('CREATE TABLE rows (user_id bigint, "at" timestamp, made timestamp, score double, title text)')

    def append(self, rows: pa.Table) -> None:
        with duckdb.connect(self.path) as connection:
            connection.register("given", rows)
            connection.execute("INSERT INTO rows BY NAME SELECT * FROM given")

    def run(self, statement: str) -> None:
        """Run a statement, and close the file."""
        with duckdb.connect(self.path) as connection:
            connection.execute(statement)
