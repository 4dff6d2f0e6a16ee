"""Operators of numbers: Int64 and Float64.

Integers never wrap: a result that Int64 cannot hold fails. A division by zero, and a float that is not a number, is
null.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from feature_store.definitions.expressions.values import Array, Result

_LEAST, _MOST = -(2**63), 2**63 - 1
# Products below this size in float64, which rounds by 2**-53, certainly fit in Int64.
_CERTAIN = float(2**62)


def of_floats(compute: Callable[..., Array]) -> Callable[..., Result]:
    """An operation of floats; results that are not a number are null."""

    def computed(*arguments: Array) -> Result:
        with np.errstate(all="ignore"):
            values = compute(*arguments)
        return Result(values, np.isnan(values))

    return computed


def divided(a: Array, b: Array) -> Result:
    """The quotient of floats; null where the divisor is zero."""
    with np.errstate(all="ignore"):
        values = a / b
    return Result(values, (b == 0) | np.isnan(values))


def float_remainder(a: Array, b: Array) -> Result:
    """The remainder with the sign of the dividend; null where the divisor is zero."""
    with np.errstate(all="ignore"):
        values = np.fmod(a, b)
    return Result(values, (b == 0) | np.isnan(values))


def added(a: Array, b: Array) -> Result:
    """The sum of integers."""
    values = a + b
    return Result(values, None, ((a ^ values) & (b ^ values)) < 0)


def subtracted(a: Array, b: Array) -> Result:
    """The difference of integers."""
    values = a - b
    return Result(values, None, ((a ^ b) & (a ^ values)) < 0)


def multiplied(a: Array, b: Array) -> Result:
    """The product of integers."""
    values = a * b
    doubtful = np.abs(a.astype(np.float64) * b) >= _CERTAIN
    if doubtful.any():
        for i in np.flatnonzero(doubtful).tolist():
            doubtful[i] = not _LEAST <= int(a[i]) * int(b[i]) <= _MOST
    return Result(values, None, doubtful)


def quotient(a: Array, b: Array) -> Result:
    """The quotient of integers without its fraction; null where the divisor is zero."""
    zero, fails = b == 0, (a == _LEAST) & (b == -1)
    divisor = np.where(zero | fails, 1, b)
    values = a // divisor
    # numpy rounds down; without its fraction, a negative quotient is one more.
    values += (a != values * divisor) & ((a < 0) != (divisor < 0))
    return Result(values, zero, fails)


def remainder(a: Array, b: Array) -> Result:
    """The remainder of integers, with the sign of the dividend; null where the divisor is zero."""
    zero = b == 0
    return Result(np.fmod(a, np.where(zero | (b == -1), 1, b)), zero)


def negated(a: Array) -> Result:
    """The negative of integers."""
    return Result(-a, None, a == _LEAST)


def absolute(a: Array) -> Result:
    """The absolute value of integers."""
    return Result(np.abs(a), None, a == _LEAST)


def rounded(a: Array) -> Array:
    """Floats as the nearest whole number; halves away from zero."""
    whole = np.trunc(a)
    with np.errstate(invalid="ignore"):
        away = np.abs(a - whole) >= 0.5
    found: Array = whole + np.where(away, np.copysign(1.0, a), 0.0)
    return found
