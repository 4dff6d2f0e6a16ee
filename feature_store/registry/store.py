"""The registry of one project: its versions, and what is kept beside them. SQLite unless the URL says otherwise.

Each kind of row has its own module: `versions.py`, `materialized.py`, `runs.py` and `documents.py`, over `database.py`.
"""

from __future__ import annotations

import getpass
import os
import socket
from typing import Any

from feature_store._extras import requires_extra

with requires_extra("registry", "registry"):
    import sqlalchemy as sa

    from feature_store.registry.database import Database, registry_exists
    from feature_store.registry.documents import KeptReport, PruneRecord, PruneRecords, Reports
    from feature_store.registry.materialized import MaterializedIntervals
    from feature_store.registry.runs import Runs
    from feature_store.registry.tables import METADATA
    from feature_store.registry.versions import Rollout, Version, Versions

from feature_store._intervals import Interval

__all__ = ["KeptReport", "PruneRecord", "Registry", "Rollout", "Version", "current_author", "registry_exists"]


class Registry(Versions):
    """One project's registry.

    Opening a database of an older release migrates its tables (`migrations/`).

    Args:
        url: a SQLAlchemy URL.
        project: the project's name.

    Attributes:
        runs: the last scheduled run of each view.

    Raises:
        RegistryError: the database cannot be opened.
        SchemaVersionError: a newer release of the library has migrated the database.
        MissingDependencyError: the database's driver is not installed.
    """

    def __init__(self, url: str, project: str) -> None:
        super().__init__(Database(url), project)
        self._intervals = MaterializedIntervals(self._database, project)
        self._prune_records = PruneRecords(self._database, project)
        self._reports = Reports(self._database, project)
        self.runs = Runs(self._database, project)

    @property
    def shown_url(self) -> str:
        """The URL of the database, without its password."""
        return self._database.shown_url

    @property
    def schema(self) -> str:
        """The schema version of the database's tables, such as `0002`."""
        return self._database.schema

    def note_materialized(self, view: str, start_us: int, end_us: int) -> None:
        """Record that `[start_us, end_us)` of a view was materialized, into any online store."""
        self._intervals.add(view, start_us, end_us)

    def materialized(self, view: str) -> list[Interval]:
        """The materialized intervals of a view, of all online stores."""
        return self._intervals.of(view)

    def materialized_had_it_stayed(self, view: str) -> list[Interval]:
        """The intervals to backfill for a view that was dropped and is restored: its own, and those of other views
        after its last end. Empty if the view was never materialized."""
        return self._intervals.had_it_stayed(view)

    def keep_prune_record(self, kind: str, service: str, id: str, document: bytes, author: str) -> None:
        """Keep importances or a prune plan. It replaces one of the same kind and id."""
        self._prune_records.keep(kind, service, id, document, author)

    def prune_records(self, kind: str, service: str | None = None) -> list[PruneRecord]:
        """The documents of a kind, of one service or of all, the newest first."""
        return self._prune_records.of(kind, service)

    def keep_report(self, kind: str, service: str, document: dict[str, Any], author: str) -> None:
        """Keep a report on a service. It replaces the last one of that kind."""
        self._reports.keep(kind, service, document, author)

    def reports(self, kind: str) -> dict[str, KeptReport]:
        """The last report of a kind on each service that has one, by service."""
        return self._reports.of(kind)

    def teardown(self) -> None:
        """Delete every row of this project, and of no other."""
        with self._database.writing() as connection:
            for table in METADATA.sorted_tables:
                connection.execute(sa.delete(table).where(table.c.project == self._project))

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def current_author() -> str:
    """The author of an apply: FEATURE_STORE_AUTHOR, else user@host."""
    named = os.environ.get("FEATURE_STORE_AUTHOR")
    if named:
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # the user of a container may have no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
