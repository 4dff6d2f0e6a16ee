"""The rule for names. They become parts of Redis keys, columns and file names, so they are short and need no
quoting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from feature_store.errors import RequestError

PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
MOST_CHARACTERS = 64
_NAME = re.compile(PATTERN.strip("^$"))


def is_name(text: object) -> bool:
    """Whether a text is a valid name of a definition."""
    return isinstance(text, str) and len(text) <= MOST_CHARACTERS and _NAME.fullmatch(text) is not None


def given_name(value: Any, where: str) -> str:
    """Check a name that a caller gives.

    Raises:
        RequestError: the value is not a string; the error says `where`.
    """
    if not isinstance(value, str):
        raise RequestError(where, expected="a name", got=type(value).__name__)
    return value


def given_names(value: Any, where: str) -> Sequence[str]:
    """Check a list of names that a caller gives.

    Raises:
        RequestError: the value is not a list of strings; the error says `where`.
    """
    try:
        names = None if isinstance(value, str) else list(value)
    except TypeError:
        names = None
    if names is None:
        hint = f"[{value!r}]" if isinstance(value, str) else ""
        raise RequestError(where, expected="a list of names", got=type(value).__name__, hint=hint)
    return [given_name(one, f"{where}[{i}]") for i, one in enumerate(names)]
