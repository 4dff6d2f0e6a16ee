"""The rows of a source as one sequence, so that a reader can later read the rows at some places again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.arrow.rows import SourceColumns
from feature_store.arrow.scalars import ARROW
from feature_store.definitions.dtypes import DType
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.stream_view import StreamFeatureView


class RowSequence(ABC):
    """The rows of a source that may have times in a range, in order.

    Attributes:
        total: the number of rows. None: unknown before they are read.
    """

    total: int | None

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, in order."""

    @abstractmethod
    def gather(self, columns: Sequence[str], places: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """The rows at ascending places: (m,) int64. A place is a row's number in `batches`, from 0."""

    @abstractmethod
    def fits(self, column: str, dtype: DType) -> bool:
        """Whether every value of a column certainly fits a type, so that the column need not be checked."""

    def to_check(
        self, view: FeatureView | StreamFeatureView, columns: SourceColumns, wanted: Sequence[str] = ()
    ) -> SourceColumns:
        """The columns to check: the join keys, and columns whose values may not fit.

        Args:
            view: the view. A view with aggregations needs all columns.
            columns: the columns of the view, from `rows.source_columns`.
            wanted: further columns to read.
        """
        types = {
            name: dtype
            for name, dtype in columns.types.items()
            if view.aggregations or name in view.join_keys or name in wanted or not self.fits(name, dtype)
        }
        return columns._replace(types=types)


class FileGroup(NamedTuple):
    """A group of rows of a file, such as a row group.

    Attributes:
        file: the number of the file.
        number: the number of the group in the file.
        rows: the number of its rows.
    """

    file: int
    number: int
    rows: int


class GroupSequence(RowSequence):
    """A sequence of groups of rows. Reading some columns or groups does not change a row's place in it.

    Args:
        groups: the groups, in order.

    Attributes:
        groups: as given.
        total: the number of rows in the groups.
    """

    total: int

    def __init__(self, groups: Sequence[FileGroup]) -> None:
        self.groups = groups
        self._starts = np.cumsum([0, *(group.rows for group in groups)])
        self.total = int(self._starts[-1])

    @abstractmethod
    def read(self, columns: Sequence[str], file: int, numbers: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """Columns, each once, of all rows of some groups of a file."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See RowSequence."""
        return self._read(columns, self.groups)

    def gather(self, columns: Sequence[str], places: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """See RowSequence. Groups without any of the places are not read."""
        holding = np.searchsorted(self._starts, places, side="right") - 1
        groups, of_place = np.unique(holding, return_inverse=True)
        read = [self.groups[i] for i in groups]
        begins = np.cumsum([0, *(group.rows for group in read)])  # counted over the groups that are read
        return taken(self._read(columns, read), places - self._starts[holding] + begins[of_place])

    def _read(self, columns: Sequence[str], groups: Sequence[FileGroup]) -> Iterator[pa.RecordBatch]:
        names = list(dict.fromkeys(columns))
        for file, of_file in groupby(groups, lambda group: group.file):
            yield from self.read(names, file, [group.number for group in of_file])


def taken(batches: Iterator[pa.RecordBatch], places: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """The rows at ascending places. A place is a row's number over all batches, from 0."""
    first, done = 0, 0
    for batch in batches if len(places) else ():
        until = done + int(np.searchsorted(places[done:], first + len(batch)))
        if until > done:
            yield batch.take(pa.array(places[done:until] - first))
        first, done = first + len(batch), until
        if done == len(places):
            return


def type_fits(found: pa.DataType, dtype: DType) -> bool:
    """Whether every value of an Arrow type fits a declared type."""
    if pa.types.is_null(found):
        return True
    return dtype.element is None and ARROW[dtype].always_fits(found)  # a list may have a wrong length
