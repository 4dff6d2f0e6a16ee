"""Documents that a project keeps beside its versions: importances, prune plans, and the last report of each kind."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from feature_store.definitions.dtypes import from_microseconds
from feature_store.registry.columns import parsed
from feature_store.registry.database import Database, ProjectTable
from feature_store.registry.tables import PRUNING, REPORTS


@dataclass(frozen=True)
class PruneRecord:
    """Importances or a prune plan, as stored.

    Attributes:
        kind: `importances` or `plan`.
        id: of the document, unique within its kind.
        service: the service.
        author: the user who stored it.
        made_at: when it was last stored, UTC.
        document: the document's text.
    """

    kind: str
    id: str
    service: str
    author: str
    made_at: datetime
    document: str


@dataclass(frozen=True)
class KeptReport:
    """The last report of a kind on a service: by whom, when (UTC), and its content as JSON types."""

    kind: str
    service: str
    author: str
    made_at: datetime
    document: dict[str, Any]


class PruneRecords:
    """The importances and prune plans of one project."""

    def __init__(self, database: Database, project: str) -> None:
        self._table = ProjectTable(database, PRUNING, project)

    def keep(self, kind: str, service: str, id: str, document: bytes, author: str) -> None:
        """Keep a document. It replaces one of the same kind and id."""
        about = {"service": service, "author": author, "made_at": time.time_ns() // 1000, "document": document.decode()}
        self._table.put({"kind": kind, "id": id}, about)

    def of(self, kind: str, service: str | None = None) -> list[PruneRecord]:
        """The documents of a kind, of one service or of all, the newest first."""
        chosen = self._table.select().where(self._table.c.kind == kind)
        if service is not None:
            chosen = chosen.where(self._table.c.service == service)
        return [
            PruneRecord(row.kind, row.id, row.service, row.author, from_microseconds(row.made_at), row.document)
            for row in self._table.rows(chosen.order_by(self._table.c.made_at.desc()))
        ]


class Reports:
    """The last report of each kind on each service of one project."""

    def __init__(self, database: Database, project: str) -> None:
        self._table = ProjectTable(database, REPORTS, project)

    def keep(self, kind: str, service: str, document: dict[str, Any], author: str) -> None:
        """Keep a report. It replaces the last one of that kind on the service."""
        about = {"author": author, "made_at": time.time_ns() // 1000, "document": orjson.dumps(document).decode()}
        self._table.put({"kind": kind, "service": service}, about)

    def of(self, kind: str) -> dict[str, KeptReport]:
        """The last report of a kind on each service that has one, by service."""
        return {
            row.service: KeptReport(
                row.kind,
                row.service,
                row.author,
                from_microseconds(row.made_at),
                parsed(f"{row.kind} report of {row.service}", row.document),
            )
            for row in self._table.rows(self._table.select().where(self._table.c.kind == kind))
        }
