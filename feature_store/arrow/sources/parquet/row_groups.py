"""The rows of Parquet files as one sequence of row groups.

The footers of the files save work in two ways. Row groups whose times are outside a range are not read. Values that
must fit, because of their column's type or statistics, are not checked. Files may differ in their types; each batch has
the types of its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.arrow.file_versions import FileVersion, unchanged
from feature_store.arrow.reading import reading
from feature_store.arrow.scalars import ARROW
from feature_store.arrow.sources.parquet.source_file import SourceFile
from feature_store.arrow.sources.sequence import FileGroup, GroupSequence, type_fits
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.dtypes import DType


class RowGroups(GroupSequence):
    """The row groups of files that may hold rows with event times in a range.

    Args:
        where: names the files in errors.
        versions: the versions of the files when they were opened.
        files: the files.
        times: the range.

    Raises:
        DataError: the files cannot be read.
    """

    def __init__(
        self, where: str, versions: Sequence[FileVersion], files: Sequence[SourceFile], times: TimeRange
    ) -> None:
        self._where, self._versions, self._files = where, versions, files
        with unchanged(where, versions), reading(where):
            groups = [
                FileGroup(i, group.id, group.num_rows)
                for i, file in enumerate(files)
                for group in file.within(times).row_groups
            ]
        super().__init__(groups)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See RowSequence."""
        return self._while_unchanged(super().batches(columns))

    def gather(self, columns: Sequence[str], places: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """See RowSequence. Row groups without any of the places are not read."""
        return self._while_unchanged(super().gather(columns, places))

    def read(self, columns: Sequence[str], file: int, numbers: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """See GroupSequence."""
        return self._files[file].group_batches(columns, numbers)

    def fits(self, column: str, dtype: DType) -> bool:
        """See RowSequence. The type of the column decides, or the statistics of all row groups."""
        with reading(self._where):
            return all(
                column in file.lacking.names
                or type_fits(file.schema.field(column).type, dtype)
                or _statistics_fit(file.fragment, column, dtype, self._numbers(i))
                for i, file in enumerate(self._files)
            )

    def _numbers(self, file: int) -> list[int]:
        return [group.number for group in self.groups if group.file == file]

    def _while_unchanged(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with unchanged(self._where, self._versions), reading(self._where):
            yield from batches


def _statistics_fit(file: Any, column: str, dtype: DType, groups: Sequence[int]) -> bool:
    limits = ARROW[dtype].limits(file.physical_schema.field(column).type) if dtype.element is None else None
    if limits is None:
        return False
    found = [_statistics(file.metadata.row_group(group), column) for group in groups]
    return all(
        item is not None and item.has_min_max and limits[0] <= item.min <= item.max <= limits[1] for item in found
    )


def _statistics(group: Any, column: str) -> Any:
    places = {group.column(i).path_in_schema: i for i in range(group.num_columns)}
    return group.column(places[column]).statistics if column in places else None
