"""The tree of an expression. Each node knows its place in the text, for errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from feature_store.errors import DefinitionError

# Deeper trees could exceed Python's stack, which is shared with the caller.
MOST_DEPTH = 50


class ExpressionError(DefinitionError):
    """An expression is not one of the language, or its types do not fit.

    Args:
        at: the place in the text, from 0.
        problem: what is wrong there.
        hint: how to correct it.
    """

    def __init__(self, at: int, problem: str, hint: str = "") -> None:
        self.at = at
        super().__init__("expression", problem=f"at character {at + 1}: {problem}", hint=hint)


@dataclass(frozen=True, slots=True)
class Node:
    """A node. `at` is its place in the text, from 0."""

    at: int

    @property
    def parts(self) -> tuple[Node, ...]:
        """The nodes that this one is made of."""
        return ()


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """A number, a text, true, false, or null (None)."""

    value: Any


@dataclass(frozen=True, slots=True)
class Column(Node):
    """A column."""

    name: str


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function, an operator, or a form such as `is null`, of some arguments."""

    name: str
    arguments: tuple[Node, ...]

    @property
    def parts(self) -> tuple[Node, ...]:
        """See Node."""
        return self.arguments


@dataclass(frozen=True, slots=True)
class Cast(Node):
    """A conversion to the type of a name. With `tries`, a value that cannot be converted becomes null."""

    value: Node
    dtype: str
    tries: bool

    @property
    def parts(self) -> tuple[Node, ...]:
        """See Node."""
        return (self.value,)


@dataclass(frozen=True, slots=True)
class Case(Node):
    """`case when condition then value … else otherwise end`."""

    branches: tuple[tuple[Node, Node], ...]
    otherwise: Node

    @property
    def parts(self) -> tuple[Node, ...]:
        """See Node."""
        return (*(node for branch in self.branches for node in branch), self.otherwise)


def columns_of(node: Node) -> set[str]:
    """The names of the columns that an expression reads."""
    own = {node.name} if isinstance(node, Column) else set()
    return own.union(*map(columns_of, node.parts))
