"""The version of the registry's tables, and the migrations that bring an older database up to it.

Alembic runs the modules in `versions/`, each of which is one change of the tables. A database records the last one that
it has in the table `fs_schema`. A database without that table was made before versions were recorded: all migrations
run, and the first two skip tables that exist.

To change the tables: edit `registry/tables.py`, add `versions/v<next number>_<what>.py`, and run
`tests/registry/test_migrations.py`, which compares both. A migration only adds (tables, nullable columns), so that
processes of the release before keep working while an upgrade is under way (docs/compatibility.md).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from feature_store._extras import requires_extra
from feature_store.errors import RegistryError, SchemaVersionError

_log = logging.getLogger(__name__)

VERSION_TABLE = "fs_schema"
FOLDER = Path(__file__).parent
# Read from the file names, so that opening a registry that is up to date does not import Alembic.
REVISIONS = tuple(sorted(path.name[1:5] for path in (FOLDER / "versions").glob("v[0-9]*.py")))
HEAD = REVISIONS[-1]
# Before any version was recorded.
UNVERSIONED = ""

# Names the lock that migrations take in PostgreSQL. An arbitrary number, the same in all releases.
_POSTGRES_LOCK = 0x66735F736368656D
# Alembic keeps the migration that it runs in module-level state, so threads take turns.
_one_at_a_time = threading.Lock()


def migrate(engine: sa.Engine, shown_url: str) -> str:
    """Bring the registry's tables to this release's version. Returns the version that they then have.

    Processes that open a registry at once take turns: the first one migrates it. A database that
    this user may not change stays at its version and is read as it is.

    Raises:
        SchemaVersionError: a newer release of the library has migrated the database.
        SQLAlchemyError: the database cannot be reached, or an empty one cannot be given tables.
    """
    with engine.connect() as connection:
        current = _current(connection)
    _refuse_newer(current, shown_url)
    if current == HEAD:
        return current
    try:
        with _one_at_a_time, _exclusive(engine) as connection:
            current = _current(connection)
            _refuse_newer(current, shown_url)
            if current != HEAD:
                _upgrade(connection)
    except SQLAlchemyError as error:
        with engine.connect() as connection:
            current = _current(connection)
            if current == HEAD:  # without a lock for this database, another process may have migrated it first
                return current
            if not sa.inspect(connection).has_table("fs_versions"):
                raise
        _log.warning(
            "registry at %s stays at schema version %s, older than %s: %s",
            shown_url,
            current or "0001",
            HEAD,
            getattr(error, "orig", None) or error,
        )
        return current or REVISIONS[0]
    return HEAD


def _current(connection: sa.Connection) -> str:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return UNVERSIONED
    recorded = sa.select(sa.column("version_num", sa.String)).select_from(sa.table(VERSION_TABLE))
    return connection.execute(recorded).scalar() or UNVERSIONED


def _refuse_newer(current: str, shown_url: str) -> None:
    if current != UNVERSIONED and current not in REVISIONS:
        raise SchemaVersionError(
            f"registry at {shown_url}",
            problem=f"its tables have schema version {current}, which is newer than {HEAD}, the newest that this "
            "release of feature-store reads",
            hint="upgrade feature-store here to the release that is used elsewhere with this registry, or restore the "
            "backup of the database that was made before the upgrade",
        )


@contextlib.contextmanager
def _exclusive(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection in a transaction during which no other process migrates."""
    if engine.dialect.name == "sqlite":
        # Python's sqlite3 begins a transaction at the first INSERT, which leaves CREATE TABLE outside of it.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.exec_driver_sql("COMMIT")
        return
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_POSTGRES_LOCK)))
        yield connection


def _upgrade(connection: sa.Connection) -> None:
    with requires_extra("registry", "registry"):
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise RegistryError("registry", problem=f"the migrations cannot be run: {error}") from error
