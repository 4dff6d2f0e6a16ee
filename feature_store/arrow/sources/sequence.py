"""The rows of a source as one sequence, so that a reader can later read the rows at some places again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

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
