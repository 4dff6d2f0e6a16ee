"""Credential providers that a URL names, and what a provider gives.

A provider is an object of redis-py: its `get_credentials()` returns `(password,)` or `(user, password)`. It is asked
for each new connection, so it follows passwords and tokens that change.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

from feature_store.errors import ConfigError, FeatureStoreError, StoreConnectionError


def provider_named(name: str, where: str) -> Any:
    """The provider of a name. The same name gives the same object for as long as the process runs.

    Args:
        name: `module:name`, of a provider, or of a class or function that gives one when it is called without
            arguments.
        where: the origin of the name, for errors.

    Raises:
        ConfigError: the name has another form, there is no such object, or it is no provider.
    """
    try:
        return _named(name)
    except Exception as error:  # of the code that the name leads to
        raise ConfigError(
            f"{where}: credential provider",
            expected="module:name, of an object with get_credentials()",
            got=f"{name} ({type(error).__name__}: {error})",
            hint="the module must be importable here: install it, or put its folder on PYTHONPATH",
        ) from error


@functools.cache
def _named(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError("no colon between a module and a name")
    found = getattr(importlib.import_module(module), attribute)
    provider = found if not isinstance(found, type) and hasattr(found, "get_credentials") else found()
    if not hasattr(provider, "get_credentials"):
        raise ValueError(f"{type(provider).__qualname__} has no get_credentials()")
    return provider


def credentials_of(provider: Any) -> tuple[str, ...]:
    """What a provider gives: the arguments of AUTH. It may take long.

    Raises:
        StoreConnectionError: the provider raises an error, or returns something else than a password with or without a
            user.
    """
    where = f"credential provider {type(provider).__qualname__}"
    try:
        given = tuple(provider.get_credentials())
    except FeatureStoreError:
        raise
    except Exception as error:  # of any library; its text may have a secret in it
        raise StoreConnectionError(
            where, problem=f"get_credentials() raised {type(error).__name__}", hint="the cause is in the traceback"
        ) from error
    if len(given) not in (1, 2) or not all(isinstance(one, str) for one in given):
        raise StoreConnectionError(
            where,
            expected="(password,) or (user, password), as texts",
            got=f"{len(given)} values: {', '.join(type(one).__name__ for one in given)}",
        )
    return given
