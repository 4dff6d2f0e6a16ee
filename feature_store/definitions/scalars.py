"""The scalar types: which Python values fit them, and how a value is parsed, stored and written to JSON.

A value has three forms, and each scalar type converts between them:

    canonical   the Python value that users see: an int, a str, a datetime
    stored      one element of a numpy array of `code`, as rows and tiles hold it: a Timestamp is an int64
    JSON        as definitions and serving plans hold a default

To add a type, add a class (or an instance of one below) and its name to `_SCALARS`. A test then names each table of the
other packages that needs a row for the type: see "Add a dtype" in CONTRIBUTING.md.
"""

# ruff: noqa: D102 - methods without a docstring have the one of Scalar
from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from feature_store.definitions.times import from_microseconds, to_microseconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    Stored = np.ndarray[Any, np.dtype[Any]]

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")  # int() also takes 1_000 and the digits of every script


class Scalar:
    """A scalar type.

    Attributes:
        name: the type as users write it.
        kind: the name without parameters, by which tables of other packages know the type.
        code: numpy code of one stored value, little-endian; empty when values have no fixed width.
        expected: the values that fit, as an error names them.
        is_number: a range (`min`, `max`) can be declared.
        is_summed: sums, means, minima and maxima can be computed.
        is_listed: a list of `allowed` values can be declared.
        key_code: of a type that entity keys may have, the `struct` code of a key; empty for text. None: no key type.
        constants: the Python types that a filter may compare values with.
        not_in_matrix: what to do instead of reading values as float32; empty: they can be read so.
        is_stored_as_is: the stored form of a value is the canonical one.
        zero: a canonical value for trying things out.
        blank: the stored value that an on-demand function sees where there is no value.
    """

    is_number: ClassVar[bool] = False
    is_summed: ClassVar[bool] = False
    is_listed: ClassVar[bool] = False
    constants: ClassVar[tuple[type, ...]] = ()
    is_stored_as_is: ClassVar[bool] = True
    zero: ClassVar[Any] = 0
    blank: ClassVar[Any] = 0

    def __init__(
        self, name: str, code: str, expected: str, *, key_code: str | None = None, not_in_matrix: str = ""
    ) -> None:
        self.name, self.code, self.expected = name, code, expected
        self.kind = name.partition("(")[0]
        self.key_code, self.not_in_matrix = key_code, not_in_matrix

    def fit(self, value: Any) -> Any:
        """The canonical form of a Python or numpy value; None when it does not fit."""
        raise NotImplementedError

    def parse(self, text: str) -> Any:
        """A value that a person typed, in a form that `fit` takes.

        Raises:
            ValueError: the text is not such a value.
        """
        raise NotImplementedError

    def to_json(self, value: Any) -> Any:
        """A canonical value as JSON holds it."""
        return value

    def from_json(self, value: Any) -> Any:
        """The canonical value of `to_json`."""
        return value

    def to_stored(self, value: Any) -> Any:
        """A canonical value as it is stored."""
        return value

    def from_stored(self, values: Iterable[Any]) -> list[Any]:
        """Stored values, as `ndarray.tolist()` returns them, as canonical values.

        Raises:
            OverflowError: a stored value is outside of the type's range.
        """
        return list(values)


class BoolType(Scalar):
    """True or false."""

    is_summed, is_listed, constants, zero = True, True, (bool, int, float), False

    def fit(self, value: Any) -> bool | None:
        return bool(value) if isinstance(value, (bool, np.bool_)) else None

    def parse(self, text: str) -> bool:
        known = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in known:
            raise ValueError(text)
        return known[text.lower()]


class IntegerType(Scalar):
    """Signed integers of 8, 16, 32 or 64 bits."""

    is_number, is_summed, is_listed, constants = True, True, True, (bool, int, float)

    def __init__(self, name: str, code: str, *, key_code: str | None = None) -> None:
        limits = np.iinfo(code)
        self.least, self.most = int(limits.min), int(limits.max)
        super().__init__(name, code, f"an int in [-2**{limits.bits - 1}, 2**{limits.bits - 1})", key_code=key_code)

    def fit(self, value: Any) -> int | None:
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        return int(value) if whole and self.least <= value <= self.most else None

    def parse(self, text: str) -> int:
        if not _INTEGER.fullmatch(text):
            raise ValueError(text)
        return int(text)


class FloatType(Scalar):
    """IEEE 754 numbers of 16, 32 or 64 bits. Numbers are rounded to the nearest value of the type."""

    is_number, is_summed, is_listed, constants = True, True, True, (bool, int, float)
    zero, blank = 0.0, math.nan

    def __init__(self, name: str, code: str, expected: str) -> None:
        self.most = float(np.finfo(code).max)
        super().__init__(name, code, expected)

    def fit(self, value: Any) -> float | None:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
            return None
        if isinstance(value, (int, np.integer)) and not _is_exact_float64(int(value)):
            return None
        wide = float(value)
        if math.isfinite(wide) and abs(wide) > self.most:
            return None
        return float(np.dtype(self.code).type(wide))

    def parse(self, text: str) -> float:
        return float(text)

    def to_json(self, value: float) -> float | str:
        """Numbers that JSON has no form for (NaN, infinities) as text."""
        return value if math.isfinite(value) else str(value)

    def from_json(self, value: Any) -> float:
        return float(value)


class StringType(Scalar):
    """Text that UTF-8 can hold."""

    is_listed, constants, zero, blank = True, (str,), "", ""

    def fit(self, value: Any) -> str | None:
        return value if isinstance(value, str) else None

    def parse(self, text: str) -> str:
        return text


class TimestampType(Scalar):
    """Times in UTC, to the microsecond. The stored form is an int64, microseconds since 1970."""

    is_stored_as_is, zero = False, datetime(1970, 1, 1, tzinfo=UTC)

    def fit(self, value: Any) -> datetime | None:
        if isinstance(value, np.datetime64):
            value = None if np.isnat(value) else from_microseconds(int(value.astype("datetime64[us]").astype(np.int64)))
        if not isinstance(value, datetime) or value != value:  # pandas' NaT is a datetime
            return None
        aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).replace(fold=0)  # UTC has no folds, but repr and pickle would show one

    def parse(self, text: str) -> datetime:
        return datetime.fromisoformat(text)

    def to_json(self, value: datetime) -> int:
        """Microseconds since 1970."""
        return to_microseconds(value)

    def from_json(self, value: int) -> datetime:
        return from_microseconds(value)

    def to_stored(self, value: datetime) -> int:
        return to_microseconds(value)

    def from_stored(self, values: Iterable[int]) -> list[Any]:
        return [from_microseconds(value) for value in values]


_TIMES_IN_MATRIX = "compute an age from it in an on-demand view"
NOT_NUMBERS = "encode it as numbers in an on-demand view, or read it with to_dict()"
_SCALARS: tuple[Scalar, ...] = (
    BoolType("Bool", "|b1", "a bool"),
    IntegerType("Int32", "<i4", key_code="i"),
    IntegerType("Int64", "<i8", key_code="q"),
    FloatType("Float32", "<f4", "a number within float32's range"),
    FloatType("Float64", "<f8", "a number that float64 holds"),
    StringType("String", "", "a str", key_code="", not_in_matrix=NOT_NUMBERS),
    TimestampType("Timestamp", "<i8", "a datetime", not_in_matrix=_TIMES_IN_MATRIX),
)
_BY_NAME = {scalar.name: scalar for scalar in _SCALARS}
NAMES = tuple(_BY_NAME)
KINDS = frozenset(scalar.kind for scalar in _SCALARS)


@lru_cache(maxsize=1024)
def scalar_named(name: str) -> Scalar:
    """The scalar type of a name.

    Raises:
        KeyError: no type has the name.
    """
    return _BY_NAME[name]


def _is_exact_float64(value: int) -> bool:
    """Whether a float64 holds the integer exactly. Rounding would change it silently."""
    try:
        return int(float(value)) == value
    except OverflowError:
        return False
