"""The databases that sources read, by the scheme of a connection's URL."""

from __future__ import annotations

from collections.abc import Callable

from feature_store.arrow.sources.sql.dialect import Dialect
from feature_store.arrow.sources.sql.duckdb import DuckDb
from feature_store.arrow.sources.sql.postgresql import PostgreSql
from feature_store.arrow.sources.sql.sqlite import Sqlite
from feature_store.errors import ConfigError

# Scheme, without the name of a driver behind `+` -> the dialect. PostgreSQL, DuckDB and SQLite are tested.
DIALECTS: dict[str, Callable[[], Dialect]] = {
    "duckdb": DuckDb,
    "postgresql": PostgreSql,
    "postgres": PostgreSql,
    "sqlite": Sqlite,
    # Not tested:
    "bigquery": lambda: Dialect("adbc_driver_bigquery"),
    "flightsql": lambda: Dialect("adbc_driver_flightsql"),
    "redshift": lambda: Dialect("adbc_driver_postgresql"),
    "snowflake": lambda: Dialect("adbc_driver_snowflake"),
}


def dialect_of(url: str, connection: str) -> Dialect:
    """The dialect for a URL.

    Args:
        url: the URL of a connection.
        connection: the connection's name, for the error, which does not show the URL.

    Raises:
        ConfigError: no dialect has the URL's scheme.
    """
    scheme = url.partition("://")[0].partition("+")[0]
    if scheme not in DIALECTS:
        expected = f"a URL of {', '.join(sorted(DIALECTS))}"
        raise ConfigError(f"connection {connection}", expected=expected, got=f"the scheme {scheme}")
    return DIALECTS[scheme]()
