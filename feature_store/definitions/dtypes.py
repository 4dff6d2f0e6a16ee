"""The types of features and entity keys: their width in a row, their numpy dtype, and the values that fit them.

| type | Python value | in the row |
|---|---|---|
| Bool | bool | 1 byte, 0 or 1 |
| Int8, Int16, Int32, Int64 | int | 1, 2, 4, 8 bytes, little-endian |
| Float16, Float32, Float64 | float | 2, 4, 8 bytes, IEEE 754, little-endian |
| Decimal(p, s), p up to 18 | decimal.Decimal | 8 bytes, little-endian: an int64 that counts units of 10**-s |
| Timestamp | datetime, UTC, microseconds, years 1 to 9999 | 8 bytes, microseconds since 1970 |
| Date | date, years 1 to 9999 | 4 bytes, little-endian: days since 1970 |
| Array(T, n), T of fixed width | list of n values | n × the width of T |
| String | str | variable: stored beside the row |
| Bytes | bytes | variable: stored beside the row |
| Array(T), Array(String, n), Array(Bytes, n) | list | variable: stored beside the row |

`scalars.py` has the behaviour of scalar types. A DType is a scalar type, or an array of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.definitions.scalar import Scalar
from feature_store.definitions.scalars import MOST_DIGITS, NAMES, scalar_named
from feature_store.definitions.times import (
    EPOCH,
    MAX_TIMESTAMP_US,
    MICROSECOND,
    MIN_TIMESTAMP_US,
    from_microseconds,
    given_duration,
    given_microseconds,
    to_microseconds,
)
from feature_store.definitions.validation import shown
from feature_store.errors import DataError, DefinitionError

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

__all__ = [
    "EPOCH",
    "MAX_TIMESTAMP_US",
    "MICROSECOND",
    "MIN_TIMESTAMP_US",
    "SCALARS",
    "Array",
    "Bool",
    "Bytes",
    "DType",
    "Date",
    "Decimal",
    "Float16",
    "Float32",
    "Float64",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "String",
    "Timestamp",
    "from_microseconds",
    "given_duration",
    "given_microseconds",
    "largest_whole",
    "to_microseconds",
    "whole_number",
]


def largest_whole(dtype: np.dtype[Any] | type[Any]) -> int:
    """The largest integer of a float type that no other integer is rounded to: 2**53 - 1 for float64, since 2**53 + 1
    is rounded to 2**53."""
    return int(2 ** (np.finfo(dtype).nmant + 1)) - 1


def whole_number(value: Any) -> Any:
    """The integer that a float stands for, if it has no fraction and is at most `largest_whole`; else the value itself.

    pandas turns a column of integers with a missing value into floats, and some writers of JSON write every number as
    a float.
    """
    if not isinstance(value, (float, np.floating)) or not value.is_integer():
        return value
    whole = int(value)
    return whole if abs(whole) <= largest_whole(type(value)) else value


@dataclass(frozen=True, slots=True)
class DType:
    """A type of feature or entity key. Use the constants (`Int64`, `String`, …) and `Array(…)`.

    Attributes:
        name: the constant's name, or `Array`.
        code: numpy code of one stored element, little-endian; empty for String.
        element: an Array's element type.
        length: an Array's fixed length; None means ragged.

    Example:
        >>> from feature_store import Array, Float32
        >>> Array(Float32, 8).width
        32
    """

    name: str
    code: str = ""
    element: DType | None = None
    length: int | None = None

    def __str__(self) -> str:
        if self.element is None:
            return self.name
        return f"Array({self.element})" if self.length is None else f"Array({self.element}, {self.length})"

    __repr__ = __str__

    @property
    def scalar(self) -> Scalar:
        """The scalar type; of an array, that of its elements."""
        return scalar_named(self.name if self.element is None else self.element.name)

    @property
    def width(self) -> int | None:
        """Bytes in the row; None: values have no fixed width."""
        if self.element is None:
            return np.dtype(self.code).itemsize if self.code else None
        if self.length is None or self.element.width is None:
            return None
        return self.element.width * self.length

    @property
    def size(self) -> int:
        """Elements of a value of fixed width: 1, or the array's length."""
        return self.length or 1

    @property
    def numpy(self) -> np.dtype[Any]:
        """The dtype of a column of stored values (of an array: of its elements); object if they have no fixed width."""
        code = self.scalar.code
        return np.dtype(code) if code else np.dtype(object)

    @property
    def is_number(self) -> bool:
        """Whether a value is a single number."""
        return self.element is None and self.scalar.is_number

    def fit(self, value: Any, where: str) -> Any:
        """The canonical Python value of `value`.

        Raises:
            DataError: the value is not of this type; `where` names it.
        """
        if self.element is not None:
            return self._fit_array(value, where)
        fitted = self.scalar.fit(value)
        if fitted is None:
            shown = value.item() if isinstance(value, np.generic) else value
            raise DataError(where, expected=self.scalar.expected, got=f"{shown!r} ({type(value).__name__})")
        return fitted

    def _fit_array(self, value: Any, where: str) -> list[Any]:
        assert self.element is not None
        if not isinstance(value, (list, tuple, np.ndarray)):
            raise DataError(where, expected=f"a list for {self}", got=f"{value!r} ({type(value).__name__})")
        if self.length is not None and len(value) != self.length:
            raise DataError(where, expected=f"{self.length} values for {self}", got=f"{len(value)}")
        return [self.element.fit(item, f"{where}[{i}]") for i, item in enumerate(value)]

    def read(self, text: str, where: str) -> Any:
        """Parse a typed value: a number, `true` or `1`, a time in ISO 8601 (UTC unless it names a zone), text without
        quotes, an array in JSON.

        Raises:
            DataError: the text is not a value of this type; `where` names it.
        """
        try:
            return self.fit(self._parsed_array(text) if self.element is not None else self.scalar.parse(text), where)
        except (ValueError, RecursionError):
            raise DataError(where, expected=f"a value of {self}", got=repr(text)) from None

    def _parsed_array(self, text: str) -> Any:
        items = json.loads(text)
        if not self.scalar.is_text_in_json or not isinstance(items, list):
            return items
        return [self.scalar.parse(item) if isinstance(item, str) else item for item in items]

    def to_json(self, value: Any) -> Any:
        """The JSON form of a canonical value: a timestamp is microseconds; a date, a decimal, bytes (in base64) and a
        float that is not finite are text."""
        return self._each(self.scalar.to_json, value)

    def from_json(self, value: Any) -> Any:
        """The inverse of `to_json`."""
        return self._each(self.scalar.from_json, value)

    def to_stored(self, value: Any) -> Any:
        """The stored form of a canonical value, in numpy and Arrow: a timestamp is microseconds, a date days since
        1970, a decimal units of 10**-scale."""
        return value if self.scalar.is_stored_as_is else self._each(self.scalar.to_stored, value)

    def from_stored(self, values: list[Any]) -> list[Any]:
        """Stored values (or lists of them, for arrays) as canonical Python values; None stays None.

        Raises:
            OverflowError: a stored value is outside of the type's range.
        """
        if self.scalar.is_stored_as_is:
            return values
        if self.element is None and None not in values:
            return self.scalar.from_stored(values)
        return [value if value is None else self._from_stored(value) for value in values]

    def _from_stored(self, value: Any) -> Any:
        return self.scalar.from_stored(value) if self.element is not None else self.scalar.from_stored([value])[0]

    def _each(self, convert: Callable[[Any], Any], value: Any) -> Any:
        if value is None:
            return None
        return convert(value) if self.element is None else [convert(item) for item in value]

    @classmethod
    def parse(cls, text: str) -> DType:
        """The inverse of `str(dtype)`.

        Raises:
            DefinitionError: there is no such type.
        """
        if text in SCALARS:
            return SCALARS[text]
        array = _ARRAY.fullmatch(text)
        try:
            if array is None:
                return _scalar_dtype(text)
            return Array(_scalar_dtype(array[1]), int(array[2]) if array[2] else None)
        except KeyError:
            expected = f"one of {', '.join(SCALARS)}, Decimal(…) or Array(…)"
            raise DefinitionError("dtype", expected=expected, got=repr(text)) from None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        def read(value: Any) -> DType:
            if isinstance(value, DType):
                return value
            if isinstance(value, str):
                return cls.parse(value)
            raise ValueError("expected a type such as Int64 or Array(Float32, 8)")

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


_ARRAY = re.compile(r"Array\((\w+(?:\(\d+, ?\d+\))?)(?:, ?(\d+))?\)")
SCALARS = {name: DType(name, scalar_named(name).code) for name in NAMES}
Bool = SCALARS["Bool"]
Int8, Int16, Int32, Int64 = SCALARS["Int8"], SCALARS["Int16"], SCALARS["Int32"], SCALARS["Int64"]
Float16, Float32, Float64 = SCALARS["Float16"], SCALARS["Float32"], SCALARS["Float64"]
String, Bytes = SCALARS["String"], SCALARS["Bytes"]
Timestamp, Date = SCALARS["Timestamp"], SCALARS["Date"]


def Decimal(precision: int, scale: int) -> DType:
    """A decimal number of at most `precision` digits, `scale` of them after the point, such as `Decimal(10, 2)`.

    Raises:
        DefinitionError: the precision is not from 1 to 18, or the scale is not from 0 to the precision.

    Example:
        >>> from feature_store import Decimal, Field
        >>> Field("price", Decimal(10, 2), default=9.99).default
        Decimal('9.99')
    """
    for name, value, least, most in (("precision", precision, 1, MOST_DIGITS), ("scale", scale, 0, precision)):
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise DefinitionError(f"Decimal.{name}", expected=f"a number from {least} to {most}", got=shown(value))
    return _scalar_dtype(f"Decimal({precision}, {scale})")


def _scalar_dtype(name: str) -> DType:
    """The scalar type of a name.

    Raises:
        KeyError: there is none.
    """
    if name in SCALARS:
        return SCALARS[name]
    scalar = scalar_named(name)
    return DType(scalar.name, scalar.code)


def Array(element: DType, length: int | None = None) -> DType:
    """A list of values of one scalar type; with a length it has a fixed width and lives in the row.

    Raises:
        DefinitionError: the element is itself an array, or the length is not at least 1.

    Example:
        >>> from feature_store import Array, Field, Float32
        >>> Field("embedding", Array(Float32, 3), default=[0.0, 0.0, 0.0]).dtype.length
        3
    """
    if not isinstance(element, DType) or element.element is not None:
        raise DefinitionError("Array", expected="a scalar element type", got=shown(element))
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        raise DefinitionError("Array", expected="a length of at least 1, or none", got=shown(length))
    return DType("Array", element.code, element, length)
