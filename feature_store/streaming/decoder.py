"""Decoders turn a batch of messages into columns of events.

A message that does not fit is rejected with a reason, and does not affect the others. Each format has its own
`Decoder`, in `formats/`. A format whose messages become Python dicts is a `DocumentDecoder` (`formats/documents.py`);
one that decodes many messages at once returns `Members` of its own.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from feature_store.aggregates.windows import CLOCK_SKEW_US, EARLIEST_EVENT_US, LATEST_EVENT_US
from feature_store.definitions.dtypes import DType, Timestamp, from_microseconds
from feature_store.definitions.expected import unexpected
from feature_store.definitions.expressions.derived import Derivation
from feature_store.definitions.field import Field
from feature_store.definitions.json_members import UNIT_US, Typed
from feature_store.definitions.source import KafkaSource
from feature_store.streaming.message_parts import typed_part
from feature_store.streaming.messages import Message

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


class Members(Protocol):
    """The members of a batch of messages."""

    @property
    def rejected(self) -> Mapping[int, str]:
        """By its place in the batch, the reason for each message that is not of the format."""
        ...

    def typed(self, name: str, dtype: DType, unit_us: int) -> Typed:
        """The member `name` of all messages as a column of a type.

        Args:
            name: the member. It is null in messages that lack it.
            dtype: the type.
            unit_us: the microseconds of one unit of a time that is a plain number.

        Returns:
            (n,) values, (n,) bool nulls, and the reason for each value that does not fit, by place. For messages in
            `rejected`, any value.
        """
        ...


class Decoder(ABC):
    """Decodes the messages of a source: the base of the decoder of each format.

    Args:
        source: the source of the messages. It declares the members, and the format.
    """

    def __init__(self, source: KafkaSource) -> None:
        self._source = source
        self._time, self._unit_us = source.event_timestamp, UNIT_US[source.timestamp_unit]
        self._derivation = source.derivation

    @abstractmethod
    def members(self, messages: Sequence[Message]) -> Members:
        """The members of messages. No content of a message makes it raise an error.

        Raises:
            StreamError: what the format needs, such as a Schema Registry, cannot be reached. The messages are read
                again.
        """

    def check(self) -> str:
        """What the doctor says of a service that the format needs, once it answers. Empty: it needs none.

        Raises:
            StreamError: the service cannot be reached, or refuses the user.
        """
        return ""

    def decode(self, messages: Sequence[Message]) -> EventBatch:
        """The events of messages.

        Raises:
            StreamError: see `members`.
        """
        members = self.members(messages)
        rejected = {place: Rejection(MALFORMED, "message", reason) for place, reason in members.rejected.items()}
        event_us, nulls, bad = self._typed(messages, members, self._time, Timestamp)
        _reject(rejected, self._time, bad | dict.fromkeys(np.flatnonzero(nulls).tolist(), "expected a time, got null"))
        columns = {}
        for field in self._source.fields:
            values, nulls, bad = self._typed(messages, members, field.name, field.dtype)
            _reject(rejected, field.name, bad | _not_expected(values, nulls, bad, field))
            columns[field.name] = values, nulls
        _reject(rejected, self._time, _out_of_range(event_us))
        events = _without(rejected, EventBatch(np.arange(len(messages)), event_us, columns, rejected))
        return with_derived(events, self._derivation)

    def _typed(self, messages: Sequence[Message], members: Members, name: str, dtype: DType) -> Typed:
        part = self._source.metadata.get(name)
        if part is None:
            return members.typed(name, dtype, self._unit_us)
        return typed_part(messages, part, dtype, self._unit_us)


def with_derived(events: EventBatch, derivation: Derivation) -> EventBatch:
    """Events with their derived columns. Events for which an expression fails are rejected as MALFORMED."""
    if not derivation.texts:
        return events
    found, failed = derivation.computed(events.columns, events.event_us)
    rejected: dict[int, Rejection] = {}
    for name, reasons in failed.items():
        _reject(rejected, name, {int(events.places[i]): reason[:200] for i, reason in reasons.items()})
    columns = {**events.columns, **found}
    return _without(rejected, EventBatch(events.places, events.event_us, columns, events.rejected))


def decoder_of(source: KafkaSource) -> Decoder:
    """The decoder of a source's messages.

    Raises:
        MissingDependencyError: a library that the format needs is not installed.
        StreamError: the format needs an environment variable that is not set.
    """
    module, _, name = source.format.decoder.partition(":")
    decoder: type[Decoder] = getattr(importlib.import_module(module), name)
    return decoder(source)


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
