"""Steps of writers at which a test acts: it kills the process, makes Redis forget the script, or publishes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from unittest import mock

from feature_store.online.redis.connection import Connection

Send = Callable[[bytes], None]


@contextlib.contextmanager
def at_send(number: int, act: Callable[[Send, bytes], object]) -> Iterator[None]:
    """Act before the `number`-th command is sent by writers of this process while the block runs, counted from 1.

    Args:
        number: the command.
        act: gets a function that sends bytes on the command's connection, and the command, which is sent afterwards.
    """
    send, count = Connection.send, itertools.count(1)

    def sent(self: Connection, command: bytes) -> None:
        if next(count) == number:
            act(lambda part: send(self, part), command)
        send(self, command)

    with mock.patch.object(Connection, "send", sent):
        yield
