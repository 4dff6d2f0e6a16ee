"""Kafka messages → tiles: decode, dead letters, deltas, merges. It decodes the next batch while Redis merges this one.

    spans ─▶ decode, once a source ─▶ dead letters arrive ─▶ per view: deltas ─▶ merges are sent
                                                                  late ones ◀─ answers of the batch before

Dead letters arrive before any merge of their batch is sent. If a view's fence is beyond a message, the message's dead
letter has therefore been sent, and is not sent again when the message is read again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from feature_store.streaming.dead_letters import DeadLetter, DeadLetters
from feature_store.streaming.decoder import FUTURE, Decoder, EventBatch, Rejection, without_future
from feature_store.streaming.kafka import Message, MessageSpan, Partition
from feature_store.streaming.merging import MergeOutcome, Origin, Prepared, ViewMerger
from feature_store.streaming.status import StreamStatus

NULL_KEY, LATE = "null key", "late"
# The number of batches that Redis may still be merging when the next one is sent.
_UNDER_WAY = 1


class Route(NamedTuple):
    """The views of one source: their events are decoded once.

    Attributes:
        topic: the topic of the source.
        decoder: decodes its messages.
        mergers: merge events, one merger for each view.
    """

    topic: str
    decoder: Decoder
    mergers: Sequence[ViewMerger]


class _Sent(NamedTuple):
    """A batch that a view is merging: its messages, and the place of each event's message among them."""

    merger: ViewMerger
    messages: Sequence[Message]
    places: np.ndarray[Any, Any]


class Pipeline:
    """Merges messages, in the order of offsets within each partition.

    Args:
        routes: the sources and their views.
        letters: sends messages that cannot be merged to the dead-letter topic. None: another pipeline sends them.
        status: gets the counts.
        lettered: by partition, the offset up to which another pipeline has sent the dead letters.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        letters: DeadLetters | None,
        status: StreamStatus,
        lettered: Mapping[Partition, int] | None = None,
    ) -> None:
        self._routes, self._letters, self.status = routes, letters, status
        self._lettered = lettered or {}
        self._mergers = [merger for route in routes for merger in route.mergers]
        self._sent: deque[_Sent] = deque()
        self.refused = False

    def load(self, wanted: Mapping[str, Iterable[Partition]]) -> None:
        """Read the fences of each view for the given partitions. No batch may be under way."""
        self.refused = False
        for merger in self._mergers:
            merger.load(source_name(partition) for partition in wanted.get(merger.view, ()))

    def starts(self) -> dict[str, dict[Partition, int | None]]:
        """By view and partition, the offset of the next message to merge. None: the start of the partition."""
        return {
            merger.view: {partition_of(source): merger.fences.start(source) for source in merger.fences.sources}
            for merger in self._mergers
        }

    def fronts(self) -> dict[Partition, int]:
        """By partition, the offset up to which at least one view has taken events."""
        found: dict[Partition, int] = {}
        for merger in self._mergers:
            sources = merger.fences.sources
            fronts = merger.fences.fronts(merger.fences.columns_of(sources)).tolist()
            for source, front in zip(sources, fronts, strict=True):
                found[partition_of(source)] = max(front, found.get(partition_of(source), front))
        return found

    def skip(self, partition: Partition, offset: int) -> None:
        """Record that a partition has nothing to merge before an offset."""
        source = source_name(partition)
        for merger in self._mergers:
            if source in merger.fences.sources:
                merger.fences.skip(source, offset)

    def process(self, spans: Mapping[Partition, MessageSpan]) -> None:
        """Send the merges of a batch, and take the answers to earlier batches.

        Raises:
            StaleWriteError, CorruptRowError, StoreConnectionError, StoreTimeoutError: see TileWriter.answer.
            StreamError: streaming stopped before the dead letters arrived, or Kafka refuses them permanently.
        """
        letters: list[DeadLetter] = []
        prepared: list[tuple[_Sent, Prepared]] = []
        for route in self._routes:
            mine = {partition: span for partition, span in spans.items() if partition[0] == route.topic}
            if mine:
                prepared += self._prepare(route, mine, letters)
        if letters and self._letters is not None:
            self._letters.send(letters)
        for sent, batch in prepared:
            self._sent.append(sent)
            sent.merger.send(batch)
        self.status.batches += 1
        self.settle(_UNDER_WAY)

    def settle(self, leave: int = 0) -> None:
        """Take answers until at most `leave` batches of each view are under way.

        If a fence was at another offset than expected, `refused` becomes True. The batches under way then fail too, and
        the fences must be read again.

        Raises:
            StaleWriteError, CorruptRowError, StoreConnectionError, StoreTimeoutError: see TileWriter.answer.
            StreamError: streaming stopped before the dead letters arrived, or Kafka refuses them permanently.
        """
        started = time.perf_counter()
        letters: list[DeadLetter] = []
        while self._sent and self._sent[0].merger.under_way > leave:
            sent = self._sent.popleft()
            outcome, refused = sent.merger.settle()
            self.status.refused += refused
            self.refused = self.refused or refused > 0
            letters += self._count(sent, outcome)
        self.status.merge_seconds += time.perf_counter() - started
        if letters and self._letters is not None:
            self._letters.send(letters, keep=True)

    @property
    def is_busy(self) -> bool:
        """Whether a batch is under way."""
        return bool(self._sent)

    def catch_up(self, partitions: Iterable[Partition]) -> None:
        """Move the fences of partitions to the offset up to which events were taken. Raises the errors of `settle`."""
        self.settle()
        if self.refused:
            return
        sources = [source_name(partition) for partition in partitions]
        for merger in self._mergers:
            batch = merger.catch_up(sources)
            if batch.calls:
                self._sent.append(_Sent(merger, [], batch.places))
                merger.send(batch)
        self.settle()

    def verify(self) -> None:
        """Check that the stored fences are where this pipeline left them; if not, set `refused`.

        No batch may be under way.

        Raises:
            StoreConnectionError: Redis cannot be reached.
            StoreTimeoutError: Redis does not answer in time.
        """
        self.refused = self.refused or not all(merger.are_fences_stored() for merger in self._mergers)

    def close(self) -> None:
        """Close the connections. The answers to batches under way are dropped."""
        for merger in self._mergers:
            merger.close()

    # -- small parts --------------------------------------------------------------------------------------------

    def _prepare(
        self, route: Route, spans: Mapping[Partition, MessageSpan], letters: list[DeadLetter]
    ) -> list[tuple[_Sent, Prepared]]:
        messages = [message for span in spans.values() for message in span.messages]
        origin = Origin(
            sources=[source_name(partition) for partition in spans],
            spans=[(span.start, span.end) for span in spans.values()],
            source_of=np.repeat(np.arange(len(spans)), [len(span.messages) for span in spans.values()]),
            offsets=np.array([message.offset() for message in messages], np.int64),
        )
        self.status.topic(route.topic).messages += len(messages)
        events = without_future(route.decoder.decode(messages), _now_us())
        if events.rejected:
            letters += self._rejected(route, events, origin, messages)
        found = []
        for merger in route.mergers:
            batch = merger.prepare(events, origin.at(events.places))
            letters += self._without_key(merger, events, batch, messages)
            found.append((_Sent(merger, messages, events.places), batch))
        return found

    def _rejected(
        self, route: Route, events: EventBatch, origin: Origin, messages: Sequence[Message]
    ) -> list[DeadLetter]:
        found = [merger.fences.fronts(merger.fences.columns_of(origin.sources)) for merger in route.mergers]
        others = [self._lettered.get(partition_of(source), 0) for source in origin.sources]
        fronts = np.max([*found, np.array(others)], axis=0)
        letters = []
        for place, rejection in sorted(events.rejected.items()):
            if origin.offsets[place] >= fronts[origin.source_of[place]]:
                counts = self.status.topic(route.topic)
                counts.future += rejection.kind == FUTURE
                counts.malformed += rejection.kind != FUTURE
                letters.append(DeadLetter(messages[place], rejection))
        return letters

    def _without_key(
        self, merger: ViewMerger, events: EventBatch, batch: Prepared, messages: Sequence[Message]
    ) -> list[DeadLetter]:
        self.status.view(merger.view).null_keys += len(batch.outcome.null_keys)
        rejection = Rejection(NULL_KEY, merger.view, f"expected {merger.join_keys}, got null")
        return [DeadLetter(messages[events.places[i]], rejection) for i in batch.outcome.null_keys]

    def _count(self, sent: _Sent, outcome: MergeOutcome) -> list[DeadLetter]:
        counts = self.status.view(sent.merger.view)
        counts.merged += outcome.merged
        counts.late += len(outcome.late)
        counts.before_start += outcome.before_start
        counts.newest_us = max(counts.newest_us, outcome.newest_us)
        rejection = Rejection(LATE, sent.merger.view, "older than all that the view keeps of its entity")
        return [DeadLetter(sent.messages[sent.places[i]], rejection) for i in outcome.late]


def source_name(partition: Partition) -> str:
    """The name of a partition in fences: `<topic>:<partition>`."""
    return f"{partition[0]}:{partition[1]}"


def partition_of(source: str) -> Partition:
    """The inverse of `source_name`."""
    topic, _, number = source.rpartition(":")
    return topic, int(number)


def _now_us() -> int:
    return time.time_ns() // 1_000
