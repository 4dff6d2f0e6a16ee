"""Blocks of columns that are read at once: columns of one type and one source, such as the 25 floats of a view.

Reading 50 columns one by one costs about 15 µs for each, for slices, copies and checks of numpy. A block costs that
once. The forms of an answer (`decode.py`, `arrow.py`) are built from blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from feature_store.online.codec import refuse_beyond
from feature_store.online.status import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from feature_store.functions import Column, Mask
    from feature_store.online.answer import RequestAnswer
    from feature_store.online.column import ServedColumn

T = TypeVar("T")


class ColumnBlock:
    """Columns of one service with an equal `together`. `f` is their number; `m` and `n` are as in Answer.

    Args:
        names: the columns' names.
        columns: the columns.

    Attributes:
        names: as given.
        dtype: the type of all of them.
        group: the group of all of them, or None.
        defaults: per column, the value that is served for an absent value; None when there is no default.
        null: (f,) bool, True for a column without a default.
        stored_defaults: (f,) or (f, length), the defaults as they would be stored, zero without a default; None for a
            type without fixed width.
        pieces: reads texts or bytes as pieces; None when the values are read only as Python values.
    """

    __slots__ = ("_columns", "_read", "defaults", "dtype", "group", "names", "null", "pieces", "stored_defaults")

    def __init__(self, names: Sequence[str], columns: Sequence[ServedColumn]) -> None:
        first = columns[0]
        self.names, self._columns = names, columns
        self.dtype, self.group = first.dtype, first.group
        self.defaults = [column.default for column in columns]
        self._read, self.pieces = first.reader(columns), first.pieces_reader(columns)
        self.null = np.array([default is None for default in self.defaults])
        self.stored_defaults = self._stored_defaults() if self.is_fixed else None

    @property
    def is_fixed(self) -> bool:
        """Whether the values have a fixed width, and so are an array."""
        return self.dtype.width is not None

    def uniform(self, answer: RequestAnswer) -> Status | None:
        """See ServedColumn."""
        return self._columns[0].uniform(answer)

    def values(self, answer: RequestAnswer) -> Column | list[list[Any]]:
        """(f, m) of the numpy dtype, or (f, m, length) for fixed-size arrays; f lists of m Python values for a type
        without fixed width. Values are undefined where the status is not PRESENT."""
        return self._read(answer)

    def absent(self, answer: RequestAnswer) -> Mask:
        """(f, m) bool, True where there is no value."""
        return self._columns[0].absent_together(answer, self._columns)

    def served(self, answer: RequestAnswer) -> tuple[Column, Mask | None]:
        """The values of a type with fixed width as they are served: (f, n) or (f, n, length).

        The second result is (f, n) bool, True where there is neither a value nor a default, and None when there is no
        such place. The values at these places are zero.
        """
        assert self.stored_defaults is not None
        uniform = self.uniform(answer)
        if uniform is not None and uniform is not Status.PRESENT:
            null = np.repeat(self.null[:, None], answer.count, axis=1) if self.null.any() else None
            return np.repeat(self.stored_defaults[:, None], answer.count, axis=1), null
        values = self.values(answer)
        assert isinstance(values, np.ndarray)
        refuse_beyond(self.dtype, values)
        values = answer.columns_per_row(self.group, values)
        if uniform is Status.PRESENT:
            return values, None
        absent = answer.columns_per_row(self.group, self.absent(answer))
        where = absent if self.dtype.length is None else absent[..., None]
        return np.where(where, self.stored_defaults[:, None], values), absent & self.null[:, None]

    def _stored_defaults(self) -> Column:
        """(f,) or (f, length), the defaults as they would be stored; zero where there is none."""
        shape = (len(self.defaults),) if self.dtype.length is None else (len(self.defaults), self.dtype.length)
        stored = np.zeros(shape, self.dtype.numpy)
        for i, default in enumerate(self.defaults):
            if default is not None:
                stored[i] = self.dtype.to_stored(default)
        return stored


class AnswerPlan:
    """How the answers of a service become columns.

    Args:
        columns: the service's columns by name, in its order.

    Attributes:
        columns: as given.
        blocks: the columns, grouped by `together`.
        places: per block, the indexes of its columns in the service.
        is_ordered: whether the columns of the blocks, one block after the other, are in the order of the service.
    """

    def __init__(self, columns: Mapping[str, ServedColumn]) -> None:
        together: dict[Hashable, list[int]] = {}
        names, served = list(columns), list(columns.values())
        for i, column in enumerate(served):
            together.setdefault(column.together, []).append(i)
        self.columns = columns
        self.places = list(together.values())
        self.blocks = [ColumnBlock([names[i] for i in places], [served[i] for i in places]) for places in self.places]
        self._kept: dict[Hashable, Any] = {}
        self.is_ordered = [i for places in self.places for i in places] == list(range(len(names)))

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of `make`, which is called once for each key. The plan keeps the result."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: T = self._kept[key]
        return kept
