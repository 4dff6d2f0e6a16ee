"""Types of the arrays of values, masks and states that aggregation functions and windows exchange."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

Column = np.ndarray[Any, Any]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
# (n,) values and (n,) bool.
Values = tuple[Column, Mask]
# The arrays of n states by the names of their fields. Their first axis is n.
StateArrays = dict[str, Column]


class WindowMask:
    """The tiles that lie in a window, among (n, k) tiles.

    Attributes:
        mask: (n, k) bool.
    """

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    @cached_property
    def weights(self) -> Column:
        """(n, k) float64, 1.0 and 0.0, for sums. A product with bools takes a third longer."""
        return self.mask.astype(np.float64)

    @cached_property
    def outside(self) -> Mask:
        """(k, n) bool: the tiles outside the window, tile by tile."""
        outside: Mask = np.logical_not(self.mask.T, order="C")
        return outside

    def chosen(self, values: Column, nothing: float) -> Column:
        """(k, n) numbers, tile by tile: a copy of (n, k) numbers of tiles, with `nothing` outside the window.

        numpy reduces them along the first axis in 8 µs for 600 windows of 50 tiles. Window by window, along the second
        axis, it takes 30 µs.
        """
        tiles: Column = np.array(values.T, order="C")
        np.copyto(tiles, nothing, where=self.outside)
        return tiles


def values_of(values: Column, nulls: Mask) -> Values:
    """A column with -0.0 as 0.0, and (n,) bool: the rows that have a value, which is neither null nor NaN."""
    if values.dtype.kind != "f":
        return values, ~nulls
    return values + values.dtype.type(0), ~(nulls | np.isnan(values))


def sizes_of(starts: Column, total: int) -> Column:
    """The sizes of groups that begin at `starts` and together have `total` values."""
    return np.diff(starts, append=total)
