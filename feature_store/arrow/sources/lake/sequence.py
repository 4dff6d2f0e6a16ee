"""The rows of data files as one sequence, of which rows can be read again by their places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from feature_store.arrow.sources.lake.data_files import DataFile, LakeColumns, OpenedFile
from feature_store.arrow.sources.sequence import FileGroup, GroupSequence, type_fits
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.dtypes import DType


class LakeSequence(GroupSequence):
    """The row groups of data files that may hold rows with event times in a range.

    Args:
        files: the files.
        columns: the columns of the table.
        times: the range.

    Raises:
        DataError: a file cannot be read.
    """

    def __init__(self, files: Sequence[DataFile], columns: LakeColumns, times: TimeRange) -> None:
        self._columns = columns
        self._files = [OpenedFile(file, columns) for file in files]
        opened = enumerate(self._files)
        super().__init__([FileGroup(i, group, file.kept(group)) for i, file in opened for group in file.wanted(times)])

    def read(self, columns: Sequence[str], file: int, numbers: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """See GroupSequence."""
        return self._files[file].batches(columns, None, numbers)

    def fits(self, column: str, dtype: DType) -> bool:
        """See RowSequence. The type of the column in the table decides."""
        return type_fits(self._columns.schema.field(column).type, dtype)
