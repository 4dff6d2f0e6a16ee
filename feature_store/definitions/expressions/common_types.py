"""Checked expressions, constants, and the types that values of two types have in common.

A constant takes the type of what it is combined with: beside a Float32 it is the nearest Float32, beside a Timestamp a
text is a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from feature_store.definitions.dtypes import Bool, DType, Float64, Int64, String, Timestamp
from feature_store.definitions.expressions import programs
from feature_store.definitions.expressions.casting import CASTS, kind_of, parsed_date, parsed_time
from feature_store.definitions.expressions.nodes import Cast, ExpressionError
from feature_store.definitions.expressions.programs import Program
from feature_store.errors import DataError, did_you_mean

NUMBERS = ("int", "float")


@dataclass(frozen=True, slots=True)
class Checked:
    """A checked expression.

    Attributes:
        at: its place in the text.
        dtype: its type. None: it is the constant null.
        run: computes it.
        constant: the value, of a constant.
    """

    at: int
    dtype: DType | None
    run: Program
    constant: Any = None

    @property
    def kind(self) -> str:
        """The kind of its type."""
        return kind_of(self.dtype)

    @property
    def is_constant(self) -> bool:
        """Whether it is a constant other than null."""
        return self.constant is not None

    @property
    def shown(self) -> str:
        """Its type, in an error."""
        return "null" if self.dtype is None else str(self.dtype)


def constant_of(at: int, value: Any) -> Checked:
    """A constant.

    Raises:
        ExpressionError: no type holds it.
    """
    if value is None:
        return Checked(at, None, programs.constant(None, Bool))
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        raise ExpressionError(at, f"{value} is outside of Int64", "write it as a float, such as 1e20")
    if isinstance(value, float) and not np.isfinite(value):
        raise ExpressionError(at, "the number is outside of Float64")
    dtype = {bool: Bool, int: Int64, float: Float64, str: String}[type(value)]
    return Checked(at, dtype, programs.constant(value, dtype), value)


def together(found: Sequence[Checked], *, compared: bool = False) -> tuple[list[Checked], DType | None]:
    """Values in their common type. None: all of them are null."""
    typed = [one for one in found if one.dtype is not None]
    others = [one for one in typed if not one.is_constant] or typed
    dtype: DType | None = None
    for one in others:
        dtype = _common(dtype, one, compared)
    for one in typed:
        if one.is_constant and dtype is not None:
            dtype = _common_with_constant(dtype, one, compared)
    return [in_type(one, dtype or Bool) for one in found], dtype


def _common(dtype: DType | None, other: Checked, compared: bool) -> DType:
    assert other.dtype is not None
    if dtype is None or dtype == other.dtype:
        return other.dtype
    kinds = {kind_of(dtype), other.kind}
    if compared and "bool" in kinds and kinds & {*NUMBERS}:
        kinds = kinds - {"bool"} | {"int"}
    if kinds <= {*NUMBERS}:
        return Int64 if kinds == {"int"} else Float64
    if kinds == {"date", "time"}:
        return Timestamp
    hint = f"convert one of them, as in cast(… as {dtype})"
    raise ExpressionError(other.at, f"{dtype} and {other.dtype} do not go together", hint)


def _common_with_constant(dtype: DType, constant: Checked, compared: bool) -> DType:
    """The common type of a type and a constant, which takes the type if it can."""
    kind = kind_of(dtype)
    if kind == "float" and constant.kind in NUMBERS:
        return dtype
    if kind == "int" and constant.kind == "int":
        return dtype if dtype.scalar.fit(constant.constant) is not None else Int64
    if (kind in ("time", "date") and constant.kind == "text") or (kind == "decimal" and constant.kind in NUMBERS):
        return dtype
    return _common(dtype, constant, compared)


def in_type(found: Checked, dtype: DType) -> Checked:
    """A value in a type that it goes together with."""
    if found.dtype == dtype:
        return found
    if found.dtype is None:
        return Checked(found.at, dtype, programs.constant(None, dtype))
    if found.is_constant:
        value = _stored(found, dtype)
        return Checked(found.at, dtype, programs.constant(value, dtype), found.constant)
    of, convert = found.dtype, CASTS[found.kind, kind_of(dtype)]
    program = programs.strict([(found.run, of)], dtype, lambda values: convert(values, of, dtype), lambda _: "")
    return Checked(found.at, dtype, program)


def _stored(constant: Checked, dtype: DType) -> Any:
    """A constant as a stored value of a type."""
    value, kind = constant.constant, kind_of(dtype)
    if kind == "float":
        with np.errstate(over="ignore"):
            return dtype.numpy.type(value)
    if kind == "int":
        return int(value)
    if kind in ("time", "date"):
        found = (parsed_time if kind == "time" else parsed_date)(value, dtype)
        if found is None:
            example = "'2026-01-31 12:00:00'" if kind == "time" else "'2026-01-31'"
            raise ExpressionError(constant.at, f"expected a {dtype} such as {example}, got {value!r}")
        return found
    try:
        return dtype.to_stored(dtype.fit(value, ""))
    except DataError:
        raise ExpressionError(constant.at, f"{value!r} is not a value of {dtype}") from None


def type_named(node: Cast) -> DType:
    """The type that a conversion names.

    Raises:
        ExpressionError: there is no such type, or none that values are converted to.
    """
    known = {str(dtype).lower(): dtype for dtype in _CASTABLE}
    if node.dtype.lower() not in known:
        names = [str(dtype) for dtype in _CASTABLE]
        hint = did_you_mean(node.dtype, names) or f"types are {', '.join(names)}"
        raise ExpressionError(node.at, f"there is no type {node.dtype!r} to convert to", hint)
    return known[node.dtype.lower()]


_CASTABLE = tuple(
    DType.parse(name)
    for name in (
        "Bool", "Int8", "Int16", "Int32", "Int64", "Float16", "Float32", "Float64", "String", "Timestamp", "Date",
    )
)  # fmt: skip
