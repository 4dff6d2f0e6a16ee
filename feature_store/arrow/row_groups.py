"""The rows of Parquet files as one sequence, read by columns and by row groups, so that places in it stay the same.

What the files say of a row group is used twice: to leave it out when its times are of no interest, and to spare the
check of values that must fit. Files may differ in their types; each batch has its own.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from feature_store.arrow.sources import between, file_batches, reading
from feature_store.arrow.types import ARROW

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from feature_store.arrow.rows import SourceColumns
    from feature_store.arrow.sources import Rows
    from feature_store.definitions.dtypes import DType
    from feature_store.definitions.feature_view import FeatureView
    from feature_store.definitions.stream_view import StreamFeatureView


class _Group(NamedTuple):
    file: int
    number: int
    rows: int


class RowGroups:
    """The row groups of a source that may hold rows with event times in `[start_us, end_us)`.

    Args:
        rows: of files.
        event_timestamp: the column of event times.
        start_us, end_us: microseconds.

    Attributes:
        total: how many rows they hold.

    Raises:
        DataError: the files cannot be read.
    """

    def __init__(self, rows: Rows, event_timestamp: str, start_us: int, end_us: int) -> None:
        self._rows = rows
        with rows.unchanged(), reading(rows.where):
            self._files = list(rows.dataset.get_fragments())
            self._groups = [
                _Group(i, group.id, group.num_rows)
                for i, file in enumerate(self._files)
                for group in _wanted(file, event_timestamp, start_us, end_us).row_groups
            ]
        self._starts = np.cumsum([0, *(group.rows for group in self._groups)])
        self.total = int(self._starts[-1])

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, in order."""
        return self._read(columns, self._groups)

    def gather(self, columns: Sequence[str], places: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """The rows at ascending places. Row groups without any are not read."""
        holding = np.searchsorted(self._starts, places, side="right") - 1
        groups, of_group = np.unique(holding, return_inverse=True)
        begins = np.cumsum([0, *(self._groups[i].rows for i in groups)])  # as if there were no other row groups
        places = places - self._starts[holding] + begins[of_group]
        first, done = 0, 0
        for batch in self._read(columns, [self._groups[i] for i in groups]):
            until = done + int(np.searchsorted(places[done:], first + len(batch)))
            if until > done:
                yield batch.take(pa.array(places[done:until] - first))
            first, done = first + len(batch), until

    def fits(self, column: str, dtype: DType) -> bool:
        """Whether the types, or the statistics of all row groups, say that every value of a column is of a type."""
        with reading(self._rows.where):
            return all(
                _type_fits(file.physical_schema.field(column).type, dtype)
                or _statistics_fit(file, column, dtype, [group.number for group in self._groups if group.file == i])
                for i, file in enumerate(self._files)
            )

    def to_check(
        self, view: FeatureView | StreamFeatureView, columns: SourceColumns, wanted: Sequence[str] = ()
    ) -> SourceColumns:
        """What must be read of a view's columns to know which rows fit: join keys, and what may hold what does not fit.

        Args:
            view: whose rows; of one with aggregations all columns are read.
            columns: from `rows.source_columns`.
            wanted: columns that are read in any case.
        """
        types = {
            name: dtype
            for name, dtype in columns.types.items()
            if view.aggregations or name in view.join_keys or name in wanted or not self.fits(name, dtype)
        }
        return columns._replace(types=types)

    def _read(self, columns: Sequence[str], groups: Sequence[_Group]) -> Iterator[pa.RecordBatch]:
        names = list(dict.fromkeys(columns))
        with self._rows.unchanged(), reading(self._rows.where):
            for i, of_file in groupby(groups, lambda group: group.file):
                yield from file_batches(self._files[i], names, [group.number for group in of_file])


def _wanted(file: Any, event_timestamp: str, start_us: int, end_us: int) -> Any:
    schema = file.physical_schema
    inside = between(schema.field(event_timestamp), start_us, end_us)
    return file if inside is None else file.subset(inside, schema=schema)


def _type_fits(found: pa.DataType, dtype: DType) -> bool:
    if pa.types.is_null(found):
        return True
    return dtype.element is None and ARROW[dtype].always_fits(found)  # lists have lengths


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
