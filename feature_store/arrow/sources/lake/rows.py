"""The rows of a version of a lake table: what the table formats share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from feature_store.arrow.sources.cutting import cut
from feature_store.arrow.sources.lake.data_files import DataFile, LakeColumns, OpenedFile
from feature_store.arrow.sources.lake.sequence import LakeSequence
from feature_store.arrow.sources.source import OfflineSource
from feature_store.arrow.time_range import TimeRange


class LakePiece(NamedTuple):
    """Some row groups of a data file; see Piece.

    Attributes:
        file: the file.
        columns: the columns of the table.
        row_groups: the numbers of the row groups. None: all.
        rows, first, row_bytes: see Piece.
    """

    file: DataFile
    columns: LakeColumns
    row_groups: tuple[int, ...] | None
    rows: int
    first: int
    row_bytes: int

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See Piece."""
        opened = OpenedFile(self.file, self.columns)
        groups = opened.wanted(times) if self.row_groups is None else self.row_groups
        yield from opened.batches(list(dict.fromkeys(columns)), times, groups)


class LakeRows(OfflineSource):
    """The rows of one version of a lake table; see OfflineSource.

    Versions stay readable until a clean-up removes their files. Then a read fails, and names the missing file.

    Args:
        where: names the table in errors.
        version: identifies the table and its version.
        columns: the columns of the table.
        files: the data files of the version, oldest first.
    """

    def __init__(self, where: str, version: str, columns: LakeColumns, files: Sequence[DataFile]) -> None:
        self.where, self.version, self.schema = where, version, columns.schema
        self._columns, self._files = columns, tuple(files)
        counts = [file.rows for file in self._files]
        is_known = not any(file.deleted for file in self._files) and None not in counts
        self.total = sum(filter(None, counts)) if is_known else None

    @abstractmethod
    def files_within(self, times: TimeRange | None) -> Sequence[DataFile]:
        """The data files that may hold rows in a range of times, by the metadata of the table. No file is opened.

        Raises:
            DataError: the metadata cannot be read.
        """

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See OfflineSource. All batches have the types of the table."""
        names = list(dict.fromkeys(columns))
        for file in self.files_within(times):
            opened = OpenedFile(file, self._columns)
            yield from opened.batches(names, times, opened.wanted(times))

    def pieces(self, columns: Sequence[str], times: TimeRange | None, *, most_bytes: int) -> list[LakePiece]:
        """See OfflineSource. A piece has at least one row group of one file."""
        names = list(dict.fromkeys(columns))
        found: list[LakePiece] = []
        place = 0
        for file in self.files_within(times):
            opened = OpenedFile(file, self._columns)
            row_bytes, wanted = opened.row_bytes(names), set(opened.wanted(times))
            found += [
                LakePiece(file, self._columns, numbers, rows, first, row_bytes)
                for numbers, rows, first in cut(opened.groups, most_bytes // row_bytes, place, wanted)
            ]
            place += sum(opened.groups)
        return found

    def sequence(self, times: TimeRange) -> LakeSequence:
        """See OfflineSource. Row groups without any of the places are not read."""
        return LakeSequence(self.files_within(times), self._columns, times)

    def whole_pieces(self, files: Sequence[DataFile]) -> tuple[LakePiece, ...]:
        """All rows of some data files, for `unread`."""
        return tuple(LakePiece(file, self._columns, None, file.rows or 0, 0, 1) for file in files)
