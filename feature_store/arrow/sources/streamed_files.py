"""Files that are read from their begin to their end: the implementation of sources of CSV, JSON and Avro.

A file is the unit of reading: it is one piece, and counts as read if its path, size and time of the last change are
those of the last read. Within a file, rows are read in batches, so that memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from feature_store.arrow.batch_sizes import plain_pieces, schema_row_bytes
from feature_store.arrow.file_versions import FileVersion, file_versions, unchanged, version_of
from feature_store.arrow.opened_files import local_file
from feature_store.arrow.reading import reading
from feature_store.arrow.sources.lacking import lacking_of, whole_schema
from feature_store.arrow.sources.read_files import unread_files
from feature_store.arrow.sources.source import OfflineSource, Unread
from feature_store.arrow.time_range import TimeRange

# Compressed files have at most this many bytes for each byte on the disk: a block of zstd of 128 kB takes 4 bytes.
_MOST_EXPANSION = 1 << 15


class FileFormat(Protocol):
    """A format of files. It is plain, picklable data."""

    def schema(self, where: str, path: str) -> pa.Schema:
        """The columns of a file.

        Raises:
            DataError: the file has not this format.
            pa.ArrowException, UnicodeDecodeError, OSError: the file cannot be read.
        """
        ...

    def batches(self, where: str, path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of the rows of a file, in order. A column that the file does not have is null, of any type.

        Args:
            where: names the source in errors.
            path: the file.
            columns: names of columns, each once.

        Raises:
            DataError: the file has not this format.
            pa.ArrowException, UnicodeDecodeError, OSError: the file cannot be read.
        """
        ...

    def rows(self, path: str) -> int:
        """At least the number of rows of a file.

        Raises:
            pa.ArrowException, OSError: the file cannot be read.
        """
        ...


class FilePiece:
    """A file; see Piece.

    Args:
        where: names the source in errors.
        version: the version of the file when the piece was made.
        kind: the format of the file.
        schema: the columns of the source.
        first, row_bytes: see Piece.
    """

    def __init__(
        self, where: str, version: FileVersion, kind: FileFormat, schema: pa.Schema, first: int, row_bytes: int
    ) -> None:
        self._where, self._version, self._format, self._schema = where, version, kind, schema
        self.first, self.row_bytes = first, row_bytes
        self._rows: int | None = None

    @property
    def path(self) -> str:
        """The path of the file."""
        return self._version.path

    @property
    def rows(self) -> int:
        """See Piece. The file is read to count its lines when this is asked for first."""
        if self._rows is None:
            same = unchanged(self._where, [self._version])
            with same, reading(self._where), local_file(self._version) as path:
                self._rows = self._format.rows(path)
        return self._rows

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See Piece. All rows are read."""
        del times
        with unchanged(self._where, [self._version]), reading(self._where):
            yield from _batches(self._format, self._where, self._version, columns, self._schema)


class StreamedFiles(OfflineSource):
    """The rows of files, in the order of their paths; see OfflineSource.

    A column that only some of the files have is null in the others.

    Args:
        where: names the files in errors.
        paths: the files, in order. A FileVersion is read in this version.
        kind: the format of the files.

    Raises:
        DataError: a file cannot be read, or has another format.
    """

    def __init__(self, where: str, paths: Sequence[Path | FileVersion], kind: FileFormat) -> None:
        self.where, self._format = where, kind
        with reading(where):
            self.files = file_versions(paths)
            with self.unchanged():
                schemas = [self._schema(version) for version in self.files]
        self._schemas = [whole_schema(*one) for one in zip(schemas, lacking_of(schemas), strict=True)]
        self.schema = self._schemas[0]
        self.version = version_of(self.files)

    def _schema(self, version: FileVersion) -> pa.Schema:
        with local_file(version, only_begin=True) as path:
            return self._format.schema(self.where, path)

    def unchanged(self) -> AbstractContextManager[None]:
        """See OfflineSource."""
        return unchanged(self.where, self.files)

    def schemas(self) -> list[tuple[str, pa.Schema]]:
        """See OfflineSource. A column that a file does not have has the type that the first file with it has."""
        names = [f"source {Path(version.path).name}" for version in self.files]
        return list(zip(names, self._schemas, strict=True))

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See OfflineSource. All rows are read."""
        del times
        with self.unchanged(), reading(self.where):
            for version in self.files:
                yield from _batches(self._format, self.where, version, columns, self.schema)

    def pieces(self, columns: Sequence[str], times: TimeRange | None, *, most_bytes: int) -> list[FilePiece]:
        """See OfflineSource. A piece is a file: write several files for parallel readers."""
        del times, most_bytes
        row_bytes = schema_row_bytes(pa.schema([self.schema.field(name) for name in dict.fromkeys(columns)]))
        found, place = [], 0
        for version in self.files:
            found.append(FilePiece(self.where, version, self._format, self.schema, place, row_bytes))
            place += (version.size + 1) * _MOST_EXPANSION
        return found

    def unread(self, known: bytes) -> Unread:
        """See OfflineSource. A file that has the same path, size and time of the last change counts as read."""
        document, unread = unread_files(self.files, known)
        pieces = self.pieces(self.schema.names, None, most_bytes=1)
        return Unread(document, tuple(piece for piece, is_new in zip(pieces, unread, strict=True) if is_new))


def _batches(
    kind: FileFormat, where: str, file: FileVersion, columns: Sequence[str], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    names = list(dict.fromkeys(columns))
    with local_file(file) as path:
        for batch in kind.batches(where, path, names):
            yield from plain_pieces(_with_types(batch.select(names), schema))


def _with_types(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with columns of the type null in the type of the source."""
    if not any(map(pa.types.is_null, batch.schema.types)):
        return batch
    arrays = [
        pa.nulls(len(batch), schema.field(name).type) if pa.types.is_null(values.type) else values
        for name, values in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)
