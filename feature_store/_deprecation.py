"""Deprecations: a public name goes on working with a DeprecationWarning for some releases before it is removed.

The warning names the release that deprecates, the release that removes, and what to use instead. A test reads every
`removed_in` of the package, so that a release cannot ship with what it should have removed.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def deprecated(*, use: str, since: str, removed_in: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function or method so that each call warns.

    Args:
        use: what to call instead, as a caller writes it: `store.training.join(…)`.
        since: the release that deprecates it: `0.2`.
        removed_in: the first release without it.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        message = _message(f"{function.__qualname__}()", use, since, removed_in)

        @functools.wraps(function)
        def warned(*args: P.args, **kwargs: P.kwargs) -> R:
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return function(*args, **kwargs)

        warned.__doc__ = f"{function.__doc__ or ''}\n\nDeprecated: {message}\n"
        return warned

    return decorate


def moved_names(module: str, homes: Mapping[str, str], *, since: str, removed_in: str) -> Callable[[str], Any]:
    """Make the `__getattr__` (PEP 562) of a module whose public names live elsewhere now. Each use of a name warns.

    Args:
        module: the old module's `__name__`.
        homes: the module to import each name from now, by name.
        since: the release that deprecates the old module.
        removed_in: the first release without it.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        use = f"from {homes[name]} import {name}"
        warnings.warn(_message(f"{module}.{name}", use, since, removed_in), DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(homes[name]), name)

    return get


def _message(what: str, use: str, since: str, removed_in: str) -> str:
    return f"{what} is deprecated since {since} and will be removed in {removed_in}; use `{use}`"
