"""Databases that are down, slow, wrong or gone: one clear error, no secret in it, and nothing recorded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from feature_store.arrow.sources.opening import open_source, source_exists
from feature_store.definitions import SqlSource
from feature_store.errors import ConfigError, DataError, DefinitionError
from feature_store.project.connections import connection_url
from tests.arrow.sources.databases import Postgres, StoredDuckDb, StoredSqlite, configure, source

SECRET = "s3cret-Pa55word"


def read(folder: Path, wanted: SqlSource | None = None) -> list[Any]:
    return [row for batch in open_source(wanted or source(), folder).batches(["at"]) for row in batch.to_pylist()]


def text_of(error: BaseException) -> str:
    """The text of an error and of all errors that it shows in a traceback."""
    texts = [str(error), repr(error)]
    shown = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return " ".join(texts) + (text_of(shown) if shown is not None else "")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"postgresql://me:{SECRET}@127.0.0.1:1/db", "Connection refused"),
        (f"postgresql://me:{SECRET}@nowhere.invalid/db", "could not translate host name"),
        (f"mysql://me:{SECRET}@127.0.0.1/db", "expected a URL of"),
        (f"me:{SECRET}@127.0.0.1/db", "expected a URL"),
        ("duckdb:///missing.duckdb", "missing.duckdb of the connection does not exist"),
        ("sqlite:///missing.db", "missing.db of the connection does not exist"),
    ],
)
def test_a_database_that_cannot_be_reached_is_an_error_without_secrets(tmp_path: Path, url: str, problem: str) -> None:
    configure(tmp_path, url)
    for attempt in (lambda: read(tmp_path), lambda: source_exists(source(), tmp_path)):
        with pytest.raises((DataError, ConfigError), match=problem) as caught:
            attempt()
        assert SECRET not in text_of(caught.value)


def test_a_wrong_password_is_named_and_not_shown(postgres: Postgres, server_with_password: str, tmp_path: Path) -> None:
    configure(tmp_path, server_with_password.replace("right-password", SECRET))
    with pytest.raises(DataError, match="password authentication failed") as caught:
        read(tmp_path)
    assert "check the user and the password" in caught.value.hint
    assert SECRET not in text_of(caught.value)


@pytest.fixture
def server_with_password(postgres: Postgres) -> Iterator[str]:
    """The URL of a user whose password the server checks."""
    [(file,)] = postgres.run("SHOW hba_file")
    before = Path(file).read_text()
    postgres.run(
        "DO $$BEGIN CREATE ROLE careful LOGIN PASSWORD 'right-password'; EXCEPTION WHEN duplicate_object THEN END$$"
    )
    Path(file).write_text(f"local all careful scram-sha-256\n{before}")
    postgres.run("SELECT pg_reload_conf()")
    try:
        yield postgres.url.replace("://postgres:@", "://careful:right-password@")
    finally:
        Path(file).write_text(before)
        postgres.run("SELECT pg_reload_conf()")


@pytest.mark.parametrize(
    ("table_or_query", "problem", "hint"),
    [
        ("nothing", 'relation "nothing" does not exist', "check the name of the table"),
        ("SELECT nothing FROM there", 'column "nothing" does not exist', "check the names of columns"),
        ("SELECT at FROM", "syntax error", ""),
        ("SELECT 1/n AS n, at FROM there", "division by zero", ""),
        (
            "SELECT pg_sleep(60), at FROM there",
            "canceling statement due to statement timeout",
            "raise statement_timeout",
        ),
        ("SELECT at, at FROM there", "two columns of the name at", "name each column"),
        ("forbidden", "permission denied", "grant the user SELECT"),
    ],
)
def test_an_error_of_the_database_names_the_source_and_says_what_to_do(
    postgres: Postgres, tmp_path: Path, table_or_query: str, problem: str, hint: str
) -> None:
    postgres.run("CREATE TABLE there AS SELECT 0 AS n, now() AS at, now() AS made")
    postgres.run("CREATE TABLE forbidden AS SELECT now() AS at, now() AS made")
    postgres.run("DO $$BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN END$$")
    postgres.run("GRANT SELECT ON there TO reader")
    url = postgres.url.replace("://postgres:@", "://reader:@")
    configure(tmp_path, f"{url}&options=-c%20statement_timeout%3D500")
    wanted = source(table_or_query)
    with pytest.raises(DataError, match=problem) as caught:
        list(open_source(wanted, tmp_path).batches(open_source(wanted, tmp_path).schema.names))
    assert caught.value.where.startswith("source warehouse: ")
    assert hint in caught.value.hint


@pytest.mark.parametrize("kind", [StoredDuckDb, StoredSqlite])
def test_an_error_of_a_database_in_a_file_says_what_to_do(tmp_path: Path, kind: Any) -> None:
    """Its driver gives no state, so the text of the error decides. After an error, the file is closed."""
    stored = kind(tmp_path)
    cases = {
        "nothing": "check the name of the table",
        'SELECT connection, made AS "at" FROM rows': "check the names of columns",
    }
    for table_or_query, hint in cases.items():
        with pytest.raises(DataError, match="the database says") as caught:
            read(tmp_path, source(table_or_query))
        assert hint in caught.value.hint
    module = "duckdb" if kind is StoredDuckDb else "sqlite3"
    script = f"""
import {module}
connection = {module}.connect({str(stored.path)!r})
connection.execute("BEGIN {"" if kind is StoredDuckDb else "EXCLUSIVE"}")
print("open", flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(DataError, match="the database says") as caught:
            read(tmp_path)
        assert caught.value.hint.startswith("another process writes to the database's file")
        writer.communicate("\n")
    assert read(tmp_path) == []


def test_a_table_that_is_missing_does_not_exist_yet(postgres: Postgres, tmp_path: Path) -> None:
    assert not source_exists(source("later"), tmp_path)
    assert not source_exists(source("SELECT * FROM later"), tmp_path)
    postgres.run("CREATE TABLE later (at timestamptz, made timestamptz)")
    assert source_exists(source("later"), tmp_path)
    assert read(tmp_path, source("later")) == []


def test_a_connection_that_is_dropped_in_the_middle_is_an_error(postgres: Postgres, tmp_path: Path) -> None:
    postgres.run(
        "CREATE TABLE wide AS SELECT now() AS at, now() AS made, repeat('x', 1000) AS x FROM generate_series(1, 200000)"
    )
    opened = open_source(source("wide"), tmp_path)
    batches = opened.batches(["x"])
    next(batches)
    postgres.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    with pytest.raises(DataError, match="source warehouse: wide") as caught:
        list(batches)
    assert "run the job again" in caught.value.hint or "check that the server runs" in caught.value.hint
    with pytest.raises(DataError):
        list(opened.batches(["x"]))


def test_a_reader_that_stops_early_leaves_no_connection(postgres: Postgres, tmp_path: Path) -> None:
    postgres.run(
        "CREATE TABLE wide AS SELECT now() AS at, now() AS made, repeat('x', 1000) AS x FROM generate_series(1, 50000)"
    )
    batches = open_source(source("wide"), tmp_path).batches(["x"])
    next(batches)
    batches.close()
    del batches
    with psycopg.connect(postgres.url) as connection:
        left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        for _ in range(200):
            [count] = connection.execute(left).fetchone() or [0]
            if not count:
                break
            connection.execute("SELECT pg_sleep(0.05)")
        assert not count


def test_a_url_in_place_of_a_name_is_refused_and_not_shown() -> None:
    with pytest.raises(DefinitionError, match="the name of a connection") as caught:
        source(connection=f"postgresql://me:{SECRET}@host/db")
    assert SECRET not in text_of(caught.value)


def test_the_environment_comes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(tmp_path, "postgresql://file/db")
    assert connection_url("warehouse", tmp_path) == "postgresql://file/db"
    monkeypatch.setenv("FEATURE_STORE_CONNECTION_WAREHOUSE", f"postgresql://me:{SECRET}@host/db")
    assert connection_url("warehouse", tmp_path) == f"postgresql://me:{SECRET}@host/db"
    assert SECRET not in str(DataError("x", got=f"connection to {SECRET} failed"))


def test_only_the_connection_is_read_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "feature_store.yaml").write_text(
        "project: shop\nonline_store: {url: '${NOT_SET}'}\n"
        "connections: {warehouse: 'postgresql://me:${WAREHOUSE_PASSWORD}@host/db', other: '${NOT_SET}'}\n"
    )
    monkeypatch.setenv("WAREHOUSE_PASSWORD", "a/b@c d%")
    assert connection_url("warehouse", tmp_path) == "postgresql://me:a%2Fb%40c%20d%25@host/db"
    with pytest.raises(ConfigError, match="NOT_SET is not set"):
        connection_url("other", tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'warehouse'"):
        connection_url("warehous", tmp_path)
    with pytest.raises(ConfigError, match="FEATURE_STORE_CONNECTION_SHOP"):
        connection_url("shop", tmp_path / "nowhere")
