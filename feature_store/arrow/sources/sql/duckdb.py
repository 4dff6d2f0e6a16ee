"""DuckDB, by the driver that is a part of its wheel.

The file is opened for reading only. As long as a job has it open, no other process can open it for writing, so that all
processes of a job see one state.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from feature_store._extras import missing_dependency
from feature_store.arrow.sources.sql.dialect import Column, Relation
from feature_store.arrow.sources.sql.file_database import FileDatabase, has_rowid
from feature_store.arrow.sources.sql.session import Session
from feature_store.definitions.sql_source import SqlSource


class DuckDb(FileDatabase):
    """See Dialect."""

    log: ClassVar[str] = ".wal"

    def connect(self, where: str, url: str, folder: Path) -> Session:
        """See Dialect. The URL is `duckdb:///relative.duckdb` or `duckdb:////absolute.duckdb`."""
        path = self.file(where, url, folder)
        try:
            driver: Any = importlib.import_module("adbc_driver_duckdb")
        except ModuleNotFoundError as error:
            raise missing_dependency(error, where) from error
        opened = {"path": str(path), "access_mode": "read_only"}
        arguments: dict[str, Any] = {"driver": driver.driver_path(), "entrypoint": "duckdb_adbc_init"}
        # No transaction is needed, since the file cannot change, and an error would end it.
        arguments |= {"db_kwargs": opened, "autocommit": True}
        session = Session(where, "adbc_driver_manager", arguments)
        session.run("SET TimeZone = 'UTC'")
        return session

    def relation(self, session: Session, source: SqlSource) -> Relation:
        """See Dialect."""
        relation = super().relation(session, source)
        return relation._replace(is_table=not source.is_query and has_rowid(session, relation.text))

    def stream(self, session: Session, relation: Relation, columns: Sequence[Column], conditions: Sequence[str]) -> str:
        """See Dialect. A scan of a table keeps the order of its rows: it is the documented default of DuckDB, which a
        setting can end only for the connection that sets it."""
        if relation.is_table:
            return self.bare(relation, columns, conditions)
        return super().stream(session, relation, columns, conditions)
