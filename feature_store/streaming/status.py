"""The status of a stream: counters that only grow, and the position in each partition. It is plain, picklable data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feature_store.streaming.kafka import Partition


@dataclass(slots=True)
class ViewCounts:
    """Counts of the events of one view.

    Attributes:
        merged: events merged into its tiles.
        late: late events; they become dead letters.
        null_keys: events with a null join key; they become dead letters.
        before_start: events left out because the history contains them.
        newest_us: the greatest merged event time, microseconds since 1970; 0: none was merged.
    """

    merged: int = 0
    late: int = 0
    null_keys: int = 0
    before_start: int = 0
    newest_us: int = 0

    def add(self, other: ViewCounts) -> None:
        """Take another's counts in."""
        self.merged += other.merged
        self.late += other.late
        self.null_keys += other.null_keys
        self.before_start += other.before_start
        self.newest_us = max(self.newest_us, other.newest_us)


@dataclass(slots=True)
class TopicCounts:
    """Counts of the messages of one topic.

    Attributes:
        messages: messages read. A message that is read again after a fault counts again.
        malformed: messages that do not fit the source's schema or its expected values; they become dead letters.
        future: messages with event times too far ahead of the clock; they become dead letters.
        lost: messages that Kafka deleted before they were read.
    """

    messages: int = 0
    malformed: int = 0
    future: int = 0
    lost: int = 0

    def add(self, other: TopicCounts) -> None:
        """Take another's counts in."""
        self.messages += other.messages
        self.malformed += other.malformed
        self.future += other.future
        self.lost += other.lost


@dataclass(slots=True)
class StreamStatus:
    """The status of one worker, or of all workers together.

    Attributes:
        views, topics: counts by name of view or topic.
        refused: merges that the fences refused. After each, the worker resumes at the fences.
        reloads: how often the plan was read again.
        batches: merged batches.
        merge_seconds: seconds spent waiting for Redis.
        positions: by partition, the offset up to which it is read, and its end offset (None: unknown).
        trouble: the problem that a worker waits for; empty: none.
        restarts: workers that died and were restarted.
        stopped: the reason for each view that is not streamed, by name.
        evicted: keys that Redis evicted for lack of memory since the start, including keys of other projects.
    """

    views: dict[str, ViewCounts] = field(default_factory=dict)
    topics: dict[str, TopicCounts] = field(default_factory=dict)
    refused: int = 0
    reloads: int = 0
    batches: int = 0
    merge_seconds: float = 0.0
    positions: dict[Partition, tuple[int, int | None]] = field(default_factory=dict)
    trouble: str = ""
    restarts: int = 0
    stopped: dict[str, str] = field(default_factory=dict)
    evicted: int = 0

    def view(self, name: str) -> ViewCounts:
        """The counts of a view."""
        return self.views.setdefault(name, ViewCounts())

    def topic(self, name: str) -> TopicCounts:
        """The counts of a topic."""
        return self.topics.setdefault(name, TopicCounts())

    @property
    def lag(self) -> int:
        """The number of messages that wait to be read, in partitions whose end is known."""
        return sum(max(0, end - at) for at, end in self.positions.values() if end is not None)

    @property
    def merged(self) -> int:
        """The number of merged events, over all views."""
        return sum(counts.merged for counts in self.views.values())

    @property
    def dead(self) -> int:
        """The number of dead letters."""
        views = sum(counts.late + counts.null_keys for counts in self.views.values())
        return views + sum(counts.malformed + counts.future for counts in self.topics.values())

    def add(self, other: StreamStatus) -> None:
        """Add the status of another worker."""
        for name, counts in other.views.items():
            self.view(name).add(counts)
        for name, found in other.topics.items():
            self.topic(name).add(found)
        self.refused += other.refused
        self.reloads += other.reloads
        self.batches += other.batches
        self.merge_seconds += other.merge_seconds
        self.restarts += other.restarts
        for partition, position in other.positions.items():
            known = self.positions.get(partition, position)
            self.positions[partition] = max(position, known, key=lambda at_end: at_end[0])
        self.trouble = self.trouble or other.trouble
        self.stopped |= other.stopped
        # Every worker sees the same Redis.
        self.evicted = max(self.evicted, other.evicted)

    def to_document(self) -> dict[str, Any]:
        """The status as JSON types."""
        return {
            "views": {name: _shown(counts) for name, counts in sorted(self.views.items())},
            "topics": {name: _shown(counts) for name, counts in sorted(self.topics.items())},
            "partitions": [
                {"topic": topic, "partition": partition, "offset": at, "end": end}
                for (topic, partition), (at, end) in sorted(self.positions.items())
            ],
            "lag": self.lag,
            "refused": self.refused,
            "reloads": self.reloads,
            "batches": self.batches,
            "merge_seconds": round(self.merge_seconds, 3),
            "restarts": self.restarts,
            "stopped": dict(sorted(self.stopped.items())),
            "evicted": self.evicted,
        }


def total(statuses: Iterable[StreamStatus]) -> StreamStatus:
    """The status of several workers as one."""
    found = StreamStatus()
    for status in statuses:
        found.add(status)
    return found


def _shown(counts: ViewCounts | TopicCounts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in counts.__slots__}
