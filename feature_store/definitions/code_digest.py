"""The digest of an on-demand function: two functions with one digest compute the same.

The digest covers the function and everything of the project that it uses: constants, helpers, classes, and what those
use in turn. It does not cover comments, layout, docstrings, annotations of parameters, third-party libraries, or values
that only exist at run time (a file that is read, an environment variable).

How it is computed: the file of the function is parsed (`code_files.py`). Each name that the function uses is looked up
among the statements at the top level of that file; an import leads to another file of the project. All these statements
are hashed as normalised syntax trees (`code_syntax.py`). So nothing is imported or run, names may be defined after the
function, and the digest is the same on every version of Python.

An import of a file outside the project, such as `import numpy`, is hashed as its words.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
from types import FunctionType
from typing import Any

from feature_store.definitions.code_files import CodeFile, code_file, find_deepest, find_file
from feature_store.definitions.code_syntax import SCOPE, Chain, Import, dump, imports_in, names_used, normalised
from feature_store.errors import DefinitionError

# A change of the rules here or in `code_syntax.py` changes every digest: give them another prefix, and keep these rules
# for stored digests.
PREFIX = "v2:"


def source_digest(function: FunctionType, options: str = "") -> str:
    """The digest of a function that is defined with `def` at the top level of a file or a notebook's cell.

    Args:
        function: the function.
        options: settings of its view that decide the function's result.

    Raises:
        DefinitionError: the source of the function cannot be read.
    """
    path = function.__code__.co_filename
    module = code_file(path)
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


class _Walk:
    """Hashes statements and, once each, the statements that bind the names they use."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace
        self._hash = hashlib.sha256()
        self._seen: set[tuple[str, Chain]] = set()

    def digest(self) -> str:
        """The digest of everything added so far."""
        return PREFIX + self._hash.hexdigest()[:32]

    def add(self, *parts: str) -> None:
        """Hash texts and their boundaries."""
        for part in parts:
            encoded = part.encode("utf-8", "surrogatepass")
            self._hash.update(b"%d:" % len(encoded) + encoded)

    def statement(self, module: CodeFile, statement: ast.stmt) -> None:
        """Hash a statement and everything that it uses."""
        place = module.path, ("", str(statement.lineno), str(statement.col_offset))
        if place in self._seen:
            return
        self._seen.add(place)
        normal = normalised(statement)
        self.add(*dump(normal))
        inside = imports_in(normal) if isinstance(normal, SCOPE) else {}
        for chain in names_used(normal):
            for item in inside.get(chain[0], ()):
                self._imported(module, item, chain[1:])
            self._resolve(module, chain)

    def _resolve(self, module: CodeFile, chain: Chain) -> None:
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

    def _unbound(self, module: CodeFile, chain: Chain) -> None:
        """Hash a name that comes from a builtin, a star import or another cell of a notebook."""
        for star in module.stars:
            file = find_file(module, star.module, star.level)
            if file is None:
                self.add("star", str(star))
            elif chain[0] in file.bound or chain[0] in file.imported or file.stars:
                self._resolve(file, chain)
        if not module.is_file and not hasattr(builtins, chain[0]) and chain[0] in self._namespace:
            self._value(chain[0], self._namespace[chain[0]])

    def _imported(self, module: CodeFile, item: Import, rest: Chain) -> None:
        if item.name is not None:
            file = find_file(module, f"{item.module}.{item.name}".strip("."), item.level)
            if file is None:
                file, rest = find_file(module, item.module, item.level), (item.name, *rest)
        else:
            file, rest = find_deepest(module, item.module, rest)
        if file is None:
            self.add("import", str(item))
        elif rest:
            self._resolve(file, rest)
        else:  # the module itself is used as a value
            for statement in file.body:
                self.statement(file, statement)

    def _value(self, name: str, value: Any) -> None:
        """Hash a value that another cell of a notebook bound to a name."""
        self.add("name", name)
        code = getattr(value, "__code__", None)
        file = code_file(code.co_filename) if code is not None else None
        node = file.function(value) if file is not None else None
        if file is not None and node is not None:
            self.statement(file, node)
        elif isinstance(value, (bool, int, float, complex, str, bytes, tuple, list, dict, type(None))):
            self.add(ascii(value))
        else:
            self.add(type(value).__name__)
