"""One connection to a database, by ADBC. Errors of the database become DataErrors without statements and secrets."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from feature_store._extras import missing_dependency, requires_extra
from feature_store._redaction import without_secrets
from feature_store.arrow.sources.sql.ahead import read_ahead
from feature_store.errors import DataError

with requires_extra("databases", "SqlSource"):
    import adbc_driver_manager

_SHOWN = 300  # characters of a database's message
_SNAPSHOT_GONE = "the snapshot is gone, because the process that opened the source has ended: run the job again"
# SQLSTATE, or its first two digits -> a hint.
_HINTS = {
    "08": "check that the server runs, and the host and port of the connection's URL",
    "25P03": "raise idle_in_transaction_session_timeout of the user: a job holds one transaction while it reads",
    "28": "check the user and the password of the connection's URL",
    "3D": "check the database of the connection's URL",
    "42501": "grant the user SELECT on the table",
    "42703": "check the names of columns; a name is spelled as the database stores it",
    "42P01": "check the name of the table; it is spelled as the database stores it, and a schema stands before a dot",
    "57014": "the statement was cancelled: raise statement_timeout in the options of the connection's URL",
    "57P": "the server ended the connection: run the job again",
    "22023": _SNAPSHOT_GONE,
    "42704": _SNAPSHOT_GONE,
    "53": "the server has too little memory, disk space or free connections: run the job again later",
}
_MISSING_TABLE, _LOCKED_FILE = "42P01", "locked file"
_HINTS[_LOCKED_FILE] = "another process writes to the database's file: run the job again when it has closed the file"
# Errors of databases without states: pattern of the message -> its state. The first match counts.
_STATES = (
    (re.compile("no such table|Catalog Error: Table with name"), _MISSING_TABLE),
    (re.compile("no such column|Binder Error: Referenced column"), "42703"),
    (re.compile("Conflicting lock|database is locked"), _LOCKED_FILE),
    (re.compile("password"), "28P01"),
    (re.compile(r"(?i)connect|server closed|terminat"), "08006"),
)


class Failure(NamedTuple):
    """An error of a database.

    Attributes:
        state: the SQLSTATE; for a database without states, what `_STATES` has for the message, or an empty text.
        message: the first line of the message, without the statement.
    """

    state: str
    message: str

    def hint(self) -> str:
        """What to do about it."""
        return next((_HINTS[key] for key in (self.state, self.state[:3], self.state[:2]) if key in _HINTS), "")


class SqlError(DataError):
    """A database cannot be reached, or refuses a statement.

    Correct what the error names, and run the job again.

    Attributes:
        is_missing_table: whether the table does not exist.
    """

    is_missing_table: bool = False


@contextlib.contextmanager
def asking(where: str) -> Iterator[None]:
    """A block that calls ADBC.

    Args:
        where: names the source in the error.

    Raises:
        SqlError: the database, its driver or Arrow raised an error.
    """
    try:
        yield
    except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
        if isinstance(error, DataError):
            raise
        failure = _failure(error)
        found = SqlError(where, problem=f"the database says: {failure.message}", hint=failure.hint())
        found.is_missing_table = failure.state == _MISSING_TABLE
        raise found from None  # the driver's error holds the statement, and may hold the URL


def _failure(error: BaseException) -> Failure:
    details = {str(key): value for key, value in getattr(error, "details", None) or ()}
    raw = details.get("PG_DIAG_MESSAGE_PRIMARY")
    state = str(getattr(error, "sqlstate", None) or "")
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else str(error)
    if raw is None:
        text = text.strip().partition("\n")[0].rpartition("ERROR:  ")[2]  # before it stands the statement
        text = re.sub(r"^[A-Z_]+: (\[\w+\] )?", "", text)
    state = state or next((known for pattern, known in _STATES if pattern.search(text)), "")
    return Failure(state, without_secrets(text)[:_SHOWN])


def _cancel(cursor: Any) -> None:
    with contextlib.suppress(adbc_driver_manager.Error):  # the statement may have ended
        cursor.adbc_cancel()


class Session:
    """A connection. It has one transaction, and runs one statement at a time.

    Args:
        where: names the source in errors.
        module: the module of the driver, such as `adbc_driver_postgresql`.
        arguments: the arguments of its `connect`.

    Raises:
        SqlError: the database cannot be reached, or refuses the user.
        MissingDependencyError: the driver is not installed.
    """

    def __init__(self, where: str, module: str, arguments: Mapping[str, Any]) -> None:
        self._where = where
        try:
            driver = importlib.import_module(f"{module}.dbapi")
        except ModuleNotFoundError as error:
            raise missing_dependency(error, where) from error
        with asking(where):
            self._connection = driver.connect(**arguments)

    def run(self, statement: str) -> None:
        """Run a statement that has no result."""
        with asking(self._where), self._connection.cursor() as cursor:
            cursor.execute(statement)

    def table(self, statement: str, options: Mapping[str, str] | None = None) -> pa.Table:
        """The result of a statement, which is small."""
        with asking(self._where), self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**options or {})
            cursor.execute(statement)
            return cursor.fetch_arrow_table()

    def row(self, statement: str, options: Mapping[str, str] | None = None) -> list[Any]:
        """The values of the first row of a result."""
        return [column[0].as_py() for column in self.table(statement, options).columns]

    def schema(self, statement: str) -> pa.Schema:
        """The columns of a result. The statement does not run."""
        with asking(self._where), self._connection.cursor() as cursor:
            return cursor.adbc_execute_schema(statement)

    def batches(self, statement: str, options: Mapping[str, str] | None = None) -> Iterator[pa.RecordBatch]:
        """The result of a statement as a stream. It holds a few batches in memory."""
        with asking(self._where), self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**options or {})
            cursor.execute(statement)
            yield from read_ahead(iter(cursor.fetch_record_batch()), lambda: _cancel(cursor))

    def close(self) -> None:
        """Close the connection, which ends its transaction."""
        with contextlib.suppress(adbc_driver_manager.Error):  # the server may have ended it
            self._connection.close()
