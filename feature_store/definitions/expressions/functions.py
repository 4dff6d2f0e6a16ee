"""The functions of the language. docs/expressions.md has a table of them, which a test compares with this one."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from feature_store.definitions.dtypes import (
    MAX_TIMESTAMP_US,
    MIN_TIMESTAMP_US,
    Bool,
    DType,
    Float64,
    Int64,
    String,
    Timestamp,
)
from feature_store.definitions.expressions.arithmetic import absolute, of_floats, rounded
from feature_store.definitions.expressions.casting import DAY_US
from feature_store.definitions.expressions.values import Array, Result

_UNITS_US = {"second": 1_000_000, "minute": 60_000_000, "hour": 3_600_000_000, "day": DAY_US}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
UNITS = (*_UNITS_US, "week", *_MONTHS)
# 1970-01-01 was a Thursday.
_THURSDAY = 3


class Variant(NamedTuple):
    """A function for arguments of some types.

    Attributes:
        takes: the types of the arguments, to which numbers are widened. The last stands for all further arguments.
        gives: the type of the result.
        compute: computes (n,) results from (n,) arguments that are not null.
    """

    takes: tuple[DType, ...]
    gives: DType
    compute: Callable[..., Result]


class Function(NamedTuple):
    """A function. It is null if an argument is null.

    Attributes:
        signature: as the documentation shows it.
        summary: what it computes.
        least, most: the number of arguments.
        variants: the first one whose types fit the arguments is taken.
        units: whether the first argument is a unit, a constant.
    """

    signature: str
    summary: str
    least: int
    most: int
    variants: tuple[Variant, ...]
    units: bool = False


# -- text -------------------------------------------------------------------------------------------------------


def _each(compute: Callable[..., Any], dtype: DType) -> Callable[..., Result]:
    """A function of single values as one of columns."""

    def computed(*arguments: Array) -> Result:
        found = np.empty(len(arguments[0]), dtype.numpy)
        found[:] = [compute(*values) for values in zip(*(column.tolist() for column in arguments), strict=True)]
        return Result(found)

    return computed


def _substring(text: str, start: int, length: int | None = None) -> str:
    end = None if length is None else max(start + max(length, 0), 1)
    return text[max(start, 1) - 1 : None if end is None else end - 1]


def like(text: str, pattern: str, escape: str = "") -> bool:
    """Whether a text matches a pattern of LIKE: `%` stands for any characters, `_` for one."""
    return _compiled(pattern, escape).fullmatch(text) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str, escape: str) -> re.Pattern[str]:
    parts, i = [], 0
    while i < len(pattern):
        if escape and pattern[i] == escape and i + 1 < len(pattern):
            i += 1
            parts.append(re.escape(pattern[i]))
        elif pattern[i] == "%":
            if parts[-1:] != [".*"]:
                parts.append(".*")
        else:
            parts.append("." if pattern[i] == "_" else re.escape(pattern[i]))
        i += 1
    return re.compile("".join(parts), re.DOTALL)


def _text(compute: Callable[..., Any], *takes: DType, gives: DType = String) -> tuple[Variant, ...]:
    return (Variant(takes or (String,), gives, _each(compute, gives)),)


# -- times ------------------------------------------------------------------------------------------------------


def _of_days(times: Array) -> Array:
    return (times // DAY_US).astype("M8[D]")


def _months(times: Array) -> Array:
    """Months since 1970."""
    found: Array = _of_days(times).astype("M8[M]").astype(np.int64)
    return found


def _day(times: Array) -> Array:
    days = _of_days(times)
    found: Array = (days - days.astype("M8[M]")).astype(np.int64) + 1
    return found


def _day_of_year(times: Array) -> Array:
    days = _of_days(times)
    found: Array = (days - days.astype("M8[Y]")).astype(np.int64) + 1
    return found


_PARTS: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "year": ("the year", lambda times: 1970 + _months(times) // 12),
    "quarter": ("the quarter, 1 to 4", lambda times: _months(times) % 12 // 3 + 1),
    "month": ("the month, 1 to 12", lambda times: _months(times) % 12 + 1),
    "day": ("the day of the month, 1 to 31", _day),
    "dayofyear": ("the day of the year, 1 to 366", _day_of_year),
    "weekday": ("the day of the week, from 0, Monday, to 6, Sunday", lambda times: (times // DAY_US + _THURSDAY) % 7),
    "hour": ("the hour, 0 to 23", lambda times: times // _UNITS_US["hour"] % 24),
    "minute": ("the minute, 0 to 59", lambda times: times // _UNITS_US["minute"] % 60),
    "second": ("the second, 0 to 59", lambda times: times // _UNITS_US["second"] % 60),
}


def _part(compute: Callable[[Array], Array]) -> tuple[Variant, ...]:
    return (Variant((Timestamp,), Int64, lambda times: Result(compute(times).astype(np.int64))),)


def truncated(unit: str) -> Callable[[Array], Result]:
    """The function that gives the start of a unit of time, for (n,) times."""

    def truncate(times: Array) -> Result:
        if unit in _UNITS_US:
            return Result(times // _UNITS_US[unit] * _UNITS_US[unit])
        if unit == "week":
            days = times // DAY_US
            return Result((days - (days + _THURSDAY) % 7) * DAY_US)
        months = _months(times) // _MONTHS[unit] * _MONTHS[unit]
        return Result(months.astype("M8[M]").astype("M8[D]").astype(np.int64) * DAY_US)

    return truncate


def _from_epoch(times: Array) -> Result:
    return Result(times, None, (times < MIN_TIMESTAMP_US) | (times > MAX_TIMESTAMP_US))


# -- the table --------------------------------------------------------------------------------------------------


def _floats(compute: Callable[..., Array]) -> Variant:
    return Variant((Float64,), Float64, of_floats(compute))


def _integers(compute: Callable[[Array], Result]) -> Variant:
    return Variant((Int64,), Int64, compute)


FUNCTIONS: dict[str, Function] = {
    "abs": Function("abs(x)", "the absolute value", 1, 1, (_integers(absolute), _floats(np.abs))),
    "ceil": Function("ceil(x)", "the least whole number that is not less", 1, 1, (_integers(Result), _floats(np.ceil))),
    "floor": Function(
        "floor(x)", "the greatest whole number that is not greater", 1, 1, (_integers(Result), _floats(np.floor))
    ),
    "round": Function(
        "round(x)", "the nearest whole number; halves away from zero", 1, 1, (_integers(Result), _floats(rounded))
    ),
    "sqrt": Function("sqrt(x)", "the square root; null for a negative number", 1, 1, (_floats(np.sqrt),)),
    "lower": Function("lower(s)", "the text in lower case", 1, 1, _text(str.lower)),
    "upper": Function("upper(s)", "the text in upper case", 1, 1, _text(str.upper)),
    "trim": Function("trim(s)", "the text without spaces at its ends", 1, 1, _text(lambda s: s.strip(" "))),
    "ltrim": Function("ltrim(s)", "the text without spaces at its start", 1, 1, _text(lambda s: s.lstrip(" "))),
    "rtrim": Function("rtrim(s)", "the text without spaces at its end", 1, 1, _text(lambda s: s.rstrip(" "))),
    "length": Function("length(s)", "the number of characters", 1, 1, _text(len, gives=Int64)),
    "substring": Function(
        "substring(s, start, n)",
        "n characters from the place `start`, which counts from 1; all that follow, without n",
        2,
        3,
        (
            Variant((String, Int64), String, _each(_substring, String)),
            Variant((String, Int64, Int64), String, _each(_substring, String)),
        ),
    ),
    "concat": Function(
        "concat(s, t, …)", "the texts, joined; also `s || t`", 1, 200, _text(lambda *texts: "".join(texts))
    ),
    "replace": Function(
        "replace(s, t, u)",
        "the text with u in place of each t",
        3,
        3,
        _text(lambda s, t, u: s.replace(t, u) if t else s, String, String, String),
    ),
    "contains": Function("contains(s, t)", "whether s has t in it", 2, 2, _text(lambda s, t: t in s, gives=Bool)),
    "starts_with": Function("starts_with(s, t)", "whether s begins with t", 2, 2, _text(str.startswith, gives=Bool)),
    "ends_with": Function("ends_with(s, t)", "whether s ends with t", 2, 2, _text(str.endswith, gives=Bool)),
    **{name: Function(f"{name}(t)", about, 1, 1, _part(compute)) for name, (about, compute) in _PARTS.items()},
    "date_trunc": Function(
        "date_trunc(unit, t)",
        "the start of the unit, in UTC: 'second', 'minute', 'hour', 'day', 'week' (Monday), 'month', 'quarter', 'year'",
        2,
        2,
        (Variant((String, Timestamp), Timestamp, Result),),
        units=True,
    ),
    "epoch_us": Function("epoch_us(t)", "microseconds since 1970", 1, 1, (Variant((Timestamp,), Int64, Result),)),
    "from_epoch_us": Function(
        "from_epoch_us(n)", "the time of n microseconds since 1970", 1, 1, (Variant((Int64,), Timestamp, _from_epoch),)
    ),
}
# Forms that are written as functions, but are not null where an argument is null.
FORMS: dict[str, tuple[str, str]] = {
    "cast": ("cast(x as T)", "x as a value of the type T; the event is refused if T cannot hold it"),
    "try_cast": ("try_cast(x as T)", "x as a value of the type T; null if T cannot hold it"),
    "coalesce": ("coalesce(x, y, …)", "the first of the values that is not null"),
    "nullif": ("nullif(x, y)", "null where x equals y, else x"),
    "least": ("least(x, y, …)", "the least of the values that are not null"),
    "greatest": ("greatest(x, y, …)", "the greatest of the values that are not null"),
}
