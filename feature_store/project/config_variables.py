"""Environment variables in the values of feature_store.yaml: `${NAME}` and `${NAME:-default}`."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import quote

from feature_store.errors import ConfigError

VARIABLE = re.compile(r"\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def interpolated(value: Any, file_name: str, path: str = "") -> Any:
    """A value of the file, or all values of a mapping or list, with their variables filled in.

    Args:
        value: as YAML read it.
        file_name: the file's name, for errors.
        path: the keys that lead to the value.

    Raises:
        ConfigError: a variable is not set and has no default, or `${` does not begin one.
    """
    match value:
        case str():
            return _filled(value, f"{file_name}: {path}")
        case dict():
            return {
                key: interpolated(item, file_name, f"{path}.{key}" if path else f"{key}") for key, item in value.items()
            }
        case list():
            return [interpolated(item, file_name, f"{path}[{i}]") for i, item in enumerate(value)]
        case _:
            return value


def _filled(template: str, where: str) -> str:
    """A text with its variables filled in. Those before the host of a URL are percent-encoded."""
    user = _user_of_url(template)
    has_password = ":" in _blanked(template)[user.start : user.stop]

    def filled(variable: re.Match[str]) -> str:
        value = _value_of(variable, where)
        if variable.start() not in user:
            return value
        # A variable may hold both: USER:PASSWORD.
        name, colon, password = ("", "", value) if has_password else value.partition(":")
        return f"{quote(name, safe='')}{colon}{quote(password, safe='')}"

    return VARIABLE.sub(filled, template)


def _user_of_url(template: str) -> range:
    """Where user and password are in a URL whose variables are not filled in yet. Empty for other texts."""
    text = _blanked(template)
    scheme = SCHEME.match(text)
    if scheme is None:
        return range(0)
    authority = re.split(r"[/?#]", text[scheme.end() :], maxsplit=1)[0]
    return range(scheme.end(), scheme.end() + max(authority.rfind("@"), 0))


def _blanked(template: str) -> str:
    return VARIABLE.sub(lambda variable: "x" * len(variable[0]), template)


def _value_of(variable: re.Match[str], where: str) -> str:
    name, default = variable[1], variable[2]
    if name is None:
        raise ConfigError(where, expected="${NAME} or ${NAME:-default}", got="a ${ that begins neither")
    value = os.environ.get(name)
    if default is not None:
        return value or default
    if value is None:
        hint = f"set it, or give a default: ${{{name}:-…}}"
        raise ConfigError(where, problem=f"the environment variable {name} is not set", hint=hint)
    return value
