"""Filters of aggregations: `action == 'click' and price > 10`, parsed to a tree and computed on columns without eval.

Names are columns; constants are numbers, texts, True and False; operators are `== != < <= > >=`, `in (…)`, `not in
(…)`, `and`, `or`, `not`. A comparison with null or NaN is false, also with `!=` and `not in`; `not` of it is true.
A constant is converted to the column's type: `x == 0.1` matches the Float32 nearest to 0.1.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from feature_store._formatting import quoted
from feature_store.errors import DefinitionError

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Columns = Mapping[str, tuple[np.ndarray[Any, Any], Mask]]

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_EXPECTED = "comparisons of columns with constants, joined by and, or, not"


class Expression:
    """A filter.

    Raises:
        DefinitionError: the text is not a filter.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._tree = ast.parse(text, mode="eval").body
            self._check(self._tree)
        except DefinitionError:
            raise
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two: nested too deeply
            reason = error.msg if isinstance(error, SyntaxError) else str(error)
            raise DefinitionError("filter", expected=_EXPECTED, got=f"{quoted(text)}: {reason}") from None
        self.names = sorted({node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)})

    def mask(self, columns: Columns, count: int) -> Mask:
        """The rows that pass, as (count,) bool."""
        return _mask(self._tree, columns, count)

    def constants_of(self, name: str) -> list[Any]:
        """The constants that a column is compared with."""
        constants: list[Any] = []
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and node.left.id == name:
                constants += _listed(node.comparators[0])
        return constants

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    self._check(value)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._check(operand)
            case ast.Compare(left=ast.Name(), ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
                self._refuse_unless(_is_constant(right), node)
            case ast.Compare(
                left=ast.Name(),
                ops=[ast.In() | ast.NotIn()],
                comparators=[ast.Tuple(elts=items) | ast.List(elts=items)],
            ):
                self._refuse_unless(bool(items) and all(map(_is_constant, items)), node)
            case _:
                self._refuse_unless(False, node)

    def _refuse_unless(self, allowed: bool, node: ast.expr) -> None:
        if not allowed:
            raise DefinitionError("filter", expected=_EXPECTED, got=repr(ast.unparse(node)))


@lru_cache(maxsize=256)
def expression(text: str) -> Expression:
    """The filter of a text, parsed once."""
    return Expression(text)


def _mask(node: ast.expr, columns: Columns, count: int) -> Mask:
    match node:
        case ast.BoolOp(op=op, values=values):
            join = np.logical_and if isinstance(op, ast.And) else np.logical_or
            masks = [_mask(value, columns, count) for value in values]
            joined: Mask = join.reduce(masks)
            return joined
        case ast.UnaryOp(operand=operand):
            return ~_mask(operand, columns, count)
        case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[right]):
            column, nulls = columns[name]
            some = ~nulls
            # A null text is not comparable.
            some[some] = _compared(op, column[some], _listed(right))
            return some
        case _:
            raise AssertionError(ast.dump(node))


def _compared(op: ast.cmpop, column: np.ndarray[Any, Any], constants: list[Any]) -> Mask:
    with np.errstate(over="ignore"):  # a constant beyond float32 is infinite there
        if type(op) in _COMPARISONS:
            passes = np.asarray(_COMPARISONS[type(op)](column, constants[0]), bool)
        else:
            passes = np.logical_or.reduce([np.asarray(column == constant, bool) for constant in constants])
    if isinstance(op, ast.NotIn):
        passes = ~passes
    return passes & ~np.isnan(column) if column.dtype.kind == "f" else passes


def _is_constant(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    return isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str))


def _listed(node: ast.expr) -> list[Any]:
    value = ast.literal_eval(node)
    return list(value) if isinstance(value, (tuple, list)) else [value]
