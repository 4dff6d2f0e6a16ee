"""What cannot be merged is lost to nobody: it goes to a topic of its own, as it was, with the reason.

A letter is sent before the fences move past its message, and the worker waits until it has arrived: after a kill it may
come twice, but never not at all. Only what turns out to be late is known by the merge that moves the fences, and sent
right after; the store has counted it in that merge.

Letters that Kafka refuses for good (no permission, no topic) stop the worker where it is, with the reason, before
their batch is merged; it tries again and again. Letters of late events, whose batch is merged, are kept and sent with
the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from feature_store.errors import StreamError
from feature_store.streaming.decoder import Rejection
from feature_store.streaming.kafka import Message, Sender
from feature_store.streaming.kafka_errors import FINAL, Reason, stream_error

# How long to wait for Kafka before looking whether to stop.
_WAIT_S = 0.5
# Between attempts, when a broker or a topic is away.
_RETRY_S = 0.2
_TOO_LARGE = "MSG_SIZE_TOO_LARGE"
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
        self._kept: list[Letter] = []
        self._refusal: Reason | None = None

    @cached_property
    def _sender(self) -> Sender:
        """Made with the first letter: most workers never send one."""
        return Sender(self._options)

    def send(self, letters: Iterable[Letter], *, keep: bool = False) -> None:
        """Send letters; returns when all have arrived, however often that has to be tried.

        Args:
            letters: what to send.
            keep: send those that do not arrive with the next ones: nobody reads their messages again.

        Raises:
            StreamError: it is to stop before they have, or Kafka refuses them for good.
        """
        kept, self._kept = self._kept, []
        lasting = [*kept, *letters] if keep else kept
        waiting = dict.fromkeys([*kept, *letters], _WHOLE)
        try:
            self._send_all(waiting)
        except StreamError:
            self._kept = [letter for letter in lasting if letter in waiting]
            raise

    def _send_all(self, waiting: dict[Letter, int]) -> None:
        while waiting:
            self._refusal = None
            for letter, form in list(waiting.items()):
                self._send(letter, form, waiting)
            while self._sender.flush(_WAIT_S):
                self._refuse_when_stopped()
                self._refuse_for_good()
            if waiting:
                self._refuse_when_stopped()
                self._refuse_for_good()
                time.sleep(_RETRY_S)

    def _send(self, letter: Letter, form: int, waiting: dict[Letter, int]) -> None:
        def told(refusal: Reason | None) -> None:
            if refusal is None:
                waiting.pop(letter, None)
            elif refusal.name == _TOO_LARGE:
                waiting[letter] = form + 1
            else:
                self._refusal = refusal

        message = letter.message
        topic = dead_letter_topic(self._topic, message.topic() or "")
        value = message.value() if form == _WHOLE else None
        key = message.key() if form <= _WITHOUT_VALUE else None
        self._sender.send(topic, value, key, _headers(letter, form), told)

    def _refuse_when_stopped(self) -> None:
        if self._stopped():
            raise StreamError(f"topic {self._topic}", expected="dead letters to arrive", got="a stop before they did")

    def _refuse_for_good(self) -> None:
        failure = self._sender.failure
        refusal = failure or self._refusal
        if failure is not None:
            del self.__dict__["_sender"]
        if refusal is not None and (failure is not None or refusal.name in FINAL):
            raise stream_error(f"dead letters to {self._topic}", refusal)


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
