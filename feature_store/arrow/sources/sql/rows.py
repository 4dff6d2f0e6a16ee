"""SqlRows: the rows of a database at one version, for jobs on both engines."""

from __future__ import annotations

import contextlib
import hashlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from feature_store.arrow.sources.source import OfflineSource, Unread
from feature_store.arrow.sources.sql.dialect import Relation
from feature_store.arrow.sources.sql.reading import Place, Reading, Since
from feature_store.arrow.sources.sql.seen import Fingerprint, Seen, fingerprint, rows_before, seen
from feature_store.arrow.sources.sql.session import Session, SqlError
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.sql_source import SqlSource
from feature_store.errors import DataError


@dataclass(frozen=True)
class SqlPiece:
    """Some rows of a database; see Piece. It looks up the URL of its connection in the process that reads it.

    Attributes:
        reading: how to read the source.
        rows, first, row_bytes: see Piece. `rows` may be more than there are.
        blocks: the blocks of the table to read, or None.
        since: leaves out rows that were read, or None.
        held: keeps the snapshot in the process that opened the source. Other processes do not get it.
    """

    reading: Reading
    rows: int
    first: int
    row_bytes: int
    blocks: Any = None
    since: Since | None = None
    held: Any = field(default=None, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"held": None}

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See Piece."""
        yield from self.reading.batches(columns, times, since=self.since, blocks=self.blocks)


class SqlRows(OfflineSource):
    """The rows of a table or query; see OfflineSource.

    The connection stays open, and with it the snapshot, until the object is no longer used.

    Args:
        place: where the rows are.
        source: the definition.

    Raises:
        DataError: the database cannot be reached, or the table or query is wrong.
        ConfigError: this process does not know the connection.
    """

    def __init__(self, place: Place, source: SqlSource) -> None:
        self.where = place.where
        self._dialect, self._url = place.dialect()
        self._folder = Path(place.folder)
        self._session = self._dialect.connect(place.where, self._url, self._folder)
        self._held = _Held(self._session)
        with _closed_on_failure(self._session):
            snapshot = self._dialect.begin(self._session)
            relation = self._dialect.relation(self._session, source)
            _refuse_repeated(self.where, relation)
            self._found = self._fingerprint(relation)
        self.total = self._found.rows
        self._reading = Reading(place, relation, snapshot, None if self._dialect.has_snapshot else self._found)
        self.schema = self._reading.schema
        about = repr([relation.text, [(name, str(kind)) for name, _, _, kind in relation.columns], tuple(self._found)])
        self.version = hashlib.sha256(about.encode()).hexdigest()[:16]

    @classmethod
    def open(cls, source: SqlSource, folder: Path) -> Self:
        """See OfflineSource. The database counts the rows and finds their first and last times."""
        return cls(_place(source, folder), source)

    @classmethod
    def exists(cls, source: SqlSource, folder: Path) -> bool:
        """See OfflineSource: whether the table, or the tables of the query, exist."""
        place = _place(source, folder)
        with place.opened() as (dialect, _, session):
            try:
                dialect.relation(session, source)
            except SqlError as error:
                if error.is_missing_table:
                    return False
                raise
        return True

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See OfflineSource. The iterator keeps this object, and with it the snapshot."""
        yield from self._reading.batches(columns, times)

    def pieces(self, columns: Sequence[str], times: TimeRange | None, *, most_bytes: int) -> list[SqlPiece]:
        """See OfflineSource. A table of PostgreSQL is divided by its blocks; other rows are one piece."""
        del times  # only the values of a block show whether it has rows in the range
        row_bytes = self._reading.row_bytes(columns)
        whole = SqlPiece(self._reading, self._found.rows, 0, row_bytes, held=self._held)
        with self._reading.place.opened() as (dialect, _, session):
            dialect.join(session, self._reading.snapshot)
            parts = dialect.blocks(session, self._reading.relation, max(1, most_bytes // row_bytes))
        pieces, first = [], 0
        for part in parts:
            pieces.append(SqlPiece(self._reading, part.rows, first, row_bytes, part, held=self._held))
            first += part.rows
        return pieces or [whole]

    def count(self, times: TimeRange) -> int | None:
        """See OfflineSource."""
        return self._reading.count_rows(times)

    def unread(self, known: bytes) -> Unread:
        """See OfflineSource, and `seen.py`."""
        relation, session = self._reading.relation, self._session
        now = seen(session, self._dialect, relation, self._found, self.version)
        before = Seen.of(known)
        if before is not None and before.version == self.version:
            return Unread(now.document(), ())
        since, column = None, relation.mark
        if before is not None and before.mark is not None and column is not None:
            is_late = rows_before(session, self._dialect, relation, column, before.mark) > before.before
            since = None if is_late else Since(before.mark, nulls=now.without != before.without)
        row_bytes = self._reading.row_bytes(self.schema.names)
        piece = SqlPiece(self._reading, self._found.rows, 0, row_bytes, since=since, held=self._held)
        return Unread(now.document(), (piece,))

    def _fingerprint(self, relation: Relation) -> Fingerprint:
        database = self._dialect.version(self._url, self._folder)
        return fingerprint(self._session, self._dialect, relation, database)


class _Held:
    """Keeps a connection open for as long as it is used."""

    def __init__(self, session: Session) -> None:
        weakref.finalize(self, session.close)


@contextlib.contextmanager
def _closed_on_failure(session: Session) -> Iterator[None]:
    """A block whose failure closes a connection at once: its error, and with it the traceback, may be kept."""
    try:
        yield
    except BaseException:
        session.close()
        raise


def _refuse_repeated(where: str, relation: Relation) -> None:
    """Raise a DataError if two columns have the same name."""
    names = [column.name for column in relation.columns]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise DataError(
            where, problem=f"two columns of the name {repeated}", hint="name each column of the query, by AS"
        )


def _place(source: SqlSource, folder: Path) -> Place:
    return Place(f"source {source.name}", source.connection, str(folder))
