"""What cannot be merged is lost to nobody: it goes to a topic of its own, as it was, with the reason.

A letter is sent before the fences move past its message, and the worker waits until it has arrived: after a kill it may
come twice, but never not at all. Only what turns out to be late is known by the merge that moves the fences, and sent
right after; the store has counted it in that merge.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from feature_store.errors import StreamError
from feature_store.streaming.kafka import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from feature_store.streaming.decoder import Rejection
    from feature_store.streaming.kafka import Message

# How long to wait for Kafka before looking whether to stop.
_WAIT_S = 0.5
# Between attempts, when a broker or a topic is away.
_RETRY_S = 0.2
# How a message is sent: as it is; when the topic does not take so much, without its value, then without all its own.
_WHOLE, _WITHOUT_VALUE, _BARE = range(3)


@dataclass(frozen=True, slots=True, eq=False)
class Letter:
    """A message that was not merged, and why."""

    message: Message
    rejection: Rejection


class DeadLetters:
    """Sends letters.

    Args:
        options: the Kafka client's.
        topic: the name of the topic of letters; `{topic}` in it stands for the topic that the message came from.
        stopped: whether to give up waiting.
    """

    def __init__(self, options: Mapping[str, Any], topic: str, stopped: Callable[[], bool]) -> None:
        self._options, self._topic, self._stopped = options, topic, stopped

    @cached_property
    def _sender(self) -> Sender:
        """Made with the first letter: most workers never send one."""
        return Sender(self._options)

    def send(self, letters: Iterable[Letter]) -> None:
        """Send letters; returns when all have arrived, however often that has to be tried.

        Raises:
            StreamError: it is to stop before they have.
        """
        waiting = dict.fromkeys(letters, _WHOLE)
        while waiting:
            for letter, form in list(waiting.items()):
                self._send(letter, form, waiting)
            while self._sender.flush(_WAIT_S):
                self._refuse_when_stopped()
            if waiting:
                self._refuse_when_stopped()
                time.sleep(_RETRY_S)

    def _send(self, letter: Letter, form: int, waiting: dict[Letter, int]) -> None:
        def told(arrived: bool, too_large: bool) -> None:
            if arrived:
                del waiting[letter]
            elif too_large:
                waiting[letter] = form + 1

        message = letter.message
        topic = dead_letter_topic(self._topic, message.topic() or "")
        value = message.value() if form == _WHOLE else None
        key = message.key() if form <= _WITHOUT_VALUE else None
        self._sender.send(topic, value, key, _headers(letter, form), told)

    def _refuse_when_stopped(self) -> None:
        if self._stopped():
            raise StreamError(f"topic {self._topic}", expected="dead letters to arrive", got="a stop before they did")


def dead_letter_topic(template: str, topic: str) -> str:
    """Where the letters of a topic go."""
    return template.replace("{topic}", topic)


def _headers(letter: Letter, form: int) -> list[tuple[str, str | bytes | None]]:
    message, rejection = letter.message, letter.rejection
    about: dict[str, Any] = {
        "kind": rejection.kind,
        "where": rejection.where,
        "reason": rejection.reason,
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
    }
    if form != _WHOLE:
        about["left_out"] = f"{len(message)} bytes, more than the topic takes"
    kept: Any = (message.headers() or []) if form <= _WITHOUT_VALUE else []
    return [*kept, *((name, str(value).encode()) for name, value in about.items())]
