"""The tokens of an expression."""

from __future__ import annotations

import ast
import re
import unicodedata
from typing import NamedTuple

from feature_store.definitions.expressions.nodes import ExpressionError

MOST_CHARACTERS = 10_000
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>0[xX][0-9a-fA-F]+|(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")
    |(?P<word>[^\W\d]\w*)
    |(?P<sign>\|\||==|!=|<>|<=|>=|//|[-+*/%=<>(),\[\]])""",
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """A token.

    Attributes:
        kind: `number`, `text`, `word`, `sign` or `end`.
        text: its characters. Keywords of all cases are words.
        at: its place in the expression, from 0.
    """

    kind: str
    text: str
    at: int

    @property
    def keyword(self) -> str:
        """A word or sign in lower case; empty for numbers and texts."""
        return self.text.lower() if self.kind in ("word", "sign") else ""

    @property
    def shown(self) -> str:
        """The token as errors show it."""
        return "the end" if self.kind == "end" else repr(self.text[:40])


def tokens_of(text: str) -> list[Token]:
    """The tokens of a text, with one of kind `end` after them.

    Raises:
        ExpressionError: a character begins no token, or the text is too long.
    """
    if len(text) > MOST_CHARACTERS:
        raise ExpressionError(MOST_CHARACTERS, f"an expression has at most {MOST_CHARACTERS:,} characters")
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            problem = "the text does not end" if text[at] in "'\"" else f"unexpected {text[at]!r}"
            raise ExpressionError(at, problem)
        if match.lastgroup != "space":
            found.append(Token(str(match.lastgroup), match[0], at))
        at = match.end()
    return [*found, Token("end", "", len(text))]


def number_of(token: Token) -> int | float:
    """The value of a number.

    Raises:
        ExpressionError: it is not written as numbers are.
    """
    try:
        value = ast.literal_eval(token.text)
    except (SyntaxError, ValueError):
        raise ExpressionError(token.at, f"{token.shown} is not a number") from None
    assert isinstance(value, (int, float))
    return value


def text_of(token: Token) -> str:
    """The value of a text. A doubled quote stands for a quote, and a backslash begins an escape as in Python.

    Raises:
        ExpressionError: an escape is not complete, or the text has a character that UTF-8 cannot hold.
    """
    quote, inner = token.text[0], token.text[1:-1]
    escaped = re.sub(
        rf"\\.|{quote}{quote}|\r|\n", lambda match: _ESCAPES.get(match[0], match[0]), inner, flags=re.DOTALL
    )
    try:
        value = ast.literal_eval(f"{quote}{escaped}{quote}")
        value.encode()
    except (SyntaxError, ValueError):
        raise ExpressionError(token.at, "the text has an escape that is not complete") from None
    assert isinstance(value, str)
    return value


_ESCAPES = {"''": r"\'", '""': r"\"", "\n": r"\n", "\r": r"\r"}


def name_of(token: Token) -> str:
    """The name of a column, in the form in which Python compares names."""
    return unicodedata.normalize("NFKC", token.text)
