"""The derived columns of a source: `KafkaSource(derive={"spend": "price * quantity"})`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from feature_store.definitions.dtypes import DType, Timestamp
from feature_store.definitions.expressions.checking import checked, type_of
from feature_store.definitions.expressions.nodes import ExpressionError, columns_of
from feature_store.definitions.expressions.parsing import parse
from feature_store.definitions.expressions.programs import Program
from feature_store.definitions.expressions.values import Array, Rows, Values
from feature_store.definitions.names import is_name
from feature_store.errors import DefinitionError

Columns = Mapping[str, tuple[Array, Array]]


class Derivation(NamedTuple):
    """Derived columns, as plain data that other processes can compile.

    Attributes:
        texts: name and expression of each derived column, sorted.
        columns: name and type of each declared column of the events.
        event_timestamp: the name by which expressions read the event time.
    """

    texts: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, DType], ...]
    event_timestamp: str

    @classmethod
    def of(cls, derive: Mapping[str, str], columns: Mapping[str, DType], event_timestamp: str) -> Derivation:
        """The derivation of a source's columns."""
        return cls(tuple(sorted(derive.items())), tuple(columns.items()), event_timestamp)

    @property
    def types(self) -> dict[str, DType]:
        """The types of the derived columns.

        Raises:
            DefinitionError: an expression is wrong.
        """
        return {name: one.dtype for name, one in _compiled(self).items()}

    def used_by(self, names: Iterable[str]) -> dict[str, str]:
        """The derived columns among some columns, and those that they read, with their expressions; sorted."""
        texts, found, todo = dict(self.texts), dict[str, str](), [*names]
        while todo:
            name = todo.pop()
            if name in texts and name not in found:
                found[name] = texts[name]
                todo += _compiled(self)[name].reads
        return dict(sorted(found.items()))

    @property
    def inputs(self) -> list[str]:
        """The declared columns that the expressions read, in the order of the schema."""
        read = {name for one in _compiled(self).values() for name in one.reads}
        return [name for name, _ in self.columns if name in read]

    def computed(self, columns: Columns, event_us: Array) -> tuple[dict[str, Values], dict[str, dict[int, str]]]:
        """The derived columns of n events.

        Args:
            columns: the values and nulls of at least the `inputs`, (n,) each.
            event_us: (n,) int64 event times, microseconds since 1970.

        Returns:
            By name (n,) values and nulls, and the reason for each event that has no such column, by place.
        """
        known = {name: Values(*column) for name, column in columns.items()}
        known[self.event_timestamp] = Values(event_us, np.zeros(len(event_us), bool))
        found: dict[str, Values] = {}
        reasons: dict[str, dict[int, str]] = {}
        for name, one in _compiled(self).items():
            reasons[name] = {}
            known[name] = found[name] = one.run(Rows(known, len(event_us), None, reasons[name]))
        return found, reasons


class _Compiled(NamedTuple):
    dtype: DType
    run: Program
    reads: frozenset[str]


@lru_cache(maxsize=256)
def _compiled(derivation: Derivation) -> dict[str, _Compiled]:
    """The programs of derived columns, each after those that it reads."""
    types: dict[str, Any] = dict(derivation.columns) | {derivation.event_timestamp: Timestamp}
    trees = {}
    for name, text in derivation.texts:
        _check_name(name, types)
        try:
            trees[name] = parse(text)
        except ExpressionError as error:
            raise _located(name, text, error) from None
    found: dict[str, _Compiled] = {}
    for name in _in_order({name: columns_of(tree) & trees.keys() for name, tree in trees.items()}):
        text = dict(derivation.texts)[name]
        try:
            one = checked(trees[name], types)
            found[name] = _Compiled(type_of(one), one.run, frozenset(columns_of(trees[name])))
        except ExpressionError as error:
            raise _located(name, text, error) from None
        _refuse_array(name, found[name].dtype)
        types[name] = found[name].dtype
    return found


def _in_order(reads: Mapping[str, set[str]]) -> list[str]:
    """The names of columns, each after those that it reads."""
    order: list[str] = []
    while len(order) < len(reads):
        ready = [name for name, read in reads.items() if name not in order and read <= set(order)]
        if not ready:
            circle = [name for name in reads if name not in order]
            raise DefinitionError("derive", problem=f"{', '.join(circle)} read each other or themselves")
        order += ready
    return order


def _check_name(name: str, columns: Mapping[str, DType]) -> None:
    if not is_name(name):
        expected = "a name of letters, digits and underscores that does not start with a digit"
        raise DefinitionError("derive", expected=expected, got=repr(name))
    if name in columns:
        hint = "choose another name for the derived column"
        raise DefinitionError(_where(name), problem="the events already have a column of that name", hint=hint)


def _refuse_array(name: str, dtype: DType) -> None:
    if dtype.element is not None:
        raise DefinitionError(_where(name), expected="a scalar type", got=str(dtype))


def _located(name: str, text: str, error: ExpressionError) -> DefinitionError:
    excerpt = text if len(text) <= _SHOWN else text[max(0, error.at - _SHOWN // 2) : error.at + _SHOWN // 2]
    return DefinitionError(_where(name), problem=f"{error.problem} in {excerpt!r}", hint=error.hint)


_SHOWN = 100


def _where(name: str) -> str:
    return f"derive[{name!r}]"
