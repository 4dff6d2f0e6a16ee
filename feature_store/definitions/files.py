"""The Python files that hold a project's definitions.

`definitions:` in feature_store.yaml names them: a file, a folder, a glob, a module or a package, or a list of these.
Without it, they are `features.py` and every other Python file directly in the project's folder that makes definitions
in its module-level code. The syntax tree of a file shows that, so no script is run.
"""

from __future__ import annotations

import ast
import fnmatch
import importlib.machinery
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from feature_store.errors import DefinitionError

DEFAULT_FILE = "features.py"
_WHERE = "feature_store.yaml: definitions"
_PACKAGE_FILE = "__init__.py"
_CONSTRUCTORS = frozenset(
    [
        "Entity",
        "FeatureService",
        "FeatureView",
        "OnDemandFeatureView",
        "StreamFeatureView",
        "on_demand_feature_view",
    ]
)
_STORE = "FeatureStore"
_MODULE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
# Folders that hold other people's code, or tests. Hidden folders, such as .venv, are never entered either.
_FOREIGN_FOLDERS = frozenset(["__pycache__", "node_modules", "site-packages", "test", "tests"])


def definition_files(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """The files that hold definitions, each once, in a stable order.

    Args:
        folder: the project's folder, which relative names start from.
        names: files, folders, globs, modules or packages; by default the files that the module describes.

    Raises:
        DefinitionError: a name has no file, or there is no file at all.
    """
    if names:
        return list(dict.fromkeys(path for name in names for path in _named(folder, name)))
    files = [path for path in _candidates(folder) if path.name == DEFAULT_FILE or makes_definitions(path)]
    if not files:
        hint = "write features.py, or set `definitions:` in feature_store.yaml to the files that hold them"
        raise DefinitionError(str(folder), expected="Python files with definitions", got="none", hint=hint)
    return files


def passed_over(folder: Path) -> list[Path]:
    """The Python files directly in the folder that the default skips, because they make no definitions."""
    return [path for path in _candidates(folder) if path.name != DEFAULT_FILE and not makes_definitions(path)]


def makes_definitions(path: Path) -> bool:
    """Whether a file makes definitions in its module-level code, by its syntax alone.

    A file that also opens a FeatureStore there is a script, which is never run as definitions.
    """
    try:
        text = path.read_bytes()
        tree = ast.parse(text)
    except (OSError, ValueError):
        return False
    except SyntaxError:  # reported if it is in a definition file, ignored in another script
        return b"feature_store" in text
    return _ModuleCalls(tree).makes_definitions


def package_root(folder: Path) -> Path:
    """The folder that holds the outermost package of `folder`; `folder` itself if it is no package."""
    while (folder / _PACKAGE_FILE).is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


class _ModuleCalls:
    """The calls of a file's module-level code, without the body of `if __name__ == "__main__"`."""

    def __init__(self, tree: ast.Module) -> None:
        self._statements = [node for node in tree.body if not _is_main_guard(node)]
        self._names: dict[str, str] = {}  # in this file -> in feature_store
        self._modules: set[str] = set()
        for node in ast.walk(tree):
            self._note_import(node)
        called = {name for node in _module_level(self._statements) for name in self._called(node)}
        makers = self._local_makers(tree)
        opens = _STORE in called
        self.makes_definitions = not opens and bool(called & (_CONSTRUCTORS | makers))

    def _note_import(self, node: ast.AST) -> None:
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _is_ours(node.module or ""):
            for alias in node.names:
                public = (*_CONSTRUCTORS, _STORE) if alias.name == "*" else (alias.name,)
                self._names |= {alias.asname or name: name for name in public}
        elif isinstance(node, ast.Import):
            self._modules |= {alias.asname or "feature_store" for alias in node.names if _is_ours(alias.name)}

    def _called(self, node: ast.AST) -> Iterator[str]:
        """The name that a node calls or decorates with, of feature_store or of the file itself."""
        if not isinstance(node, ast.Call):
            return
        match node.func:
            case ast.Name(id=name):
                yield self._names.get(name, f"{name}()")
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in self._modules:
                yield name

    def _local_makers(self, tree: ast.Module) -> set[str]:
        """The file's own functions that make definitions, directly or through each other."""
        calls = {
            f"{function.name}()": {name for node in ast.walk(function) for name in self._called(node)}
            for function in tree.body
            if isinstance(function, ast.FunctionDef)
        }
        makers: set[str] = set()
        for _ in calls:
            makers |= {name for name, called in calls.items() if called & (_CONSTRUCTORS | makers)}
        return makers


def _module_level(statements: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported, without the bodies of functions and classes."""
    waiting: list[ast.AST] = list(statements)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            waiting += node.decorator_list
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and any(
        isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test)
    )


def _is_ours(module: str) -> bool:
    return module == "feature_store" or module.startswith("feature_store.")


def _candidates(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if path.is_file() and not _is_private(path.name))


def _is_private(name: str) -> bool:
    return name.startswith(("_", "test_")) or name == "conftest.py"


def _named(folder: Path, name: str) -> list[Path]:
    path = folder / name
    if any(sign in name for sign in "*?["):
        files = _matching(folder, name)
    elif path.is_file():
        return [path]
    elif path.is_dir():
        files = _python_files(path)
    else:
        files = _of_module(folder, name)
    if not files:
        expected = "a Python file, a folder of them, a glob, or the name of a module or a package"
        raise DefinitionError(_WHERE, expected=expected, got=f"{name!r}, which has no Python file in {folder}")
    return files


def _matching(folder: Path, pattern: str) -> list[Path]:
    """The files that match a glob, `**` for any number of folders; private files and test files are left out."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if any(sign in part for sign in "*?["))
    base = folder.joinpath(*parts[:fixed])
    text = "".join("(?:.*/)?" if part == "**" else f"{_segment(part)}/" for part in parts[fixed:]).removesuffix("/")
    wanted = re.compile(text)
    return [
        path
        for path in _python_files(base)
        if wanted.fullmatch(path.relative_to(base).as_posix()) and not _is_private(path.name)
    ]


def _segment(part: str) -> str:
    """A part of a glob as a regular expression that matches within one folder or file name."""
    translated = fnmatch.translate(part).removeprefix("(?s:").removesuffix(")\\Z").removesuffix(")\\z")
    return translated.replace(".*", "[^/]*")


def _python_files(folder: Path) -> list[Path]:
    """The Python files below a folder, without those of environments, caches and tests. Links are not followed."""
    files: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_foreign(Path(place, name)))
        for name in names:
            is_test = name.startswith("test_") or name == "conftest.py"
            if name.endswith(".py") and not name.startswith(".") and not is_test:
                files.append(Path(place, name))
    return sorted(files)


def _is_foreign(folder: Path) -> bool:
    name = folder.name
    return name.startswith(".") or name in _FOREIGN_FOLDERS or (folder / "pyvenv.cfg").exists()


def _of_module(folder: Path, name: str) -> list[Path]:
    """The files of a module or a package: of the project's folder, else of the import path. Nothing is imported."""
    if not _MODULE_NAME.fullmatch(name):
        return []
    top, *rest = name.split(".")
    spec = importlib.machinery.PathFinder.find_spec(top, [str(folder)]) or importlib.util.find_spec(top)
    if spec is None:
        return []
    if not rest and spec.submodule_search_locations is None:
        return [Path(spec.origin)] if spec.origin is not None and spec.origin.endswith(".py") else []
    for location in spec.submodule_search_locations or ():
        path = Path(location, *rest)
        if path.is_dir():
            return _python_files(path)
        if rest and path.with_suffix(".py").is_file():
            return [path.with_suffix(".py")]
    return []
