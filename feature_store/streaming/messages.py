"""Kafka's messages and what a poll brings of them, as types without a client."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

# A topic and the number of one of its partitions.
Partition = tuple[str, int]


class Message(Protocol):
    """A message of a consumer or of Spark, with the method names of confluent-kafka."""

    def topic(self) -> str | None:
        """The topic."""
        ...

    def partition(self) -> int | None:
        """The number of the partition."""
        ...

    def offset(self) -> int | None:
        """The offset in the partition."""
        ...

    def key(self) -> bytes | None:
        """The key, by which the producer chose the partition."""
        ...

    def value(self) -> bytes | None:
        """The value."""
        ...

    def headers(self) -> Any:
        """The headers."""
        ...

    def __len__(self) -> int:
        """Bytes of the value."""
        ...


class MessageSpan(NamedTuple):
    """The messages of a partition from offset `start` (-1: its first) up to `end`, all of them. Offsets between may be
    missing: Kafka compacts messages away, and marks of transactions take offsets."""

    start: int
    end: int
    messages: list[Message]


class Polled(NamedTuple):
    """The result of a poll.

    Attributes:
        spans: by partition, the messages of partitions that are placed and have new ones.
        outside: the partitions that were placed outside their log: before its start or beyond its end.
    """

    spans: dict[Partition, MessageSpan]
    outside: set[Partition]
