"""Programs: what an expression is compiled to. A program computes the values of rows.

`case`, `coalesce`, `and` and `or` run each part only for the rows that need it, so that a part fails only where its
value is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from feature_store.definitions.dtypes import DType
from feature_store.definitions.expressions.values import Array, Mask, Result, Rows, Values, shown, spread


class Program(Protocol):
    """Computes (n,) values of n rows."""

    def __call__(self, rows: Rows) -> Values:
        """The values of rows."""
        ...


def column(name: str) -> Program:
    """A column. NaN is null."""

    def run(rows: Rows) -> Values:
        values, nulls = rows.column(name)
        if values.dtype.kind == "f":
            nulls = nulls | np.isnan(values)
        return Values(values, nulls)

    return run


def constant(value: Any, dtype: DType) -> Program:
    """A stored value, the same in each row. None is null."""

    def run(rows: Rows) -> Values:
        found = _empty(rows.count, dtype)
        if value is not None:
            found.values[:] = value
            found.nulls[:] = False
        return found

    return run


def strict(
    arguments: Sequence[tuple[Program, DType]],
    gives: DType,
    compute: Callable[..., Result],
    why: Callable[..., str],
) -> Program:
    """An operation that is null where an argument is null.

    Args:
        arguments: the programs of the arguments, and their types.
        gives: the type of the result.
        compute: the operation, of arguments that are not null.
        why: makes the reason why a row fails, of its arguments.
    """

    def run(rows: Rows) -> Values:
        columns = [program(rows) for program, _ in arguments]
        some = ~np.logical_or.reduce([nulls for _, nulls in columns])
        values = [values for values, _ in columns] if some.all() else [values[some] for values, _ in columns]
        result = compute(*values)
        nulls = np.zeros(len(values[0]), bool) if result.nulls is None else result.nulls
        if result.failed is not None and result.failed.any():
            rows.chosen(some).fail(result.failed, lambda row: why(*(_python(values[i][row], of) for i, of in listed)))
            nulls = nulls | result.failed
        if some.all():
            return Values(result.values, nulls)
        found = _empty(rows.count, gives)
        spread(some, Values(result.values, nulls), found)
        return found

    listed = [(i, dtype) for i, (_, dtype) in enumerate(arguments)]
    return run


def is_null(value: Program) -> Program:
    """Whether a value is null."""

    def run(rows: Rows) -> Values:
        nulls = value(rows).nulls
        return Values(nulls, np.zeros(rows.count, bool))

    return run


def joined(parts: Sequence[Program], decides: bool) -> Program:
    """`or` (which true decides) or `and` (which false decides), by SQL's logic of three values."""

    def run(rows: Rows) -> Values:
        found = Values(np.full(rows.count, not decides), np.zeros(rows.count, bool))
        undecided = np.ones(rows.count, bool)
        for part in parts:
            if not undecided.any():
                break
            values, nulls = part(rows.chosen(undecided))
            decided = ~nulls & (values.astype(bool) == decides)
            unknown = found.nulls[undecided] | nulls
            found.nulls[undecided] = unknown & ~decided
            places = np.flatnonzero(undecided)[decided]
            found.values[places] = decides
            undecided[places] = False
        found.values[found.nulls] = False
        return found

    return run


def first_value(parts: Sequence[Program], gives: DType) -> Program:
    """The first of the values that is not null."""

    def run(rows: Rows) -> Values:
        found = _empty(rows.count, gives)
        for part in parts:
            left = found.nulls.copy()
            if not left.any():
                break
            spread(left, part(rows.chosen(left)), found)
        return found

    return run


def choice(branches: Sequence[tuple[Program, Program]], otherwise: Program, gives: DType) -> Program:
    """The value of the first branch whose condition is true."""

    def run(rows: Rows) -> Values:
        found, left = _empty(rows.count, gives), np.ones(rows.count, bool)
        for condition, value in branches:
            if not left.any():
                return found
            values, nulls = condition(rows.chosen(left))
            taken = np.zeros(rows.count, bool)
            taken[left] = values.astype(bool) & ~nulls
            if taken.any():
                spread(taken, value(rows.chosen(taken)), found)
            left &= ~taken
        if left.any():
            spread(left, otherwise(rows.chosen(left)), found)
        return found

    return run


def unless_equal(value: Program, other: Program) -> Program:
    """The value, and null where it equals another."""

    def run(rows: Rows) -> Values:
        values, nulls = value(rows)
        others, other_nulls = other(rows)
        equal = ~nulls & ~other_nulls
        equal[equal] = np.asarray(values[equal] == others[equal], bool)
        return Values(values, nulls | equal)

    return run


def extreme(parts: Sequence[Program], is_better: Callable[[Array, Array], Mask]) -> Program:
    """The best of the values that are not null."""

    def run(rows: Rows) -> Values:
        best, nulls = parts[0](rows)
        best, nulls = best.copy(), nulls.copy()
        for part in parts[1:]:
            values, none = part(rows)
            taken = ~none & nulls
            both = ~none & ~nulls
            taken[both] = np.asarray(is_better(values[both], best[both]), bool)
            best[taken] = values[taken]
            nulls &= none
        return Values(best, nulls)

    return run


def _empty(count: int, dtype: DType) -> Values:
    """Rows that are all null."""
    values = np.zeros(count, dtype.numpy)
    if dtype.width is None:
        values[:] = dtype.scalar.zero
    return Values(values, np.ones(count, bool))


def _python(value: Any, dtype: DType) -> str:
    return shown(dtype.from_stored([value.item() if isinstance(value, np.generic) else value])[0])
