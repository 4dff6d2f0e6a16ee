"""Lazy public names: a package's `__init__.py` lists its public imports once, and each loads when it is first used.

The list is what a type checker reads: the imports of the form `from module import Name as Name`, under `TYPE_CHECKING`
where they are to be lazy. `__all__`, `__getattr__` and `__dir__` (PEP 562) of the package are derived from them:

    if TYPE_CHECKING:
        from feature_store.online.store import OnlineStore as OnlineStore

    __getattr__, __dir__ = lazy_names(__name__)
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the `__getattr__` and `__dir__` of a package from the public imports in its `__init__.py`."""

    @cache
    def homes() -> dict[str, str]:
        return _public_imports(ast.parse(inspect.getsource(sys.modules[package])))

    def get(name: str) -> Any:
        if name == "__all__":
            return sorted(homes())
        # Asking for a dunder, as copy and inspect do, must not make the package read its own source.
        if name.startswith("__") or name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes()[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted(homes())


def _public_imports(module: ast.Module) -> dict[str, str]:
    """Modules by the names that are imported from them as themselves, at the top and under `TYPE_CHECKING`."""
    homes: dict[str, str] = {}
    for statement in module.body:
        nodes = [statement]
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            nodes = statement.body
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                homes |= {alias.name: str(node.module) for alias in node.names if alias.asname == alias.name}
    return homes
