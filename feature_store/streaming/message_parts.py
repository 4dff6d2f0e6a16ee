"""Columns of the parts of messages around their values: keys, headers, places and times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from feature_store.definitions.dtypes import DType
from feature_store.definitions.json_members import Typed, typed_member
from feature_store.definitions.message_parts import HEADER
from feature_store.errors import DataError
from feature_store.streaming.messages import Message

_MS_US = 1_000
_NO_TIME = 0  # the type of the timestamp of a message that has none


def typed_part(messages: Sequence[Message], part: str, dtype: DType, unit_us: int) -> Typed:
    """A part of all messages as a column of a type.

    Keys and headers are bytes. They are a column of Bytes as they are, and of other types as text in UTF-8: a number
    such as `17`, a time in ISO 8601.

    Args:
        messages: the messages.
        part: `key`, `topic`, `partition`, `offset`, `timestamp`, or `headers.<name>`. Of several headers of a name,
            the last one.
        dtype: the type.
        unit_us: the microseconds of one unit of a time that is a plain number.
    """
    if part.startswith(HEADER):
        name = part.removeprefix(HEADER)
        return _of_bytes([header_of(message, name) for message in messages], dtype, unit_us)
    if part == "key":
        return _of_bytes([message.key() for message in messages], dtype, unit_us)
    return typed_member([_READERS[part](message) for message in messages], dtype, _MS_US)


def _time_ms(message: Message) -> int | None:
    kind, time_ms = message.timestamp()
    return None if kind == _NO_TIME or time_ms < 0 else time_ms


_READERS: dict[str, Callable[[Message], Any]] = {
    "topic": lambda message: message.topic(),
    "partition": lambda message: message.partition(),
    "offset": lambda message: message.offset(),
    "timestamp": _time_ms,
}


def header_of(message: Message, name: str) -> bytes | None:
    """The value of the last header of a name, or None."""
    found: bytes | str | None = None
    for header, value in message.headers() or ():
        if header == name:
            found = value
    return found.encode() if isinstance(found, str) else found


def _of_bytes(values: Sequence[bytes | None], dtype: DType, unit_us: int) -> Typed:
    if dtype.scalar.kind == "Bytes":
        return typed_member(list(values), dtype, unit_us)
    texts: list[Any] = []
    wrong: dict[int, str] = {}
    for i, value in enumerate(values):
        try:
            texts.append(None if value is None else _parsed(value.decode(), dtype))
        except UnicodeDecodeError:
            wrong[i] = f"expected text in UTF-8, got the bytes {value!r}"[:200]
            texts.append(None)
    column, nulls, bad = typed_member(texts, dtype, unit_us)
    return column, nulls, bad | wrong


def _parsed(text: str, dtype: DType) -> Any:
    """The value of a text, or the text itself, which the type then refuses or reads as a date or time."""
    if dtype.scalar.kind == "Timestamp":
        return int(text) if text.isdecimal() and text.isascii() else text
    if dtype.scalar.is_text_in_json or dtype.scalar.kind == "String":
        return text
    try:
        return dtype.read(text, "")
    except DataError:
        return text
