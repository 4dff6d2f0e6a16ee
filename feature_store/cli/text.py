"""Text that cannot steer a terminal."""

from __future__ import annotations

import unicodedata

# Categories of characters that are not shown but do something: control, format (direction marks), lone surrogates,
# separators of lines and paragraphs.
_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
_LAST_OF_FOUR = 0xFFFF


def visible(text: str) -> str:
    """A text in which nothing steers the terminal: control and direction marks are shown as escapes; lines stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(one) if unicodedata.category(one) in _STEERING and one != "\n" else one for one in text)


def visible_line(text: str) -> str:
    """As `visible`; what follows the first line is indented, so that it is read as a part of it."""
    return visible(text.strip("\n")).replace("\n", "\n  ")


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= _LAST_OF_FOUR else f"\\U{code:08x}"
