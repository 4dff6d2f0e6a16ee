"""Conversions of values between types, for `cast` and `try_cast`.

Each conversion takes values that are not null, in their stored form, and says which of them the type cannot hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, DType, from_microseconds
from feature_store.definitions.expressions.values import Array, Result

DAY_US = 86_400_000_000
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_TRUE, _FALSE = ("true", "1"), ("false", "0")

Convert = Callable[[Array, DType, DType], Result]


def kind_of(dtype: DType | None) -> str:
    """The kind of a type: `null`, `bool`, `int`, `float`, `text`, `time`, `date`, `decimal` or `other`."""
    if dtype is None:
        return "null"
    kind = dtype.scalar.kind if dtype.element is None else "Array"
    return _KINDS.get(kind, "other")


_KINDS = {
    "Bool": "bool",
    "Int8": "int",
    "Int16": "int",
    "Int32": "int",
    "Int64": "int",
    "Float16": "float",
    "Float32": "float",
    "Float64": "float",
    "String": "text",
    "Timestamp": "time",
    "Date": "date",
    "Decimal": "decimal",
}


def _same(values: Array, of: DType, to: DType) -> Result:
    return Result(values)


def _int_of_numbers(values: Array, of: DType, to: DType) -> Result:
    """Integers, and floats without their fraction."""
    limits = np.iinfo(to.numpy)
    if values.dtype.kind == "f":
        wide = np.trunc(values.astype(np.float64))
        # The greatest Int64 is no float: the next float is 2**63.
        failed = ~((wide >= float(limits.min)) & (wide < float(limits.max) + (limits.max < 2**53)))
        return Result(np.where(failed, 0, wide).astype(to.numpy), None, failed)
    wide = values.astype(np.int64)
    failed = (wide < limits.min) | (wide > limits.max)
    return Result(wide.astype(to.numpy), None, failed)


def _float_of_numbers(values: Array, of: DType, to: DType) -> Result:
    with np.errstate(over="ignore"):
        found = values.astype(to.numpy)
    return Result(found, None, np.isinf(found) & np.isfinite(values.astype(np.float64)))


def _bool_of_ints(values: Array, of: DType, to: DType) -> Result:
    return Result(values != 0)


def _one_by_one(convert: Callable[[Any, DType], Any]) -> Convert:
    """A conversion value by value. `convert` returns None for a value that the type cannot hold."""

    def converted(values: Array, of: DType, to: DType) -> Result:
        found = np.zeros(len(values), to.numpy)
        failed = np.zeros(len(values), bool)
        for i, item in enumerate(values.tolist()):
            value = convert(item, to)
            failed[i] = value is None
            if value is not None:
                found[i] = value
        return Result(found, None, failed)

    return converted


def _parsed_bool(text: str, to: DType) -> bool | None:
    return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}.get(text.lower())


def _parsed_int(text: str, to: DType) -> int | None:
    found: int | None = to.scalar.fit(int(text)) if _INTEGER.fullmatch(text) else None
    return found


def _parsed_float(text: str, to: DType) -> float | None:
    found: float | None = to.scalar.fit(float(text)) if _NUMBER.fullmatch(text) else None
    return None if found is None or found in (float("inf"), float("-inf")) else found


def parsed_time(text: str, to: DType) -> int | None:
    """A time in ISO 8601, UTC unless it has an offset, as microseconds since 1970; None: it is none."""
    if not _TIME.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    aware = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    since = aware - epoch
    found_us = since.days * DAY_US + since.seconds * 1_000_000 + since.microseconds
    return found_us if MIN_TIMESTAMP_US <= found_us <= MAX_TIMESTAMP_US else None


def parsed_date(text: str, to: DType) -> int | None:
    """A date in ISO 8601 as days since 1970; None: it is none."""
    if len(text) != len("2026-01-01") or not _TIME.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:
        return None


def _time_of_dates(values: Array, of: DType, to: DType) -> Result:
    return Result(values.astype(np.int64) * DAY_US)


def _date_of_times(values: Array, of: DType, to: DType) -> Result:
    return Result((values // DAY_US).astype(to.numpy))


def _texts_of_bools(values: Array, of: DType, to: DType) -> Result:
    return _texts("true" if value else "false" for value in values.tolist())


def _texts_of_ints(values: Array, of: DType, to: DType) -> Result:
    return _texts(map(str, values.tolist()))


def _texts_of_floats(values: Array, of: DType, to: DType) -> Result:
    return _texts(str(value) for value in values)  # numpy's scalars: the shortest text of a Float32


def _texts_of_times(values: Array, of: DType, to: DType) -> Result:
    return _texts(from_microseconds(value).isoformat() for value in values.tolist())


def _texts_of_others(values: Array, of: DType, to: DType) -> Result:
    return _texts(map(str, of.from_stored(values.tolist())))


def _texts(texts: Any) -> Result:
    listed = list(texts)
    found = np.empty(len(listed), object)
    found[:] = listed
    return Result(found)


def _int_of_decimals(values: Array, of: DType, to: DType) -> Result:
    found = [int(value) for value in of.from_stored(values.tolist())]
    return _int_of_numbers(np.array(found, np.int64), of, to)


def _float_of_decimals(values: Array, of: DType, to: DType) -> Result:
    found = [float(value) for value in of.from_stored(values.tolist())]
    return _float_of_numbers(np.array(found, np.float64), of, to)


# By kind of the value and of the wanted type.
CASTS: dict[tuple[str, str], Convert] = {
    ("bool", "int"): _int_of_numbers,
    ("int", "int"): _int_of_numbers,
    ("float", "int"): _int_of_numbers,
    ("decimal", "int"): _int_of_decimals,
    ("text", "int"): _one_by_one(_parsed_int),
    ("bool", "float"): _float_of_numbers,
    ("int", "float"): _float_of_numbers,
    ("float", "float"): _float_of_numbers,
    ("decimal", "float"): _float_of_decimals,
    ("text", "float"): _one_by_one(_parsed_float),
    ("bool", "bool"): _same,
    ("int", "bool"): _bool_of_ints,
    ("text", "bool"): _one_by_one(_parsed_bool),
    ("text", "text"): _same,
    ("bool", "text"): _texts_of_bools,
    ("int", "text"): _texts_of_ints,
    ("float", "text"): _texts_of_floats,
    ("decimal", "text"): _texts_of_others,
    ("date", "text"): _texts_of_others,
    ("time", "text"): _texts_of_times,
    ("time", "time"): _same,
    ("date", "time"): _time_of_dates,
    ("text", "time"): _one_by_one(parsed_time),
    ("date", "date"): _same,
    ("time", "date"): _date_of_times,
    ("text", "date"): _one_by_one(parsed_date),
}
