"""Parses the values of CSV files as the declared types, so that one bad value makes one bad row.

Times are ISO 8601, in UTC unless they have an offset.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Decimal() and float() also accept `1_000` and the digits of every script; this does not.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


def parse(
    values: pa.StringArray, wanted: pa.DataType, one: Callable[[str], Any]
) -> tuple[pa.Array, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Text parsed as an Arrow type, and a mask of the texts that are not values of that type: (n,) bool.

    Args:
        values: texts in UTF-8.
        wanted: the widest type of its kind. The caller checks later which values fit the declared type.
        one: parses one text. It returns None if the text is not a value of the type.
    """
    trimmed = pc.utf8_trim_whitespace(values)
    # Arrow is 20 times as fast as Python, but refuses the whole column if one value is bad, or if some times have an
    # offset and others have none.
    with suppress(pa.ArrowInvalid):
        parsed = trimmed.cast(_parsed_by_arrow(trimmed, wanted)).cast(wanted)
        if not _taken_too_easily(trimmed, parsed):
            return parsed, np.zeros(len(values), bool)
    listed = [None if text is None else one(text) for text in trimmed.to_pylist()]
    bad = np.array(
        [text is not None and value is None for text, value in zip(trimmed.to_pylist(), listed, strict=True)]
    )
    return pa.array(listed, wanted), bad


def _parsed_by_arrow(texts: pa.StringArray, wanted: pa.DataType) -> pa.DataType:
    """The type that Arrow parses texts as. Of times, the first text decides: an error of Arrow takes 1 µs a value."""
    if not pa.types.is_timestamp(wanted):
        return wanted
    with suppress(pa.ArrowInvalid):
        (texts.drop_null() if texts.null_count else texts).slice(0, 1).cast(wanted)
        return wanted
    return pa.timestamp("us", "UTC")


def _taken_too_easily(texts: pa.StringArray, parsed: pa.Array) -> bool:
    """Whether Arrow may have accepted text that is not a number here: `0x10`, `nan(1)`, or `1e400` as infinity."""
    if pa.types.is_floating(parsed.type):
        if pc.any(pc.is_inf(parsed)).as_py():
            return True
        has_nan = bool(pc.any(pc.is_nan(parsed)).as_py())  # `nan(1)` is one; a search takes as long as reading numbers
        return has_nan and bool(pc.any(pc.match_substring(texts, "(")).as_py())
    if not pa.types.is_integer(parsed.type):
        return False
    return bool(pc.any(pc.match_substring(pc.ascii_lower(texts), "x")).as_py())


def truth(text: str) -> bool | None:
    """A boolean: `true`, `false`, `1` or `0`. None for other text."""
    return {"true": True, "1": True, "false": False, "0": False}.get(text.lower())


def integer(text: str) -> int | None:
    """A 64-bit integer, such as `3` or `3.0`. None for other text."""
    if not _NUMBER.fullmatch(text):
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent of 19 digits
        return None
    # Check the range before the conversion: 1e1000000 as an int would have a million digits.
    if not -(1 << 63) <= number < 1 << 63 or number != number.to_integral_value():
        return None
    return int(number)


def number(text: str) -> float | None:
    """A number in the range of float64, `nan` or `inf`. None for other text."""
    if _NO_NUMBER.fullmatch(text):
        return float(text)
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def day(text: str) -> date | None:
    """A date in ISO 8601. None for other text."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def time(text: str) -> datetime | None:
    """A time in ISO 8601, as a UTC datetime without a zone. None for other text."""
    try:
        value = datetime.fromisoformat(text)
        return (value if value.tzinfo is None else value.astimezone(UTC)).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
