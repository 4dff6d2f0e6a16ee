"""The types of the registry's columns. Each refuses values that the library cannot have written.

SQLite keeps any value in any column, and other programs may write to the database. So each column checks the values
that it reads. A text longer than any that the library writes is not read at all.
"""

from __future__ import annotations

from typing import Any

import orjson
import sqlalchemy as sa

from feature_store.errors import RegistryError
from feature_store.registry.soundness import MOST_BYTES

_HINT = "the registry's database is damaged: restore it from a backup"
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999  # of the years that a datetime has, 1 to 9999


class WholeNumber(sa.TypeDecorator[int]):
    """An integer."""

    impl: Any = sa.BigInteger
    cache_ok = True

    def process_result_value(self, value: Any, _dialect: sa.Dialect) -> int | None:
        """Refuse a value that is no integer."""
        if type(value) is not int:
            raise _refused("an integer", value)
        return value


class Number(WholeNumber):
    """An integer of 32 bits."""

    impl = sa.Integer
    cache_ok = True


class Microseconds(WholeNumber):
    """A time that a datetime can hold, in microseconds since 1970."""

    cache_ok = True

    def process_result_value(self, value: Any, _dialect: sa.Dialect) -> int | None:
        """Refuse a value that is no such time."""
        if type(value) is not int or not _FIRST_US <= value <= _LAST_US:
            raise _refused("microseconds of a time", value)
        return value


class LongText(sa.TypeDecorator[str]):
    """A text of at most MOST_BYTES characters."""

    impl: Any = sa.Text
    cache_ok = True
    most = MOST_BYTES

    def column_expression(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Select the text, or NULL if it is too long: such a text stays in the database."""
        return sa.case((sa.func.length(column) <= self.most, column))

    def process_result_value(self, value: Any, _dialect: sa.Dialect) -> str | None:
        """Refuse a value that is no such text."""
        if not isinstance(value, str):
            raise _refused(f"a text of at most {self.most:,} characters", value)
        return value


class ShortText(LongText):
    """A name or an id. It may be longer than declared: SQLite and earlier releases did not cut authors."""

    impl = sa.String
    cache_ok = True
    most = 1 << 16


def parsed(where: str, text: str) -> dict[str, Any]:
    """The JSON object that a text holds.

    Raises:
        RegistryError: it is no JSON, or no object.
    """
    try:
        document = orjson.loads(text)
    except ValueError as error:
        raise RegistryError(where, expected="JSON", got=str(error), hint=_HINT) from None
    if not isinstance(document, dict):
        raise RegistryError(where, expected="a JSON object", got=type(document).__name__, hint=_HINT)
    return document


def _refused(expected: str, value: object) -> RegistryError:
    return RegistryError(
        "registry", expected=expected, got="none, or a longer one" if value is None else repr(value)[:80], hint=_HINT
    )
