"""The registry's database: opening it, mapping its errors, and the rows of a project in a table.

This module is SQLAlchemy's door in the package, with `tables.py`, `columns.py` and `migrations/`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from feature_store._extras import requires_extra
from feature_store._private_files import STATE_FOLDER, private_file, private_folder
from feature_store.errors import MissingDependencyError, RegistryError

with requires_extra("registry", "registry"):
    import sqlalchemy as sa
    from sqlalchemy.exc import IntegrityError, SQLAlchemyError

    from feature_store.registry.migrations import HEAD, migrate

from collections.abc import Iterator, Sequence

# The distributions of drivers that are not named like their modules.
_DRIVERS = {"psycopg2": "psycopg2-binary", "psycopg": "'feature-store[postgres]'", "MySQLdb": "mysqlclient"}
# How long a process waits for another's write to SQLite. A commit takes milliseconds: a longer wait means a hung
# process.
_BUSY_SECONDS = 30


class DuplicateKeyError(RegistryError):
    """A row with that primary key exists."""


class Database:
    """An open database, whose tables have this release's schema version.

    A database of an older release is migrated when it is opened. One that this user may not change is read as it is.

    Args:
        url: a SQLAlchemy URL.

    Attributes:
        shown_url: the URL without its password.
        schema: the schema version of the tables, such as `0002`.

    Raises:
        RegistryError: the URL is not a SQLAlchemy URL, or the database cannot be opened.
        SchemaVersionError: a newer release has migrated the database.
        MissingDependencyError: the database's driver is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = sa.make_url(url)
        except SQLAlchemyError:  # its message repeats the URL, password and all
            raise RegistryError("registry", expected="a SQLAlchemy URL, such as sqlite:////srv/registry.db") from None
        self.shown_url = parsed.render_as_string(hide_password=True)
        with self.errors():
            self._engine = _engine(parsed)
            try:
                self.schema = migrate(self._engine, self.shown_url)
            except BaseException:
                self._engine.dispose()
                raise

    @property
    def dialect(self) -> str:
        """The kind of database: `sqlite`, `postgresql`, …"""
        return self._engine.dialect.name

    def has(self, table: sa.Table) -> bool:
        """Whether the database has a table. A database of an older release that cannot be migrated may lack it."""
        return bool(self.schema >= table.info["since"])

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection to read with. Errors of the driver are mapped."""
        with self.errors(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A connection in a transaction that commits at the end. Errors of the driver are mapped.

        Raises:
            RegistryError: the database has an older schema version and this user may not migrate it.
            DuplicateKeyError: a row with the same primary key exists.
        """
        if self.schema != HEAD:
            raise RegistryError(
                f"registry at {self.shown_url}",
                problem=f"its tables have schema version {self.schema}, this release writes {HEAD}, and this user may "
                "not change the tables",
                hint="run any command once, such as `feature-store list`, as a user who may create tables",
            )
        with self.errors(), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Map the errors of SQLAlchemy and of the driver."""
        try:
            yield
        except IntegrityError as error:
            raise DuplicateKeyError(f"registry at {self.shown_url}", problem=str(error.orig)) from error
        except (SQLAlchemyError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error)
            raise RegistryError(f"registry at {self.shown_url}", problem=f"the database failed: {reason}") from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


class ProjectTable:
    """The rows of one project in a table.

    Args:
        database: where the table is.
        table: its definition. The first column of its primary key is `project`.
        project: the project's name.
    """

    def __init__(self, database: Database, table: sa.Table, project: str) -> None:
        self.c = table.c
        self._database = database
        self._table = table
        self._project = project

    @property
    def is_there(self) -> bool:
        """Whether the database has the table. A missing table reads as empty."""
        return self._database.has(self._table)

    def select(self, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
        """A query for some columns, or for all of them, of the project's rows."""
        return sa.select(*columns or (self._table,)).where(self.c.project == self._project)

    def rows(self, query: sa.Select[Any] | None = None) -> Sequence[sa.Row[Any]]:
        """The rows of a query made by `select`; by default all rows of the project."""
        if not self.is_there:
            return []
        with self._database.reading() as connection:
            return connection.execute(self.select() if query is None else query).all()

    def first(self, query: sa.Select[Any]) -> sa.Row[Any] | None:
        """The first row of a query. None: it has no rows."""
        rows = self.rows(query.limit(1))
        return rows[0] if rows else None

    def insert(self, connection: sa.Connection, **values: object) -> None:
        """Insert a row in a transaction."""
        connection.execute(sa.insert(self._table).values(project=self._project, **values))

    def update(self, connection: sa.Connection, place: dict[str, object], values: dict[str, object]) -> int:
        """Update the rows whose columns have the values of `place`. Returns their number."""
        return connection.execute(sa.update(self._table).where(self.at(place)).values(**values)).rowcount

    def delete(self, connection: sa.Connection, place: dict[str, object]) -> None:
        """Delete the rows whose columns have the values of `place`, in a transaction."""
        connection.execute(sa.delete(self._table).where(self.at(place)))

    def lock(self, connection: sa.Connection) -> None:
        """Lock the table for writing until the transaction ends, waiting for other writers.

        Take the lock before you read rows that you will change: row locks do not cover rows that another transaction is
        inserting.
        """
        if self._database.dialect == "sqlite":  # the first write locks the whole database
            connection.execute(sa.update(self._table).where(sa.false()).values(project=self.c.project))
        elif self._database.dialect == "postgresql":
            connection.exec_driver_sql(f"LOCK TABLE {self._table.name} IN SHARE ROW EXCLUSIVE MODE")

    def put(self, place: dict[str, object], values: dict[str, object]) -> None:
        """Insert a row with the key `place`, or update the row that has this key."""
        try:
            self._put_once(place, values)
        except DuplicateKeyError:  # another process inserted the key first: now there is a row to update
            self._put_once(place, values)

    def at(self, place: dict[str, object]) -> sa.ColumnElement[bool]:
        """The condition that a row is the project's and its columns have the values of `place`."""
        here = (self.c[name] == value for name, value in place.items())
        return sa.and_(self.c.project == self._project, *here)

    def _put_once(self, place: dict[str, object], values: dict[str, object]) -> None:
        with self._database.writing() as connection:
            if not self.update(connection, place, values):
                self.insert(connection, **place, **values)


def registry_exists(url: str) -> bool:
    """False for a SQLite file that does not exist, which opening would create. Any other database may hold a
    registry."""
    with contextlib.suppress(SQLAlchemyError):
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database and "mode=memory" not in url:
            return parsed.database != ":memory:" and Path(parsed.database.removeprefix("file:")).exists()
    return True


def _engine(url: sa.URL) -> sa.Engine:
    is_sqlite = url.get_backend_name() == "sqlite"
    is_file = is_sqlite and url.database not in (None, "", ":memory:")
    if is_file:
        _make_room(Path(str(url.database)))
    try:
        engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS} if is_file else {})
    except ImportError as error:
        raise MissingDependencyError(
            f"registry at {url.render_as_string(hide_password=True)}",
            problem=f"the database's driver is not installed: {error}",
            hint=f"pip install {_DRIVERS.get(str(error.name), error.name or 'the driver that the URL names')}",
        ) from error
    if is_file:
        sa.event.listen(engine, "connect", _use_wal)
    return engine


def _make_room(file: Path) -> None:
    """Make the folder of a SQLite file. In a project's own `.feature_store`, only the owner can read it."""
    if STATE_FOLDER not in file.parts:
        file.parent.mkdir(parents=True, exist_ok=True)
        return
    private_folder(file.parent)
    if file.parent.stat().st_uid == os.getuid():
        private_file(file)


def _use_wal(connection: sqlite3.Connection, _record: object) -> None:
    """Use SQLite's write-ahead log, so that processes can read while another one writes."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "readonly" in str(error):  # another user's file, which can be read in its current mode
                return
            # SQLite does not wait for this lock, and processes that create the file at the same time contend for it.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
