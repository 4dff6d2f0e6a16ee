"""The rows of data files as one sequence, of which rows can be read again by their places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.arrow.sources.lake.data_files import DataFile, LakeColumns, OpenedFile
from feature_store.arrow.sources.sequence import RowSequence, taken, type_fits
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.dtypes import DType


class _Group(NamedTuple):
    file: int
    number: int
    rows: int  # without deleted ones


class LakeSequence(RowSequence):
    """The row groups of data files that may hold rows with event times in a range.

    Args:
        files: the files.
        columns: the columns of the table.
        times: the range.

    Attributes:
        total: the number of rows in the row groups.

    Raises:
        DataError: a file cannot be read.
    """

    total: int

    def __init__(self, files: Sequence[DataFile], columns: LakeColumns, times: TimeRange) -> None:
        self._columns = columns
        self._files = [OpenedFile(file, columns) for file in files]
        self._groups = [
            _Group(i, number, file.kept(number)) for i, file in enumerate(self._files) for number in file.wanted(times)
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
        read = self._read(columns, [self._groups[i] for i in groups])
        return taken(read, places - self._starts[holding] + begins[of_group])

    def fits(self, column: str, dtype: DType) -> bool:
        """See RowSequence. The type of the column in the table decides."""
        return type_fits(self._columns.schema.field(column).type, dtype)

    def _read(self, columns: Sequence[str], groups: Sequence[_Group]) -> Iterator[pa.RecordBatch]:
        names = list(dict.fromkeys(columns))
        for i, of_file in groupby(groups, lambda group: group.file):
            yield from self._files[i].batches(names, None, [group.number for group in of_file])
