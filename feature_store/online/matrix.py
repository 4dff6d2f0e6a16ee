"""How a float32 matrix is filled from stored rows, compiled once per service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.definitions.scalars import NOT_NUMBERS
from feature_store.errors import RequestError
from feature_store.online.quantities import as_index, default_elements
from feature_store.online.window_matrix import WindowsPlan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_store.definitions.dtypes import DType
    from feature_store.online.column import ServedColumn
    from feature_store.online.layout import FieldLayout, SegmentLayout


class Block:
    """The columns of one view and one numpy type: one copy from the rows, and one copy into the matrix.

    Attributes:
        offset, width: the bytes of the row that hold the columns.
        code: the numpy type of the columns.
        source: the elements of those bytes that are copied; None for all, in order.
        target: the columns of the matrix.
        raw: whether the bytes are float32 already and are copied unchanged.
        dtype: the type whose values become numbers first (decimals) or are checked (64-bit integers); else None.
    """

    def __init__(self, segment: SegmentLayout, fields: list[tuple[FieldLayout, int]]) -> None:
        itemsize = fields[0][0].dtype.numpy.itemsize
        starts = [segment.offset + field.offset for field, _ in fields]
        self.offset = min(starts)
        self.width = (
            max(start + (field.dtype.width or 0) for start, (field, _) in zip(starts, fields, strict=True))
            - self.offset
        )
        source: list[int] = []
        target: list[int] = []
        for start, (field, column) in zip(starts, fields, strict=True):
            source += range((start - self.offset) // itemsize, (start - self.offset) // itemsize + field.dtype.size)
            target += range(column, column + field.dtype.size)
        self.names = [field.name for field, _ in fields]
        self.code = fields[0][0].dtype.numpy
        self.source = None if source == list(range(self.width // itemsize)) else np.array(source, np.intp)
        self.target = as_index(target)
        dtype = fields[0][0].dtype
        self.dtype = dtype if self.code == np.int64 else None
        self.raw = self.code == np.float32 and self.source is None and isinstance(self.target, slice)
        self.raw_target = slice(4 * target[0], 4 * target[-1] + 4)


class ViewPlan:
    """The columns of the matrix that one view fills.

    Attributes:
        group: the index of the row group in the service.
        segment: the view's segment of the row.
        blocks: the copies.
        fields: the field of each column.
        target: the columns of the matrix.
        defaults: (len(fields),) float32, NaN where there is no default.
    """

    def __init__(self, group: int, segment: SegmentLayout, placed: list[tuple[FieldLayout, int]]) -> None:
        self.group, self.segment = group, segment
        by_type: dict[Any, list[tuple[FieldLayout, int]]] = {}
        for field, column in placed:
            by_type.setdefault(field.dtype.scalar.name, []).append((field, column))
        self.blocks = [Block(segment, fields) for fields in by_type.values()]
        self.fields = [field for field, _ in placed for _ in range(field.dtype.size)]
        self.target = as_index([column + i for field, column in placed for i in range(field.dtype.size)])
        defaults = [default_elements(field.dtype, field.default) for field, _ in placed]
        self.defaults = np.array([value for elements in defaults for value in elements], np.float32)


class MatrixPlan:
    """How to fill the matrix of a service.

    Attributes:
        views: the columns that are copied from rows, by view.
        windows: the columns that are computed from windows, by stream view.
        computed: the columns whose `values` are called for each answer: name, column and place in the matrix.
        constant: places in the matrix of columns that have one value, and the value's elements.
        width: columns of the matrix.
        pieces: see `_pieces`.

    Raises:
        RequestError: a column has no place in a float matrix.
    """

    def __init__(self, columns: Mapping[str, ServedColumn]) -> None:
        self._placed: dict[tuple[int, str], tuple[SegmentLayout, list[tuple[FieldLayout, int]]]] = {}
        self._windows: dict[int, WindowsPlan] = {}
        self.computed: list[tuple[str, ServedColumn, int | slice]] = []
        self.constant: list[tuple[slice, list[float]]] = []
        self.width = 0
        for name, column in columns.items():
            refuse_unless_numeric(name, column.dtype)
            column.add_to(self, name, self.width)
            self.width += column.dtype.size
        self.views = [ViewPlan(group, segment, fields) for (group, _), (segment, fields) in self._placed.items()]
        self.windows = list(self._windows.values())
        self.pieces = self._pieces()

    def add_stored(self, group: int, segment: SegmentLayout, field: FieldLayout, target: int) -> None:
        """Add a column that is copied from stored rows, to the column `target` of the matrix."""
        self._placed.setdefault((group, segment.view), (segment, []))[1].append((field, target))

    def add_window(self, group: int, window: str, name: str, dtype: DType, default: Any, target: int) -> None:
        """Add a column of single numbers that is computed from a window."""
        self._windows.setdefault(group, WindowsPlan(group)).add(name, window, dtype, default, target)

    def add_constant(self, dtype: DType, value: Any, target: int) -> None:
        """Add a column whose rows all have one value."""
        elements = default_elements(dtype, value)
        self.constant.append((slice(target, target + len(elements)), elements))

    def add_computed(self, name: str, column: ServedColumn, target: int) -> None:
        """Add a column whose `values` are called for each answer."""
        place = target if column.dtype.length is None else slice(target, target + column.dtype.length)
        self.computed.append((name, column, place))

    def _pieces(self) -> list[tuple[int, int, int]] | None:
        """The pieces of stored rows that make up a row of the matrix, in the order of the columns; None unless all
        columns are stored float32. A piece is `(group, from, to)`, in bytes of the stored row."""
        pieces = [(block.raw_target.start, view.group, block) for view in self.views for block in view.blocks]
        if self.windows or self.computed or self.constant or not all(block.raw for _, _, block in pieces):
            return None
        ordered = sorted(pieces, key=lambda piece: piece[0])
        return [(group, block.offset, block.offset + block.width) for _, group, block in ordered]


def matrix_columns(types: Mapping[str, DType]) -> list[str]:
    """The names of the matrix's columns: a feature's, or one for each element of a fixed-size array, `name_0`, ….

    LightGBM and XGBoost refuse brackets in names. If another column has such a name, the array's names get as many more
    underscores as they need to differ.
    """
    names: list[str] = []
    for name, dtype in types.items():
        names += [name] if dtype.length is None else _elements(name, dtype.length, types)
    return names


def bracketed_columns(types: Mapping[str, DType]) -> list[str]:
    """The names of the matrix's columns in early versions, `name[0]`, …, which models of that time still use."""
    return [
        column
        for name, dtype in types.items()
        for column in ([name] if dtype.length is None else [f"{name}[{i}]" for i in range(dtype.length)])
    ]


def _elements(name: str, length: int, types: Mapping[str, DType]) -> list[str]:
    others = {column for other in types if other != name for column in (other, *_plain_elements(other, types))}
    separator = "_"
    while any(f"{name}{separator}{i}" in others for i in range(length)):
        separator += "_"
    return [f"{name}{separator}{i}" for i in range(length)]


def _plain_elements(name: str, types: Mapping[str, DType]) -> list[str]:
    return [f"{name}_{i}" for i in range(types[name].length or 0)]


def refuse_unless_numeric(name: str, dtype: DType) -> None:
    """Raise a RequestError for a column whose values float32 cannot represent."""
    hint = dtype.scalar.not_in_matrix or (NOT_NUMBERS if dtype.width is None else "")
    if hint:
        raise RequestError(f"to_numpy(): column {name}", expected="numbers of fixed width", got=str(dtype), hint=hint)
