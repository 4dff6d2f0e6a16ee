"""Sends the served log to a Kafka topic, for `monitoring.ServedLog`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from feature_store.arrow.served_messages import as_arrow, as_json, requests
from feature_store.errors import RequestError, StreamError
from feature_store.streaming.kafka import Options, Sender
from feature_store.streaming.kafka_errors import Reason, is_telling, stream_error

if TYPE_CHECKING:
    import pyarrow as pa

_LOG = logging.getLogger("feature_store.served_log")
# Limits of memory and time for messages that wait for an unavailable broker. Settings override them.
_BOUNDS: dict[str, Any] = {
    "queue.buffering.max.kbytes": 65_536,
    "message.timeout.ms": 30_000,
    "compression.type": "zstd",
}
_ARRIVE_S = 35.0


class KafkaSink:
    """Sends one message for each request that has rows. Its key is the request's id, or empty if it has none.

    Format `json`: a UTF-8 array with one object for each row of the log (arrow/served_log.py). Times are ISO 8601, NaN
    and infinities are null, `served_status` is an object with the statuses other than PRESENT.

    Format `arrow`: an Arrow IPC stream of one record batch. Its schema's metadata describe the rows.

    Args:
        topic: the topic to send to.
        settings: settings of confluent-kafka, as under `kafka:` in feature_store.yaml.
        format: `arrow` or `json`.
        seconds: how long records wait at most before they are sent.

    Raises:
        RequestError: `format` is neither `arrow` nor `json`.
    """

    def __init__(
        self, topic: str, settings: Options, *, format: Literal["arrow", "json"] = "arrow", seconds: float = 1.0
    ) -> None:
        if format not in ("arrow", "json"):
            raise RequestError("KafkaSink: format", expected="arrow or json", got=repr(format))
        self._topic, self._settings, self._write = topic, settings, as_arrow if format == "arrow" else as_json
        self.most_rows, self.most_seconds = 20_000, seconds
        self._sender: Sender | None = None  # created in the log's thread, so a forked child creates its own
        self._lost = 0
        self._refusal: Reason | None = None

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Send records; see monitoring.served_log.RecordSink. Returns when the broker has all messages.

        Raises:
            StreamError: the broker refuses a message, or does not accept it in time.
        """
        if self._sender is None:
            self._sender = Sender({**_BOUNDS, **self._settings})
        self._lost, self._refusal, sent = 0, None, 0
        for key, request in requests(batches):
            self._sender.send(self._topic, self._write(request), key, [], self._note)
            sent += 1
        waiting = self._sender.flush(_ARRIVE_S)
        if waiting or self._lost or self._sender.failure is not None:
            refusal = self._sender.failure or self._refusal
            if self._sender.failure is not None:
                self._sender = None
            if refusal is not None and is_telling(refusal):
                raise stream_error(f"topic {self._topic}", refusal)
            expected, got = f"{sent} messages to arrive", f"{sent - waiting - self._lost}"
            hint = "is the broker running, and has the topic room for messages of this size?"
            raise StreamError(f"topic {self._topic}", expected=expected, got=got, hint=hint)

    def close(self, wait_s: float) -> None:
        """See monitoring.served_log.RecordSink."""
        if self._sender is not None and (waiting := self._sender.flush(wait_s)):
            _LOG.error("served log: %d messages have not arrived at topic %s", waiting, self._topic)

    def _note(self, refusal: Reason | None) -> None:
        if refusal is not None:
            self._lost, self._refusal = self._lost + 1, refusal
