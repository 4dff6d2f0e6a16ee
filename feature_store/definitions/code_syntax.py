"""Syntax trees of project code: which names a statement binds, imports and uses, and its normal form.

The normal form leaves out what does not change what is computed, and what versions of Python parse differently. Its
texts are the same on every version (`ast.dump` and `ast.unparse` write other text in each).
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

# A name and the attributes that are taken of it: `a.b.c`.
Chain = tuple[str, ...]
_DECORATOR = "on_demand_feature_view"
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Neither what a function computes nor which names it uses depends on these.
_SKIPPED = {"ctx", "kind", "type_comment", "returns", "type_ignores"}


class Import(NamedTuple):
    """`from <level dots><module> import <name>`, or `import <module>` when there is no name."""

    module: str
    name: str | None
    level: int

    def __str__(self) -> str:
        return f"{'.' * self.level}{self.module} {self.name or ''}"


def first_line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The line where a function begins, its decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def in_scope(node: ast.AST) -> Iterator[ast.AST]:
    """A node and the nodes beneath it that share its scope."""
    yield node
    if isinstance(node, (*SCOPE, ast.Lambda)):
        return
    for child in ast.iter_child_nodes(node):
        yield from in_scope(child)


def bound_by(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top level binds, or whose value it changes."""
    for node in in_scope(statement):
        if isinstance(node, SCOPE):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):
            yield from _base(node)  # TABLE["x"] = 1
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _base(node.value.func)  # TABLE.update(…)
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            yield node.name


def _base(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        return
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def imports_of(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, Import]]:
    """The names that import statements bind, each with its import."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, Import(node.module or "", alias.name, node.level)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                yield name, Import(alias.name if alias.asname else name, None, 0)


def imports_in(scope: ast.AST) -> dict[str, list[Import]]:
    """The imports inside a function or class, by the names that they bind."""
    imports: dict[str, list[Import]] = {}
    for name, item in imports_of(ast.walk(scope)):
        imports.setdefault(name, []).append(item)
    return imports


class _Normaliser(ast.NodeTransformer):
    """Removes what does not change the result, and what versions of Python parse differently."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        _drop_docstring(node)
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        self.generic_visit(node)
        merged: list[ast.expr] = []
        for part in node.values:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                last = merged[-1] if merged else None
                if isinstance(last, ast.Constant) and isinstance(last.value, str):
                    merged[-1] = ast.Constant(last.value + part.value)
                elif part.value:
                    merged.append(part)
            else:
                merged.append(part)
        node.values = merged
        return node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.format_spec, ast.JoinedStr) and not node.format_spec.values:
            node.format_spec = None
        return node

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        _drop_docstring(node)
        views = [i for i, decorator in enumerate(node.decorator_list) if _makes_a_view(decorator)]
        node.decorator_list = node.decorator_list[max(views) + 1 if views else 0 :]
        return self.generic_visit(node)


def normalised(statement: ast.stmt) -> ast.AST:
    """A copy of a statement in its normal form."""
    changed: ast.AST = _Normaliser().visit(copy.deepcopy(statement))
    return changed


def _drop_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
    if ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:] or [ast.Pass()]


def _makes_a_view(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return name == _DECORATOR


def dump(node: Any) -> Iterator[str]:
    """A tree as texts, the same on every version of Python. Empty parts are left out, and texts are not escaped."""
    if isinstance(node, ast.Constant):
        value = node.value
        yield type(value).__name__
        yield _constant(value)
    elif isinstance(node, ast.AST):
        yield type(node).__name__
        for name, part in ast.iter_fields(node):
            if name not in _SKIPPED and part not in (None, []):
                yield name
                yield from dump(part)
        yield "."
    elif isinstance(node, list):
        yield str(len(node))
        for part in node:
            yield from dump(part)
    else:
        yield ascii(node)


def _constant(value: Any) -> str:
    match value:
        case str():
            return value
        case bytes() | float():
            return value.hex()
        case int():
            return hex(value)  # Python refuses to write very long integers in decimals
        case _:
            return ascii(value)


def names_used(node: ast.AST) -> list[Chain]:
    """The names that a statement uses of its module, each once, in order, with the attributes used of them."""
    own = _locals(node) if isinstance(node, FUNCTION) else frozenset()
    chains: dict[Chain, None] = {}

    def look(node: ast.AST) -> None:
        chain = _chain(node)
        if chain is not None:
            if chain[0] not in own:
                chains.setdefault(chain)
            return
        for child in ast.iter_child_nodes(node):
            look(child)

    look(node)
    return list(chains)


def _chain(node: ast.AST) -> Chain | None:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else None


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef) -> frozenset[str]:
    """The names of a function's local variables. Those of comprehensions are left out, so a digest only covers more."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    own = {argument.arg for argument in every if argument is not None}
    shared: set[str] = set()
    for statement in function.body:
        for node in _in_own_scope(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, SCOPE):
                own.add(node.name)
            elif isinstance(node, ast.Global):
                shared.update(node.names)
    return frozenset(own - shared)


def _in_own_scope(node: ast.AST) -> Iterator[ast.AST]:
    """As `in_scope`, without comprehensions, whose variables are not the function's."""
    yield node
    if isinstance(node, (*SCOPE, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        return
    for child in ast.iter_child_nodes(node):
        yield from _in_own_scope(child)
