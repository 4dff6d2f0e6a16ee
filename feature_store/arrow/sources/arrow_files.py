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
from feature_store.arrow.plain import plain_schema
from feature_store.arrow.reading import reading
from feature_store.arrow.sources.files import ARROW, files_found, source_files
from feature_store.arrow.sources.read_files import unread_files
from feature_store.arrow.sources.source import OfflineSource, Unread
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.source import ArrowSource
from feature_store.errors import DataError

_PIECE_BYTES = 32 << 20  # of rows of which only the times are read
# The first bytes of an IPC file, and of Feather version 1, which has other types.
_MAGIC, _FEATHER_1 = b"ARROW1", b"FEA1"


class ArrowPiece(NamedTuple):
    """Some record batches of a file; see Piece.

    Attributes:
        where: names the source in errors.
        version: the version of the file when the piece was made.
        batch_numbers: the numbers of the record batches.
        rows, first, row_bytes: see Piece.
    """

    where: str
    version: FileVersion
    batch_numbers: tuple[int, ...]
    rows: int
    first: int
    row_bytes: int

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See Piece."""
        with unchanged(self.where, [self.version]), reading(self.where):
            yield from _file_batches(self.version.path, columns, times, self.batch_numbers)


class ArrowRows(OfflineSource):
    """The rows of Arrow IPC files, in the order of their paths; see OfflineSource.

    Args:
        where: names the files in errors.
        paths: the files, in order.

    Raises:
        DataError: a file cannot be read, or is not an IPC file.
    """

    def __init__(self, where: str, paths: Sequence[Path]) -> None:
        self.where = where
        with reading(where):
            self.files = file_versions(paths)
            with self.unchanged():
                self._schemas = [_schema(where, version.path) for version in self.files]
        self.schema = self._schemas[0]
        self.version = version_of(self.files)

    @classmethod
    def open(cls, source: ArrowSource, folder: Path) -> Self:
        """See OfflineSource."""
        return cls(f"source {source.path}", source_files(source.path, folder, ARROW))

    @classmethod
    def exists(cls, source: ArrowSource, folder: Path) -> bool:
        """See OfflineSource."""
        return bool(files_found(source.path, folder, ARROW)[1])

    def unchanged(self) -> AbstractContextManager[None]:
        """See OfflineSource."""
        return unchanged(self.where, self.files)

    def schemas(self) -> list[tuple[str, pa.Schema]]:
        """See OfflineSource."""
        names = [f"source {Path(version.path).name}" for version in self.files]
        return list(zip(names, self._schemas, strict=True))

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See OfflineSource. Each file has its own types, which the check of rows converts."""
        with self.unchanged(), reading(self.where):
            for version in self.files:
                yield from _file_batches(version.path, columns, times)

    def pieces(self, columns: Sequence[str], times: TimeRange | None, *, most_bytes: int) -> list[ArrowPiece]:
        """See OfflineSource. A piece has at least one record batch of one file."""
        del times  # only the values of a batch show whether it has rows in the range
        found: list[ArrowPiece] = []
        place = 0
        with self.unchanged(), reading(self.where):
            for version, schema in zip(self.files, self._schemas, strict=True):
                row_bytes = schema_row_bytes(plain_schema(_selected(schema, columns)))
                for piece in _cut(ArrowPiece(self.where, version, (), 0, place, row_bytes), schema, most_bytes):
                    found.append(piece)
                    place = piece.first + piece.rows
        return found

    def unread(self, known: bytes) -> Unread:
        """See OfflineSource. A file that has the same path, size and time of the last change counts as read."""
        document, unread = unread_files(self.files, known)
        pieces: list[ArrowPiece] = []
        with self.unchanged(), reading(self.where):
            for version, schema, is_new in zip(self.files, self._schemas, unread, strict=True):
                if is_new:
                    whole = ArrowPiece(self.where, version, (), 0, 0, schema_row_bytes(plain_schema(schema)))
                    pieces += _cut(whole, schema, _PIECE_BYTES)
        return Unread(document, tuple(pieces))


def _file_batches(
    path: str, columns: Sequence[str], times: TimeRange | None, numbers: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Columns of the rows of a file that may be in a range of times, in plain batches.

    Args:
        path: the file.
        columns: the names of the columns.
        times: the range, or None for all rows.
        numbers: the numbers of the record batches, or None for all of them.
    """
    names = list(dict.fromkeys(columns))
    with pa.OSFile(path) as file:
        rows = _opened(file, names)
        inside = None if times is None else times.filter(pa.ipc.open_file(file).schema.field(times.column))
        only_times = None if inside is None or times is None else _opened(file, [times.column])
        for number in range(rows.num_record_batches) if numbers is None else numbers:
            if only_times is None:
                yield from plain_pieces(rows.get_batch(number).select(names))
                continue
            chosen = _is_inside(only_times.get_batch(number), inside)
            if chosen.true_count:
                yield from plain_pieces(rows.get_batch(number).select(names).filter(chosen))


def _is_inside(times: pa.RecordBatch, inside: Any) -> pa.BooleanArray:
    """Which rows an expression selects: (n,) boolean."""
    marked = times.append_column("place", pa.array(range(len(times)), pa.int64()))
    places = marked.filter(inside).column("place")
    found = np.zeros(len(times), bool)
    found[places.to_numpy()] = True
    return pa.array(found)


def _opened(file: Any, names: Sequence[str]) -> Any:
    """A reader of columns of an IPC file. Without names, it reads the first column, since Arrow takes none as all."""
    schema = pa.ipc.open_file(file).schema
    numbers = [schema.get_field_index(name) for name in names]
    return pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=numbers or [0]))


def _cut(whole: ArrowPiece, schema: pa.Schema, most_bytes: int) -> Iterator[ArrowPiece]:
    """The pieces of a file. The first row of the file has the place `whole.first`."""
    most_rows = most_bytes // whole.row_bytes
    taken: list[int] = []
    rows, place = 0, whole.first
    for number, count in enumerate(_counts(whole.version.path, schema)):
        if taken and rows + count > most_rows:
            yield whole._replace(batch_numbers=tuple(taken), rows=rows, first=place)
            taken, rows, place = [], 0, place + rows
        taken.append(number)
        rows += count
    if taken:
        yield whole._replace(batch_numbers=tuple(taken), rows=rows, first=place)


def _counts(path: str, schema: pa.Schema) -> list[int]:
    """The number of rows of each record batch of a file. The column that takes the least memory is read for it."""
    narrowest = min(schema, key=lambda field: schema_row_bytes(pa.schema([field])))
    with pa.OSFile(path) as file:
        opened = _opened(file, [narrowest.name])
        return [opened.get_batch(number).num_rows for number in range(opened.num_record_batches)]


def _schema(where: str, path: str) -> pa.Schema:
    """The schema of a file.

    Raises:
        DataError: it is not an IPC file, or has no columns or two of the same name.
    """
    name = Path(path).name
    with pa.OSFile(path) as file:
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
