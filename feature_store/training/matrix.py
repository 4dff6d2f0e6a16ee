"""A training set's features as the matrix that serving would have returned: the same columns, the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.online.matrix import refuse_identifiers, refuse_unless_numeric

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_store.definitions.dtypes import DType


def to_matrix(table: pa.Table, types: Mapping[str, DType]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The columns of `types`, in their order: (n, f) float32, C-contiguous; NaN where there is no value.

    Raises:
        RequestError: a column has no place in a float matrix; see OnlineResponse.to_numpy.
    """
    for name, dtype in types.items():
        refuse_unless_numeric(name, dtype)
    out = np.empty((len(table), sum(dtype.size for dtype in types.values())), np.float32)
    first = 0
    for name, dtype in types.items():
        column = table.column(name).combine_chunks()
        if dtype.numpy == np.int64:  # before they are rounded, as in serving
            integers = pc.list_flatten(column) if dtype.element is not None else column
            refuse_identifiers([name], integers.drop_null().to_numpy())
        values = _lists(column, dtype) if dtype.element is not None else _numbers(column)[:, None]
        with np.errstate(over="ignore"):  # a float64 beyond float32 is inf, as when it is served
            out[:, first : first + dtype.size] = values
        first += dtype.size
    return out


def _numbers(column: pa.Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    values = column.cast(pa.float64(), safe=False).fill_null(float("nan"))
    numbers: np.ndarray[Any, np.dtype[np.float64]] = values.to_numpy(zero_copy_only=False)
    return numbers


def _lists(column: pa.Array, dtype: DType) -> np.ndarray[Any, np.dtype[np.float64]]:
    stacked = np.full((len(column), dtype.size), np.nan)
    is_there = column.is_valid().to_numpy(zero_copy_only=False)
    stacked[is_there] = _numbers(pc.list_flatten(column)).reshape(-1, dtype.size)
    return stacked
