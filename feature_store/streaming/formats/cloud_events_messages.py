"""Decodes CloudEvents, in the structured and in the binary mode of their Kafka binding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feature_store.streaming.formats.documents import LONGEST_REASON, NO_VALUE, Document, Documents
from feature_store.streaming.formats.json_messages import JsonDecoder
from feature_store.streaming.messages import Message

PREFIX = "ce_"
_STRUCTURED, _BATCH = "application/cloudevents", "application/cloudevents-batch"
# The attributes that every event has.
_REQUIRED = ("id", "source", "specversion", "type")
_VERSION = "1.0"


class CloudEventsDecoder(JsonDecoder):
    """The decoder of CloudEventsFormat."""

    def members(self, messages: Sequence[Message]) -> Documents:
        """See Decoder."""
        documents: list[Document] = []
        rejected: dict[int, str] = {}
        for place, message in enumerate(messages):
            document: Document = {}
            try:
                document = self._event(message)
            except ValueError as error:
                rejected[place] = str(error)[:LONGEST_REASON]
            documents.append(document)
        return Documents(documents, rejected)

    def _event(self, message: Message) -> Document:
        headers = _texts(message)
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type.startswith(_BATCH):
            raise ValueError("expected one event, got a batch of events")
        if content_type.startswith(_STRUCTURED) or f"{PREFIX}specversion" not in headers:
            return self._structured(message.value())
        attributes = {name: value for name, value in headers.items() if name.startswith(PREFIX)}
        _check(attributes)
        value = message.value()
        return attributes if value is None else {**self.document(value), **attributes}

    def _structured(self, value: bytes | None) -> Document:
        if value is None:
            raise ValueError(NO_VALUE)
        event = dict(self.document(value))
        data = event.pop("data", None)
        if data is None and "data_base64" in event:
            raise ValueError("expected data that is a JSON object, got data_base64")
        if data is not None and not isinstance(data, dict):
            raise ValueError(f"expected data that is a JSON object, got {data!r}")
        attributes = {f"{PREFIX}{name}": attribute for name, attribute in event.items()}
        _check(attributes)
        return {**(data or {}), **attributes}


def _check(attributes: Document) -> None:
    missing = [name for name in _REQUIRED if not isinstance(attributes.get(f"{PREFIX}{name}"), str)]
    if missing:
        raise ValueError(f"expected a CloudEvent, got a message without {', '.join(missing)}")
    if attributes[f"{PREFIX}specversion"] != _VERSION:
        raise ValueError(f"expected CloudEvents {_VERSION}, got {attributes[f'{PREFIX}specversion']!r}")


def _texts(message: Message) -> dict[str, str]:
    """The headers that matter, as text. Headers of the Kafka binding are UTF-8."""
    found: dict[str, str] = {}
    for name, value in message.headers() or ():
        held: Any = value
        if held is None or not (name.startswith(PREFIX) or name.lower() == "content-type"):
            continue
        key = name if name.startswith(PREFIX) else "content-type"
        found[key] = held if isinstance(held, str) else held.decode()
    return found
