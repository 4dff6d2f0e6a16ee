"""The types of the registry's columns: a value that the library cannot have written is an error of ours.

SQLite keeps any value in any column, and whoever can write to the database writes what he likes. So each column checks
what it reads. A long text is not read when it is longer than any that the library writes.
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
        """Refuse what is no integer."""
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
        """Refuse what is no such time."""
        if type(value) is not int or not _FIRST_US <= value <= _LAST_US:
            raise _refused("microseconds of a time", value)
        return value


class LongText(sa.TypeDecorator[str]):
    """A text of at most MOST_BYTES characters."""

    impl: Any = sa.Text
    cache_ok = True
    most = MOST_BYTES

    def column_expression(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """What is read: the text, or NULL in place of one that is too long, which stays in the database."""
        return sa.case((sa.func.length(column) <= self.most, column))

    def process_result_value(self, value: Any, _dialect: sa.Dialect) -> str | None:
        """Refuse what is no such text."""
        if not isinstance(value, str):
            raise _refused(f"a text of at most {self.most:,} characters", value)
        return value


class ShortText(LongText):
    """A name, an id or the like. SQLite and earlier releases did not cut authors at the length that is declared."""

    impl = sa.String
    cache_ok = True
    most = 1 << 16


def parsed(where: str, text: str) -> dict[str, Any]:
    """The JSON object that a text holds.

    Raises:
        RegistryError: it holds none.
    """
    try:
        found = orjson.loads(text)
    except ValueError as error:
        raise RegistryError(where, expected="JSON", got=str(error), hint=_HINT) from None
    if not isinstance(found, dict):
        raise RegistryError(where, expected="a JSON object", got=type(found).__name__, hint=_HINT)
    return found


def _refused(expected: str, value: object) -> RegistryError:
    return RegistryError(
        "registry", expected=expected, got="none, or more" if value is None else repr(value)[:80], hint=_HINT
    )
