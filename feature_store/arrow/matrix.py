"""A training set's features as the matrix that serving would have returned, with equal columns and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.arrow.conversions import null_mask
from feature_store.arrow.types import fit
from feature_store.definitions.dtypes import DType
from feature_store.online.matrix import refuse_unless_numeric
from feature_store.online.quantities import quantities


def to_matrix(table: pa.Table, types: Mapping[str, DType]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The columns of `types`, in their order: (n, f) float32, C-contiguous. A missing value is NaN.

    Raises:
        RequestError: a column's type does not fit a float matrix; see OnlineResponse.to_numpy.
    """
    for name, dtype in types.items():
        refuse_unless_numeric(name, dtype)
    out = np.empty((len(table), sum(dtype.size for dtype in types.values())), np.float32)
    first = 0
    for name, dtype in types.items():
        column = table.column(name).combine_chunks()
        flat = pc.list_flatten(column) if dtype.element is not None else column
        numbers = _numbers(_quantities(name, flat, dtype) if dtype.numpy == np.int64 else flat)
        values = _lists(column, numbers, dtype) if dtype.element is not None else numbers[:, None]
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


def _quantities(name: str, values: pa.Array, dtype: DType) -> pa.Array:
    """64-bit values as in serving before they are rounded to float32: checked, and decimals divided by their unit."""
    stored, _ = fit(values, dtype.element or dtype)
    nulls = null_mask(stored)
    return pa.array(quantities([name], dtype, stored.fill_null(0).to_numpy()), mask=nulls)


def _lists(
    column: pa.Array, numbers: np.ndarray[Any, np.dtype[np.float64]], dtype: DType
) -> np.ndarray[Any, np.dtype[np.float64]]:
    stacked = np.full((len(column), dtype.size), np.nan)
    is_there = column.is_valid().to_numpy(zero_copy_only=False)
    stacked[is_there] = numbers.reshape(-1, dtype.size)
    return stacked
