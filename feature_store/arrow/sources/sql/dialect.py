"""What differs between databases: the driver, quoted names, times in statements, types, snapshots and order.

`DIALECTS` of drivers.py maps the scheme of a connection's URL to a dialect. PostgreSQL, DuckDB and SQLite have dialects
of their own and are tested. The plain dialect uses SQL that all databases share; it is not tested with the servers that
it names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from feature_store.arrow.plain import plain_type
from feature_store.arrow.sources.sql.session import Session
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, from_microseconds
from feature_store.definitions.sql_source import SqlSource

_DAY_US = 86_400_000_000


class Column(NamedTuple):
    """A column of a source.

    Attributes:
        name: the name in the database.
        expression: the SQL that reads it.
        order: the SQL that sorts by it.
        type: its Arrow type, which is plain. Values that arrive in another type are converted to it.
    """

    name: str
    expression: str
    order: str
    type: pa.DataType


class Relation(NamedTuple):
    """A table or query as a part of statements.

    Attributes:
        text: what stands after FROM.
        is_table: whether it is a table whose rows have an order in storage.
        columns: its columns.
        event, created: the names of the columns of times. Created may be None.
    """

    text: str
    is_table: bool
    columns: tuple[Column, ...]
    event: str
    created: str | None

    def column(self, name: str) -> Column | None:
        """The column of a name, or None."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def times(self) -> tuple[Column, ...]:
        """The columns of times that exist."""
        found = [self.column(name) for name in (self.event, self.created) if name is not None]
        return tuple(column for column in found if column is not None)

    @property
    def mark(self) -> Column | None:
        """The column by which rows are known to be new: the created timestamp, else the event timestamp."""
        return self.column(self.created or self.event)


class Dialect:
    """The plain dialect, for databases without a dialect of their own.

    Attributes:
        has_snapshot: whether all reads of an open source see one snapshot.
        keeps_transactions: whether the statements of one transaction see one state of the database.
        options: options of the driver for statements that stream rows.
    """

    has_snapshot: ClassVar[bool] = False
    keeps_transactions: ClassVar[bool] = False
    options: ClassVar[Mapping[str, str]] = {}

    def __init__(self, module: str = "", argument: str = "uri") -> None:
        self._module, self._argument = module, argument

    # -- connections ------------------------------------------------------------------------------------------------

    def connect(self, where: str, url: str, folder: Path) -> Session:
        """A new connection.

        Args:
            where: names the source in errors.
            url: the URL.
            folder: the folder that the paths of files are relative to.
        """
        del folder
        return Session(where, self._module, {self._argument: url})

    def begin(self, session: Session) -> str | None:
        """Begin the transaction that an open source holds. Returns the id of its snapshot, if others can join it."""
        del session
        return None

    def join(self, session: Session, snapshot: str | None) -> None:
        """Begin a transaction that reads rows of a snapshot."""

    def version(self, url: str, folder: Path) -> str:
        """What changes with the whole database, for databases that are files."""
        del url, folder
        return ""

    def changes(self, relation: Relation) -> str:
        """An aggregate that changes with the rows of a relation, beside their number and times. It is a text."""
        del relation
        return "''"

    # -- texts of statements ----------------------------------------------------------------------------------------

    def quoted(self, name: str) -> str:
        """A name of a table or column as an identifier."""
        doubled = name.replace('"', '""')
        return f'"{doubled}"'

    def literal(self, value: int | str, column: Column) -> str:
        """A value of a column in a statement. A time is given in microseconds since 1970."""
        if isinstance(value, str):
            doubled = value.replace("'", "''")
            return f"'{doubled}'"
        found = column.type
        if pa.types.is_date(found):
            return f"DATE '{from_microseconds(value - value % _DAY_US).date().isoformat()}'"
        if not pa.types.is_timestamp(found):
            return str(int(value))
        time = from_microseconds(value).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
        return f"TIMESTAMP '{time}'" if found.tz is None else self.instant(time)

    def instant(self, utc: str) -> str:
        """A time with a time zone in a statement, of a text in UTC."""
        return f"CAST('{utc}+00:00' AS TIMESTAMP WITH TIME ZONE)"

    def window(self, times: TimeRange | None, column: Column | None) -> str:
        """The condition for rows whose time is in a range or null. An empty text: all rows."""
        if times is None or column is None:
            return ""
        if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
            return ""
        name, parts = self.quoted(column.name), []
        start_us, end_us = times.start_us, times.end_us
        if pa.types.is_date(column.type):  # a date is at or after a time if it is at or after the next midnight
            start_us, end_us = start_us - start_us % -_DAY_US, end_us - end_us % -_DAY_US
        if start_us > MIN_TIMESTAMP_US:
            parts.append(f"{name} >= {self.literal(min(start_us, MAX_TIMESTAMP_US), column)}")
        if end_us <= MAX_TIMESTAMP_US:
            parts.append(f"{name} < {self.literal(max(end_us, MIN_TIMESTAMP_US), column)}")
        return f"({' AND '.join(parts)} OR {name} IS NULL)" if parts else ""

    def is_exact(self, column: Column) -> bool:
        """Whether `window` selects exactly the rows in the range, and those without a time."""
        return bool(pa.types.is_timestamp(column.type) or pa.types.is_date(column.type))

    def since(self, mark: int | str, column: Column, *, nulls: bool) -> str:
        """The condition for rows whose mark is at least a value; with `nulls`, also for rows without one."""
        name = self.quoted(column.name)
        condition = f"{name} >= {self.literal(mark, column)}"
        return f"({condition} OR {name} IS NULL)" if nulls else condition

    def stream(self, session: Session, relation: Relation, columns: Sequence[Column], conditions: Sequence[str]) -> str:
        """The statement that reads columns of the rows, in the order of the source. The session runs it next.

        SQL has no order of rows. The rows are sorted by their times, then by all other columns, so that two reads of a
        snapshot give the same order.
        """
        del session
        return f"{self.bare(relation, columns, conditions)} ORDER BY {self.sorted_by(relation)}"

    def rows(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows of the source in the result of the statement of `stream`."""
        return batches

    def bare(self, relation: Relation, columns: Sequence[Column], conditions: Sequence[str]) -> str:
        """The statement without an order."""
        wanted = ", ".join(column.expression for column in columns) or "1"
        where = " AND ".join(filter(None, conditions))
        return f"SELECT {wanted} FROM {relation.text}{f' WHERE {where}' if where else ''}"

    def sorted_by(self, relation: Relation) -> str:
        """All columns, those of times first."""
        columns = dict.fromkeys([*relation.times, *relation.columns])
        return ", ".join(column.order for column in columns)

    # -- tables and columns -----------------------------------------------------------------------------------------

    def relation(self, session: Session, source: SqlSource) -> Relation:
        """The table or query of a source, with its columns.

        Raises:
            SqlError: it does not exist, or the query is wrong.
        """
        text = self.from_text(source)
        return Relation(text, False, self.columns(session, text), source.event_timestamp, source.created_timestamp)

    def columns(self, session: Session, text: str) -> tuple[Column, ...]:
        """The columns of a table or query."""
        schema = session.table(f"SELECT * FROM {text} WHERE 1 = 0").schema
        return tuple(self._plain_column(field) for field in schema)

    def _plain_column(self, field: pa.Field) -> Column:
        name = self.quoted(field.name)
        return Column(field.name, name, name, plain_type(field.type))

    def from_text(self, source: SqlSource) -> str:
        """What stands after FROM: the quoted name of a table, or the query in parentheses."""
        if source.is_query:
            query = source.table_or_query.strip().rstrip(";")
            return f"(\n{query}\n) AS {self.quoted('source')}"  # on lines of its own: it may end with a comment
        return ".".join(self.quoted(part) for part in source.table_or_query.strip().split("."))

    def blocks(self, session: Session, relation: Relation, most_rows: int) -> list[Any]:
        """Parts of a table that can be read apart from each other, in order. An empty list: it cannot be divided."""
        del session, relation, most_rows
        return []
