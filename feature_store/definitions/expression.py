"""Filters of aggregations: `action == 'click' and price > 10`, read into a tree and computed on columns; never eval'd.

Names are columns; constants are numbers, texts, True and False; operators are == != < <= > >= `in (…)` `not in (…)`
and or not. A comparison of a null or of NaN is false, `!=` and `not in` too, as in SQL's WHERE; `not` of it is true.
A constant is taken as the column holds it: `x == 0.1` finds what a Float32 keeps of 0.1.
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
        DefinitionError: the text is no such expression.
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
        """Which of `count` rows pass: (count,) bool."""
        return _mask(self._tree, columns, count)

    def constants_of(self, name: str) -> list[Any]:
        """What a column is compared with."""
        found: list[Any] = []
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and node.left.id == name:
                found += _listed(node.comparators[0])
        return found

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
    """The filter of a text, read once."""
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
            # Texts cannot be compared with what stands for none.
            some[some] = _compared(op, column[some], _listed(right))
            return some
        case _:
            raise AssertionError(ast.dump(node))


def _compared(op: ast.cmpop, column: np.ndarray[Any, Any], constants: list[Any]) -> Mask:
    with np.errstate(over="ignore"):  # a constant beyond float32 is infinite there
        if type(op) in _COMPARISONS:
            found = np.asarray(_COMPARISONS[type(op)](column, constants[0]), bool)
        else:
            found = np.logical_or.reduce([np.asarray(column == constant, bool) for constant in constants])
    if isinstance(op, ast.NotIn):
        found = ~found
    return found & ~np.isnan(column) if column.dtype.kind == "f" else found


def _is_constant(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    return isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str))


def _listed(node: ast.expr) -> list[Any]:
    found = ast.literal_eval(node)
    return list(found) if isinstance(found, (tuple, list)) else [found]
