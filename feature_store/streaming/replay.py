"""Reads partitions for some views outside the consumer group: for a view that is far behind, or for a backfill."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from feature_store.errors import StreamError
from feature_store.streaming.fences import fences_moved
from feature_store.streaming.kafka import Options, Partition, PartitionConsumer, Reader
from feature_store.streaming.pipeline import Pipeline

# Messages per batch: about 50 ms of work, which other views may wait for.
_BATCH = 5_000
_NOTHING: Mapping[str, set[Partition]] = MappingProxyType({})
_LOG = logging.getLogger("feature_store.streaming")


class Replay:
    """Merges the messages of partitions, beginning at the fences of the views.

    Args:
        options: options of the Kafka client.
        pipeline: the pipeline of the views. It is closed with this object.
        wanted: the partitions of each view.
        firsts: by partition, the offset to begin at if there is no fence. Default: the start of the partition.

    Raises:
        StreamError: Kafka cannot be reached, or refuses this client.
        StoreConnectionError: Redis cannot be reached.
        StoreTimeoutError: Redis does not answer in time.
    """

    def __init__(
        self,
        options: Options,
        pipeline: Pipeline,
        wanted: Mapping[str, Iterable[Partition]],
        firsts: Mapping[Partition, int] | None = None,
    ) -> None:
        self._pipeline = pipeline
        pipeline.load(wanted)
        for starts in pipeline.starts().values():
            for partition in [partition for partition, start in starts.items() if start is None]:
                pipeline.skip(partition, (firsts or {}).get(partition, 0))
        self._consumer = PartitionConsumer(options)
        self._consumer.place(earliest(pipeline.starts()))

    def turn(self, wait_s: float) -> int:
        """Merge the messages that arrive within `wait_s` seconds. Returns how many were read.

        Raises:
            FenceError: another consumer merges into the views, or Redis went back in time.
            StaleWriteError, CorruptRowError, StoreConnectionError, StoreTimeoutError: see TileWriter.answer.
        """
        polled = self._consumer.poll(_BATCH, wait_s)
        for partition in polled.outside:
            first = enter(self._consumer, self._pipeline, partition)
            self._consumer.place(self._consumer.positions | {partition: first})
        if polled.spans:
            self._pipeline.process(polled.spans)
        else:
            self._pipeline.settle()
        if self._pipeline.refused:
            raise fences_moved("replay")
        return sum(len(span.messages) for span in polled.spans.values())

    def has_reached(self, goals: Mapping[Partition, int]) -> bool:
        """Whether every partition is read up to its goal. A partition that this replay does not read counts as read."""
        return all(at >= goals.get(partition, 0) for partition, at in self._consumer.positions.items())

    def catch_up(self) -> None:
        """Move all fences to the offset up to which events were taken. Raises the errors of `Pipeline.settle`."""
        self._pipeline.catch_up(self._consumer.positions)

    def close(self) -> None:
        """Stop reading, and close the connections."""
        self._pipeline.close()
        self._consumer.close()


def enter(consumer: Reader, pipeline: Pipeline, partition: Partition) -> int:
    """The offset to continue at, for a partition whose current position is outside its log.

    Raises:
        StreamError: the log ends before the position, or Kafka does not answer.
    """
    return go_on(pipeline, partition, consumer.positions[partition], consumer.range(partition))


def go_on(pipeline: Pipeline, partition: Partition, at: int, kept: tuple[int, int]) -> int:
    """The offset to continue at, for a partition whose position `at` is outside its log.

    Args:
        pipeline: skips the messages that Kafka has deleted.
        partition: the partition.
        at: the current position.
        kept: the offsets that Kafka keeps: the first, and the one after the last.

    Raises:
        StreamError: the log ends before `at`.
    """
    first, end = kept
    if at >= first:
        problem = f"the log ends at offset {end}, before offset {at}, up to which events are merged"
        hint = "if the topic was deleted and created again, backfill its views"
        raise StreamError(f"{partition[0]}[{partition[1]}]", problem=problem, hint=hint)
    lost = first - at
    _LOG.error(
        "%d messages of %s[%d] are gone from Kafka and were never merged; a backfill repairs it", lost, *partition
    )
    pipeline.skip(partition, first)
    pipeline.status.topic(partition[0]).lost += lost
    return first


def earliest(
    starts: Mapping[str, Mapping[Partition, int | None]], *, without: Mapping[str, set[Partition]] = _NOTHING
) -> dict[Partition, int | None]:
    """By partition, the lowest of the views' starts; None: the start of the partition."""
    found: dict[Partition, int | None] = {}
    for view, of_view in starts.items():
        for partition, start in of_view.items():
            if partition not in without.get(view, ()):
                known = found.setdefault(partition, start)
                found[partition] = None if start is None or known is None else min(start, known)
    return found
