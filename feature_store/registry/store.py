"""The registry: every applied version of a project's definitions, and the history of what was asked for.

SQLAlchemy's one door in the package, with `columns`: SQLite unless the URL says otherwise.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import secrets
import socket
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from feature_store._intervals import merged
from feature_store._private_files import STATE_FOLDER, private_file, private_folder
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.dtypes import from_microseconds, to_microseconds
from feature_store.definitions.pruned import pruned
from feature_store.errors import ConflictError, MissingDependencyError, NotFoundError, RegistryError, extra

with extra("registry", "registry"):
    import sqlalchemy as sa
    from sqlalchemy.exc import IntegrityError, SQLAlchemyError

    from feature_store.registry.columns import LongText, Microseconds, Number, ShortText, WholeNumber, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from feature_store._intervals import Interval

_METADATA = sa.MetaData()
_VERSIONS = sa.Table(
    "fs_versions",
    _METADATA,
    sa.Column("project", ShortText(64), primary_key=True),
    # Together with the project the primary key: of two applies at once, one gets the number.
    sa.Column("version", Number(), primary_key=True, autoincrement=False),
    sa.Column("author", ShortText(255), nullable=False),
    sa.Column("applied_at", Microseconds(), nullable=False),
    sa.Column("digest", ShortText(64), nullable=False),
    sa.Column("definitions", LongText(), nullable=False),
)
_IDS = sa.Table(
    "fs_registry",
    _METADATA,
    sa.Column("project", ShortText(64), primary_key=True),
    sa.Column("id", ShortText(32), nullable=False),
)
# Versions that are not served as a whole, and why. A version without a row here is served, or was.
_ROLLOUTS = sa.Table(
    "fs_rollouts",
    _METADATA,
    sa.Column("project", ShortText(64), primary_key=True),
    sa.Column("version", Number(), primary_key=True, autoincrement=False),
    sa.Column("state", ShortText(16), nullable=False),
    sa.Column("reason", LongText(), nullable=False),
)
_UNFINISHED, _WITHDRAWN = "unfinished", "withdrawn"
_INTERVALS = sa.Table(
    "fs_intervals",
    _METADATA,
    sa.Column("project", ShortText(64), primary_key=True),
    sa.Column("view", ShortText(64), primary_key=True),
    sa.Column("generation", Number(), primary_key=True, autoincrement=False),
    sa.Column("start_us", WholeNumber(), primary_key=True, autoincrement=False),
    sa.Column("end_us", WholeNumber(), nullable=False),
)
# Earlier releases noted under each generation what its rows in Redis held, and believed it. Their rows are history now.
_ANY_GENERATION = 0
_PRUNING = sa.Table(
    "fs_pruning",
    _METADATA,
    sa.Column("project", ShortText(64), primary_key=True),
    sa.Column("kind", ShortText(16), primary_key=True),
    sa.Column("id", ShortText(64), primary_key=True),
    sa.Column("service", ShortText(64), nullable=False),
    sa.Column("author", ShortText(255), nullable=False),
    sa.Column("made_at", Microseconds(), nullable=False),
    sa.Column("document", LongText(), nullable=False),
)
_REPORTS = sa.Table(
    "fs_reports",
    _METADATA,
    sa.Column("project", ShortText(64), primary_key=True),
    sa.Column("kind", ShortText(16), primary_key=True),
    sa.Column("service", ShortText(64), primary_key=True),
    sa.Column("author", ShortText(255), nullable=False),
    sa.Column("made_at", Microseconds(), nullable=False),
    sa.Column("document", LongText(), nullable=False),
)
# Distributions of database drivers that are named otherwise than their modules.
_DRIVERS = {"psycopg2": "psycopg2-binary", "psycopg": "'psycopg[binary]'", "MySQLdb": "mysqlclient"}
# How long a process waits for another's write to SQLite. A commit takes milliseconds; more means that one hangs.
_BUSY_SECONDS = 30


@dataclass(frozen=True)
class Version:
    """An applied version of a project's definitions.

    Attributes:
        version: 1, 2, 3, …
        author: who applied it.
        applied_at: when, UTC.
        digest: a hash of the document.
        document: the definitions as JSON types, see DefinitionSet.to_document.
    """

    version: int
    author: str
    applied_at: datetime
    digest: str
    document: dict[str, Any]

    def definitions(self) -> DefinitionSet:
        """The definitions as they were applied, and their prunings; on-demand views come without their functions.

        Raises:
            RegistryError: this release of the library cannot read them.
        """
        try:
            return DefinitionSet.from_document(self.document)
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RegistryError(
                f"version {self.version}",
                expected="definitions that this release of the library reads",
                got=f"{type(error).__name__}: {str(error)[:500]}",
                hint="use the release that applied it, or apply again with this one",
            ) from error

    def served_definitions(self) -> DefinitionSet:
        """The definitions without what is pruned: what is computed, stored and served.

        Raises:
            RegistryError: as `definitions`.
        """
        return pruned(self.definitions())


@dataclass(frozen=True)
class Rollout:
    """A version that is not served as a whole.

    Attributes:
        version: its number.
        state: `unfinished`: its apply is under way, or was stopped; `withdrawn`: its apply failed.
        reason: why it was withdrawn.
    """

    version: int
    state: str
    reason: str


@dataclass(frozen=True)
class PruneRecord:
    """Importances or a prune plan, as they were kept.

    Attributes:
        kind: `importances` or `plan`.
        id: of the document, one of its kind.
        service: whose.
        author: who kept it.
        made_at: when it was kept last, UTC.
        document: as text.
    """

    kind: str
    id: str
    service: str
    author: str
    made_at: datetime
    document: str


@dataclass(frozen=True)
class KeptReport:
    """The last report of a kind on a service: by whom, when (UTC), and what it said, as JSON types."""

    kind: str
    service: str
    author: str
    made_at: datetime
    document: dict[str, Any]


class Registry:
    """One project's registry.

    Args:
        url: a SQLAlchemy URL.
        project: the project's name.

    Raises:
        RegistryError: the database cannot be opened.
        MissingDependencyError: the database's driver is not installed.
    """

    def __init__(self, url: str, project: str) -> None:
        self._project = project
        try:
            parsed = sa.make_url(url)
        except SQLAlchemyError:  # its message repeats the URL, password and all
            raise RegistryError("registry", expected="a SQLAlchemy URL, such as sqlite:////srv/registry.db") from None
        self._shown = parsed.render_as_string(hide_password=True)
        with self._errors():
            self._engine = _engine(parsed)
            self._has_rollouts = _create_tables(self._engine)

    @property
    def shown_url(self) -> str:
        """Where the database is, without a password."""
        return self._shown

    def id(self) -> str:
        """The id of the project's versions, which no other registry has; empty before the first version.

        A registry of an earlier release gets one when it is asked for it.
        """
        chosen = sa.select(_IDS.c.id).where(_IDS.c.project == self._project)
        with self._errors(), self._engine.connect() as connection:
            known: str | None = connection.execute(chosen).scalar()
        if known is None and self.head() is not None:
            with contextlib.suppress(_TakenError), self._errors(), self._engine.begin() as connection:
                connection.execute(sa.insert(_IDS).values(project=self._project, id=secrets.token_hex(16)))
            with self._errors(), self._engine.connect() as connection:
                known = connection.execute(chosen).scalar_one()
        return known or ""

    # -- versions -----------------------------------------------------------------------------------------------

    def latest(self) -> Version | None:
        """The newest version that was not withdrawn, or None before the first apply."""
        chosen = sa.select(_VERSIONS).where(self._not_withdrawn())
        newest = self._versions(chosen.order_by(_VERSIONS.c.version.desc()).limit(1))
        return newest[0] if newest else None

    def head(self) -> tuple[int, str] | None:
        """The number and digest of the newest version, None before the first apply: whether `latest` is another by now,
        without reading it."""
        newest = sa.select(_VERSIONS.c.version, _VERSIONS.c.digest).where(
            _VERSIONS.c.project == self._project, self._not_withdrawn()
        )
        with self._errors(), self._engine.connect() as connection:
            row = connection.execute(newest.order_by(_VERSIONS.c.version.desc()).limit(1)).first()
        return None if row is None else (row.version, row.digest)

    def version(self, number: int) -> Version:
        """A version by its number.

        Raises:
            NotFoundError: there is none.
        """
        found = self._versions(sa.select(_VERSIONS).where(_VERSIONS.c.version == number))
        if not found:
            raise NotFoundError(f"registry of {self._project}", expected="an applied version", got=str(number))
        return found[0]

    def digest(self, number: int) -> str:
        """The digest of a version's definitions; empty when there is no such version."""
        wanted = sa.and_(_VERSIONS.c.project == self._project, _VERSIONS.c.version == number)
        with self._errors(), self._engine.connect() as connection:
            return connection.execute(sa.select(_VERSIONS.c.digest).where(wanted)).scalar() or ""

    def version_at(self, time: datetime) -> Version | None:
        """The version that was the newest at a time; None: there was none yet."""
        before = sa.and_(_VERSIONS.c.applied_at <= to_microseconds(time), self._not_withdrawn())
        found = self._versions(sa.select(_VERSIONS).where(before).order_by(_VERSIONS.c.version.desc()).limit(1))
        return found[0] if found else None

    def history(self, *, withdrawn: bool = False) -> list[Version]:
        """All versions, the newest first; those that were withdrawn are left out unless asked for."""
        chosen = sa.select(_VERSIONS) if withdrawn else sa.select(_VERSIONS).where(self._not_withdrawn())
        return self._versions(chosen.order_by(_VERSIONS.c.version.desc()))

    def rollouts(self) -> dict[int, Rollout]:
        """The versions that are not served as a whole: one whose apply has not finished, and those withdrawn."""
        if not self._has_rollouts:
            return {}
        with self._errors(), self._engine.connect() as connection:
            rows = connection.execute(sa.select(_ROLLOUTS).where(_ROLLOUTS.c.project == self._project)).all()
        return {row.version: Rollout(row.version, row.state, row.reason) for row in rows}

    def finish(self, version: int) -> None:
        """Note that a version is served."""
        with self._errors(), self._engine.begin() as connection:
            connection.execute(sa.delete(_ROLLOUTS).where(self._of_rollout(version)))

    def withdraw(self, version: int, reason: str) -> None:
        """Note that a version could not be served: what was the newest before it is the newest again. Its number is
        not used again, since rows may be stored under it.
        """
        values = {"state": _WITHDRAWN, "reason": reason}
        with self._errors(), self._engine.begin() as connection:
            changed = connection.execute(sa.update(_ROLLOUTS).where(self._of_rollout(version)).values(**values))
            if not changed.rowcount:
                about = {"project": self._project, "version": version}
                connection.execute(sa.insert(_ROLLOUTS).values(**about, **values))

    def commit(self, definitions: DefinitionSet, *, base: int | None, author: str) -> Version:
        """Write a new version on top of `base`, the version that it was planned against (None: no version). It is
        unfinished until `finish` says that it is served.

        Definitions equal to the base's make no new version.

        Raises:
            ConflictError: somebody else's version came first; it says whose.
        """
        document = orjson.dumps(definitions.to_document(), option=orjson.OPT_SORT_KEYS)
        digest = hashlib.sha256(document).hexdigest()
        # Read before the newest: whoever commits in between takes this number, and the insert says so.
        number = self._last_number() + 1
        newest = self.latest()
        if (newest.version if newest else None) != base:
            raise self._conflict(base, newest)
        if newest is not None and newest.digest == digest:
            return newest
        values = {
            "project": self._project,
            "version": number,
            "author": author,
            "applied_at": time.time_ns() // 1000,
            "digest": digest,
            "definitions": document.decode(),
        }
        try:
            with self._errors(), self._engine.begin() as connection:
                connection.execute(sa.insert(_VERSIONS).values(**values))
                about = {"project": self._project, "version": number}
                connection.execute(sa.insert(_ROLLOUTS).values(**about, state=_UNFINISHED, reason=""))
        except _TakenError:
            raise self._conflict(base, self.latest()) from None
        return self.version(number)

    # -- what was asked for -------------------------------------------------------------------------------------

    def note_materialized(self, view: str, start_us: int, end_us: int) -> None:
        """Note that somebody had `[start_us, end_us)` of a view materialized, wherever to.

        This is history: what an online store holds, it says itself.
        """
        try:
            self._add_interval(view, start_us, end_us)
        except _TakenError:  # another process was first to insert one of that start: now there is one to merge with
            self._add_interval(view, start_us, end_us)

    def materialized(self, view: str) -> list[Interval]:
        """The intervals of a view that somebody had materialized, wherever to."""
        chosen = sa.select(_INTERVALS.c.start_us, _INTERVALS.c.end_us)
        of_view = sa.and_(_INTERVALS.c.project == self._project, _INTERVALS.c.view == view)
        with self._errors(), self._engine.connect() as connection:
            return merged((row.start_us, row.end_us) for row in connection.execute(chosen.where(of_view)))

    def materialized_had_it_stayed(self, view: str) -> list[Interval]:
        """The intervals that a view which was not stored for a while would be materialized over, had it stayed: what it
        was materialized over, and what other views were since."""
        chosen = sa.select(_INTERVALS).where(_INTERVALS.c.project == self._project)
        with self._errors(), self._engine.connect() as connection:
            rows = connection.execute(chosen).all()
        own = [(row.start_us, row.end_us) for row in rows if row.view == view]
        if not own:
            return []
        end_us = max(end for _, end in own)
        since = [(max(row.start_us, end_us), row.end_us) for row in rows if row.view != view]
        return merged([*own, *since])

    def _add_interval(self, view: str, start_us: int, end_us: int) -> None:
        place = {"project": self._project, "view": view, "generation": _ANY_GENERATION}
        columns = _INTERVALS.c
        chosen = sa.and_(*(columns[name] == value for name, value in place.items()))
        with self._errors(), self._engine.begin() as connection:
            # Deleting first takes the write lock, so that two jobs that finish at once do not lose one's interval.
            known = sa.select(columns.start_us, columns.end_us).where(chosen).with_for_update()
            if self._engine.dialect.name == "sqlite":
                connection.execute(sa.update(_INTERVALS).where(chosen).values(end_us=columns.end_us))
            intervals = [(row.start_us, row.end_us) for row in connection.execute(known)]
            connection.execute(sa.delete(_INTERVALS).where(chosen))
            for start, end in merged([*intervals, (start_us, end_us)]):
                connection.execute(sa.insert(_INTERVALS).values(**place, start_us=start, end_us=end))

    # -- pruning ------------------------------------------------------------------------------------------------

    def keep_prune_record(self, kind: str, service: str, id: str, document: bytes, author: str) -> None:
        """Keep importances or a prune plan; one of the same id is replaced."""
        about = {"service": service, "author": author, "made_at": time.time_ns() // 1000, "document": document.decode()}
        self._put(_PRUNING, {"kind": kind, "id": id}, about)

    def prune_records(self, kind: str, service: str | None = None) -> list[PruneRecord]:
        """What is kept of a kind, of one service or of all, the newest first."""
        chosen = sa.and_(_PRUNING.c.project == self._project, _PRUNING.c.kind == kind)
        if service is not None:
            chosen = sa.and_(chosen, _PRUNING.c.service == service)
        with self._errors(), self._engine.connect() as connection:
            rows = connection.execute(sa.select(_PRUNING).where(chosen).order_by(_PRUNING.c.made_at.desc())).all()
        return [
            PruneRecord(row.kind, row.id, row.service, row.author, from_microseconds(row.made_at), row.document)
            for row in rows
        ]

    # -- reports ------------------------------------------------------------------------------------------------

    def keep_report(self, kind: str, service: str, document: dict[str, Any], author: str) -> None:
        """Keep what was found of a service; it takes the place of the last report of that kind."""
        about = {"author": author, "made_at": time.time_ns() // 1000, "document": orjson.dumps(document).decode()}
        self._put(_REPORTS, {"kind": kind, "service": service}, about)

    def reports(self, kind: str) -> dict[str, KeptReport]:
        """The last report of a kind on each service that has one."""
        chosen = sa.and_(_REPORTS.c.project == self._project, _REPORTS.c.kind == kind)
        with self._errors(), self._engine.connect() as connection:
            rows = connection.execute(sa.select(_REPORTS).where(chosen)).all()
        return {
            row.service: KeptReport(
                row.kind,
                row.service,
                row.author,
                from_microseconds(row.made_at),
                parsed(f"{row.kind} report of {row.service}", row.document),
            )
            for row in rows
        }

    def teardown(self) -> None:
        """Drop all that the registry holds of this project, and of no other."""
        with self._errors(), self._engine.begin() as connection:
            for table in (_VERSIONS, _ROLLOUTS, _IDS, _INTERVALS, _PRUNING, _REPORTS):
                connection.execute(sa.delete(table).where(table.c.project == self._project))

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    # -- small parts --------------------------------------------------------------------------------------------

    def _put(self, table: sa.Table, place: dict[str, Any], values: dict[str, Any]) -> None:
        """Put a row of this project in the place of the one with that key, or beside the others."""
        try:
            self._put_once(table, place, values)
        except _TakenError:  # another process was first to insert it: now there is one to update
            self._put_once(table, place, values)

    def _put_once(self, table: sa.Table, place: dict[str, Any], values: dict[str, Any]) -> None:
        place = {"project": self._project} | place
        chosen = sa.and_(*(table.c[name] == value for name, value in place.items()))
        with self._errors(), self._engine.begin() as connection:
            if not connection.execute(sa.update(table).where(chosen).values(**values)).rowcount:
                connection.execute(sa.insert(table).values(**place, **values))

    def _versions(self, query: sa.Select[Any]) -> list[Version]:
        with self._errors(), self._engine.connect() as connection:
            rows = connection.execute(query.where(_VERSIONS.c.project == self._project)).all()
        return [
            Version(
                row.version,
                row.author,
                from_microseconds(row.applied_at),
                row.digest,
                parsed(f"version {row.version}", row.definitions),
            )
            for row in rows
        ]

    def _last_number(self) -> int:
        chosen = sa.select(_VERSIONS.c.version).where(_VERSIONS.c.project == self._project)
        with self._errors(), self._engine.connect() as connection:
            return connection.execute(chosen.order_by(_VERSIONS.c.version.desc()).limit(1)).scalar() or 0

    def _not_withdrawn(self) -> sa.ColumnElement[bool]:
        if not self._has_rollouts:
            return sa.true()
        gone = sa.and_(_ROLLOUTS.c.project == self._project, _ROLLOUTS.c.state == _WITHDRAWN)
        return _VERSIONS.c.version.not_in(sa.select(_ROLLOUTS.c.version).where(gone))

    def _of_rollout(self, version: int) -> sa.ColumnElement[bool]:
        return sa.and_(_ROLLOUTS.c.project == self._project, _ROLLOUTS.c.version == version)

    def _conflict(self, base: int | None, newest: Version | None) -> ConflictError:
        by = f", by {newest.author} at {newest.applied_at:%Y-%m-%d %H:%M:%S} UTC" if newest else ""
        return ConflictError(
            f"registry of {self._project}",
            expected=f"version {base or 'none'} to be the newest, as when this was planned",
            got=f"version {newest.version if newest else 'none'}{by}",
            hint="plan and apply again",
        )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise _TakenError(f"registry at {self._shown}", got=str(error.orig)) from error
        except (SQLAlchemyError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error)
            raise RegistryError(f"registry at {self._shown}", expected="a database that answers", got=reason) from error


class _TakenError(RegistryError):
    """A row with that primary key is there already."""


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
            expected="the database's driver",
            got=str(error),
            hint=f"pip install {_DRIVERS.get(str(error.name), error.name or 'the driver that the URL names')}",
        ) from error
    if is_file:
        sa.event.listen(engine, "connect", _use_wal)
    return engine


def _make_room(file: Path) -> None:
    """Make the folder of a SQLite file; in a project's own `.feature_store`, for nobody else to read."""
    if STATE_FOLDER not in file.parts:
        file.parent.mkdir(parents=True, exist_ok=True)
        return
    private_folder(file.parent)
    if file.parent.stat().st_uid == os.getuid():
        private_file(file)


def _use_wal(connection: sqlite3.Connection, _record: object) -> None:
    """Let readers read while somebody writes."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "readonly" in str(error):  # somebody else's file: it can be read as it is
                return
            # SQLite does not wait for the lock that this takes: processes that make the file together meet here.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _create_tables(engine: sa.Engine) -> bool:
    """Make the tables that are missing. Returns whether there is one of rollouts: a registry of an earlier release has
    none, and somebody who may only read it cannot make it.
    """
    # Another process may make a table between the look for it and its making: once for each table at worst.
    for _ in _METADATA.tables:
        with contextlib.suppress(SQLAlchemyError):
            _METADATA.create_all(engine)
            return True
    if not sa.inspect(engine).has_table(_VERSIONS.name):
        _METADATA.create_all(engine)
    return sa.inspect(engine).has_table(_ROLLOUTS.name)


def registry_exists(url: str) -> bool:
    """Whether there may be a registry: False for a SQLite file that is not there. Opening it would make it."""
    with contextlib.suppress(SQLAlchemyError):
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database and "mode=memory" not in url:
            return parsed.database != ":memory:" and Path(parsed.database.removeprefix("file:")).exists()
    return True


def current_author() -> str:
    """Who applies: FEATURE_STORE_AUTHOR, or user@host."""
    named = os.environ.get("FEATURE_STORE_AUTHOR")
    if named:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # the user of a container need not have a name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
