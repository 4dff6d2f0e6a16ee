"""The rule of names, which become parts of Redis keys, columns and file names: no separators, no quoting, short."""

from __future__ import annotations

import re

PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
MOST_CHARACTERS = 64
_NAME = re.compile(PATTERN.strip("^$"))


def is_name(text: object) -> bool:
    """Whether a text is a name of a definition."""
    return isinstance(text, str) and len(text) <= MOST_CHARACTERS and _NAME.fullmatch(text) is not None
