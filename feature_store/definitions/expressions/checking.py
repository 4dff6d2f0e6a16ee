"""Checks the types of an expression's tree, and compiles it to a program.

The types are those of fields. Operators widen numbers to Int64 or Float64. `common_types.py` has the types that values
of two types have in common.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from feature_store.definitions.dtypes import Bool, DType, Float64, Int64, String, Timestamp
from feature_store.definitions.expressions import arithmetic, programs
from feature_store.definitions.expressions.casting import CASTS, kind_of
from feature_store.definitions.expressions.common_types import (
    NUMBERS,
    Checked,
    constant_of,
    in_type,
    together,
    type_named,
)
from feature_store.definitions.expressions.functions import FORMS, FUNCTIONS, UNITS, Variant, like, truncated
from feature_store.definitions.expressions.nodes import (
    Call,
    Case,
    Cast,
    Column,
    Constant,
    ExpressionError,
    Node,
)
from feature_store.definitions.expressions.values import Array, Result
from feature_store.errors import did_you_mean

_COMPARES: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OF_INTS = {
    "+": arithmetic.added,
    "-": arithmetic.subtracted,
    "*": arithmetic.multiplied,
    "//": arithmetic.quotient,
    "%": arithmetic.remainder,
}
_OF_FLOATS = {
    "+": arithmetic.of_floats(np.add),
    "-": arithmetic.of_floats(np.subtract),
    "*": arithmetic.of_floats(np.multiply),
    "/": arithmetic.divided,
    "%": arithmetic.float_remainder,
}


def checked(node: Node, columns: Mapping[str, DType]) -> Checked:
    """An expression as a program.

    Args:
        node: the tree.
        columns: the types of the columns that it may read.

    Raises:
        ExpressionError: there is no such column or function, or a type does not fit.
    """
    return _Checker(columns).check(node)


class _Checker:
    def __init__(self, columns: Mapping[str, DType]) -> None:
        self._columns = columns

    def check(self, node: Node) -> Checked:
        match node:
            case Constant():
                return constant_of(node.at, node.value)
            case Column():
                return self._column(node)
            case Cast():
                return self._cast(node)
            case Case():
                return self._case(node)
            case Call():
                return self._call(node)
        raise AssertionError(node)

    def _column(self, node: Column) -> Checked:
        if node.name not in self._columns:
            known = list(self._columns)
            hint = did_you_mean(node.name, known) or f"columns are {', '.join(known)}"
            raise ExpressionError(node.at, f"there is no column {node.name!r}", hint)
        return Checked(node.at, self._columns[node.name], programs.column(node.name))

    def _cast(self, node: Cast) -> Checked:
        value, to = self.check(node.value), type_named(node)
        if value.dtype is None:
            return Checked(node.at, to, programs.constant(None, to))
        of, convert = value.dtype, CASTS.get((value.kind, kind_of(to)))
        if convert is None:
            raise ExpressionError(node.at, f"{of} cannot be converted to {to}")

        def converted(values: Array) -> Result:
            result = convert(values, of, to)
            return Result(result.values, result.failed) if node.tries else result

        def why(shown: str) -> str:
            return f"expected a value that {to} can hold, got {shown}"

        return Checked(node.at, to, programs.strict([(value.run, of)], to, converted, why))

    def _case(self, node: Case) -> Checked:
        conditions = [self._truth(condition) for condition, _ in node.branches]
        results, dtype = together(
            [self.check(each) for each in (*(value for _, value in node.branches), node.otherwise)]
        )
        if dtype is None:
            raise ExpressionError(node.at, "all values of case are null", "write cast(null as Int64) for one of them")
        *values, otherwise = [result.run for result in results]
        branches = list(zip((condition.run for condition in conditions), values, strict=True))
        return Checked(node.at, dtype, programs.choice(branches, otherwise, dtype))

    def _truth(self, node: Node) -> Checked:
        found = self.check(node)
        if found.dtype is None:
            return in_type(found, Bool)
        if found.dtype != Bool:
            raise ExpressionError(found.at, f"expected a condition, got {found.dtype}", "compare it with a value")
        return found

    # -- operators and functions ------------------------------------------------------------------------------------

    def _call(self, node: Call) -> Checked:
        if node.name in ("and", "or"):
            parts = [self._truth(part).run for part in node.arguments]
            return Checked(node.at, Bool, programs.joined(parts, decides=node.name == "or"))
        if node.name == "not":
            truth = self._truth(node.arguments[0])
            return _strict(node, Bool, [truth], lambda values: Result(~values.astype(bool)))
        arguments = [self.check(argument) for argument in node.arguments]
        if node.name in _COMPARES:
            return _compared(node, *arguments)
        operators: dict[str, Callable[[Call, list[Checked]], Checked]] = {
            "in": _in,
            "is null": lambda call, found: Checked(call.at, Bool, programs.is_null(found[0].run)),
            "like": _like,
            "||": lambda call, found: _function(call, "concat", found),
            "negative": _signed,
            "positive": _signed,
            "coalesce": _coalesce,
            "nullif": _nullif,
            "least": _extreme,
            "greatest": _extreme,
        }
        if node.name in operators:
            return operators[node.name](node, arguments)
        if node.name in _OF_FLOATS or node.name in _OF_INTS:
            return _calculated(node, arguments)
        return _function(node, node.name, arguments)


# -- operators ----------------------------------------------------------------------------------------------------


def _strict(node: Call, gives: DType, arguments: Sequence[Checked], compute: Callable[..., Result]) -> Checked:
    def why(*shown: str) -> str:
        of = f"{shown[0]} {node.name} {shown[1]}" if node.name in _OF_INTS else f"{node.name}({', '.join(shown)})"
        return f"expected a result that {gives} can hold, got {of}"

    typed = [(argument.run, argument.dtype or Bool) for argument in arguments]
    return Checked(node.at, gives, programs.strict(typed, gives, compute, why))


def _compared(node: Call, *arguments: Checked) -> Checked:
    typed, _ = together(arguments, compared=True)
    compare = _COMPARES[node.name]
    return _strict(node, Bool, typed, lambda a, b: Result(np.asarray(compare(a, b), bool)))


def _in(node: Call, arguments: list[Checked]) -> Checked:
    value, *items = arguments
    parts = [_compared(Call(item.at, "=", ()), value, item).run for item in items]
    return Checked(node.at, Bool, programs.joined(parts, decides=True))


def _like(node: Call, arguments: list[Checked]) -> Checked:
    escape = arguments[2] if len(arguments) > 2 else None
    if escape is not None and (not isinstance(escape.constant, str) or len(escape.constant) != 1):
        raise ExpressionError(escape.at, "expected one character after escape")
    texts = [_argument(node, "like", argument, String) for argument in arguments[:2]]
    sign = "" if escape is None else escape.constant

    def matches(values: Array, patterns: Array) -> Result:
        found = [like(*both, sign) for both in zip(values.tolist(), patterns.tolist(), strict=True)]
        return Result(np.array(found, bool))

    return _strict(node, Bool, texts, matches)


def _signed(node: Call, arguments: list[Checked]) -> Checked:
    value = _number(node, arguments[0])
    if node.name == "positive":
        return value
    if value.dtype == Int64:
        return _strict(node, Int64, [value], arithmetic.negated)
    return _strict(node, Float64, [value], arithmetic.of_floats(np.negative))


def _calculated(node: Call, arguments: list[Checked]) -> Checked:
    numbers = [_number(node, argument) for argument in arguments]
    is_whole = all(number.dtype == Int64 for number in numbers)
    if node.name == "//" and not is_whole:
        wrong = next(number for number in numbers if number.dtype != Int64)
        hint = "divide with /, and round down with floor(…)"
        raise ExpressionError(wrong.at, "// divides integers, got Float64", hint)
    if is_whole and node.name != "/":
        return _strict(node, Int64, numbers, _OF_INTS[node.name])
    floats = [in_type(number, Float64) for number in numbers]
    return _strict(node, Float64, floats, _OF_FLOATS[node.name])


def _number(node: Call, argument: Checked) -> Checked:
    """An operand of arithmetic, as Int64 or Float64."""
    if argument.dtype is None:
        return in_type(argument, Int64)
    if argument.kind not in NUMBERS:
        hints = {
            "decimal": "cast(… as Float64) makes it a number",
            "time": "epoch_us(…) is its number of microseconds",
            "text": "join texts with ||" if node.name == "+" else "",
        }
        name = {"negative": "-", "positive": "+"}.get(node.name, node.name)
        hint = hints.get(argument.kind, "")
        raise ExpressionError(argument.at, f"expected a number for {name}, got {argument.dtype}", hint)
    return in_type(argument, Int64 if argument.kind == "int" else Float64)


def _coalesce(node: Call, arguments: list[Checked]) -> Checked:
    _count(node, "coalesce", arguments, 1)
    typed, dtype = together(arguments)
    if dtype is None:
        return constant_of(node.at, None)
    return Checked(node.at, dtype, programs.first_value([one.run for one in typed], dtype))


def _nullif(node: Call, arguments: list[Checked]) -> Checked:
    _count(node, "nullif", arguments, 2, 2)
    typed, dtype = together(arguments)
    if dtype is None:
        return constant_of(node.at, None)
    return Checked(node.at, dtype, programs.unless_equal(typed[0].run, typed[1].run))


def _extreme(node: Call, arguments: list[Checked]) -> Checked:
    _count(node, node.name, arguments, 1)
    typed, dtype = together(arguments)
    if dtype is None:
        return constant_of(node.at, None)
    if kind_of(dtype) == "other":
        raise ExpressionError(node.at, f"{node.name} does not take {dtype}")
    is_better = operator.lt if node.name == "least" else operator.gt
    return Checked(node.at, dtype, programs.extreme([one.run for one in typed], is_better))


def _count(node: Call, name: str, arguments: Sequence[Checked], least: int, most: int | None = None) -> None:
    if len(arguments) < least or (most is not None and len(arguments) > most):
        signature = FORMS[name][0] if name in FORMS else FUNCTIONS[name].signature
        raise ExpressionError(node.at, f"{signature} does not take {len(arguments)} arguments")


# -- functions ----------------------------------------------------------------------------------------------------


def _function(node: Call, name: str, arguments: list[Checked]) -> Checked:
    function = FUNCTIONS.get(name)
    if function is None:
        known = [*FUNCTIONS, *FORMS]
        hint = did_you_mean(name, known) or "docs/expressions.md lists the functions"
        raise ExpressionError(node.at, f"there is no function {name!r}", hint)
    _count(node, name, arguments, function.least, function.most)
    variant = _variant(function.variants, arguments)
    wanted = [variant.takes[min(i, len(variant.takes) - 1)] for i in range(len(arguments))]
    if function.units:
        return _truncated(node, variant, arguments)
    typed = [_argument(node, name, argument, dtype) for argument, dtype in zip(arguments, wanted, strict=True)]
    return _strict(node, variant.gives, typed, variant.compute)


def _variant(variants: tuple[Variant, ...], arguments: Sequence[Checked]) -> Variant:
    """The variant for some arguments: of those for as many arguments, the first that takes the first one's type."""
    longest = max(len(variant.takes) for variant in variants)
    fitting = [one for one in variants if len(one.takes) == min(len(arguments), longest)] or list(variants)
    kind = arguments[0].kind
    return next((one for one in fitting if kind_of(one.takes[0]) == kind), fitting[-1])


def _argument(node: Call, name: str, argument: Checked, dtype: DType) -> Checked:
    """An argument in the type that a function takes."""
    if argument.dtype is None:
        return in_type(argument, dtype)
    fits = argument.kind == kind_of(dtype) or (argument.kind, kind_of(dtype)) in (("int", "float"), ("date", "time"))
    if fits or (argument.is_constant and argument.kind == "text" and kind_of(dtype) == "time"):
        return in_type(argument, dtype)
    hint = f"cast(… as {dtype}) converts it" if (argument.kind, kind_of(dtype)) in CASTS else ""
    raise ExpressionError(argument.at, f"{name} takes a {dtype} here, got {argument.dtype}", hint)


def _truncated(node: Call, variant: Variant, arguments: list[Checked]) -> Checked:
    unit, time = arguments
    if unit.constant not in UNITS:
        hint = did_you_mean(unit.constant, UNITS) if isinstance(unit.constant, str) else ""
        raise ExpressionError(unit.at, f"expected one of {', '.join(map(repr, UNITS))}", hint)
    typed = _argument(node, "date_trunc", time, Timestamp)
    return _strict(node, variant.gives, [typed], truncated(unit.constant))


def type_of(found: Checked) -> DType:
    """The type of an expression.

    Raises:
        ExpressionError: it is the constant null, or of a type that no column can have.
    """
    if found.dtype is None:
        raise ExpressionError(found.at, "the expression is always null", "write cast(null as Int64)")
    return found.dtype
