"""Reads rows of a table or query: a description in plain data, which other processes get, and its reading."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from feature_store.arrow.batch_sizes import schema_row_bytes, split
from feature_store.arrow.plain import plain
from feature_store.arrow.scalars import ARROW
from feature_store.arrow.sources.sql.dialect import Column, Dialect, Relation
from feature_store.arrow.sources.sql.drivers import dialect_of
from feature_store.arrow.sources.sql.seen import Fingerprint, fingerprint
from feature_store.arrow.sources.sql.session import Session
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.dtypes import Timestamp
from feature_store.errors import DataError
from feature_store.project.connections import connection_url


class Place(NamedTuple):
    """Where the rows are, as plain data without secrets.

    Attributes:
        where: names the source in errors.
        connection: the name of the connection.
        folder: the folder of feature_store.yaml.
    """

    where: str
    connection: str
    folder: str

    def dialect(self) -> tuple[Dialect, str]:
        """The dialect of the connection's database, and the URL, which this process looks up.

        Raises:
            ConfigError: this process does not know the connection, or no dialect has the URL's scheme.
        """
        url = connection_url(self.connection, Path(self.folder))
        return dialect_of(url, self.connection), url

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[Dialect, str, Session]]:
        """A new connection, for as long as the block runs."""
        dialect, url = self.dialect()
        session = dialect.connect(self.where, url, Path(self.folder))
        try:
            yield dialect, url, session
        finally:
            session.close()


class Since(NamedTuple):
    """A condition for rows that were not read: their mark is at least `mark`.

    Attributes:
        mark: see `seen.Seen`.
        nulls: whether rows without a mark count as not read, too.
    """

    mark: int | str
    nulls: bool


class Reading(NamedTuple):
    """How to read the rows of a version of a source, as plain data.

    Attributes:
        place: where the rows are.
        relation: the table or query.
        snapshot: the id of the snapshot to read; None: there is none.
        found: the fingerprint that the rows must have, if there is no snapshot.
    """

    place: Place
    relation: Relation
    snapshot: str | None
    found: Fingerprint | None

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return pa.schema([pa.field(column.name, column.type) for column in self.relation.columns])

    def row_bytes(self, columns: Sequence[str]) -> int:
        """The approximate size in memory of a row of some columns, in bytes."""
        return schema_row_bytes(pa.schema([self.schema.field(name) for name in dict.fromkeys(columns)]))

    def batches(
        self, columns: Sequence[str], times: TimeRange | None, *, since: Since | None = None, blocks: Any = None
    ) -> Iterator[pa.RecordBatch]:
        """Columns of the rows, by a connection of its own.

        Args:
            columns: names of columns.
            times: see OfflineSource.batches.
            since: leaves out rows that were read before.
            blocks: the blocks of the table to read; see `Dialect.blocks`.

        Raises:
            DataError: the rows cannot be read, or changed since the source was opened.
            ConfigError: this process does not know the connection.
        """
        wanted = [self._column(name) for name in dict.fromkeys(columns)]
        with self.place.opened() as (dialect, url, session):
            dialect.join(session, self.snapshot)
            self._check(session, dialect, url)
            conditions = [dialect.window(times, times and self.relation.column(times.column))]
            mark = self.relation.mark
            if since is not None and mark is not None:
                conditions.append(dialect.since(since.mark, mark, nulls=since.nulls))
            if blocks is not None:
                conditions.append(blocks.condition())
            statement = dialect.stream(session, self.relation, wanted, conditions)
            for batch in dialect.rows(session.batches(statement, dialect.options)):
                yield from split(self._converted(batch, wanted))
            if not dialect.keeps_transactions:
                self._check(session, dialect, url)

    def count_rows(self, times: TimeRange) -> int | None:
        """See OfflineSource.count."""
        column = self.relation.column(times.column)
        with self.place.opened() as (dialect, _, session):
            if column is None or not dialect.is_exact(column):
                return None
            dialect.join(session, self.snapshot)
            condition = dialect.window(times, column)
            where = f" WHERE {condition}" if condition else ""
            return int(session.row(f"SELECT count(*) FROM {self.relation.text}{where}")[0])

    def _check(self, session: Session, dialect: Dialect, url: str) -> None:
        """Raise a DataError if the rows are not those of the version that was opened."""
        if self.found is None:
            return
        database = dialect.version(url, Path(self.place.folder))
        if fingerprint(session, dialect, self.relation, database) != self.found:
            problem = "the rows changed after the source was opened, and the database gives no snapshot"
            raise DataError(self.place.where, problem=problem, hint="run the job again")

    def _column(self, name: str) -> Column:
        column = self.relation.column(name)
        if column is None:
            known = ", ".join(column.name for column in self.relation.columns)
            raise DataError(f"{self.place.where}: column {name}", expected="a column", got="none", hint=known)
        return column

    def _converted(self, batch: pa.RecordBatch, columns: Sequence[Column]) -> pa.RecordBatch:
        where = self.place.where
        if not columns:
            return batch.select([])
        arrays = [_as_type(values, column, where) for values, column in zip(batch.columns, columns, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, [column.name for column in columns])


def _as_type(values: pa.Array, column: Column, where: str) -> pa.Array:
    """Values as the driver returns them, in the plain type of their column.

    Raises:
        DataError: a value is not of the type.
    """
    found = plain(values.storage if isinstance(values.type, pa.OpaqueType) else values)
    if found.type == column.type:
        return found
    if found.null_count == len(found):
        return pa.nulls(len(found), column.type)
    where = f"{where}: column {column.name}"
    if pa.types.is_timestamp(column.type) and pa.types.is_string(found.type):
        times, bad = ARROW[Timestamp].fit_csv(found, Timestamp)
        if not bad.any():
            return times.cast(column.type)
        raise DataError(where, problem="a value is not a time in ISO 8601", hint="correct it, or convert it in a query")
    try:
        return found.cast(column.type)
    except pa.ArrowException as error:
        hint = "a column has values of one type: use CAST in a query"
        raise DataError(
            where, expected=f"values of {column.type}", got=str(error).partition("\n")[0], hint=hint
        ) from None
