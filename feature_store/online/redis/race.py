"""Blocking connections whose replies race, and replies that nobody waits for any more."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

import hiredis

from feature_store.errors import OnlineStoreError
from feature_store.online.redis.limit import Limit
from feature_store.online.redis.replies import Replies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.online.redis.connection import Connection
    from feature_store.online.redis.resp import Command

# How long the rest of a TLS record is waited for, whose start has come.
_RECORD_S = 0.01


class Runner:
    """The replies that a connection owes to some commands. They are taken as they come.

    Args:
        connection: has sent the commands.
        commands: their parsers take the replies.

    Attributes:
        connection: as given.
        since: when the runner was made, on the clock of `time.monotonic`.
    """

    def __init__(self, connection: Connection, commands: Sequence[Command]) -> None:
        self.connection, self._commands = connection, commands
        self.since = time.monotonic()
        self._replies = Replies()
        self._replies.expect([command.parser for command in commands])

    @property
    def is_done(self) -> bool:
        """Whether all replies have come."""
        return not self._replies

    def receive(self, limit: Limit) -> None:
        """Take the bytes that have come, when there are some.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server went away, or the rest of a TLS record is late.
        """
        connection, is_full = self.connection, True
        try:
            while is_full and self._replies:  # under TLS, select does not know of the rest of a record
                buffer = self._replies.buffer()
                count = connection.receive(buffer, limit)
                if not count:
                    raise connection.endpoint.lost("the server closed the connection")
                is_full = count == len(buffer)
                self._replies.received(count)
        except (OSError, hiredis.HiredisError) as error:
            raise connection.mapped(error, limit) from error

    def receive_at_once(self) -> None:
        """As `receive`, without a wait."""
        while self._replies and readable([self.connection], 0.0):
            self.receive(Limit.of(_RECORD_S))

    def leave(self) -> None:
        """Let other parsers take the missing replies: those of the commands are not written any more."""
        self._replies.drop([command.parser for command in self._commands])


def readable(connections: Sequence[Connection], seconds: float) -> list[Connection]:
    """The connections that have bytes to receive, after a wait until one has. Empty when the time is over.

    The system's waits have a resolution of a millisecond.
    """
    seconds = max(0.0, seconds)
    if not hasattr(select, "poll"):
        return select.select(connections, [], [], seconds)[0]
    poller = select.poll()
    by_file = {connection.fileno(): connection for connection in connections}
    for file in by_file:
        poller.register(file, select.POLLIN)
    return [by_file[file] for file, _ in poller.poll(seconds * 1000)]


def first_done(runners: Sequence[Runner], limit: Limit) -> Runner | None:
    """The first runner whose replies have all come; None when the limit ends before.

    Raises:
        StoreConnectionError, StoreTimeoutError: see Runner.receive; of the first runner. Another runner that fails is
            left out.
    """
    running = list(runners)
    while (left := limit.at - time.monotonic()) > 0:
        for connection in readable([runner.connection for runner in running], left):
            runner = next(one for one in running if one.connection is connection)
            try:
                runner.receive(limit)
            except OnlineStoreError:
                if runner is runners[0]:
                    raise
                running.remove(runner)
                continue
            if runner.is_done:
                return runner
    return None
