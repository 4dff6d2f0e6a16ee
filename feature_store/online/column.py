"""The interface of a service's columns. `columns.py` has one class for each kind of column.

A column reads its values and statuses from an answer to one request or to many joined requests (`answer.py`). It names
the fields that it needs, and takes its values from joined rows when a training set is built. Matrices, Python values,
Arrow tables, served logs, metrics and training sets use this interface alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from feature_store.definitions.dtypes import to_microseconds
from feature_store.online.status import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from feature_store.definitions.dtypes import DType
    from feature_store.functions import Column, Mask
    from feature_store.online.answer import Answer, RequestAnswer, Statuses
    from feature_store.online.codec import Pieces
    from feature_store.online.layout import FieldLayout, SegmentLayout

NO_TIME = np.iinfo(np.int64).min  # the event time of a missing value; no datetime is so early
A_co = TypeVar("A_co", covariant=True)


class JoinedRows(Protocol[A_co]):
    """Rows of a training set after the point-in-time join. `A_co` is the type of a column, such as Arrow's."""

    def field(self, view: str, feature: str) -> A_co:
        """A field of a feature view: null where the entity had no row at the label's time."""

    def output(self, view: str, output: str, dtype: DType) -> A_co:
        """An output of an on-demand view."""

    def nothing(self, dtype: DType) -> A_co:
        """Null for each row."""


class MatrixColumns(Protocol):
    """Collects the columns of a float matrix. `target` is the first column of the matrix that a column fills."""

    def add_stored(self, group: int, segment: SegmentLayout, field: FieldLayout, target: int) -> None:
        """Add a column that is copied from stored rows."""

    def add_window(self, group: int, window: str, name: str, dtype: DType, default: Any, target: int) -> None:
        """Add a column of single numbers that is computed from a window."""

    def add_constant(self, dtype: DType, value: Any, target: int) -> None:
        """Add a column whose rows all have one value."""

    def add_computed(self, name: str, column: ServedColumn, target: int) -> None:
        """Add a column whose `values` are called for each answer."""


class ServedColumn(ABC):
    """A column of a service.

    Attributes:
        dtype: the declared type.
        default: the value that is served for an absent value; None when there is no default.
        group: the index of the group whose m entity keys the values belong to; None when they belong to the n rows.
    """

    __slots__ = ("default", "dtype", "group")

    def __init__(self, dtype: DType, default: Any, group: int | None = None) -> None:
        self.dtype, self.default, self.group = dtype, default, group

    @abstractmethod
    def values(self, answer: Answer) -> Column | list[Any]:
        """(m,) of the numpy dtype, or (m, length) for fixed-size arrays; a list of m Python values for a type without
        fixed width. Values are undefined where the status is not PRESENT."""

    def lists(self, answer: RequestAnswer) -> Column | list[Any]:
        """m lists or arrays of a column of lists, times in microseconds. Undefined where the status is not PRESENT."""
        values = self.values(answer)
        if self.dtype.element is not None and self.dtype.element.scalar.name == "Timestamp":
            return [[to_microseconds(time) for time in one] for one in values]
        return values

    @abstractmethod
    def status(self, answer: Answer) -> Statuses:
        """(m,) Status codes."""

    @abstractmethod
    def from_join(self, joined: JoinedRows[A_co]) -> A_co:
        """The values in a training set, null where a client would serve the default."""

    def event_times(self, answer: Answer) -> Column | None:
        """(m,) int64, microseconds since 1970, NO_TIME where the value is missing; None without a stored value."""
        return None

    def uniform(self, answer: Answer) -> Status | None:
        """The common status of all values, when it is known without a check of each value; else None."""
        return None

    def absent(self, answer: Answer) -> Mask:
        """(m,) bool, True where there is no value."""
        absent: Mask = self.status(answer) != Status.PRESENT
        return absent

    @property
    def source(self) -> Hashable:
        """Columns with an equal `source` have the same `uniform` in every answer, so one call serves them all."""
        return self

    def absent_together(self, answer: RequestAnswer, columns: Sequence[Any]) -> Mask:
        """(len(columns), m) bool, True where there is no value. The columns have the same `together` as this one."""
        absent: Mask = self.statuses(answer, columns).T != Status.PRESENT
        return absent

    @property
    def together(self) -> Hashable:
        """Columns of a service with an equal `together` have one type and one source, and are read at once."""
        return self

    def reader(self, columns: Sequence[Any]) -> Callable[[RequestAnswer], Column | list[list[Any]]]:
        """A function that reads the values of f columns at once: (f, m), (f, m, length) or f lists. The columns have
        the same `together` as this one. The values are copies, which belong to the caller."""

        def read(answer: RequestAnswer) -> Column | list[list[Any]]:
            values = self.values(answer)
            return [list(values)] if isinstance(values, list) else values[None].copy()

        return read

    def pieces_reader(self, columns: Sequence[Any]) -> Callable[[RequestAnswer], Pieces] | None:
        """As `reader`, for texts or bytes without a Python value for each; None for columns of other types."""
        return None

    def statuses(self, answer: Answer, columns: Sequence[Any]) -> Statuses:
        """(m, len(columns)) Status codes of columns of this column's source."""
        return np.stack([column.status(answer) for column in columns], axis=1)

    @property
    def needs(self) -> list[tuple[str, str]]:
        """The fields `(view, feature)` that a training set must join for the column."""
        return []

    def add_to(self, matrix: MatrixColumns, name: str, target: int) -> None:
        """Add the column to a matrix, from the matrix's column `target` on."""
        matrix.add_computed(name, self, target)
