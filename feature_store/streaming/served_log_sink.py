"""Served records as messages of a Kafka topic, for `monitoring.ServedLog`."""

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
# What waits for a broker that is down: no more memory than that, and no longer; unless the settings say otherwise.
_BOUNDS: dict[str, Any] = {
    "queue.buffering.max.kbytes": 65_536,
    "message.timeout.ms": 30_000,
    "compression.type": "zstd",
}
_ARRIVE_S = 35.0


class KafkaSink:
    """Sends a message for each request that has rows; its key is the request's id, empty when it has none.

    `json`: an array of the log's rows (arrow/served_log.py) as objects, in UTF-8; times in ISO 8601, floats that are
    not finite as null, `served_status` as an object of the statuses that are not PRESENT. `arrow`: the rows as an Arrow
    IPC stream of one record batch; its schema carries what the rows are of.

    Args:
        topic: where to.
        settings: of confluent-kafka, as `kafka:` in feature_store.yaml.
        format: `arrow` or `json`.
        seconds: how long records wait at most before they are sent.

    Raises:
        RequestError: there is no such format.
    """

    def __init__(
        self, topic: str, settings: Options, *, format: Literal["arrow", "json"] = "arrow", seconds: float = 1.0
    ) -> None:
        if format not in ("arrow", "json"):
            raise RequestError("KafkaSink: format", expected="arrow or json", got=repr(format))
        self._topic, self._settings, self._write = topic, settings, as_arrow if format == "arrow" else as_json
        self.most_rows, self.most_seconds = 20_000, seconds
        self._sender: Sender | None = None  # made in the log's thread, and so in a forked child anew
        self._lost = 0
        self._refusal: Reason | None = None

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        """See monitoring.served_log.RecordSink. Returns when the broker has all of it.

        Raises:
            StreamError: the broker does not take a message, or not in time.
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
