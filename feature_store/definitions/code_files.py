"""The files of a project's code: parsed once, with the statements that bind each name, and file by imports.

A file belongs to the project when it lies in the folder of the function's file, in its package, or in one of the two
folders above. Nothing is imported.
"""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import FunctionType

from feature_store.definitions.code_syntax import FUNCTION, Chain, Import, bound_by, first_line, imports_of, in_scope

# Folders above that of the function's file in which imports are looked for: `defs/features.py` may import `lib`.
_FOLDERS_ABOVE = 2
_INSTALLED = {"site-packages", "dist-packages"}


class CodeFile:
    """A parsed file: which statements at its top level bind each name."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.body = ast.parse(text).body
        self.bound: dict[str, list[ast.stmt]] = {}
        self.imported: dict[str, list[Import]] = {}
        self.stars: list[Import] = []
        for statement in self.body:
            for name, item in imports_of(in_scope(statement)):
                if name == "*":
                    self.stars.append(item)
                else:
                    self.imported.setdefault(name, []).append(item)
            for name in dict.fromkeys(bound_by(statement)):
                self.bound.setdefault(name, []).append(statement)

    @property
    def is_file(self) -> bool:
        """False for a cell of a notebook."""
        return Path(self.path).is_file()

    def function(self, function: FunctionType) -> ast.stmt | None:
        """The statement that defines a function. None: there is none, or several cannot be told apart."""
        code = function.__code__
        named = [
            node
            for statement in self.body
            for node in in_scope(statement)
            if isinstance(node, FUNCTION) and node.name == code.co_name
        ]
        exact = [node for node in named if first_line(node) == code.co_firstlineno]
        chosen = exact or named
        return chosen[0] if len(chosen) == 1 else None


def code_file(path: str) -> CodeFile | None:
    """A file, or a cell of a notebook, by its path. None: it cannot be read or is not Python."""
    linecache.checkcache(path)
    text = "".join(linecache.getlines(path))
    return _parsed(path, text) if text else None


@lru_cache(maxsize=128)
def _parsed(path: str, text: str) -> CodeFile | None:
    try:
        return CodeFile(path, text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def find_file(module: CodeFile, dotted: str, level: int) -> CodeFile | None:
    """The file of the project that an import in `module` names. None: the project has no such file."""
    for root in _roots(module, dotted, level):
        path = root.joinpath(*dotted.split(".")) if dotted else root
        for candidate in (path.with_name(f"{path.name}.py"), path / "__init__.py")[0 if dotted else 1 :]:
            if candidate.is_file():
                # An empty file is a file of the project, too.
                return code_file(str(candidate)) or CodeFile(str(candidate), "")
    return None


def find_deepest(module: CodeFile, dotted: str, rest: Chain) -> tuple[CodeFile | None, Chain]:
    """For `import a` and `a.b.c`: the file of `a.b` if there is one, else that of `a`; and the names left over."""
    names = (*dotted.split("."), *rest)
    for size in range(len(names), 0, -1):
        file = find_file(module, ".".join(names[:size]), 0)
        if file is not None:
            return file, names[size:]
    return None, ()


def _roots(module: CodeFile, dotted: str, level: int) -> Iterator[Path]:
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
    if _INSTALLED & set(folder.parts):  # modules of the same installed package, not of the libraries beside it
        if package != folder and folder.relative_to(package).parts[0] == top:
            yield package
        return
    yield from dict.fromkeys([folder, package, *folder.parents[:_FOLDERS_ABOVE]])
