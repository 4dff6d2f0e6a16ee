"""The rows of Parquet files as one sequence. Reading some columns or row groups does not change a row's place in it.

The footers of the files save work in two ways. Row groups whose times are outside a range are not read. Values that
must fit, because of their column's type or statistics, are not checked. Files may differ in their types; each batch has
the types of its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.arrow.file_versions import FileVersion, unchanged
from feature_store.arrow.reading import reading
from feature_store.arrow.scalars import ARROW
from feature_store.arrow.sources.parquet.source_file import SourceFile
from feature_store.arrow.sources.sequence import RowSequence, taken, type_fits
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.dtypes import DType


class _Group(NamedTuple):
    file: int
    number: int
    rows: int


class RowGroups(RowSequence):
    """The row groups of files that may hold rows with event times in a range.

    Args:
        where: names the files in errors.
        versions: the versions of the files when they were opened.
        files: the files.
        times: the range.

    Attributes:
        total: the number of rows in the row groups.

    Raises:
        DataError: the files cannot be read.
    """

    total: int

    def __init__(
        self, where: str, versions: Sequence[FileVersion], files: Sequence[SourceFile], times: TimeRange
    ) -> None:
        self._where, self._versions, self._files = where, versions, files
        with unchanged(where, versions), reading(where):
            self._groups = [
                _Group(i, group.id, group.num_rows)
                for i, file in enumerate(files)
                for group in file.within(times).row_groups
            ]
        self._starts = np.cumsum([0, *(group.rows for group in self._groups)])
        self.total = int(self._starts[-1])

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See RowSequence."""
        return self._read(columns, self._groups)

    def gather(self, columns: Sequence[str], places: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """See RowSequence. Row groups without any of the places are not read."""
        holding = np.searchsorted(self._starts, places, side="right") - 1
        groups, of_group = np.unique(holding, return_inverse=True)
        begins = np.cumsum([0, *(self._groups[i].rows for i in groups)])  # counted over the row groups that are read
        return taken(
            self._read(columns, [self._groups[i] for i in groups]), places - self._starts[holding] + begins[of_group]
        )

    def fits(self, column: str, dtype: DType) -> bool:
        """See RowSequence. The type of the column decides, or the statistics of all row groups."""
        with reading(self._where):
            return all(
                column in file.lacking.names
                or type_fits(file.schema.field(column).type, dtype)
                or _statistics_fit(
                    file.fragment, column, dtype, [group.number for group in self._groups if group.file == i]
                )
                for i, file in enumerate(self._files)
            )

    def _numbers(self, file: int) -> list[int]:
        return [group.number for group in self._groups if group.file == file]

    def _read(self, columns: Sequence[str], groups: Sequence[_Group]) -> Iterator[pa.RecordBatch]:
        names = list(dict.fromkeys(columns))
        with unchanged(self._where, self._versions), reading(self._where):
            for i, of_file in groupby(groups, lambda group: group.file):
                yield from self._files[i].group_batches(names, [group.number for group in of_file])


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
