"""The rows of a source with other column names: `field_mapping` of a definition.

It wraps the reader of every source that has a mapping, so that a reader only knows the names that the data have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa
from numpy.typing import NDArray

from feature_store.arrow.sources.readers import reader_of
from feature_store.arrow.sources.sequence import RowSequence
from feature_store.arrow.sources.source import OfflineSource, Piece, Unread
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.batch_source import BatchSource
from feature_store.definitions.dtypes import DType
from feature_store.errors import DataError, did_you_mean

_HASH_DIGITS = 8


class Names(NamedTuple):
    """The names of columns in the data and in views.

    Attributes:
        mapping: column in the data -> name in views, sorted. Other columns keep their names.
    """

    mapping: tuple[tuple[str, str], ...]

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """A schema of the data with the names of views."""
        new = dict(self.mapping)
        return pa.schema([field.with_name(new.get(field.name, field.name)) for field in schema], schema.metadata)

    def stored(self, columns: Sequence[str]) -> list[str]:
        """The names in the data of columns of views, each once."""
        old = {name: column for column, name in self.mapping}
        return [old.get(name, name) for name in dict.fromkeys(columns)]

    def times(self, times: TimeRange | None) -> TimeRange | None:
        """A range of times of a column of views, as a range of the column in the data."""
        return None if times is None else times._replace(column=self.stored([times.column])[0])

    def renamed(self, batches: Iterator[pa.RecordBatch], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Batches of the data, which have the columns `stored(columns)`, with the names of views."""
        names = list(dict.fromkeys(columns))
        return (batch.rename_columns(names) for batch in batches)


class RenamedPiece(NamedTuple):
    """Some rows of a source; see Piece.

    Attributes:
        piece: the rows with the names of the data.
        names: the names of views.
    """

    piece: Piece
    names: Names

    @property
    def rows(self) -> int:
        """See Piece."""
        return self.piece.rows

    @property
    def first(self) -> int:
        """See Piece."""
        return self.piece.first

    @property
    def row_bytes(self) -> int:
        """See Piece."""
        return self.piece.row_bytes

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See Piece."""
        return self.names.renamed(self.piece.batches(self.names.stored(columns), self.names.times(times)), columns)


class RenamedRows(OfflineSource):
    """The rows of a source with other column names; see OfflineSource.

    Args:
        rows: the source with the names of the data.
        mapping: column in the data -> name in views.

    Raises:
        DataError: a column of the mapping is not in the data, or two columns would have the same name.
    """

    def __init__(self, rows: OfflineSource, mapping: Mapping[str, str]) -> None:
        self._rows, self._names = rows, Names(tuple(sorted(mapping.items())))
        self.where, self.pinned, self.total, self.files = rows.where, rows.pinned, rows.total, rows.files
        _check(rows, mapping)
        self.schema = self._names.schema(rows.schema)
        about = hashlib.sha256(repr(self._names.mapping).encode()).hexdigest()
        self.version = rows.version + about[:_HASH_DIGITS]

    @classmethod
    def open(cls, source: BatchSource, folder: Path) -> Self:
        """See OfflineSource."""
        return cls(reader_of(source).open(source, folder), source.field_mapping)

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See OfflineSource."""
        return self._names.renamed(self._rows.batches(self._names.stored(columns), self._names.times(times)), columns)

    def pieces(self, columns: Sequence[str], times: TimeRange | None, *, most_bytes: int) -> Sequence[Piece]:
        """See OfflineSource."""
        stored, within = self._names.stored(columns), self._names.times(times)
        return self._renamed(self._rows.pieces(stored, within, most_bytes=most_bytes))

    def unchanged(self) -> AbstractContextManager[None]:
        """See OfflineSource."""
        return self._rows.unchanged()

    def schemas(self) -> list[tuple[str, pa.Schema]]:
        """See OfflineSource."""
        return [(where, self._names.schema(schema)) for where, schema in self._rows.schemas()]

    def count(self, times: TimeRange) -> int | None:
        """See OfflineSource."""
        return self._rows.count(times._replace(column=self._names.stored([times.column])[0]))

    def sequence(self, times: TimeRange) -> RowSequence:
        """See OfflineSource."""
        stored = times._replace(column=self._names.stored([times.column])[0])
        return _RenamedSequence(self._rows.sequence(stored), self._names)

    def unread(self, known: bytes) -> Unread:
        """See OfflineSource."""
        document, pieces = self._rows.unread(known)
        return Unread(document, self._renamed(pieces))

    def _renamed(self, pieces: Sequence[Piece]) -> tuple[RenamedPiece, ...]:
        return tuple(RenamedPiece(piece, self._names) for piece in pieces)


class _RenamedSequence(RowSequence):
    def __init__(self, rows: RowSequence, names: Names) -> None:
        self._rows, self._names = rows, names
        self.total = rows.total

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return self._names.renamed(self._rows.batches(self._names.stored(columns)), columns)

    def gather(self, columns: Sequence[str], places: NDArray[Any]) -> Iterator[pa.RecordBatch]:
        return self._names.renamed(self._rows.gather(self._names.stored(columns), places), columns)

    def fits(self, column: str, dtype: DType) -> bool:
        return self._rows.fits(self._names.stored([column])[0], dtype)


def _check(rows: OfflineSource, mapping: Mapping[str, str]) -> None:
    """Raise a DataError if a column of a mapping is in no part of a source, or if two columns get the same name."""
    parts = rows.schemas()
    found = dict.fromkeys(name for _, schema in parts for name in schema.names)
    for column in mapping:
        if column not in found:
            hint = did_you_mean(column, list(found)) or f"its columns are {', '.join(found)}"
            raise DataError(rows.where, problem=f"column {column} of field_mapping is not in the source", hint=hint)
    for where, schema in parts:
        for name in set(mapping.values()).intersection(schema.names).difference(mapping):
            hint = f"map {name} to another name too, or map the other column to another name"
            raise DataError(
                where, problem=f"field_mapping gives a column the name {name}, which another column has", hint=hint
            )
