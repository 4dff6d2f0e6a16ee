"""Compares two columns: value by value, and as distributions.

Values are equal as in `monitoring/skew.py`: both absent, both NaN, or the same. Floats have a relative tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.definitions.dtypes import DType
from feature_store.errors import DataError

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Numbers = np.ndarray[Any, np.dtype[np.float64]]

# Integers with at most this many distinct values are categories; with more, they are quantities.
_MOST_CATEGORIES = 50
# Bins by quantiles of each sample: enough to show a shift of a tenth; a few thousand rows still give 100 or so per bin.
_BINS = 20
L_INFINITY, JENSEN_SHANNON = "L∞", "Jensen–Shannon"


@dataclass(frozen=True)
class Distance:
    """The distance between two distributions: 0 (the same) to 1 (nothing in common).

    Attributes:
        measure: L_INFINITY for text, bytes, booleans and integers of few values: the largest difference in the share of
            a category. JENSEN_SHANNON for other numbers: the divergence, to base 2, over common quantile bins. Null is
            a separate category or bin.
        value: the distance.
    """

    measure: str
    value: float


def differing(
    one: pa.Array, other: pa.Array, dtype: DType, is_equal: Callable[[Any, Any], bool], tolerance: float
) -> Mask:
    """A mask of the values that are not equal.

    Args:
        one, other: n values each.
        dtype: the type of both.
        is_equal: compares two values of an array type.
        tolerance: the relative difference up to which two floats are equal.

    Returns:
        (n,) bool.
    """
    if dtype.element is not None:
        pairs = zip(one.to_pylist(), other.to_pylist(), strict=True)
        return np.array([not is_equal(*pair) for pair in pairs], bool)
    nulls, other_nulls = _nulls(one), _nulls(other)
    if dtype.numpy.kind == "f":
        differ = ~_close(_numbers(one), _numbers(other), tolerance)
    else:
        differ = np.asarray(pc.fill_null(pc.not_equal(one, other), False).to_numpy(zero_copy_only=False))
    return np.where(nulls | other_nulls, nulls != other_nulls, differ)


def _close(one: Numbers, other: Numbers, tolerance: float) -> Mask:
    with np.errstate(invalid="ignore", over="ignore"):
        within = np.abs(one - other) <= tolerance * np.maximum(np.abs(one), np.abs(other))
        finite = np.isfinite(one) & np.isfinite(other)
        close: Mask = (within & finite) | (one == other) | (np.isnan(one) & np.isnan(other))
    return close


def _nulls(values: pa.Array) -> Mask:
    nulls: Mask = values.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _numbers(values: pa.Array) -> Numbers:
    """The values as float64, times in microseconds. A null becomes an arbitrary number."""
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us")).view(pa.int64())
    if pa.types.is_date32(values.type):
        values = values.view(pa.int32())
    numbers: Numbers = values.cast(pa.float64(), safe=False).fill_null(0.0).to_numpy(zero_copy_only=False)
    return numbers


def distance(one: pa.Array, other: pa.Array, name: str = "feature") -> Distance | None:
    """The distance between two samples of a feature. None for arrays, and if a sample is empty.

    Args:
        one, other: the samples.
        name: names the feature in an error.

    Raises:
        DataError: the types of the samples cannot be compared.
    """
    if not len(one) or not len(other) or pa.types.is_nested(one.type):
        return None
    if one.type != other.type:
        try:
            other = other.cast(one.type)
        except pa.ArrowException as error:
            raise DataError(f"column {name}", expected=f"values of {one.type}", got=str(other.type)) from error
    if _is_category(one, other):
        return Distance(L_INFINITY, _l_infinity(_shares(one), _shares(other)))
    edges = _edges(one, other)
    return Distance(JENSEN_SHANNON, jensen_shannon(_histogram(one, edges), _histogram(other, edges)))


def _is_category(one: pa.Array, other: pa.Array) -> bool:
    if pa.types.is_string(one.type) or pa.types.is_boolean(one.type) or pa.types.is_binary(one.type):
        return True
    if not pa.types.is_integer(one.type):
        return False
    return len(pc.unique(pa.chunked_array([one, other]))) <= _MOST_CATEGORIES


def _shares(values: pa.Array) -> dict[Any, float]:
    counted = pc.value_counts(values)
    return {item["values"]: item["counts"] / len(values) for item in counted.to_pylist()}


def _l_infinity(one: Mapping[Any, float], other: Mapping[Any, float]) -> float:
    return max(abs(one.get(value, 0.0) - other.get(value, 0.0)) for value in one.keys() | other.keys())


def _edges(one: pa.Array, other: pa.Array) -> Numbers:
    """The inner edges of the bins. Both samples have equal weight, even if one has more rows."""
    each = [values[np.isfinite(values)] for values in _there(one, other)]
    steps = np.linspace(0, 1, _BINS + 1)[1:-1]
    found = [np.quantile(values, steps) for values in each if len(values)]
    return np.unique(np.concatenate(found)) if found else np.empty(0)


def _there(*samples: pa.Array) -> Iterator[Numbers]:
    for values in samples:
        yield _numbers(values.drop_null())


def _histogram(values: pa.Array, edges: Numbers) -> Numbers:
    """The share of rows in each bin, then the shares of NaN and of null."""
    (numbers,) = _there(values)
    is_nan = np.isnan(numbers)
    bins = np.bincount(np.searchsorted(edges, numbers[~is_nan], "right"), minlength=len(edges) + 1)
    shares: Numbers = np.array([*bins.tolist(), int(is_nan.sum()), values.null_count], np.float64) / len(values)
    return shares


def jensen_shannon(one: Numbers, other: Numbers) -> float:
    """The Jensen–Shannon divergence of two lists of shares, to base 2: 0 to 1."""
    middle = (one + other) / 2
    found = sum(
        float(np.sum(shares[shares > 0] * np.log2(shares[shares > 0] / middle[shares > 0]))) for shares in (one, other)
    )
    return min(1.0, max(0.0, found / 2))
