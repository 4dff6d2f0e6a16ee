"""Which rows a job has read. The online store keeps this in the document of `OfflineSource.unread`.

Rows are known to be new by their *mark*: the created timestamp, or the event timestamp of a source without one. A job
records the newest mark that it saw and the number of rows with an earlier one. The next job reads the rows from that
mark on. If there are more rows with an earlier mark than before, some came late, and all rows count as not read.
"""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

import pyarrow as pa

from feature_store.arrow.sources.sql.dialect import Column, Dialect, Relation
from feature_store.arrow.sources.sql.session import Session
from feature_store.definitions.dtypes import MIN_TIMESTAMP_US


class Fingerprint(NamedTuple):
    """What is compared to see whether rows changed.

    Attributes:
        rows: the number of rows.
        times: for each column of times: how many rows have one, the earliest and the latest.
        changes: see `Dialect.changes`.
        database: see `Dialect.version`.
    """

    rows: int
    times: tuple[tuple[int, int | str | None, int | str | None], ...]
    changes: str
    database: str


class Seen(NamedTuple):
    """The rows that a job has read.

    Attributes:
        version: the version of the source.
        mark: the newest mark, or None.
        before: the number of rows with an earlier mark.
        without: the number of rows without a mark.
    """

    version: str
    mark: int | str | None
    before: int
    without: int

    def document(self) -> bytes:
        """As bytes, for `of`."""
        return json.dumps(self).encode()

    @classmethod
    def of(cls, document: bytes) -> Seen | None:
        """The contents of a document. None: it is empty, or not of this format."""
        try:
            found = json.loads(document)
        except ValueError:
            return None
        match found:
            case [str(version), int() | str() | None as mark, int(before), int(without)]:
                return cls(version, mark, before, without)
        return None


def fingerprint(session: Session, dialect: Dialect, relation: Relation, database: str) -> Fingerprint:
    """The fingerprint of the rows. The database reads the times of all rows."""
    counts = [f"count({column.order}), min({column.order}), max({column.order})" for column in relation.times]
    wanted = ", ".join(["count(*)", dialect.changes(relation), *counts])
    rows, changes, *values = _values(session, f"SELECT {wanted} FROM {relation.text}")
    times = tuple((int(values[i]), values[i + 1], values[i + 2]) for i in range(0, len(values), 3))
    return Fingerprint(int(rows), times, str(changes), database)


def seen(session: Session, dialect: Dialect, relation: Relation, found: Fingerprint, version: str) -> Seen:
    """The rows of a source, which a job reads now."""
    column = relation.mark
    if column is None or not found.times:
        return Seen(version, None, 0, 0)
    with_mark, _, newest = found.times[-1]
    if isinstance(newest, int) and pa.types.is_temporal(column.type):
        now_us = time.time_ns() // 1000
        # After a mark in the future, every row would come late. `infinity` of PostgreSQL arrives as a time before all.
        newest = newest if MIN_TIMESTAMP_US <= newest <= now_us else now_us
    before = 0 if newest is None else rows_before(session, dialect, relation, column, newest)
    return Seen(version, newest, before, found.rows - with_mark)


def rows_before(session: Session, dialect: Dialect, relation: Relation, column: Column, mark: int | str) -> int:
    """The number of rows with an earlier mark."""
    condition = f"{column.order} < {dialect.literal(mark, column)}"
    return int(session.row(f"SELECT count(*) FROM {relation.text} WHERE {condition}")[0])


def _values(session: Session, statement: str) -> list[Any]:
    """The first row of a result. Times are in microseconds since 1970, other values but integers are text."""
    return [_value(column.combine_chunks()) for column in session.table(statement).columns]


def _value(values: pa.Array) -> int | str | None:
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        zone = values.type.tz if pa.types.is_timestamp(values.type) else None
        values = values.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64(), safe=False)
    found = values[0].as_py()
    return found if found is None or isinstance(found, int) else str(found)
