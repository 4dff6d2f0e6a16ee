"""The replies that a connection owes, in the order in which their commands were sent. There is no I/O here."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import hiredis

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feature_store.online.redis.resp import ReplyParser

# Bytes of a connection's own buffer. One read fills it with many small replies, which are then copied.
_SHARED_BYTES = 1 << 16
# A reply that lacks at least this many bytes is read into its parser's buffer: an extra read costs less than a copy.
_OWN_READ_BYTES = 1 << 14


class Replies:
    """Fills parsers one after the other with the bytes of one connection: fill `buffer()`, call `received(n)`.

    Attributes:
        completed: how many replies the last bytes completed, also when they ended with an error.
    """

    __slots__ = ("_is_shared", "_like", "_owed", "_shared", "completed")

    def __init__(self) -> None:
        self.completed = 0
        self._owed: deque[ReplyParser] = deque()
        self._shared: memoryview | None = None
        self._is_shared = False
        self._like = 0  # the bytes of the last reply of unknown size: the next is probably like it

    def __len__(self) -> int:
        return len(self._owed)

    def expect(self, parsers: Iterable[ReplyParser]) -> None:
        """Expect further replies, for these parsers in this order."""
        self._owed.extend(parsers)

    def buffer(self) -> memoryview:
        """The buffer for the next bytes. At least one reply must be owed."""
        first = self._owed[0]
        self._is_shared = len(self._owed) > 1 and first.wanted(self._like) < _OWN_READ_BYTES
        if not self._is_shared:
            return memoryview(first.buffer())
        if self._shared is None:
            self._shared = memoryview(bytearray(_SHARED_BYTES))
        return self._shared

    def received(self, count: int) -> None:
        """Take `count` bytes that were put into `buffer()`, and count the replies that they complete.

        Raises:
            hiredis.ProtocolError: the bytes are not the Redis protocol, or no reply is owed.
            DamagedPlanError: a parser refuses its reply. The rest of the reply is still on its way.
        """
        self.completed = 0
        owed = self._owed
        if self._is_shared:
            assert self._shared is not None
            self._feed(self._shared[:count])
        elif owed[0].received(count):
            self.completed = 1
            rest = owed.popleft().rest
            if rest:
                self._feed(memoryview(rest))

    def drop(self, parsers: Iterable[ReplyParser]) -> None:
        """Give up the replies of a request that is over: other parsers take the missing replies and drop them."""
        over = set(map(id, parsers))
        self._owed = deque([parser.moved() if id(parser) in over else parser for parser in self._owed])

    def _feed(self, data: memoryview) -> None:
        while data:
            if not self._owed:
                raise hiredis.ProtocolError("bytes without a request")
            parser = self._owed[0]
            room = parser.buffer()
            count = min(len(data), len(room), parser.wanted(self._like))
            room[:count] = data[:count]
            if parser.received(count):
                self.completed += 1
                self._owed.popleft()
                count -= len(parser.rest)
                if not parser.fixed:
                    self._like = parser.bytes_received
            data = data[count:]
