"""The rows of Arrow IPC files: the implementation of ArrowSource.

A record batch is the unit of reading. The columns that are wanted are read with plain reads, not from a memory map: if
a mapped file is truncated, the process is killed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from feature_store.arrow.batch_sizes import plain_pieces, schema_row_bytes
from feature_store.arrow.file_versions import FileVersion, file_versions, unchanged, version_of
from feature_store.arrow.opened_files import opened_file
from feature_store.arrow.plain import plain_schema
from feature_store.arrow.reading import reading
from feature_store.arrow.sources.cutting import cut
from feature_store.arrow.sources.files import ARROW, has_files, source_files
from feature_store.arrow.sources.lacking import completed, lacking_of, whole_schema
from feature_store.arrow.sources.read_files import unread_files
from feature_store.arrow.sources.source import OfflineSource, Unread
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.source import ArrowSource
from feature_store.errors import DataError

_PIECE_BYTES = 32 << 20  # of rows of which only the times are read
# The first bytes of an IPC file, and of Feather version 1, which has other types.
_MAGIC, _FEATHER_1 = b"ARROW1", b"FEA1"


class ArrowFile(NamedTuple):
    """An IPC file of a source. It is plain, picklable data.

    Attributes:
        version: the version of the file when the source was opened.
        own: the columns of the file.
        lacking: the columns of the source that the file does not have.
    """

    version: FileVersion
    own: pa.Schema
    lacking: pa.Schema

    @property
    def schema(self) -> pa.Schema:
        """The columns of the source, in the types of the file."""
        return whole_schema(self.own, self.lacking)

    def counts(self) -> list[int]:
        """The number of rows of each record batch. The column that takes the least memory is read for it."""
        narrowest = min(self.own, key=lambda field: schema_row_bytes(pa.schema([field])))
        with opened_file(self.version) as file:
            reader = self._reader(file, [narrowest.name])
            return [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]

    def batches(
        self, columns: Sequence[str], times: TimeRange | None, numbers: Sequence[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Columns of the rows that may be in a range of times, in plain batches.

        Args:
            columns: the names of the columns.
            times: the range, or None for all rows.
            numbers: the numbers of the record batches, or None for all of them.
        """
        names = list(dict.fromkeys(columns))
        stored = [name for name in names if name not in self.lacking.names]
        if len(stored) == len(names):
            return self._stored(names, times, numbers)
        # Without a column, a batch has no rows.
        return completed(self._stored(stored or [self.own.names[0]], times, numbers), names, self.lacking)

    def _stored(
        self, names: Sequence[str], times: TimeRange | None, numbers: Sequence[int] | None
    ) -> Iterator[pa.RecordBatch]:
        is_timed = times is not None and times.column not in self.lacking.names
        inside = times.filter(self.own.field(times.column)) if times is not None and is_timed else None
        with opened_file(self.version) as file:
            rows = self._reader(file, names)
            only_times = None if times is None or inside is None else self._reader(file, [times.column])
            for number in range(rows.num_record_batches) if numbers is None else numbers:
                if only_times is None:
                    yield from plain_pieces(rows.get_batch(number).select(names))
                    continue
                chosen = _is_inside(only_times.get_batch(number), inside)
                if chosen.true_count:
                    yield from plain_pieces(rows.get_batch(number).select(names).filter(chosen))

    def _reader(self, file: Any, names: Sequence[str]) -> Any:
        """A reader of columns. Without names, it reads the first column, since Arrow takes none as all."""
        numbers = [self.own.get_field_index(name) for name in names]
        return pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=numbers or [0]))


class ArrowPiece(NamedTuple):
    """Some record batches of a file; see Piece.

    Attributes:
        where: names the source in errors.
        file: the file.
        batch_numbers: the numbers of the record batches.
        rows, first, row_bytes: see Piece.
    """

    where: str
    file: ArrowFile
    batch_numbers: tuple[int, ...]
    rows: int
    first: int
    row_bytes: int

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See Piece."""
        with unchanged(self.where, [self.file.version]), reading(self.where):
            yield from self.file.batches(columns, times, self.batch_numbers)


class ArrowRows(OfflineSource):
    """The rows of Arrow IPC files, in the order of their paths; see OfflineSource.

    A column that only some of the files have is null in the others.

    Args:
        where: names the files in errors.
        paths: the files, in order. A FileVersion is read in this version.

    Raises:
        DataError: a file cannot be read, or is not an IPC file.
    """

    def __init__(self, where: str, paths: Sequence[Path | FileVersion]) -> None:
        self.where = where
        with reading(where):
            self.files = file_versions(paths)
            with self.unchanged():
                schemas = [_schema(where, version) for version in self.files]
        self._files = [ArrowFile(*file) for file in zip(self.files, schemas, lacking_of(schemas), strict=True)]
        self.schema = self._files[0].schema
        self.version = version_of(self.files)

    @classmethod
    def open(cls, source: ArrowSource, folder: Path) -> Self:
        """See OfflineSource."""
        return cls(f"source {source.path}", source_files(source.path, folder, ARROW))

    @classmethod
    def exists(cls, source: ArrowSource, folder: Path) -> bool:
        """See OfflineSource."""
        return has_files(source.path, folder, ARROW)

    def unchanged(self) -> AbstractContextManager[None]:
        """See OfflineSource."""
        return unchanged(self.where, self.files)

    def schemas(self) -> list[tuple[str, pa.Schema]]:
        """See OfflineSource."""
        return [(f"source {Path(file.version.path).name}", file.schema) for file in self._files]

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See OfflineSource. Each file has its own types, which the check of rows converts."""
        with self.unchanged(), reading(self.where):
            for file in self._files:
                yield from file.batches(columns, times)

    def pieces(self, columns: Sequence[str], times: TimeRange | None, *, most_bytes: int) -> list[ArrowPiece]:
        """See OfflineSource. A piece has at least one record batch of one file."""
        del times  # only the values of a batch show whether it has rows in the range
        return self._pieces(self._files, columns, most_bytes)

    def unread(self, known: bytes) -> Unread:
        """See OfflineSource. A file that has the same path, size and time of the last change counts as read."""
        document, unread = unread_files(self.files, known)
        files = [file for file, is_new in zip(self._files, unread, strict=True) if is_new]
        return Unread(document, tuple(self._pieces(files, self.schema.names, _PIECE_BYTES)))

    def _pieces(self, files: Sequence[ArrowFile], columns: Sequence[str], most_bytes: int) -> list[ArrowPiece]:
        found: list[ArrowPiece] = []
        place = 0
        with self.unchanged(), reading(self.where):
            for file in files:
                row_bytes, counts = schema_row_bytes(plain_schema(_selected(file.schema, columns))), file.counts()
                found += [
                    ArrowPiece(self.where, file, numbers, rows, first, row_bytes)
                    for numbers, rows, first in cut(counts, most_bytes // row_bytes, place)
                ]
                place += sum(counts)
        return found


def _is_inside(times: pa.RecordBatch, inside: Any) -> pa.BooleanArray:
    """Which rows an expression selects: (n,) boolean."""
    marked = times.append_column("place", pa.array(range(len(times)), pa.int64()))
    places = marked.filter(inside).column("place")
    found = np.zeros(len(times), bool)
    found[places.to_numpy()] = True
    return pa.array(found)


def _schema(where: str, version: FileVersion) -> pa.Schema:
    """The schema of a file.

    Raises:
        DataError: it is not an IPC file, or has no columns or two of the same name.
    """
    name = Path(version.path).name
    with opened_file(version) as file:
        begin = file.read(len(_MAGIC))
        if begin != _MAGIC:
            is_old = begin.startswith(_FEATHER_1)
            problem = f"{name} is {'a Feather file of version 1' if is_old else 'not an Arrow IPC file'}"
            hint = "write it with pyarrow.ipc.new_file, or with version=2 of Feather; streams of IPC are not supported"
            raise DataError(where, problem=problem, hint=hint)
        schema = pa.ipc.open_file(file).schema
    if not len(schema) or len(set(schema.names)) < len(schema):
        raise DataError(where, problem=f"{name} has no columns, or two columns of the same name")
    return schema


def _selected(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in dict.fromkeys(columns) if name in schema.names])
