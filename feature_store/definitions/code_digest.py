"""The digest of an on-demand function: two functions with one digest compute the same.

The digest covers the function and everything of the project that it uses: constants, helpers, classes, and what those
use in turn. It does not cover comments, layout, docstrings, annotations of parameters, third-party libraries, or values
that only exist at run time (a file that is read, an environment variable).

How it is computed: the file of the function is parsed. Each name that the function uses is looked up among the
statements at the top level of that file; an import leads to another file of the project. All these statements are
hashed as normalised syntax trees. So nothing is imported or run, names may be defined after the function, and the
digest is the same on every version of Python (`ast.dump` and `ast.unparse` write other text in each).

A file belongs to the project when it lies in the folder of the function's file, in its package, or in one of the two
folders above. `import numpy` is hashed as these words.
"""

from __future__ import annotations

import ast
import builtins
import copy
import hashlib
import linecache
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

from feature_store.errors import DefinitionError

Chain = tuple[str, ...]

# A change of the rules below changes every digest: give them another prefix, and keep these rules for stored digests.
PREFIX = "v2:"
# Folders above that of the function's file in which imports are looked for: `defs/features.py` may import `lib`.
_FOLDERS_ABOVE = 2
_INSTALLED = {"site-packages", "dist-packages"}
_DECORATOR = "on_demand_feature_view"
_Function = (ast.FunctionDef, ast.AsyncFunctionDef)
_Scope = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Neither what a function computes nor which names it uses depends on these.
_SKIPPED = {"ctx", "kind", "type_comment", "returns", "type_ignores"}


def source_digest(function: FunctionType, options: str = "") -> str:
    """The digest of a function that is defined with `def` at the top level of a file or a notebook's cell.

    Args:
        function: it.
        options: what else decides what the function computes.

    Raises:
        DefinitionError: the source of the function cannot be read.
    """
    path = function.__code__.co_filename
    module = _module_of(path)
    node = module.function(function) if module is not None else None
    if module is None or node is None:
        raise DefinitionError(
            f"function {function.__qualname__}",
            problem=f"its source cannot be read from {path}",
            hint="define it with `def` at the top level of a Python file",
        )
    walk = _Walk(function.__globals__)
    walk.add("options", options)
    walk.statement(module, node)
    return walk.digest()


class _Import(NamedTuple):
    """`from <level dots><module> import <name>`, or `import <module>` when there is no name."""

    module: str
    name: str | None
    level: int

    def __str__(self) -> str:
        return f"{'.' * self.level}{self.module} {self.name or ''}"


class _Module:
    """A parsed file: which statements at its top level bind each name."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.body = ast.parse(text).body
        self.bound: dict[str, list[ast.stmt]] = {}
        self.imported: dict[str, list[_Import]] = {}
        self.stars: list[_Import] = []
        for statement in self.body:
            for name, item in _imports(_in_scope(statement)):
                if name == "*":
                    self.stars.append(item)
                else:
                    self.imported.setdefault(name, []).append(item)
            for name in dict.fromkeys(_bound_by(statement)):
                self.bound.setdefault(name, []).append(statement)

    @property
    def is_file(self) -> bool:
        """Whether it is a file, not a cell of a notebook."""
        return Path(self.path).is_file()

    def function(self, function: FunctionType) -> ast.stmt | None:
        """The statement that defines a function."""
        code = function.__code__
        found = [
            node
            for statement in self.body
            for node in _in_scope(statement)
            if isinstance(node, _Function) and node.name == code.co_name
        ]
        exact = [node for node in found if _first_line(node) == code.co_firstlineno]
        chosen = exact or found
        return chosen[0] if len(chosen) == 1 else None


class _Walk:
    """Hashes statements, and those that bind the names that they use, each once."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace
        self._hash = hashlib.sha256()
        self._seen: set[tuple[str, Chain]] = set()

    def digest(self) -> str:
        """The digest of all that was added."""
        return PREFIX + self._hash.hexdigest()[:32]

    def add(self, *parts: str) -> None:
        """Hash texts; where one ends and the next begins counts."""
        for part in parts:
            encoded = part.encode("utf-8", "surrogatepass")
            self._hash.update(b"%d:" % len(encoded) + encoded)

    def statement(self, module: _Module, statement: ast.stmt) -> None:
        """Hash a statement and what it uses."""
        place = module.path, ("", str(statement.lineno), str(statement.col_offset))
        if place in self._seen:
            return
        self._seen.add(place)
        normal = _normalised(statement)
        self.add(*_dump(normal))
        inside = _imports_in(normal) if isinstance(normal, _Scope) else {}
        for chain in _used(normal):
            for item in inside.get(chain[0], ()):
                self._imported(module, item, chain[1:])
            self._resolve(module, chain)

    def _resolve(self, module: _Module, chain: Chain) -> None:
        if (module.path, chain) in self._seen:
            return
        self._seen.add((module.path, chain))
        name = chain[0]
        if name not in module.bound and name not in module.imported:
            self._unbound(module, chain)
            return
        self.add("name", name)
        for statement in module.bound.get(name, ()):
            self.statement(module, statement)
        for item in module.imported.get(name, ()):
            self._imported(module, item, chain[1:])

    def _unbound(self, module: _Module, chain: Chain) -> None:
        """A name that no statement of the module binds: a builtin's, from a star import, or from another cell."""
        for star in module.stars:
            found = _found(module, star.module, star.level)
            if found is None:
                self.add("star", str(star))
            elif chain[0] in found.bound or chain[0] in found.imported or found.stars:
                self._resolve(found, chain)
        if not module.is_file and not hasattr(builtins, chain[0]) and chain[0] in self._namespace:
            self._value(chain[0], self._namespace[chain[0]])

    def _imported(self, module: _Module, item: _Import, rest: Chain) -> None:
        if item.name is not None:
            found = _found(module, f"{item.module}.{item.name}".strip("."), item.level)
            if found is None:
                found, rest = _found(module, item.module, item.level), (item.name, *rest)
        else:
            found, rest = _deepest(module, item.module, rest)
        if found is None:
            self.add("import", str(item))
        elif rest:
            self._resolve(found, rest)
        else:  # a module that is passed on as a whole
            for statement in found.body:
                self.statement(found, statement)

    def _value(self, name: str, value: Any) -> None:
        """What another cell of a notebook bound a name to."""
        self.add("name", name)
        code = getattr(value, "__code__", None)
        found = _module_of(code.co_filename) if code is not None else None
        node = found.function(value) if found is not None else None
        if found is not None and node is not None:
            self.statement(found, node)
        elif isinstance(value, (bool, int, float, complex, str, bytes, tuple, list, dict, type(None))):
            self.add(ascii(value))
        else:
            self.add(type(value).__name__)


def _module_of(path: str) -> _Module | None:
    linecache.checkcache(path)
    text = "".join(linecache.getlines(path))
    return _parsed(path, text) if text else None


@lru_cache(maxsize=128)
def _parsed(path: str, text: str) -> _Module | None:
    try:
        return _Module(path, text)
    except (SyntaxError, ValueError, RecursionError):
        return None


# -- files of the project ---------------------------------------------------------------------------------------------


def _found(module: _Module, dotted: str, level: int) -> _Module | None:
    """The file of the project that an import in `module` means; None: it is no file of the project."""
    for root in _roots(module, dotted, level):
        path = root.joinpath(*dotted.split(".")) if dotted else root
        for candidate in (path.with_name(f"{path.name}.py"), path / "__init__.py")[0 if dotted else 1 :]:
            if candidate.is_file():
                # A file without a statement still is a file of the project.
                return _module_of(str(candidate)) or _Module(str(candidate), "")
    return None


def _deepest(module: _Module, dotted: str, rest: Chain) -> tuple[_Module | None, Chain]:
    """`import a` and a use of `a.b.c`: the file of `a.b` if there is one, else that of `a`; and what is left."""
    names = (*dotted.split("."), *rest)
    for size in range(len(names), 0, -1):
        found = _found(module, ".".join(names[:size]), 0)
        if found is not None:
            return found, names[size:]
    return None, ()


def _roots(module: _Module, dotted: str, level: int) -> Iterator[Path]:
    folder = Path(module.path).parent
    if level:
        yield folder.joinpath(*[".."] * (level - 1)).resolve()
        return
    top = dotted.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("feature_store", ""):
        return
    package = folder
    while (package / "__init__.py").is_file() and package != package.parent:
        package = package.parent
    if _INSTALLED & set(folder.parts):  # an installed package's own modules, and not the library beside it
        if package != folder and folder.relative_to(package).parts[0] == top:
            yield package
        return
    yield from dict.fromkeys([folder, package, *folder.parents[:_FOLDERS_ABOVE]])


# -- syntax trees -----------------------------------------------------------------------------------------------------


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _in_scope(node: ast.AST) -> Iterator[ast.AST]:
    """A node and those beneath it, without what has a scope of its own."""
    yield node
    if isinstance(node, (*_Scope, ast.Lambda)):
        return
    for child in ast.iter_child_nodes(node):
        yield from _in_scope(child)


def _bound_by(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top level binds, or whose value it changes."""
    for node in _in_scope(statement):
        if isinstance(node, _Scope):
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


def _imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, _Import]]:
    """The names that import statements bind, and to what."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, _Import(node.module or "", alias.name, node.level)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                yield name, _Import(alias.name if alias.asname else name, None, 0)


def _imports_in(scope: ast.AST) -> dict[str, list[_Import]]:
    """What a function, or a class, imports itself."""
    found: dict[str, list[_Import]] = {}
    for name, item in _imports(ast.walk(scope)):
        found.setdefault(name, []).append(item)
    return found


class _Normaliser(ast.NodeTransformer):
    """Takes out what does not change what is computed, and what versions of Python parse differently."""

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


def _normalised(statement: ast.stmt) -> ast.AST:
    changed: ast.AST = _Normaliser().visit(copy.deepcopy(statement))
    return changed


def _drop_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
    if ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:] or [ast.Pass()]


def _makes_a_view(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return name == _DECORATOR


def _dump(node: Any) -> Iterator[str]:
    """A tree as texts, the same on every version of Python: empty parts are left out, texts are not escaped."""
    if isinstance(node, ast.Constant):
        value = node.value
        yield type(value).__name__
        yield _constant(value)
    elif isinstance(node, ast.AST):
        yield type(node).__name__
        for name, part in ast.iter_fields(node):
            if name not in _SKIPPED and part not in (None, []):
                yield name
                yield from _dump(part)
        yield "."
    elif isinstance(node, list):
        yield str(len(node))
        for part in node:
            yield from _dump(part)
    else:
        yield ascii(node)


def _constant(value: Any) -> str:
    match value:
        case str():
            return value
        case bytes() | float():
            return value.hex()
        case int():
            return hex(value)  # Python refuses to write a very long one in decimals
        case _:
            return ascii(value)


def _used(node: ast.AST) -> list[Chain]:
    """The names that a statement takes from its module, with the attributes taken of them, each once, in order."""
    own = _locals(node) if isinstance(node, _Function) else frozenset()
    found: dict[Chain, None] = {}

    def look(node: ast.AST) -> None:
        chain = _chain(node)
        if chain is not None:
            if chain[0] not in own:
                found.setdefault(chain)
            return
        for child in ast.iter_child_nodes(node):
            look(child)

    look(node)
    return list(found)


def _chain(node: ast.AST) -> Chain | None:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else None


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef) -> frozenset[str]:
    """The names that are the function's own. Those of comprehensions are not told apart: they only add to a digest."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    own = {argument.arg for argument in every if argument is not None}
    shared: set[str] = set()
    for statement in function.body:
        for node in _in_own_scope(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, _Scope):
                own.add(node.name)
            elif isinstance(node, ast.Global):
                shared.update(node.names)
    return frozenset(own - shared)


def _in_own_scope(node: ast.AST) -> Iterator[ast.AST]:
    """As `_in_scope`, without comprehensions, whose variables are not the function's."""
    yield node
    if isinstance(node, (*_Scope, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        return
    for child in ast.iter_child_nodes(node):
        yield from _in_own_scope(child)
