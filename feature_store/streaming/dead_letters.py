"""Dead letters: messages that cannot be merged go unchanged to a separate topic, with the reason in the headers.

A dead letter is sent before the fences move past its message, and the worker waits until it has arrived. After a kill
it may arrive twice, but it is never missing. Late events are an exception: the merge that moves the fences also detects
them. Their letters are sent right after this merge.

If Kafka refuses letters permanently (no permission, no topic), the worker does not merge their batch. It reports the
reason and tries again. The batch of a late event is already merged, so its letter is kept and sent with the next ones.
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

# Seconds to wait for Kafka between checks whether to stop.
_WAIT_S = 0.5
# Seconds between attempts while a broker or a topic is unavailable.
_RETRY_S = 0.2
_TOO_LARGE = "MSG_SIZE_TOO_LARGE"
# The forms of a letter: the whole message. If it is too large for the topic: without the value, then only the reason.
_WHOLE, _WITHOUT_VALUE, _BARE = range(3)


@dataclass(frozen=True, slots=True, eq=False)
class DeadLetter:
    """A message that was not merged, and the reason."""

    message: Message
    rejection: Rejection


class DeadLetters:
    """Sends dead letters.

    Args:
        options: options of the Kafka client.
        topic: the name of the dead-letter topic. `{topic}` in it stands for the topic of the message.
        stopped: returns whether to give up waiting.
    """

    def __init__(self, options: Mapping[str, Any], topic: str, stopped: Callable[[], bool]) -> None:
        self._options, self._topic, self._stopped = options, topic, stopped
        self._kept: list[DeadLetter] = []
        self._refusal: Reason | None = None

    @cached_property
    def _sender(self) -> Sender:
        """The producer. It is created for the first letter, since most workers never send one."""
        return Sender(self._options)

    def send(self, letters: Iterable[DeadLetter], *, keep: bool = False) -> None:
        """Send letters, and repeat until all have arrived.

        Args:
            letters: the letters.
            keep: keep letters that do not arrive, and send them with the next ones. Use it if the messages are already
                merged, since they are not read again.

        Raises:
            StreamError: `stopped` returned True before all letters arrived, or Kafka refuses a letter permanently.
        """
        kept, self._kept = self._kept, []
        lasting = [*kept, *letters] if keep else kept
        waiting = dict.fromkeys([*kept, *letters], _WHOLE)
        try:
            self._send_all(waiting)
        except StreamError:
            self._kept = [letter for letter in lasting if letter in waiting]
            raise

    def _send_all(self, waiting: dict[DeadLetter, int]) -> None:
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

    def _send(self, letter: DeadLetter, form: int, waiting: dict[DeadLetter, int]) -> None:
        def delivered(refusal: Reason | None) -> None:
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
        self._sender.send(topic, value, key, _headers(letter, form), delivered)

    def _refuse_when_stopped(self) -> None:
        if self._stopped():
            raise StreamError(f"topic {self._topic}", problem="stopped before all dead letters arrived")

    def _refuse_for_good(self) -> None:
        failure = self._sender.failure
        refusal = failure or self._refusal
        if failure is not None:
            del self.__dict__["_sender"]
        if refusal is not None and (failure is not None or refusal.name in FINAL):
            raise stream_error(f"dead letters to {self._topic}", refusal)


def dead_letter_topic(template: str, topic: str) -> str:
    """The dead-letter topic of a topic."""
    return template.replace("{topic}", topic)


def _headers(letter: DeadLetter, form: int) -> list[tuple[str, str | bytes | None]]:
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
