"""Decoders turn a batch of messages into columns of events.

A message that does not fit is rejected with a reason, and does not affect the others. Each format has its own
`Decoder`; this module has the one for JSON. A decoder for another format that yields Python values can use
`typed_member`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import orjson

from feature_store.aggregates.windows import CLOCK_SKEW_US, EARLIEST_EVENT_US, LATEST_EVENT_US
from feature_store.definitions.dtypes import from_microseconds
from feature_store.definitions.expected import unexpected
from feature_store.definitions.field import Field
from feature_store.definitions.json_members import UNIT_US, typed_member, typed_times
from feature_store.definitions.source import KafkaSource

Array = np.ndarray[Any, Any]
Column = tuple[Array, np.ndarray[Any, np.dtype[np.bool_]]]

MALFORMED, FUTURE = "malformed", "future"


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a message is not an event.

    Attributes:
        kind: MALFORMED or FUTURE.
        where: the name of the JSON member that does not fit, or `message`, or `event time`.
        reason: the expected and the actual value.
    """

    kind: str
    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The events of a batch of messages.

    Attributes:
        places: (n,) the place of each event's message in the batch, ascending.
        event_us: (n,) int64 event times, microseconds since 1970.
        columns: (n,) values and (n,) bool nulls of each field of the source, by name.
        rejected: the reason for each rejected message, by its place in the batch.
    """

    places: Array
    event_us: Array
    columns: Mapping[str, Column]
    rejected: Mapping[int, Rejection]

    def __len__(self) -> int:
        return len(self.places)


class Decoder(Protocol):
    """Decodes messages of one format."""

    def decode(self, messages: Sequence[bytes | None]) -> EventBatch:
        """The events of messages. No content of a message makes it raise an error."""
        ...


class JsonDecoder:
    """Decodes messages that are one JSON object each. It ignores undeclared members; a missing member is null.

    Args:
        source: the source of the messages. It declares the members.
    """

    def __init__(self, source: KafkaSource) -> None:
        self._time, self._unit_us = source.event_timestamp, UNIT_US[source.timestamp_unit]
        self._fields = source.fields

    def decode(self, messages: Sequence[bytes | None]) -> EventBatch:
        """See Decoder."""
        rejected: dict[int, Rejection] = {}
        documents = _documents(messages, rejected)
        event_us, nulls, bad = typed_times([document.get(self._time) for document in documents], self._unit_us)
        _reject(rejected, self._time, bad | dict.fromkeys(np.flatnonzero(nulls).tolist(), "expected a time, got null"))
        columns = {}
        for field in self._fields:
            members = [document.get(field.name) for document in documents]
            values, nulls, bad = typed_member(members, field.dtype, self._unit_us)
            _reject(rejected, field.name, bad | _not_expected(values, nulls, bad, field))
            columns[field.name] = values, nulls
        _reject(rejected, self._time, _out_of_range(event_us))
        return _without(rejected, EventBatch(np.arange(len(messages)), event_us, columns, rejected))


def without_future(events: EventBatch, now_us: int) -> EventBatch:
    """The events at most CLOCK_SKEW_US ahead of the clock. Later events are rejected as FUTURE."""
    ahead = np.flatnonzero(events.event_us > now_us + CLOCK_SKEW_US)
    if not len(ahead):
        return events
    limit = f"expected at most {CLOCK_SKEW_US // 1_000_000} s ahead of the clock"
    found = {
        int(events.places[i]): Rejection(FUTURE, "event time", f"{limit}, got {_shown(int(events.event_us[i]))}")
        for i in ahead
    }
    return _without(found, events)


def _documents(messages: Sequence[bytes | None], rejected: dict[int, Rejection]) -> list[dict[str, Any]]:
    try:
        # Each message is parsed alone. In one joined array, a message such as `{},{}` would count as two.
        documents = [orjson.loads(message) for message in messages]  # type: ignore[arg-type]
        if set(map(type, documents)) <= {dict}:
            return documents
    except orjson.JSONDecodeError:
        pass
    return [_document(message, i, rejected) for i, message in enumerate(messages)]


def _document(message: bytes | None, place: int, rejected: dict[int, Rejection]) -> dict[str, Any]:
    if message is None:
        rejected[place] = Rejection(MALFORMED, "message", "expected a JSON object, got no value")
        return {}
    try:
        document = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        rejected[place] = Rejection(MALFORMED, "message", f"expected a JSON object: {error}"[:200])
        return {}
    if type(document) is not dict:
        rejected[place] = Rejection(MALFORMED, "message", f"expected a JSON object, got {document!r}"[:200])
        return {}
    return document


def _not_expected(values: Array, nulls: Array, bad: Mapping[int, str], field: Field) -> dict[int, str]:
    """The reasons for values that have the right type but are not among the field's expected values, by place."""
    if not field.of_values:
        return {}
    places = [i for i in np.flatnonzero(unexpected(values, nulls, field)).tolist() if i not in bad]
    return {i: f"expected {field.of_values}, got {values[i : i + 1].tolist()[0]!r}"[:200] for i in places}


def _out_of_range(event_us: Array) -> dict[int, str]:
    outside = np.flatnonzero((event_us < EARLIEST_EVENT_US) | (event_us > LATEST_EVENT_US))
    limits = f"expected {_shown(EARLIEST_EVENT_US)} to {_shown(LATEST_EVENT_US)}"
    return {i: f"{limits}, got {_shown(int(event_us[i]))}" for i in outside.tolist()}


def _reject(rejected: dict[int, Rejection], where: str, reasons: Mapping[int, str]) -> None:
    for place, reason in reasons.items():
        rejected.setdefault(place, Rejection(MALFORMED, where, reason))


def _without(rejected: Mapping[int, Rejection], events: EventBatch) -> EventBatch:
    if not rejected:
        return events
    kept = ~np.isin(events.places, list(rejected))
    columns = {name: (values[kept], nulls[kept]) for name, (values, nulls) in events.columns.items()}
    return EventBatch(events.places[kept], events.event_us[kept], columns, {**events.rejected, **rejected})


def _shown(time_us: int) -> str:
    return from_microseconds(time_us).isoformat()
