"""Types for Kafka messages and the result of a poll. They do not import the Kafka client."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

# A topic and the number of one of its partitions.
Partition = tuple[str, int]


class Message(Protocol):
    """A message from a consumer or from Spark, with the method names of confluent-kafka."""

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
        """The key, or None."""
        ...

    def value(self) -> bytes | None:
        """The value; None for a tombstone."""
        ...

    def headers(self) -> Any:
        """The headers."""
        ...

    def timestamp(self) -> tuple[int, int]:
        """The type of its time, 0 if it has none, and the time: milliseconds since 1970."""
        ...

    def __len__(self) -> int:
        """The size of the value in bytes."""
        ...


class MessageSpan(NamedTuple):
    """All messages of a partition in the offsets `[start, end)`; a start of -1 stands for its first offset.

    Offsets may be missing: compaction removes messages, and control records of transactions use offsets.
    """

    start: int
    end: int
    messages: list[Message]


class Polled(NamedTuple):
    """The result of a poll.

    Attributes:
        spans: the new messages, by partition. Only placed partitions with new messages are in it.
        outside: partitions that are placed outside their log: before its start or beyond its end.
    """

    spans: dict[Partition, MessageSpan]
    outside: set[Partition]
