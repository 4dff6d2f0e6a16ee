"""Times as integer microseconds since 1970, UTC."""

from __future__ import annotations

import operator
from datetime import UTC, datetime, timedelta
from typing import Any

from feature_store.errors import RequestError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# The range of datetime. Every stored timestamp lies within it, so that every stored timestamp can be shown.
MIN_TIMESTAMP_US = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
MAX_TIMESTAMP_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
# 1973-03-03 in microseconds. Read as milliseconds it is the year 5138, so no present time is mistaken for another unit.
_LEAST_GIVEN_US = 10**14


def to_microseconds(value: datetime) -> int:
    """Microseconds since 1970 of a datetime. A datetime without a time zone is taken as UTC."""
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return (aware - EPOCH) // MICROSECOND


def from_microseconds(value: int) -> datetime:
    """The UTC datetime of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=value)


def given_microseconds(value: Any, where: str) -> int:
    """Microseconds since 1970 of a time that a caller gives: a datetime, or integer microseconds.

    Integers from 1967 to 1973 are refused: `time.time()` counts seconds, and a count of seconds read as microseconds
    lies in 1970, when nothing has expired. Integers beyond the year 9999 are refused too: they count nanoseconds.

    Raises:
        RequestError: the value is neither a datetime nor such an integer; `where` names it.
    """
    if isinstance(value, datetime) and value == value:  # pandas' NaT is a datetime that equals nothing
        microseconds = to_microseconds(value)
        if not MIN_TIMESTAMP_US <= microseconds <= MAX_TIMESTAMP_US:  # its time zone moves it out of these years
            raise RequestError(where, expected="a time of the years 1 to 9999, UTC", got=str(value))
        return microseconds
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is not None and _LEAST_GIVEN_US <= abs(number) <= MAX_TIMESTAMP_US:
        return number
    hint = "pass a datetime, or integer microseconds: time.time_ns() // 1000 is the present time"
    if number is None:
        raise RequestError(where, expected="a datetime, or integer microseconds", got=repr(value), hint=hint)
    unit = "nanoseconds" if abs(number) > MAX_TIMESTAMP_US else "seconds or milliseconds"
    raise RequestError(where, expected="microseconds since 1970", got=f"{number}, which looks like {unit}", hint=hint)


def given_duration(value: Any, where: str) -> int:
    """Microseconds of a duration that a caller gives.

    Raises:
        RequestError: the value is not a timedelta, or is negative; `where` names it.
    """
    if not isinstance(value, timedelta) or value != value or value < timedelta(0):  # pandas' NaT equals nothing
        raise RequestError(where, expected="a timedelta of 0 or more", got=repr(value)[:80])
    return value // MICROSECOND
