"""Text that cannot steer a terminal."""

from __future__ import annotations

import unicodedata

# Categories of invisible characters that act on a terminal: control, format (direction marks), lone surrogates, line
# and paragraph separators.
_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
_LAST_OF_FOUR = 0xFFFF


def visible(text: str) -> str:
    """A text with control characters and direction marks as escapes, which cannot steer a terminal. Newlines stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(one) if unicodedata.category(one) in _STEERING and one != "\n" else one for one in text)


def visible_line(text: str) -> str:
    """Like `visible`, with all lines after the first indented, so that they read as a part of it."""
    return visible(text.strip("\n")).replace("\n", "\n  ")


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= _LAST_OF_FOUR else f"\\U{code:08x}"
