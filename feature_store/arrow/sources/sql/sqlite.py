"""SQLite.

SQLite has types of values, not of columns. The type of a column follows from its declaration in the table. A column of
a query, and one whose declared type SQLite does not know, gets the type of its first values.

Times are text in ISO 8601, in UTC unless they have an offset. A window selects whole days of such text, and a day more
on both sides, because texts with offsets do not sort by time. The engine then compares exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import pyarrow as pa

from feature_store.arrow.sources.sql.dialect import Column, Relation
from feature_store.arrow.sources.sql.file_database import FileDatabase, has_rowid
from feature_store.arrow.sources.sql.session import Session
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, from_microseconds
from feature_store.definitions.sql_source import SqlSource

_DAY_US = 86_400_000_000
_SAMPLE = 1000  # values of a column whose type is not declared
# The rules of SQLite for declared types, with those of times and truth first: pattern -> type.
_DECLARED = (
    (re.compile(r"(?i)date|time"), pa.timestamp("us")),
    (re.compile(r"(?i)bool"), pa.bool_()),
    (re.compile(r"(?i)int"), pa.int64()),
    (re.compile(r"(?i)char|clob|text"), pa.string()),
    (re.compile(r"(?i)blob"), pa.binary()),
    (re.compile(r"(?i)real|floa|doub"), pa.float64()),
)
_OF_VALUES = {"integer": pa.int64(), "real": pa.float64(), "text": pa.string(), "blob": pa.binary()}
# The first row of each stream, which is dropped: the driver takes the types of columns from the first rows.
_FIRST = {pa.int64(): "0", pa.bool_(): "0", pa.float64(): "0.0", pa.binary(): "x''"}


class Sqlite(FileDatabase):
    """See Dialect."""

    log: ClassVar[str] = "-wal"

    def connect(self, where: str, url: str, folder: Path) -> Session:
        """See Dialect. The URL is `sqlite:///relative.db` or `sqlite:////absolute.db`."""
        path = self.file(where, url, folder)
        return Session(where, "adbc_driver_sqlite", {"uri": f"file:{quote(str(path))}?mode=ro"})

    def relation(self, session: Session, source: SqlSource) -> Relation:
        """See Dialect."""
        text = self.from_text(source)
        declared = {} if source.is_query else _declared(session, source.table_or_query)
        times = (source.event_timestamp, source.created_timestamp)
        names = session.table(f"SELECT * FROM {text} LIMIT 0").schema.names
        sampled = self._sampled(session, text, [name for name in names if name not in declared])
        columns = []
        for name in names:
            found = declared.get(name) or sampled[name]
            if name in times and (pa.types.is_string(found) or pa.types.is_null(found)):
                found = pa.timestamp("us")
            columns.append(Column(name, self.quoted(name), self.quoted(name), found))
        is_table = not source.is_query and has_rowid(session, text)
        return Relation(text, is_table, tuple(columns), source.event_timestamp, source.created_timestamp)

    def _sampled(self, session: Session, text: str, names: Sequence[str]) -> dict[str, pa.DataType]:
        found = {}
        for name in names:
            column = self.quoted(name)
            rows = f"SELECT {column} AS value FROM {text} WHERE {column} IS NOT NULL LIMIT {_SAMPLE}"
            kinds = session.table(f"SELECT DISTINCT typeof(value) AS kind FROM ({rows})")["kind"].to_pylist()
            number = pa.float64() if set(kinds) == {"integer", "real"} else None
            found[name] = number or (_OF_VALUES[kinds[0]] if len(kinds) == 1 else pa.string() if kinds else pa.null())
        return found

    def window(self, times: TimeRange | None, column: Column | None) -> str:
        """See Dialect."""
        if times is None or column is None or not pa.types.is_timestamp(column.type):
            return ""
        name, parts = self.quoted(column.name), []
        if times.start_us - _DAY_US > MIN_TIMESTAMP_US:
            parts.append(f"{name} >= '{_day(times.start_us - _DAY_US)}'")
        if times.end_us + 2 * _DAY_US <= MAX_TIMESTAMP_US:
            parts.append(f"{name} < '{_day(times.end_us + 2 * _DAY_US)}'")
        return f"({' AND '.join(parts)} OR {name} IS NULL)" if parts else ""

    def is_exact(self, column: Column) -> bool:
        """See Dialect."""
        del column
        return False

    def stream(self, session: Session, relation: Relation, columns: Sequence[Column], conditions: Sequence[str]) -> str:
        """See Dialect."""
        order = "rowid" if relation.is_table else self.sorted_by(relation)
        rows = f"{self.bare(relation, columns, conditions)} ORDER BY {order} LIMIT -1"  # the limit keeps the order
        first = ", ".join(_FIRST.get(column.type, "''") for column in columns) or "1"
        return f"SELECT {first} UNION ALL SELECT * FROM ({rows})"

    def rows(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """See Dialect."""
        first = next(batches, None)
        if first is not None:
            yield first.slice(1)
        yield from batches


def _declared(session: Session, table: str) -> dict[str, pa.DataType]:
    """The types of the columns of a table whose declaration says them."""
    name = table.strip().rpartition(".")[2].replace("'", "''")
    found = session.table(f"SELECT name, type FROM pragma_table_info('{name}')")
    kinds: dict[str, Any] = dict(zip(found["name"].to_pylist(), found["type"].to_pylist(), strict=True))
    types = {}
    for column, kind in kinds.items():
        known = next((wanted for pattern, wanted in _DECLARED if pattern.search(kind)), None)
        if known is not None:
            types[column] = known
    return types


def _day(time_us: int) -> str:
    return from_microseconds(min(max(time_us, MIN_TIMESTAMP_US), MAX_TIMESTAMP_US)).date().isoformat()
