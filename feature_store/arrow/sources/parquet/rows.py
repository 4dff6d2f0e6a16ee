"""The rows of Parquet files: files of a ParquetSource, and files that engines write and read again.

All reads are inside `unchanged`: if a file is replaced, truncated or removed meanwhile, the read fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa

from feature_store.arrow.file_versions import FileVersion, file_versions, unchanged, version_of
from feature_store.arrow.plain import plain_schema
from feature_store.arrow.reading import reading
from feature_store.arrow.sources.cutting import cut
from feature_store.arrow.sources.files import PARQUET, files_in, has_files, source_files
from feature_store.arrow.sources.parquet.batches import file_row_bytes, parquet_fragment, parquet_fragments
from feature_store.arrow.sources.parquet.hashes import ReadGroups
from feature_store.arrow.sources.parquet.row_groups import RowGroups
from feature_store.arrow.sources.parquet.source_file import SourceFile, source_files_of
from feature_store.arrow.sources.source import OfflineSource, Unread
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.source import ParquetSource


class ParquetPiece(NamedTuple):
    """Some row groups of a file; see Piece.

    Attributes:
        where: names the source in errors.
        version: the version of the file when the piece was made.
        row_groups: the numbers of the row groups.
        lacking: see SourceFile.
        rows, first, row_bytes: see Piece.
    """

    where: str
    version: FileVersion
    row_groups: tuple[int, ...]
    lacking: pa.Schema
    rows: int
    first: int
    row_bytes: int = 1

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See Piece."""
        with unchanged(self.where, [self.version]), reading(self.where):
            part = parquet_fragment(self.version).subset(row_group_ids=list(self.row_groups))
            yield from SourceFile(self.version, part, self.lacking).batches(columns, times)


class ParquetRows(OfflineSource):
    """The rows of Parquet files; see OfflineSource.

    Args:
        where: names the files in errors.
        paths: the files, in order. A FileVersion is read in this version.

    Raises:
        DataError: a file cannot be read.
    """

    total: int

    def __init__(self, where: str, paths: Sequence[Path | FileVersion]) -> None:
        self.where = where
        with reading(where):
            self.files = file_versions(paths)
            with unchanged(where, self.files):
                fragments = parquet_fragments(self.files)
                self._files, self.schema = source_files_of(self.files, fragments)
                self.total = sum(fragment.metadata.num_rows for fragment in fragments)
        if not any(version.is_remote for version in self.files):
            self.parquet_files = tuple(version.path for version in self.files)
        self.version = version_of(self.files)

    @classmethod
    def open(cls, source: ParquetSource, folder: Path) -> Self:
        """See OfflineSource."""
        return cls(f"source {source.path}", source_files(source.path, folder, PARQUET))

    @classmethod
    def exists(cls, source: ParquetSource, folder: Path) -> bool:
        """See OfflineSource."""
        return has_files(source.path, folder, PARQUET)

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See OfflineSource.

        Files are read one after the other, each with its own types. A cast to a common type could round, and the check
        of rows converts them to the declared types anyway. A column that a file lacks is null.
        """
        with self.unchanged(), reading(self.where):
            for file in self._files:
                yield from file.batches(columns, times)

    def unchanged(self) -> AbstractContextManager[None]:
        """See OfflineSource."""
        return unchanged(self.where, self.files)

    def pieces(self, columns: Sequence[str], times: TimeRange | None, *, most_bytes: int) -> list[ParquetPiece]:
        """See OfflineSource. A piece has at least one row group of one file."""
        found: list[ParquetPiece] = []
        place = 0
        with reading(self.where):
            for file, version in zip(self._files, self.files, strict=True):
                schema = plain_schema(_selected(file.schema, columns))
                row_bytes = file_row_bytes(file.fragment, schema)
                counts = [group.num_rows for group in file.fragment.row_groups]
                wanted = {group.id for group in file.within(times).row_groups}
                found += [
                    ParquetPiece(self.where, version, numbers, file.lacking, rows, first, row_bytes)
                    for numbers, rows, first in cut(counts, most_bytes // row_bytes, place, wanted)
                ]
                place += sum(counts)
        return found

    def schemas(self) -> list[tuple[str, pa.Schema]]:
        """See OfflineSource."""
        with reading(self.where):
            return [(f"source {Path(file.version.path).name}", file.schema) for file in self._files]

    def count(self, times: TimeRange) -> int | None:
        """See OfflineSource."""
        found = 0
        with reading(self.where):
            for file in self._files:
                inside = file.inside(times)
                if inside is None:
                    return None
                found += file.fragment.count_rows(filter=inside)
        return found

    def sequence(self, times: TimeRange) -> RowGroups:
        """See OfflineSource. Row groups without any of the places are not read."""
        return RowGroups(self.where, self.files, self._files, times)

    def unread(self, known: bytes) -> Unread:
        """See OfflineSource. A row group that was read in another file counts as read."""
        before = ReadGroups.parse(known)
        document, pieces = [], []
        with self.unchanged(), reading(self.where):
            for version, file in zip(self.files, self._files, strict=True):
                entry, new = before.compare(version)
                document.append(entry)
                if new:
                    pieces.append(ParquetPiece(self.where, version, tuple(new), file.lacking, 0, 0))
        return Unread(b"".join(document), tuple(pieces))


def path_rows(where: str, path: Path) -> ParquetRows:
    """The rows of a Parquet file, or of the Parquet files in a folder, sorted by name.

    Raises:
        DataError: there is no file, or a file cannot be read.
    """
    with reading(where):
        inside = files_in(path, PARQUET)
    return ParquetRows(where, inside or [path])


def _selected(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in dict.fromkeys(columns)])
