"""Scalar types in Arrow: which columns can hold the values of each type, and how they are checked, stored and served.

A value fits if it loses nothing. Integers must be in range. Floats fit a declared integer if they are whole and below
2**53 (float32: 2**24), since a larger float stands for several integers. Times must be in the years 1 to 9999. Only two
conversions round, as the declared types require: a float to a narrower float, and a decimal to a float. NaN is a value;
null is not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.arrow import csv_text
from feature_store.arrow.conversions import (
    DAY_US,
    Mask,
    as_floats,
    as_integers,
    as_units,
    converted,
    decimals_as_integers,
    each_parsed,
    fit_decimals,
    fit_text,
    fit_times,
    no_mask,
    null_mask,
)
from feature_store.definitions.dtypes import DType
from feature_store.definitions.scalars import MOST_DIGITS, DecimalType
from feature_store.definitions.type_table import TypeTable
from feature_store.online.arrow import arrow_type


class ArrowScalar(ABC):
    """One scalar type in Arrow: which values fit, and how they are parsed, stored and served.

    Args:
        storage: the Arrow type of checked values.

    Attributes:
        parsed: the Arrow type that CSV text is parsed to before `fit`. None: `fit_csv` parses and fits in one step.
    """

    parsed: pa.DataType | None = None

    def __init__(self, storage: pa.DataType) -> None:
        self.storage = storage

    @abstractmethod
    def accepts(self, found: pa.DataType) -> bool:
        """Whether values of a plain type can fit this type."""

    @abstractmethod
    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        """Plain values of an accepted type as `storage`, and a mask of the values that do not fit: (n,) bool."""

    def parse(self, text: str) -> Any:
        """One CSV value as a Python value of `parsed`. None if the text is not a value of the type.

        Raises:
            TypeError: the type has no `parsed`.
        """
        raise TypeError(f"{type(self).__name__} reads CSV text without a parsed type")

    def always_fits(self, found: pa.DataType) -> bool:
        """Whether every value of a column type fits, so that values need no check."""
        return bool(found == self.storage)

    def limits(self, found: pa.DataType) -> tuple[float, float] | None:
        """The least and the greatest number of a column type that fit. None: there are no such limits."""
        return None

    def fit_csv(self, text: pa.StringArray, dtype: DType) -> tuple[pa.Array, Mask]:
        """`fit` for CSV text."""
        if self.parsed is None:
            return each_parsed(text, dtype, self.storage)
        parsed, not_parsed = csv_text.parse(text, self.parsed, self.parse)
        fitted, bad = self.fit(parsed, dtype)
        return fitted, bad | not_parsed

    @abstractmethod
    def is_proposed_for(self, found: pa.DataType) -> bool:
        """Whether `schema infer` proposes this type for a plain column."""

    def filled(self, values: pa.Array) -> np.ndarray[Any, Any]:
        """Stored values as a numpy array. The value of a null is arbitrary."""
        filled = values.fill_null(0) if values.null_count else values
        found: np.ndarray[Any, Any] = filled.to_numpy(zero_copy_only=False)
        return found

    def served(self, values: pa.Array, dtype: DType) -> pa.Array:
        """Stored values in the type that users get."""
        return values.cast(arrow_type(dtype))


class _Bool(ArrowScalar):
    parsed = pa.bool_()

    def accepts(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_boolean(found))

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        return values, no_mask(values)

    def parse(self, text: str) -> bool | None:
        return csv_text.truth(text)

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_boolean(found))

    def filled(self, values: pa.Array) -> np.ndarray[Any, Any]:
        filled: np.ndarray[Any, Any] = values.fill_null(False).to_numpy(zero_copy_only=False)
        return filled


class _Number(ArrowScalar):
    def accepts(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found))


class _Integer(_Number):
    parsed = pa.int64()

    def __init__(self, storage: pa.DataType, proposed: tuple[pa.DataType, ...]) -> None:
        super().__init__(storage)
        self._proposed = proposed

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        if values.type == self.storage:
            return values, no_mask(values)
        if pa.types.is_decimal(values.type):
            return decimals_as_integers(values, self.storage)
        return converted(values, self.storage, as_integers, dtype.numpy)

    def parse(self, text: str) -> int | None:
        return csv_text.integer(text)

    def always_fits(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_signed_integer(found)) and found.bit_width <= self.storage.bit_width

    def limits(self, found: pa.DataType) -> tuple[float, float] | None:
        if not pa.types.is_integer(found):
            return None
        limits = np.iinfo(self.storage.to_pandas_dtype())
        return int(limits.min), int(limits.max)

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return found in self._proposed


class _Float(_Number):
    parsed = pa.float64()

    def __init__(self, storage: pa.DataType, proposed: tuple[pa.DataType, ...], limits: np.finfo[Any]) -> None:
        super().__init__(storage)
        self._proposed, self._limits = proposed, limits

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        if values.type == self.storage:
            return values, no_mask(values)
        if pa.types.is_decimal(values.type):
            values = values.cast(pa.float64())
        return converted(values, self.storage, as_floats, dtype.numpy)

    def parse(self, text: str) -> float | None:
        return csv_text.number(text)

    def always_fits(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_floating(found)) and found.bit_width <= self._limits.bits

    def limits(self, found: pa.DataType) -> tuple[float, float] | None:
        if pa.types.is_integer(found):  # integers up to these are exact as floats
            exact = 1 << (self._limits.nmant + 1)
            return -exact, exact
        return (float(self._limits.min), float(self._limits.max)) if pa.types.is_floating(found) else None

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return found in self._proposed or (self._limits.bits == 64 and bool(pa.types.is_decimal(found)))


class _Half(_Float):
    """Float16. Its storage is float32, since DuckDB has no half floats and Arrow has few functions for them."""

    def __init__(self) -> None:
        super().__init__(pa.float32(), (pa.float16(),), np.finfo(np.float16))

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        if pa.types.is_decimal(values.type):
            values = values.cast(pa.float64())
        return converted(values, self.storage, as_floats, dtype.numpy)

    def filled(self, values: pa.Array) -> np.ndarray[Any, Any]:
        return super().filled(values).astype(np.float16)

    def served(self, values: pa.Array, dtype: DType) -> pa.Array:
        return pa.array(self.filled(values), mask=null_mask(values))


class _String(ArrowScalar):
    def accepts(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        return fit_text(values)

    def fit_csv(self, text: pa.StringArray, dtype: DType) -> tuple[pa.Array, Mask]:
        return text, no_mask(text)

    def always_fits(self, found: pa.DataType) -> bool:
        return False  # text in a file need not be UTF-8

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return self.accepts(found)


class _Bytes(ArrowScalar):
    def accepts(self, found: pa.DataType) -> bool:
        return bool(
            pa.types.is_binary(found) or pa.types.is_large_binary(found) or pa.types.is_fixed_size_binary(found)
        )

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        return values.cast(pa.binary()), no_mask(values)

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return self.accepts(found)


class _Decimal(_Number):
    """Decimals. Their storage counts units of 10**-scale."""

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        scalar = dtype.scalar
        assert isinstance(scalar, DecimalType)
        if pa.types.is_decimal(values.type):
            return fit_decimals(values, scalar)
        return converted(values, self.storage, lambda raw, _: as_units(raw, scalar), dtype.numpy)

    def always_fits(self, found: pa.DataType) -> bool:
        return False  # the storage type does not have the scale

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_decimal(found)) and 0 <= found.scale <= found.precision <= MOST_DIGITS

    def served(self, values: pa.Array, dtype: DType) -> pa.Array:
        """Each number of units as the lower 64 of the 128 bits of an Arrow decimal."""
        units = self.filled(values)
        words = np.column_stack([units, units >> 63]).astype("<i8")
        made = pa.Array.from_buffers(arrow_type(dtype), len(units), [None, pa.py_buffer(words.tobytes())])
        return pc.if_else(values.is_valid(), made, None) if values.null_count else made


class _Date(ArrowScalar):
    parsed = pa.date32()

    def accepts(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_timestamp(found) or pa.types.is_date(found))

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        times, bad = fit_times(values)
        raw = times.fill_null(0).to_numpy()
        days, rest = np.divmod(raw, DAY_US)
        return pa.array(days.astype(np.int32), mask=null_mask(times)), bad | (rest != 0)

    def parse(self, text: str) -> Any:
        return csv_text.day(text)

    def always_fits(self, found: pa.DataType) -> bool:
        return False  # a file can have days outside the range of date

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_date(found))


class _Timestamp(ArrowScalar):
    parsed = pa.timestamp("us")

    def accepts(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_timestamp(found) or pa.types.is_date(found))

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        return fit_times(values)

    def parse(self, text: str) -> Any:
        return csv_text.time(text)

    def always_fits(self, found: pa.DataType) -> bool:
        return False  # a file can have times outside the range of datetime

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_timestamp(found))


ARROW: TypeTable[ArrowScalar] = TypeTable(
    {
        "Bool": _Bool(pa.bool_()),
        "Int8": _Integer(pa.int8(), (pa.int8(),)),
        "Int16": _Integer(pa.int16(), (pa.int16(), pa.uint8())),
        "Int32": _Integer(pa.int32(), (pa.int32(), pa.uint16())),
        "Int64": _Integer(pa.int64(), (pa.int64(), pa.uint32(), pa.uint64())),
        "Float16": _Half(),
        "Float32": _Float(pa.float32(), (pa.float32(),), np.finfo(np.float32)),
        "Float64": _Float(pa.float64(), (pa.float64(),), np.finfo(np.float64)),
        "Decimal": _Decimal(pa.int64()),
        "String": _String(pa.string()),
        "Bytes": _Bytes(pa.binary()),
        "Date": _Date(pa.int32()),
        "Timestamp": _Timestamp(pa.int64()),
    }
)
