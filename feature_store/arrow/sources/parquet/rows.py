"""The rows of Parquet files: files of a ParquetSource, and files that engines write and read again.

All reads are inside `unchanged`: if a file is replaced, truncated or removed meanwhile, the read fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa

from feature_store.arrow.file_versions import FileVersion, file_versions, unchanged, version_of
from feature_store.arrow.plain import plain_schema
from feature_store.arrow.reading import reading
from feature_store.arrow.sources.files import PARQUET, files_found, files_in, source_files
from feature_store.arrow.sources.parquet.batches import dataset_of, file_batches, file_row_bytes
from feature_store.arrow.sources.parquet.hashes import ReadGroups
from feature_store.arrow.sources.parquet.row_groups import RowGroups
from feature_store.arrow.sources.source import OfflineSource, Unread
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.source import ParquetSource


class ParquetPiece(NamedTuple):
    """Some row groups of a file; see Piece.

    Attributes:
        where: names the source in errors.
        version: the version of the file when the piece was made.
        row_groups: the numbers of the row groups.
        rows, first, row_bytes: see Piece.
    """

    where: str
    version: FileVersion
    row_groups: tuple[int, ...]
    rows: int
    first: int
    row_bytes: int = 1

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See Piece."""
        with unchanged(self.where, [self.version]), reading(self.where):
            (file,) = dataset_of([self.version.path]).get_fragments()
            part = file.subset(row_group_ids=list(self.row_groups))
            yield from _batches(part, list(dict.fromkeys(columns)), times)


class ParquetRows(OfflineSource):
    """The rows of Parquet files; see OfflineSource.

    Args:
        where: names the files in errors.
        paths: the files, in order.

    Raises:
        DataError: a file cannot be read.
    """

    total: int

    def __init__(self, where: str, paths: Sequence[Path]) -> None:
        self.where = where
        with reading(where):
            self.files = file_versions(paths)
            with unchanged(where, self.files):
                self._dataset = dataset_of([version.path for version in self.files])
                self.schema = self._dataset.schema
                self.total = sum(file.metadata.num_rows for file in self.fragments())
        self.parquet_files = tuple(version.path for version in self.files)
        self.version = version_of(self.files)

    @classmethod
    def open(cls, source: ParquetSource, folder: Path) -> Self:
        """See OfflineSource."""
        return cls(f"source {source.path}", source_files(source.path, folder, PARQUET))

    @classmethod
    def exists(cls, source: ParquetSource, folder: Path) -> bool:
        """See OfflineSource."""
        return bool(files_found(source.path, folder, PARQUET)[1])

    def fragments(self) -> list[Any]:
        """The files as fragments of a dataset."""
        return list(self._dataset.get_fragments())

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See OfflineSource.

        Files are read one after the other, each with its own types. A cast to a common type could round, and the check
        of rows converts them to the declared types anyway.
        """
        names = list(dict.fromkeys(columns))
        with self.unchanged(), reading(self.where):
            for file in self.fragments():
                yield from _batches(file, names, times)

    def unchanged(self) -> AbstractContextManager[None]:
        """See OfflineSource."""
        return unchanged(self.where, self.files)

    def pieces(self, columns: Sequence[str], times: TimeRange | None, *, most_bytes: int) -> list[ParquetPiece]:
        """See OfflineSource. A piece has at least one row group of one file."""
        found: list[ParquetPiece] = []
        place = 0
        with reading(self.where):
            for file, version in zip(self.fragments(), self.files, strict=True):
                schema = plain_schema(_selected(file.physical_schema, columns))
                row_bytes = file_row_bytes(file, schema)
                whole = ParquetPiece(self.where, version, (), 0, place, row_bytes)
                found += _cut(whole, file, most_bytes // row_bytes, _filter(file, times))
                place += file.metadata.num_rows
        return found

    def schemas(self) -> list[tuple[str, pa.Schema]]:
        """See OfflineSource."""
        with reading(self.where):
            return [(f"source {Path(file.path).name}", file.physical_schema) for file in self.fragments()]

    def count(self, times: TimeRange) -> int | None:
        """See OfflineSource."""
        found = 0
        with reading(self.where):
            for file in self.fragments():
                inside = _filter(file, times)
                if inside is None:
                    return None
                found += file.count_rows(filter=inside)
        return found

    def sequence(self, times: TimeRange) -> RowGroups:
        """See OfflineSource. Row groups without any of the places are not read."""
        return RowGroups(self.where, self.files, self.fragments(), times)

    def unread(self, known: bytes) -> Unread:
        """See OfflineSource. A row group that was read in another file counts as read."""
        before = ReadGroups.parse(known)
        document, pieces = [], []
        with self.unchanged(), reading(self.where):
            for version in self.files:
                entry, new = before.compare(version)
                document.append(entry)
                if new:
                    pieces.append(ParquetPiece(self.where, version, tuple(new), 0, 0))
        return Unread(b"".join(document), tuple(pieces))


def path_rows(where: str, path: Path) -> ParquetRows:
    """The rows of a Parquet file, or of the Parquet files in a folder, sorted by name.

    Raises:
        DataError: there is no file, or a file cannot be read.
    """
    with reading(where):
        inside = files_in(path, PARQUET)
    return ParquetRows(where, inside or [path])


def _batches(file: Any, names: list[str], times: TimeRange | None) -> Iterator[pa.RecordBatch]:
    """The rows of a file, or of a subset of its row groups, that may be in a range of times."""
    inside = _filter(file, times)
    if times is None or inside is None:
        yield from file_batches(file, names, [group.id for group in file.row_groups])
        return
    chosen = file.subset(filter=inside, schema=file.physical_schema)
    # Always read the times for the filter, so that the choice of rows does not depend on the columns.
    read = names if times.column in names else [*names, times.column]
    for batch in file_batches(file, read, [group.id for group in chosen.row_groups]):
        yield batch.filter(inside).select(names)


def _filter(file: Any, times: TimeRange | None) -> Any:
    return None if times is None else times.filter(file.physical_schema.field(times.column))


def _selected(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in dict.fromkeys(columns)])


def _cut(whole: ParquetPiece, file: Any, most_rows: int, inside: Any) -> Iterator[ParquetPiece]:
    """The pieces of a file. The first row of the file has the place `whole.first`."""
    groups = file.row_groups
    chosen = file if inside is None else file.subset(filter=inside, schema=file.physical_schema)
    wanted = {group.id for group in chosen.row_groups}
    taken: list[int] = []
    rows, place = 0, whole.first
    for group in groups:
        if taken and (group.id not in wanted or rows + group.num_rows > most_rows):
            yield whole._replace(row_groups=tuple(taken), rows=rows, first=place - rows)
            taken, rows = [], 0
        if group.id in wanted:
            taken.append(group.id)
            rows += group.num_rows
        place += group.num_rows
    if taken:
        yield whole._replace(row_groups=tuple(taken), rows=rows, first=place - rows)
