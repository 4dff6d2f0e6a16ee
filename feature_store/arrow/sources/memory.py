"""Rows in memory: the implementation of InMemorySource.

A process keeps the rows of each name. They are copied into one buffer when the source is made: a DataFrame may change
later, and Arrow can share its memory. The hash of the buffer is the version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.ipc

from feature_store.arrow.batch_sizes import batch_rows, schema_row_bytes, split
from feature_store.arrow.frames import TABLES, arrow_stream
from feature_store.arrow.plain import plain_batch, plain_schema
from feature_store.arrow.sources.source import OfflineSource
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.memory_source import InMemorySource
from feature_store.errors import DataError, DefinitionError

_WANTED = f"{TABLES}, or a dict of columns"
_COPIES = "make the InMemorySource in this process, too, or write the rows to a file and use a ParquetSource"
# A Spark job sends all rows to each Python process that reads some of them.
_MOST_SENT_BYTES = 128 << 20
_HASH_DIGITS = 16


class HeldRows(NamedTuple):
    """The rows of an InMemorySource.

    Attributes:
        name: the name of the rows.
        columns: a hash of the names and types of the columns.
        version: a hash of the rows.
        schema: the columns.
        batches: the rows.
    """

    name: str
    columns: str
    version: str
    schema: pa.Schema
    batches: tuple[pa.RecordBatch, ...]

    def keep(self) -> None:
        """Keep the rows as those of their name."""
        _KEPT[self.name] = self


_KEPT: dict[str, HeldRows] = {}


def held_rows(table: Any, name: str | None) -> HeldRows:
    """A copy of the rows of a table.

    Args:
        table: what `arrow_stream` takes, or a mapping of column names to columns.
        name: the name of the rows. None: their hash.

    Raises:
        DefinitionError: the table is none of these, or has no columns or two of the same name.
    """
    whole = _table(table)
    schema = whole.schema
    if not len(schema) or len(set(schema.names)) < len(schema):
        raise DefinitionError("InMemorySource", problem="the table has no columns, or two columns of the same name")
    # The batches depend on the schema alone, and so does the hash of equal rows.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in whole.combine_chunks().to_batches(max_chunksize=batch_rows(schema_row_bytes(schema))):
            writer.write_batch(batch)
    copy = sink.getvalue()
    version = hashlib.blake2b(copy, digest_size=_HASH_DIGITS // 2).hexdigest()
    about = repr([(field.name, str(field.type)) for field in schema])
    columns = hashlib.sha256(about.encode()).hexdigest()[:_HASH_DIGITS]
    batches = tuple(pa.ipc.open_stream(copy))
    return HeldRows(f"rows {version}" if name is None else name, columns, version, schema, batches)


def _table(table: Any) -> pa.Table:
    """The rows of a table, in plain columns without metadata."""
    try:
        stream = _of_columns(table) if isinstance(table, Mapping) else arrow_stream(table, "table", _WANTED)
        schema = pa.schema([field.remove_metadata() for field in plain_schema(stream.schema)])
        return pa.Table.from_batches([_as(plain_batch(batch), schema) for batch in stream], schema)
    except DataError as error:
        raise error.as_kind(DefinitionError, where="InMemorySource.table") from error
    except pa.ArrowException as error:
        raise DefinitionError("InMemorySource.table", expected=_WANTED, got=str(error)) from error


def _as(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(batch.columns, schema=schema)


def _of_columns(columns: Mapping[str, Any]) -> pa.RecordBatchReader:
    try:
        return pa.table(dict(columns)).to_reader()
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise DataError("table", expected="a dict of columns of one length", got=str(error)) from error


class MemoryPiece:
    """Some rows in memory; see Piece. Its rows travel with it to another process.

    Args:
        where: names the source in errors.
        held: the rows, of one or more batches.
        first, row_bytes: see Piece.
        source_bytes: the size in memory of all rows of the source.
    """

    def __init__(
        self, where: str, held: Sequence[pa.RecordBatch], first: int, row_bytes: int, source_bytes: int
    ) -> None:
        self.where, self._held, self._source_bytes = where, tuple(held), source_bytes
        self.rows, self.first, self.row_bytes = sum(map(len, held)), first, row_bytes

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See Piece."""
        return _selected(self._held, columns, times)

    def __reduce__(self) -> tuple[Any, ...]:
        """The rows as bytes of IPC.

        Raises:
            DataError: the source is too large to travel.
        """
        if self._source_bytes > _MOST_SENT_BYTES:
            raise DataError(
                self.where,
                problem=f"its rows take {self._source_bytes >> 20} MB, and rows in memory are sent to each worker, "
                f"up to {_MOST_SENT_BYTES >> 20} MB",
                hint="write the rows to files and use a ParquetSource, or use the local engine",
            )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._held[0].schema) as writer:
            for batch in self._held:
                writer.write_batch(batch)
        about = (self.where, self.first, self.row_bytes, self._source_bytes)
        return _received, (sink.getvalue().to_pybytes(), *about)


def _received(rows: bytes, where: str, first: int, row_bytes: int, source_bytes: int) -> MemoryPiece:
    return MemoryPiece(where, list(pa.ipc.open_stream(rows)), first, row_bytes, source_bytes)


class MemoryRows(OfflineSource):
    """The rows that this process keeps under a name; see OfflineSource.

    Args:
        held: the rows.
    """

    def __init__(self, held: HeldRows) -> None:
        self.where, self.schema, self.version = _where(held.name), held.schema, held.version
        self._batches = held.batches
        self.total = sum(map(len, held.batches))

    @classmethod
    def open(cls, source: InMemorySource, folder: Path) -> Self:
        """See OfflineSource."""
        del folder
        held = _KEPT.get(source.name)
        if held is None:
            problem = "its rows are in the memory of the process that made it, and this is another process"
            raise DataError(_where(source.name), problem=problem, hint=_COPIES)
        if held.columns != source.columns:
            problem = "the definition is of rows with other columns than those that this process keeps under the name"
            hint = "apply the definition of the newest rows, or give one of the sources another name"
            raise DataError(_where(source.name), problem=problem, hint=hint)
        return cls(held)

    @classmethod
    def exists(cls, source: InMemorySource, folder: Path) -> bool:
        """See OfflineSource."""
        del folder
        return source.name in _KEPT

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See OfflineSource."""
        return _selected(self._batches, columns, times)

    def pieces(self, columns: Sequence[str], times: TimeRange | None, *, most_bytes: int) -> list[MemoryPiece]:
        """See OfflineSource. A piece has whole rows, since it may be read again for other columns."""
        del columns, times
        found = []
        place, source_bytes = 0, sum(batch.nbytes for batch in self._batches)
        row_bytes = max(1, source_bytes // max(1, self.total or 0))
        rows = max(1, most_bytes // row_bytes)
        for batch in self._batches:
            for start in range(0, len(batch), rows):
                part = batch.slice(start, rows)
                found.append(MemoryPiece(self.where, [part], place, row_bytes, source_bytes))
                place += len(part)
        return found


def _selected(
    batches: Sequence[pa.RecordBatch], columns: Sequence[str], times: TimeRange | None
) -> Iterator[pa.RecordBatch]:
    """Columns of the rows that may be in a range of times, in batches of about 16 MB."""
    names = list(dict.fromkeys(columns))
    for batch in batches:
        chosen = batch
        inside = None if times is None else times.filter(batch.schema.field(times.column))
        if inside is not None and times is not None:
            chosen = batch.select(list(dict.fromkeys([*names, times.column]))).filter(inside)
        if len(chosen):
            yield from split(chosen.select(names))


def _where(name: str) -> str:
    return f"source {name}"
