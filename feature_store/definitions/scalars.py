"""The scalar types, and the table of them by name. `scalar.py` is their contract.

To add a type, add a class (or an instance of one below) and its name to `_SCALARS`. A test then names each table of the
other packages that needs a row for the type: see "Add a dtype" in CONTRIBUTING.md.
"""

# ruff: noqa: D102 - methods without a docstring have that of Scalar
from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import numpy as np

from feature_store.definitions.scalar import Scalar, Stored
from feature_store.definitions.times import from_microseconds, to_microseconds

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")  # int() also takes 1_000 and the digits of every script


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

    def to_bytes(self, value: str) -> bytes:
        return value.encode()

    def from_bytes(self, encoded: bytes) -> str:
        return encoded.decode()


class BytesType(Scalar):
    """Bytes, such as hashes and serialized vectors. The JSON form is base64."""

    is_text_in_json, zero, blank = True, b"", b""

    def fit(self, value: Any) -> bytes | None:
        return bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else None

    def parse(self, text: str) -> bytes:
        return base64.b64decode(text, validate=True)

    def to_json(self, value: bytes) -> str:
        return base64.b64encode(value).decode()

    def from_json(self, value: str) -> bytes:
        return self.parse(value)

    def to_bytes(self, value: bytes) -> bytes:
        return value

    def from_bytes(self, encoded: bytes) -> bytes:
        return bytes(encoded)


class TimestampType(Scalar):
    """Times in UTC, to the microsecond. The stored form is an int64, microseconds since 1970."""

    is_stored_as_is, is_text_in_json, zero = False, True, datetime(1970, 1, 1, tzinfo=UTC)

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


class DateType(Scalar):
    """Days of the years 1 to 9999. The stored form is an int32, days since 1970-01-01."""

    is_stored_as_is, is_text_in_json, zero = False, True, date(1970, 1, 1)

    def fit(self, value: Any) -> date | None:
        """A date, or a datetime at midnight (UTC unless it has a zone): pandas and numpy have no other dates."""
        if isinstance(value, np.datetime64):
            value = None if np.isnat(value) else value.astype("datetime64[us]").item()
        if isinstance(value, datetime):
            if value != value:  # pandas' NaT is a datetime
                return None
            utc = value if value.tzinfo is None else value.astimezone(UTC)
            return date(utc.year, utc.month, utc.day) if utc.time() == time() else None
        return value if isinstance(value, date) else None

    def parse(self, text: str) -> date:
        return date.fromisoformat(text)

    def to_json(self, value: date) -> str:
        return value.isoformat()

    def from_json(self, value: str) -> date:
        return date.fromisoformat(value)

    def to_stored(self, value: date) -> int:
        return value.toordinal() - _FIRST_DAY

    def from_stored(self, values: Iterable[int]) -> list[Any]:
        try:
            return [date.fromordinal(value + _FIRST_DAY) for value in values]
        except ValueError as error:  # before the year 1, or beyond 9999
            raise OverflowError(str(error)) from None


class DecimalType(Scalar):
    """Decimal numbers of at most `precision` digits, `scale` of them after the point.

    The stored form is an int64 that counts units of 10**-scale: 12.30 is 1230 where the scale is 2. A float fits if it
    is the nearest float to one such decimal and that decimal has at most 15 digits (float32: 6), since longer decimals
    share floats.
    """

    is_number, is_listed, is_stored_as_is, is_text_in_json = True, True, False, True

    def __init__(self, precision: int, scale: int) -> None:
        self.precision, self.scale = precision, scale
        self.zero = Decimal(0).scaleb(-scale)
        after = f", {scale} of them after the point" if scale else ", none of them after the point"
        super().__init__(f"Decimal({precision}, {scale})", "<i8", f"a decimal of at most {precision} digits{after}")

    def fit(self, value: Any) -> Decimal | None:
        units = None
        if isinstance(value, Decimal):
            units = self._units_of_decimal(value)
        elif isinstance(value, (int, np.integer)) and not isinstance(value, bool):
            units = int(value) * 10**self.scale
        elif isinstance(value, (float, np.floating)):
            units = self._units_of_float(value)
        return None if units is None or abs(units) >= 10**self.precision else self._of_units(units)

    def _units_of_decimal(self, value: Decimal) -> int | None:
        # Compared first, so that no exponent makes an integer of a million digits.
        if not value.is_finite() or (value and not -self.scale <= value.adjusted() < self.precision - self.scale):
            return None
        sign, digits, exponent = value.as_tuple()
        whole, shift = int("".join(map(str, digits))), int(exponent) + self.scale
        units, rest = (whole * 10**shift, 0) if shift >= 0 else divmod(whole, 10**-shift)
        return None if rest else -units if sign else units

    def _units_of_float(self, value: Any) -> int | None:
        scaled = float(value) * 10**self.scale
        if not abs(scaled) < 10 ** np.finfo(type(value)).precision:  # NaN too
            return None
        units = round(scaled)
        return units if type(value)(units / 10**self.scale) == value else None

    def _of_units(self, units: int) -> Decimal:
        return Decimal(units).scaleb(-self.scale, _EXACT)

    def parse(self, text: str) -> Decimal:
        try:
            return Decimal(text) if _DECIMAL.fullmatch(text) else self.from_json(None)
        except InvalidOperation:  # an exponent of 19 digits
            raise ValueError(text) from None

    def to_json(self, value: Decimal) -> str:
        return str(value)

    def from_json(self, value: Any) -> Decimal:
        if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
            raise ValueError(f"{value!r} is not a decimal")
        return Decimal(value)

    def to_stored(self, value: Decimal) -> int:
        return int(value.scaleb(self.scale, _EXACT))

    def from_stored(self, values: Iterable[int]) -> list[Any]:
        listed = list(values)
        if any(abs(value) >= 10**self.precision for value in listed):
            raise OverflowError(f"more than {self.precision} digits")
        return [self._of_units(value) for value in listed]

    def to_numbers(self, stored: Stored) -> Stored:
        return stored / float(10**self.scale)


MOST_DIGITS = 18  # as many as an int64 can hold in any case
_FIRST_DAY = date(1970, 1, 1).toordinal()
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,6})?")
_EXACT = Context(prec=40)
_TIMES_IN_MATRIX = "compute an age from it in an on-demand view"
NOT_NUMBERS = "encode it as numbers in an on-demand view, or read it with to_dict()"
_SCALARS: tuple[Scalar, ...] = (
    BoolType("Bool", "|b1", "a bool"),
    IntegerType("Int8", "<i1"),
    IntegerType("Int16", "<i2"),
    IntegerType("Int32", "<i4", key_code="i"),
    IntegerType("Int64", "<i8", key_code="q"),
    FloatType("Float16", "<f2", "a number within float16's range, ±65504"),
    FloatType("Float32", "<f4", "a number within float32's range"),
    FloatType("Float64", "<f8", "a number that float64 holds"),
    StringType("String", "", "a str", key_code="", not_in_matrix=NOT_NUMBERS),
    BytesType("Bytes", "", "bytes", not_in_matrix=NOT_NUMBERS),
    TimestampType("Timestamp", "<i8", "a datetime", not_in_matrix=_TIMES_IN_MATRIX),
    DateType("Date", "<i4", "a date, or a datetime at midnight", not_in_matrix=_TIMES_IN_MATRIX),
)
_BY_NAME = {scalar.name: scalar for scalar in _SCALARS}
NAMES = tuple(_BY_NAME)
KINDS = frozenset([*NAMES, "Decimal"])
_PARAMETERS = re.compile(r"Decimal\(([0-9]{1,3}), ?([0-9]{1,3})\)")


@lru_cache(maxsize=1024)
def scalar_named(name: str) -> Scalar:
    """The scalar type of a name.

    Raises:
        KeyError: no type has the name.
    """
    decimal = _PARAMETERS.fullmatch(name)
    if decimal is None:
        return _BY_NAME[name]
    precision, scale = int(decimal[1]), int(decimal[2])
    if not 1 <= precision <= MOST_DIGITS or scale > precision:
        raise KeyError(name)
    return DecimalType(precision, scale)


def json_form(value: Any) -> str:
    """The JSON form of a served value that JSON has no type for: for `orjson.dumps(…, default=json_form)`.

    Raises:
        TypeError: the value is of no scalar type.
    """
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _is_exact_float64(value: int) -> bool:
    """Whether a float64 holds the integer exactly. Rounding would change it silently."""
    try:
        return int(float(value)) == value
    except OverflowError:
        return False
