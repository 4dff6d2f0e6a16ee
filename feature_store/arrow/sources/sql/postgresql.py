"""PostgreSQL.

Rows are streamed by COPY in its binary format, which is what ADBC uses for a statement without parameters. An open
source holds a read-only transaction and exports its snapshot. Every further connection, also on an executor of Spark,
joins the snapshot, so that all reads of a job see the same rows.

The rows of a table come in the order of storage (`ctid`), in which a sequential scan returns them. It needs no sort.
Where the database would rather use an index for a window, the rows are sorted by `ctid`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import pyarrow as pa

from feature_store.arrow.plain import plain_type
from feature_store.arrow.sources.sql.dialect import Column, Dialect, Relation
from feature_store.arrow.sources.sql.session import Session
from feature_store.definitions.sql_source import SqlSource

_SNAPSHOT = re.compile(r"[0-9A-Fa-f-]+")
_NO_COPY = {"adbc.postgresql.use_copy": "false"}  # COPY takes neither EXPLAIN nor SHOW
# A scan of all blocks in the order of storage, from the first block on, by one process.
_IN_ORDER = {"synchronize_seqscans": "off", "max_parallel_workers_per_gather": "0"}
_NO_INDEX = dict.fromkeys(("enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan"), "off")
_TID_RANGE_SCANS = 140_000  # the first version of the server that reads a range of blocks
_MOST_DIGITS = 38  # of a decimal128
_ANY_RANGE = 64  # ranges of blocks that one statement counts
# Types by PostgreSQL's name -> the type to cast to. Other types that Arrow does not have are read as text.
_CASTS = {"oid": ("int8", pa.int64()), "money": ("numeric::float8", pa.float64())}
_UNSORTED = ("json", "point", "xml")  # types without an order


class Blocks(NamedTuple):
    """A range of the blocks of a table.

    Attributes:
        start, end: the numbers of the blocks, `[start, end)`. `end` is None for the last range.
        rows: the number of rows.
    """

    start: int
    end: int | None
    rows: int

    def condition(self) -> str:
        """The condition for the rows in these blocks."""
        below = "" if self.end is None else f" AND ctid < '({int(self.end)},0)'::tid"
        return f"ctid >= '({int(self.start)},0)'::tid{below}"


class PostgreSql(Dialect):
    """See Dialect."""

    has_snapshot: ClassVar[bool] = True
    keeps_transactions: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__("adbc_driver_postgresql")

    def connect(self, where: str, url: str, folder: Path) -> Session:
        """See Dialect. The scheme may name a driver, as SQLAlchemy's URLs do."""
        return super().connect(where, re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url), folder)

    def begin(self, session: Session) -> str | None:
        """See Dialect."""
        session.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return str(session.row("SELECT pg_export_snapshot()")[0])

    def join(self, session: Session, snapshot: str | None) -> None:
        """See Dialect."""
        session.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if snapshot is not None and _SNAPSHOT.fullmatch(snapshot):
            session.run(f"SET TRANSACTION SNAPSHOT '{snapshot}'")

    def changes(self, relation: Relation) -> str:
        """See Dialect. Every insert and update of a table changes the sum of the ids of the rows' transactions."""
        return "sum(xmin::text::int8)::text" if relation.is_table else super().changes(relation)

    def instant(self, utc: str) -> str:
        """See Dialect."""
        return f"TIMESTAMPTZ '{utc}+00:00'"

    def relation(self, session: Session, source: SqlSource) -> Relation:
        """See Dialect."""
        found = super().relation(session, source)
        return found._replace(is_table=not source.is_query and self._has_storage(session, found.text))

    def _has_storage(self, session: Session, text: str) -> bool:
        """Whether a name is that of a table or a materialized view: not a view, a partitioned or a foreign table."""
        name = text.replace("'", "''")
        return session.row(f"SELECT relkind::text FROM pg_class WHERE oid = '{name}'::regclass")[0] in ("r", "m")

    def columns(self, session: Session, text: str) -> tuple[Column, ...]:
        """See Dialect."""
        return tuple(self._column(field) for field in session.schema(f"SELECT * FROM {text}"))

    def _column(self, field: pa.Field) -> Column:
        name, kind = self.quoted(field.name), _named(field)
        found, brackets = field.type, ""
        if pa.types.is_list(found):
            found, brackets = found.value_type, "[]"
            kind = kind.removeprefix("_")
        order = f"{name}::text" if kind in _UNSORTED else name
        cast, wanted = _CASTS.get(kind, ("", plain_type(found)))
        if not cast and isinstance(found, pa.OpaqueType):
            cast, wanted = _numeric(field, bool(brackets)) if kind == "numeric" else ("text", pa.string())
            order = name if kind == "numeric" else f"{name}::text{brackets}"
        expression = f"{name}::{cast}{brackets} AS {name}" if cast else name
        return Column(field.name, expression, order, pa.list_(wanted) if brackets else wanted)

    def stream(self, session: Session, relation: Relation, columns: Sequence[Column], conditions: Sequence[str]) -> str:
        """See Dialect."""
        if not relation.is_table:
            return super().stream(session, relation, columns, conditions)
        statement = self.bare(relation, columns, conditions)
        _set(session, _IN_ORDER)
        plan = session.row(f"EXPLAIN (FORMAT JSON) {statement}", _NO_COPY)[0]
        if _uses_index(plan):
            return f"{statement} ORDER BY ctid"
        _set(session, _NO_INDEX)
        return statement

    def blocks(self, session: Session, relation: Relation, most_rows: int) -> list[Blocks]:
        """See Dialect."""
        if not relation.is_table:
            return []
        name = relation.text.replace("'", "''")
        version, size, block, rows = session.row(
            f"SELECT current_setting('server_version_num')::int8, pg_relation_size('{name}'::regclass),"
            f" current_setting('block_size')::int8, (SELECT count(*) FROM {relation.text})"
        )
        count = size // block
        if version < _TID_RANGE_SCANS or count < 2:
            return []
        step = max(1, most_rows * count // max(rows, 1))
        starts = range(0, count, step)
        ranges = [Blocks(start, start + step if start + step < count else None, 0) for start in starts]
        _set(session, _NO_INDEX)
        found: list[Blocks] = []
        for first in range(0, len(ranges), _ANY_RANGE):
            some = ranges[first : first + _ANY_RANGE]
            counts = session.row(
                "SELECT " + ", ".join(f"(SELECT count(*) FROM {relation.text} WHERE {one.condition()})" for one in some)
            )
            found += [one._replace(rows=rows) for one, rows in zip(some, counts, strict=True)]
        return found


def _set(session: Session, settings: Mapping[str, str]) -> None:
    """Change settings until the end of the transaction."""
    session.row("SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items()))


def _named(field: pa.Field) -> str:
    """PostgreSQL's name of a column's type."""
    metadata: Mapping[bytes, bytes] = field.metadata or {}
    return metadata.get(b"POSTGRESQL:type", b"").decode(errors="replace").strip("'")


def _numeric(field: pa.Field, in_list: bool) -> tuple[str, pa.DataType]:
    """The cast and the type of a `numeric`: exact if it has a precision of at most 38 digits, else a double."""
    metadata: Mapping[bytes, bytes] = field.metadata or {}
    modifier = int(metadata.get(b"POSTGRESQL:typmod", b"-1").decode().strip("'")) - 4
    precision, scale = modifier >> 16 & 0xFFFF, modifier & 0x7FF
    if in_list or modifier < 0 or precision > _MOST_DIGITS or scale > precision:
        return "float8", pa.float64()
    return "", pa.decimal128(precision, scale)


def _uses_index(plan: str | list[object]) -> bool:
    text = plan if isinstance(plan, str) else json.dumps(plan)
    return re.search(r'"Node Type": "(Index|Bitmap)', text) is not None
