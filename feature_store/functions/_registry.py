"""The functions and states of this folder and of other packages."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any

from feature_store.functions._contract import Function, State

GROUP = "feature_store.functions"


def function_named(name: str) -> Function | None:
    """The function of a name; None when no function has this name.

    Example:
        >>> from feature_store.functions import function_named
        >>> function_named("mean").kinds
        ('count', 'sum')
    """
    own = _functions(others=False).get(name)
    return own if own is not None else _functions(others=True).get(name)


def state_type(kind: str) -> type[State] | None:
    """The state of a kind; None when no state has this kind."""
    own = _states(others=False).get(kind)
    return own if own is not None else _states(others=True).get(kind)


def all_functions() -> dict[str, Function]:
    """Every function by its name, in the order of names.

    Example:
        >>> from feature_store.functions import all_functions
        >>> "quantile" in all_functions()
        True
    """
    return dict(sorted(_functions(others=True).items()))


@cache
def _functions(*, others: bool) -> dict[str, Function]:
    return {kind.name: kind() for module in _modules(others) for kind in _classes(module, Function, "name")}


@cache
def _states(*, others: bool) -> dict[str, type[State]]:
    return {kind.kind: kind for module in _modules(others) for kind in _classes(module, State, "kind")}


def _modules(others: bool) -> list[ModuleType]:
    """The modules of this folder, preceded by those of other packages if wanted. On equal names this folder wins."""
    package = importlib.import_module(__package__ or "")
    own = [
        importlib.import_module(f"{package.__name__}.{file.name}")
        for file in pkgutil.iter_modules(package.__path__)
        if not file.name.startswith("_")
    ]
    if not others:
        return own
    from importlib.metadata import entry_points

    return [*(point.load() for point in entry_points(group=GROUP)), *own]


def _classes(module: ModuleType, base: type, named: str) -> list[Any]:
    """The classes of a module that have the attribute `named`; base classes do not have it."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and hasattr(value, named)
    ]
