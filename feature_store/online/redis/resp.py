"""The Redis protocol without I/O: a request's bytes out, a reply's bytes in.

The reply to an MGET of rows has the same bytes at the same places every time, unless a row is missing: each row of a
layout has one length. So the parser asks for all of the reply at once, checks that every row starts where it must, and
hands on the bytes as they came. Only when a row is missing does hiredis take the reply apart. Measured on 200 rows of
248 bytes, Python 3.11, against parsing with hiredis and joining: 15 µs instead of 60.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import hiredis
import numpy as np

from feature_store.errors import DamagedPlanError
from feature_store.online.buffers import BUFFERS
from feature_store.online.keys import EPOCH_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.online.layout import ValueLayout

_EPOCH_HEAD = b"$%d\r\n" % EPOCH_BYTES
_EPOCH_REPLY_BYTES = len(_EPOCH_HEAD) + EPOCH_BYTES + 2
_NIL = b"$-1\r\n"
# Up to so many keys are joined one by one, which then takes no longer than numpy's four operations, 4 µs.
_FEW = 40
_EIGHT_BYTES = np.dtype("V8")
# The length of the first value of an array of values.
_FIRST_LENGTH = re.compile(rb"\*\d{1,19}\r\n\$(\d{1,19})\r\n")
# A reply whose size is not known is read in pieces of this many bytes: what one recv of a socket buffer can return.
_PIECE_BYTES = 1 << 16


class RowRun:
    """`count` rows of one layout in a row of replies: where they start in the reply, and how to see that they do."""

    __slots__ = ("at", "count", "marks", "size", "stride")

    def __init__(self, layout: ValueLayout, count: int, at: int) -> None:
        head = b"$%d\r\n" % layout.size
        self.count, self.size = count, layout.size
        self.at = at + len(head)  # of the first row's first byte
        self.stride = len(head) + layout.size + 2
        # The last four bytes of the length's line and the row's fingerprint: eight bytes that say "a row starts here".
        self.marks = (head + layout.fingerprint)[-8:] * count

    @property
    def end(self) -> int:
        """Where the reply goes on after the run."""
        return self.at + self.count * self.stride - (self.stride - self.size - 2)

    def found_in(self, reply: bytearray) -> bool:
        """Whether every row starts where it must."""
        if self.count == 1:
            return reply[self.at - 4 : self.at + 4] == self.marks
        # Eight bytes of each row, gathered in C and compared at once: 0.4 µs for 200 rows, where == and all() take 1.4.
        return np.ndarray((self.count,), _EIGHT_BYTES, reply, self.at - 4, (self.stride,)).tobytes() == self.marks

    def rows(self, reply: bytearray) -> np.ndarray[Any, Any]:
        """The rows: (count, size) uint8, a view of the reply."""
        return np.ndarray((self.count, self.size), np.uint8, reply, self.at, (self.stride, 1))


class ReplyParser:
    """Takes the replies to some commands, from any transport: fill `buffer()`, call `received(n)`, until it says True.

    Args:
        commands: how many commands there are. Those of a request are MGETs whose last key is an epoch.
        runs: the runs of rows in the reply when it holds nothing else but an epoch; else empty.
        epoch: the epoch expected after the runs. A reply with another epoch is taken apart.

    Attributes:
        earlier: how many of the received bytes `reply` no longer holds.
        fixed: whether the reply is `reply`, with the runs in their places; else it is `replies`.
        reply: the bytes as they came, at the start of a buffer that may be longer. The buffer is used for other replies
            once the parser is gone and nothing looks into it.
        replies: one list of values per command, or an exception of hiredis.
        rest: bytes that came after the replies; they belong to the parser of the next command.
    """

    __slots__ = (
        "_commands",
        "_epoch",
        "_expected",
        "_got",
        "_reader",
        "_size",
        "earlier",
        "fixed",
        "replies",
        "reply",
        "rest",
        "runs",
    )

    def __init__(self, commands: int, runs: list[RowRun], epoch: bytes = b"") -> None:
        self.runs, self._commands, self._epoch = runs, commands, epoch
        self._size = self._expected = runs[-1].end + _EPOCH_REPLY_BYTES if runs else _PIECE_BYTES
        self.reply = BUFFERS.take(self._size)
        self._got = self.earlier = 0
        self._reader: Any = None
        self.fixed = False
        self.replies: list[Any] = []
        self.rest = b""

    def buffer(self) -> bytearray | memoryview:
        """Where the next bytes belong; never empty."""
        if self._got or self._size < len(self.reply):
            return memoryview(self.reply)[self._got : self._size]
        return self.reply

    def received(self, count: int) -> bool:
        """Take note of `count` bytes put into `buffer()`. True when the reply is complete.

        Raises:
            hiredis.ProtocolError: the bytes are not the Redis protocol.
        """
        self._got += count
        if self._reader is None:
            if not self.runs:
                self._reader = hiredis.Reader()
            elif self._got == self._size:
                if self._is_fixed():
                    self.fixed = True
                    return True
                self._reader = hiredis.Reader()
            elif self._may_be_complete():
                self._reader = hiredis.Reader()
            else:
                return False
        return self._parse()

    def settle(self) -> bool:
        """Whether the reply is complete, although fewer bytes came than are expected: rows may be missing.

        `received` finds the end of a shorter reply by its last bytes, which it does not see when bytes of the next
        reply came along with them. Call this when no more bytes will come.
        """
        if not self.is_complete and self._reader is None and self._got:
            self._reader = hiredis.Reader()
            return self._parse()
        return self.is_complete

    def again(self) -> ReplyParser:
        """A new parser for a reply to the same commands."""
        return ReplyParser(self._commands, self.runs, self._epoch)

    def restart(self) -> None:
        """Forget what came: the same commands are sent again."""
        self._got = self.earlier = 0
        self._reader, self.fixed, self.replies, self.rest = None, False, [], b""
        self._size = self._expected
        if len(self.reply) < self._size:
            self.reply = BUFFERS.take(self._size)

    def moved(self) -> ReplyParser:
        """A parser that takes the rest of an incomplete reply in place of this one, which stays incomplete.

        A connection goes on with it after the request has ended without the reply.
        """
        other = copy.copy(self)
        self.reply, self._got, self.earlier, self._reader, self.replies = bytearray(), 0, 0, None, []
        return other

    def take_over(self, other: ReplyParser) -> None:
        """Become complete with the replies of `other`, which `again` made."""
        self._got, self.earlier, self._size = other._got, other.earlier, other._size
        self.reply, other.reply = other.reply, self.reply
        self._reader, self.fixed, self.replies, self.rest = None, other.fixed, other.replies, b""

    @property
    def is_complete(self) -> bool:
        """Whether all replies have come. They do not change any more then."""
        return self.fixed or len(self.replies) == self._commands

    @property
    def has_begun(self) -> bool:
        """Whether any byte has come."""
        return self.bytes_received > 0

    @property
    def bytes_received(self) -> int:
        """How many bytes have come."""
        return self.earlier + self._got

    @property
    def error(self) -> Exception | None:
        """The first error among the replies, a hiredis.ReplyError; None when there is none."""
        if self.fixed:
            return None
        return next((reply for reply in self.replies if isinstance(reply, Exception)), None)

    def saw_only(self, epoch: bytes) -> bool:
        """Whether each command saw this epoch."""
        if self.fixed:
            return epoch == self._epoch
        return all(reply[-1] == epoch for reply in self.replies)

    def __del__(self) -> None:
        BUFFERS.give_back(self.reply)

    def _is_fixed(self) -> bool:
        reply = self.reply
        if reply[self._size - _EPOCH_REPLY_BYTES : self._size] != b"%b%b\r\n" % (_EPOCH_HEAD, self._epoch):
            return False
        for run in self.runs:  # noqa: SIM110 - a generator for all() costs as much as the check itself
            if not run.found_in(reply):
                return False
        return True

    def _may_be_complete(self) -> bool:
        """Whether what has come so far can be a whole reply in which something is missing: each ends with an epoch, or
        with nil in its place, or is an error. A wrong yes only hands the bytes to hiredis early."""
        reply, got = self.reply, self._got
        if reply[got - 2 : got] != b"\r\n":
            return False
        at = got - _EPOCH_REPLY_BYTES
        return (
            reply[max(at, 0) : at + len(_EPOCH_HEAD)] == _EPOCH_HEAD
            or reply[got - 5 : got] == _NIL
            or reply[:1] == b"-"
        )

    def _parse(self) -> bool:
        got = self._got
        self._reader.feed(memoryview(self.reply)[:got])
        while len(self.replies) < self._commands:
            reply = self._reader.gets()
            if reply is False:
                self.earlier, self._got = self.earlier + got, 0
                if self._size < _PIECE_BYTES:
                    self._size, self.reply = _PIECE_BYTES, bytearray(_PIECE_BYTES)
                return False
            self.replies.append(reply)
        self.earlier, self._got = self.earlier + got, 0
        if self._commands == 1 and self._reader.has_data():
            self._keep_rest(got)
        self._reader = None
        return True

    def _keep_rest(self, got: int) -> None:
        """Note what follows the replies. It is in the last `got` bytes: without them the replies were not complete."""
        (reply,) = self.replies
        after = self.earlier - _size_of(reply) if isinstance(reply, list) else got - self.reply.index(b"\n", 0, got) - 1
        self.rest = bytes(memoryview(self.reply)[got - after : got])
        self.earlier -= after


class BoundedParser(ReplyParser):
    """Takes the reply to one MGET that has no rows, and refuses one that is too long before it takes it in.

    Args:
        most: how many bytes the reply may have.
        what: the values that are read, for the error.
    """

    __slots__ = ("_most", "_what")

    def __init__(self, most: int, what: str) -> None:
        super().__init__(1, [])
        self._most, self._what = most, what

    def received(self, count: int) -> bool:
        """As ReplyParser.received.

        Raises:
            DamagedPlanError: the reply is longer than `most`. The connection has the rest of it and must be closed.
        """
        if not self.has_begun:
            stated = _FIRST_LENGTH.match(self.reply, 0, count)
            if stated is not None and int(stated[1]) > self._most:
                raise self._too_long(int(stated[1]))
        if self.bytes_received + count > self._most:
            raise self._too_long(self.bytes_received + count)
        return super().received(count)

    def again(self) -> BoundedParser:
        """As ReplyParser.again."""
        return BoundedParser(self._most, self._what)

    def _too_long(self, size: int) -> DamagedPlanError:
        return DamagedPlanError(
            self._what,
            expected=f"at most {self._most:,} bytes",
            got=f"{size:,} or more",
            hint="run `feature-store apply`: it publishes the plan again and keeps what is stored",
        )


class KeyWriter:
    """Writes the keys of one group as arguments of a command, all at once: `$<length>\\r\\n<prefix><entity key>\\r\\n`.

    Args:
        prefix: what the keys start with.
        width: bytes of an entity key.
    """

    __slots__ = ("_between", "_head", "_template", "_width")

    def __init__(self, prefix: bytes, width: int) -> None:
        self._head = b"$%d\r\n%b" % (len(prefix) + width, prefix)
        self._between = b"\r\n" + self._head
        self._width = width
        self._template = self._rows(256)

    def write(self, count: int, keys: bytes) -> bytes:
        """`count` entity keys, one after the other, as arguments."""
        if count == 1:
            return b"%b%b\r\n" % (self._head, keys)
        width = self._width
        if count <= _FEW:
            each = [keys[i : i + width] for i in range(0, count * width, width)]
            return b"%b%b\r\n" % (self._head, self._between.join(each))
        template = self._template
        if count > len(template):
            self._template = template = self._rows(2 * count)
        arguments = template[:count].copy()
        arguments[:, len(self._head) : -2] = np.frombuffer(keys, np.uint8).reshape(count, width)
        return arguments.tobytes()

    def _rows(self, count: int) -> np.ndarray[Any, Any]:
        row = self._head + bytes(self._width) + b"\r\n"
        return np.tile(np.frombuffer(row, np.uint8), (count, 1))


class Command(NamedTuple):
    """A command of a request, and what takes its reply.

    Attributes:
        key: says which node gets the command: the key of an epoch, with the hash tag of all the keys that it names.
        data: the bytes to send: one command of Redis, with one reply.
        parser: takes the reply.
        epoch: the epoch that its reply must end with, of the plan that it was made for; empty: any. With an epoch, a
            replica may answer: a replica that is behind answers with another epoch.
    """

    key: bytes
    data: bytes
    parser: ReplyParser
    epoch: bytes = b""


def _size_of(reply: Sequence[bytes | None]) -> int:
    """How many bytes a reply of values has."""
    sizes = [5 if value is None else len(b"$%d\r\n\r\n" % len(value)) + len(value) for value in reply]
    return len(b"*%d\r\n" % len(reply)) + sum(sizes)


def argument(value: bytes) -> bytes:
    """One argument of a command."""
    return b"$%d\r\n%b\r\n" % (len(value), value)
