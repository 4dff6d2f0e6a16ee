"""Reads of one key each, in place of a command of several keys, and the reply that is put together from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hiredis

from feature_store.online.redis.resp import Command, ReplyParser, argument

if TYPE_CHECKING:
    from collections.abc import Sequence


def words_of(data: bytes) -> list[bytes]:
    """The words of a command."""
    reader = hiredis.Reader()
    reader.feed(data)
    words: list[bytes] = reader.gets()
    return words


def single(key: bytes, name: bytes) -> Command:
    """A command that reads one key, for the node of `key`."""
    return Command(key, b"*2\r\n$4\r\nMGET\r\n" + argument(name), ReplyParser(1))


def value_of(one: Command) -> bytes | None:
    """The value that a command of one key read; None when there is none."""
    value: bytes | None = one.parser.replies[0][0]
    return value


def feed(parser: ReplyParser, values: Sequence[bytes | None]) -> None:
    """Feed a parser with a reply that is put together from values."""
    rest = memoryview(
        b"".join([b"*%d\r\n" % len(values), *(b"$-1\r\n" if value is None else argument(value) for value in values)])
    )
    while rest:
        space = parser.buffer()
        count = min(len(space), len(rest))
        space[:count] = rest[:count]
        rest = rest[count:]
        parser.received(count)
