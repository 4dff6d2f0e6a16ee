"""The applied versions of a project's definitions."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import orjson

from feature_store._extras import requires_extra
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.dtypes import from_microseconds, to_microseconds
from feature_store.definitions.pruned import pruned
from feature_store.errors import ConflictError, DefinitionError, NotFoundError, RegistryError

with requires_extra("registry", "registry"):
    import sqlalchemy as sa

    from feature_store.registry.columns import parsed
    from feature_store.registry.database import Database, DuplicateKeyError, ProjectTable
    from feature_store.registry.tables import IDS, ROLLOUTS, VERSIONS

from datetime import datetime

_UNFINISHED, _WITHDRAWN = "unfinished", "withdrawn"


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
    _read: DefinitionSet | None = field(default=None, init=False, repr=False, compare=False)

    def definitions(self, like: DefinitionSet | None = None) -> DefinitionSet:
        """The definitions as they were applied, and their prunings. They are read once for each version object.

        On-demand views come without their functions, unless they are taken over from `like`.

        Args:
            like: definitions that are largely the same, which makes reading fast; see `DefinitionSet.from_document`.

        Raises:
            RegistryError: this release of the library cannot read them.
        """
        if self._read is None:
            object.__setattr__(self, "_read", self._definitions(like))
        assert self._read is not None
        return self._read

    def _definitions(self, like: DefinitionSet | None) -> DefinitionSet:
        try:
            return DefinitionSet.from_document(self.document, like)
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
            RegistryError: this release of the library cannot read them, or a pruning is not of these definitions.
        """
        definitions = self.definitions()
        try:
            return pruned(definitions)
        except (DefinitionError, NotFoundError) as error:
            problem = f"its prunings do not fit, {error.reason}"
            raise RegistryError(f"version {self.version}", problem=problem) from error


@dataclass(frozen=True)
class Rollout:
    """A version that is not fully served.

    Attributes:
        version: its number.
        state: `unfinished`: its apply is under way, or was stopped; `withdrawn`: its apply failed.
        reason: why it was withdrawn.
    """

    version: int
    state: str
    reason: str


class Versions:
    """The versions of one project, and the id of its registry."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project
        self._versions = ProjectTable(database, VERSIONS, project)
        self._ids = ProjectTable(database, IDS, project)
        self._rollouts = ProjectTable(database, ROLLOUTS, project)

    def id(self) -> str:
        """The id of the project's versions, which no other registry has; empty before the first version.

        A registry of an earlier release gets its id at the first call.
        """
        chosen = self._ids.select(self._ids.c.id)
        known = self._ids.first(chosen)
        if known is None and self.head() is not None:
            with contextlib.suppress(DuplicateKeyError), self._database.writing() as connection:
                self._ids.insert(connection, id=secrets.token_hex(16))
            known = self._ids.first(chosen)
        return "" if known is None else str(known.id)

    def latest(self) -> Version | None:
        """The newest version that was not withdrawn, or None before the first apply."""
        newest = self._read(self._newest_first(self._versions.select().where(self._not_withdrawn())).limit(1))
        return newest[0] if newest else None

    def head(self) -> tuple[int, str] | None:
        """The number and digest of the newest version, without reading its document. None before the first apply."""
        numbered = self._versions.select(self._versions.c.version, self._versions.c.digest)
        row = self._versions.first(self._newest_first(numbered.where(self._not_withdrawn())))
        return None if row is None else (row.version, row.digest)

    def version(self, number: int) -> Version:
        """A version by its number.

        Raises:
            NotFoundError: there is none.
        """
        of_number = self._read(self._versions.select().where(self._versions.c.version == number))
        if not of_number:
            raise NotFoundError(f"registry of {self._project}", expected="an applied version", got=str(number))
        return of_number[0]

    def digest(self, number: int) -> str:
        """The digest of a version's definitions; empty when there is no such version."""
        row = self._versions.first(
            self._versions.select(self._versions.c.digest).where(self._versions.c.version == number)
        )
        return "" if row is None else str(row.digest)

    def version_at(self, time: datetime) -> Version | None:
        """The version that was the newest at a time, or None if there was none yet."""
        before = sa.and_(self._versions.c.applied_at <= to_microseconds(time), self._not_withdrawn())
        newest = self._read(self._newest_first(self._versions.select().where(before)).limit(1))
        return newest[0] if newest else None

    def history(self, *, withdrawn: bool = False) -> list[Version]:
        """All versions, the newest first, without the withdrawn ones unless `withdrawn`."""
        chosen = self._versions.select() if withdrawn else self._versions.select().where(self._not_withdrawn())
        return self._read(self._newest_first(chosen))

    def rollouts(self) -> dict[int, Rollout]:
        """The versions that are not fully served: the one whose apply has not finished, and those withdrawn."""
        return {row.version: Rollout(row.version, row.state, row.reason) for row in self._rollouts.rows()}

    def finish(self, version: int) -> None:
        """Record that a version is served."""
        with self._database.writing() as connection:
            self._rollouts.delete(connection, {"version": version})

    def withdraw(self, version: int, reason: str) -> None:
        """Record that a version could not be served. The version before it is the newest again. The number is not used
        again, because rows may be stored under it.
        """
        self._rollouts.put({"version": version}, {"state": _WITHDRAWN, "reason": reason})

    def commit(self, definitions: DefinitionSet, *, base: int | None, author: str) -> Version:
        """Write a new version on top of `base`, the version that it was planned against (None: no version). It is
        unfinished until `finish` says that it is served.

        If the definitions equal the base's, no version is written and the base is returned.

        Raises:
            ConflictError: another process committed a version first; the error names its author.
        """
        document = orjson.dumps(definitions.document, option=orjson.OPT_SORT_KEYS)
        digest = hashlib.sha256(document).hexdigest()
        # Read before the newest: a process that commits in between takes this number, and the insert fails.
        number = self._last_number() + 1
        newest = self.latest()
        if (newest.version if newest else None) != base:
            raise self._conflict(base, newest)
        if newest is not None and newest.digest == digest:
            return newest
        try:
            with self._database.writing() as connection:
                self._versions.insert(
                    connection,
                    version=number,
                    author=author,
                    applied_at=time.time_ns() // 1000,
                    digest=digest,
                    definitions=document.decode(),
                )
                self._rollouts.insert(connection, version=number, state=_UNFINISHED, reason="")
        except DuplicateKeyError:
            raise self._conflict(base, self.latest()) from None
        return self.version(number)

    def _read(self, query: sa.Select[Any]) -> list[Version]:
        return [
            Version(
                row.version,
                row.author,
                from_microseconds(row.applied_at),
                row.digest,
                parsed(f"version {row.version}", row.definitions),
            )
            for row in self._versions.rows(query)
        ]

    def _newest_first(self, query: sa.Select[Any]) -> sa.Select[Any]:
        return query.order_by(self._versions.c.version.desc())

    def _last_number(self) -> int:
        row = self._versions.first(self._newest_first(self._versions.select(self._versions.c.version)))
        return 0 if row is None else int(row.version)

    def _not_withdrawn(self) -> sa.ColumnElement[bool]:
        if not self._rollouts.is_there:
            return sa.true()
        withdrawn = self._rollouts.select(self._rollouts.c.version).where(self._rollouts.c.state == _WITHDRAWN)
        return self._versions.c.version.not_in(withdrawn)

    def _conflict(self, base: int | None, newest: Version | None) -> ConflictError:
        latest = newest.version if newest else "none"
        by = f", by {newest.author} at {newest.applied_at:%Y-%m-%d %H:%M:%S} UTC" if newest else ""
        return ConflictError(
            f"registry of {self._project}",
            problem=f"the newest version is {latest}{by}, but this was planned on version {base or 'none'}",
            hint="plan and apply again",
        )
