"""The types of features and entity keys, how wide they are in a row, and which Python values fit them.

| type | Python value | in the row |
|---|---|---|
| Bool | bool | 1 byte, 0 or 1 |
| Int32, Int64 | int | 4, 8 bytes, little-endian |
| Float32, Float64 | float | 4, 8 bytes, IEEE 754, little-endian |
| Timestamp | datetime, UTC, microseconds, years 1 to 9999 | 8 bytes, microseconds since 1970 |
| Array(T, n), T of fixed width | list of n values | n × the width of T |
| String | str | variable: stored beside the row |
| Array(T), Array(String, n) | list | variable: stored beside the row |
"""

from __future__ import annotations

import json
import math
import operator
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.definitions.validation import shown
from feature_store.errors import DataError, DefinitionError, RequestError

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# The range of datetime, and so of every timestamp: what can be stored can also be shown.
MIN_TIMESTAMP_US = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
MAX_TIMESTAMP_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
# 1973-03-03 in microseconds: as milliseconds year 5138, so that no time of our days is taken for one in another unit.
_LEAST_GIVEN_US = 10**14
FLOAT32_MAX = float(np.finfo(np.float32).max)


def to_microseconds(value: datetime) -> int:
    """Microseconds since 1970 of a datetime; one without a time zone is taken as UTC."""
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return (aware - EPOCH) // MICROSECOND


def given_microseconds(value: Any, where: str) -> int:
    """Microseconds since 1970 of a time that a caller gives: a datetime, or an integer that counts them already.

    An integer within the first three years after 1970, or before them, is refused: `time.time()` counts seconds, and as
    microseconds it would be a time at which nothing has expired. So is one beyond year 9999, which nanoseconds are.

    Raises:
        RequestError: it is neither; `where` names it.
    """
    if isinstance(value, datetime) and value == value:  # pandas' NaT is a datetime that equals nothing
        found = to_microseconds(value)
        if not MIN_TIMESTAMP_US <= found <= MAX_TIMESTAMP_US:  # its time zone moves it out of these years
            raise RequestError(where, expected="a time of the years 1 to 9999, UTC", got=str(value))
        return found
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is not None and _LEAST_GIVEN_US <= abs(number) <= MAX_TIMESTAMP_US:
        return number
    hint = "time.time_ns() // 1000 is now; or give a datetime"
    if number is None:
        raise RequestError(where, expected="a datetime, or integer microseconds", got=repr(value), hint=hint)
    unit = "nanoseconds" if abs(number) > MAX_TIMESTAMP_US else "seconds or milliseconds"
    raise RequestError(where, expected="microseconds since 1970", got=f"{number}, as {unit} are", hint=hint)


def given_duration(value: Any, where: str) -> int:
    """Microseconds of a duration that a caller gives.

    Raises:
        RequestError: it is no timedelta, or below 0; `where` names it.
    """
    if not isinstance(value, timedelta) or value != value or value < timedelta(0):  # pandas' NaT equals nothing
        raise RequestError(where, expected="a timedelta of 0 or more", got=repr(value)[:80])
    return value // MICROSECOND


def from_microseconds(value: int) -> datetime:
    """The UTC datetime of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=value)


def largest_whole(dtype: np.dtype[Any] | type[Any]) -> int:
    """The largest float of a type that stands for one integer alone, 2**53 - 1 of float64: 2**53 is also what 2**53 + 1
    is rounded to."""
    return int(2 ** (np.finfo(dtype).nmant + 1)) - 1


def whole_number(value: Any) -> Any:
    """The integer that a float stands for: one without a fraction, up to `largest_whole`; any other value as it is.

    pandas makes floats of a column of integers with a missing value, and some writers of JSON make them of all numbers.
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
    def width(self) -> int | None:
        """Bytes in the row, or None when the value has no fixed width."""
        if self.element is None:
            return np.dtype(self.code).itemsize if self.code else None
        if self.length is None or self.element.width is None:
            return None
        return self.element.width * self.length

    @property
    def size(self) -> int:
        """Elements of one value that has a fixed width: 1, or an array's length."""
        return self.length or 1

    @property
    def numpy(self) -> np.dtype[Any]:
        """The dtype of a column of such values (of their elements, for arrays); object for strings."""
        scalar = self.element or self
        return np.dtype(scalar.code) if scalar.code else np.dtype(object)

    def fit(self, value: Any, where: str) -> Any:
        """Return the canonical Python value of `value`.

        Raises:
            DataError: the value is not of this type; it says `where`.
        """
        if self.element is not None:
            return self._fit_array(value, where)
        fitted = _FIT[self.name](value)
        if fitted is None:
            shown = value.item() if isinstance(value, np.generic) else value
            raise DataError(where, expected=_WANTED[self.name], got=f"{shown!r} ({type(value).__name__})")
        return fitted

    def _fit_array(self, value: Any, where: str) -> list[Any]:
        assert self.element is not None
        if not isinstance(value, (list, tuple, np.ndarray)):
            raise DataError(where, expected=f"a list for {self}", got=f"{value!r} ({type(value).__name__})")
        if self.length is not None and len(value) != self.length:
            raise DataError(where, expected=f"{self.length} values for {self}", got=f"{len(value)}")
        return [self.element.fit(item, f"{where}[{i}]") for i, item in enumerate(value)]

    def read(self, text: str, where: str) -> Any:
        """The value that somebody typed: a number, `true` or `1`, a time in ISO 8601 (UTC unless it says otherwise), a
        text as it is; a list in JSON.

        Raises:
            DataError: it is no value of this type; it says `where`.
        """
        try:
            read = json.loads(text) if self.element is not None else _READ[self.name](text)
            return self.fit(read, where)
        except (ValueError, KeyError, RecursionError):
            raise DataError(where, expected=f"a value of {self}", got=repr(text)) from None

    def to_json(self, value: Any) -> Any:
        """A canonical value as JSON keeps it: timestamps as microseconds, non-finite floats as text."""
        if value is None:
            return None
        if self.element is not None:
            return [self.element.to_json(item) for item in value]
        if self.name == "Timestamp":
            return to_microseconds(value)
        return value if not isinstance(value, float) or math.isfinite(value) else str(value)

    def from_json(self, value: Any) -> Any:
        """The inverse of `to_json`."""
        if value is None:
            return None
        if self.element is not None:
            return [self.element.from_json(item) for item in value]
        if self.name == "Timestamp":
            return from_microseconds(value)
        return float(value) if self.name in ("Float32", "Float64") else value

    @classmethod
    def parse(cls, text: str) -> DType:
        """The type that `str(dtype)` wrote.

        Raises:
            DefinitionError: there is no such type.
        """
        if text in SCALARS:
            return SCALARS[text]
        found = re.fullmatch(r"Array\((\w+)(?:, ?(\d+))?\)", text)
        if found is None or found[1] not in SCALARS:
            raise DefinitionError("dtype", expected=f"one of {', '.join(SCALARS)} or Array(…)", got=repr(text))
        return Array(SCALARS[found[1]], int(found[2]) if found[2] else None)

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


Bool = DType("Bool", "|b1")
Int32 = DType("Int32", "<i4")
Int64 = DType("Int64", "<i8")
Float32 = DType("Float32", "<f4")
Float64 = DType("Float64", "<f8")
Timestamp = DType("Timestamp", "<i8")
String = DType("String")
SCALARS = {dtype.name: dtype for dtype in (Bool, Int32, Int64, Float32, Float64, String, Timestamp)}


def Array(element: DType, length: int | None = None) -> DType:
    """A list of values of one scalar type; with a length it has a fixed width and lives in the row.

    Raises:
        DefinitionError: the element is itself an array, or the length is not at least 1.
    """
    if not isinstance(element, DType) or element.element is not None:
        raise DefinitionError("Array", expected="a scalar element type", got=shown(element))
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        raise DefinitionError("Array", expected="a length of at least 1, or none", got=shown(length))
    return DType("Array", element.code, element, length)


def _as_int(low: int, high: int) -> Any:
    def fit(value: Any) -> int | None:
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        return int(value) if whole and low <= value <= high else None

    return fit


def _as_float64(value: Any) -> float | None:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    # An int that no float64 holds exactly would change silently.
    return float(value) if not isinstance(value, (int, np.integer)) or int(float(value)) == int(value) else None


def _as_float32(value: Any) -> float | None:
    wide = _as_float64(value)
    if wide is None or (math.isfinite(wide) and abs(wide) > FLOAT32_MAX):
        return None
    return float(np.float32(wide))


def _as_timestamp(value: Any) -> datetime | None:
    if isinstance(value, np.datetime64):
        value = None if np.isnat(value) else from_microseconds(int(value.astype("datetime64[us]").astype(np.int64)))
    if not isinstance(value, datetime) or value != value:  # pandas' NaT is a datetime
        return None
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return aware.astimezone(UTC).replace(fold=0)  # UTC has no folds, but repr and pickle would show one


_FIT: dict[str, Any] = {
    "Bool": lambda value: bool(value) if isinstance(value, (bool, np.bool_)) else None,
    "Int32": _as_int(-(2**31), 2**31 - 1),
    "Int64": _as_int(-(2**63), 2**63 - 1),
    "Float32": _as_float32,
    "Float64": _as_float64,
    "String": lambda value: value if isinstance(value, str) else None,
    "Timestamp": _as_timestamp,
}
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")  # int() also takes 1_000 and the digits of every script


def _read_int(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(text)
    return int(text)


_READ: dict[str, Any] = {
    "Bool": lambda text: {"true": True, "1": True, "false": False, "0": False}[text.lower()],
    "Int32": _read_int,
    "Int64": _read_int,
    "Float32": float,
    "Float64": float,
    "String": str,
    "Timestamp": datetime.fromisoformat,
}
_WANTED = {
    "Bool": "a bool",
    "Int32": "an int in [-2**31, 2**31)",
    "Int64": "an int in [-2**63, 2**63)",
    "Float32": "a number within float32's range",
    "Float64": "a number that float64 holds",
    "String": "a str",
    "Timestamp": "a datetime",
}
