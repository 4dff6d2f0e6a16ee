"""The numbers of a float32 matrix: values as quantities, defaults as elements, columns as an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.errors import RequestError

if TYPE_CHECKING:
    from feature_store.definitions.dtypes import DType

Index = slice | np.ndarray[Any, Any]
LARGEST_QUANTITY = 1 << 53


def as_index(columns: list[int]) -> Index:
    """Columns as a slice if they are consecutive, else as an index array."""
    if columns == list(range(columns[0], columns[0] + len(columns))):
        return slice(columns[0], columns[0] + len(columns))
    return np.array(columns, np.intp)


def quantities(names: list[str], dtype: DType, stored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Stored values as numbers that float32 can approximate: decimals divided by their unit.

    Raises:
        RequestError: a value is so large that it must be an identifier; `names` are those of the columns.
    """
    numbers = dtype.scalar.to_numbers(stored)
    if stored.dtype == np.int64:
        refuse_identifiers(names, numbers)
    return numbers


def refuse_identifiers(names: list[str], values: np.ndarray[Any, Any]) -> None:
    """Raise a RequestError for an integer beyond the largest quantity, because it must be an identifier."""
    if values.size and (values.max() > LARGEST_QUANTITY or values.min() < -LARGEST_QUANTITY):
        worst = max(values.max(), -values.min())
        raise RequestError(
            f"to_numpy(): column {' or '.join(names)}",
            expected="quantities within ±2**53, which a float can approximate",
            got=f"{'a number' if values.dtype.kind == 'f' else 'an integer'} of magnitude {worst}",
            hint="leave identifiers out of the service, or read them with to_dict()",
        )


def default_elements(dtype: DType, default: Any) -> list[float]:
    """A default as elements of the matrix; NaN when there is no default."""
    if default is None:
        return [float("nan")] * dtype.size
    return [float(value) for value in (default if dtype.element is not None else [default])]
