"""Reads partitions for some views by itself, beside the group: for a view that is far behind, for a backfill."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from feature_store.errors import FenceError, StreamError
from feature_store.streaming.kafka import Options, Partition, PartitionConsumer, Reader
from feature_store.streaming.pipeline import Pipeline

# Messages of a batch: about 50 ms of work, which others may wait for.
_BATCH = 5_000
_NOTHING: Mapping[str, set[Partition]] = MappingProxyType({})
_LOG = logging.getLogger("feature_store.streaming")


class Replay:
    """Merges what partitions hold, from the fences of the views on.

    Args:
        options: the Kafka client's.
        pipeline: of the views; closed with this.
        wanted: per view, its partitions.
        firsts: per partition, where to begin where there is no fence; its own start unless given.

    Raises:
        StreamError: Kafka cannot be reached or refuses.
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
        """Merge what there is, after `wait_s` seconds at most; returns how many messages were read.

        Raises:
            FenceError: somebody else merges into the views, or Redis went back in time.
            StaleWriteError, CorruptRowError, StoreConnectionError, StoreTimeoutError: as TileWriter.answer.
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
            raise FenceError("replay", problem="another consumer moved this view's fences")
        return sum(len(span.messages) for span in polled.spans.values())

    def has_reached(self, goals: Mapping[Partition, int]) -> bool:
        """Whether every partition was read up to its goal; one that is not read here was."""
        return all(at >= goals.get(partition, 0) for partition, at in self._consumer.positions.items())

    def catch_up(self) -> None:
        """Move all fences to where events were taken."""
        self._pipeline.catch_up(self._consumer.positions)

    def close(self) -> None:
        """Stop reading, and close the connections."""
        self._pipeline.close()
        self._consumer.close()


def enter(consumer: Reader, pipeline: Pipeline, partition: Partition) -> int:
    """Where to go on in a partition whose log has nothing where it was to be read.

    Raises:
        StreamError: the log ends before, or Kafka does not answer.
    """
    return go_on(pipeline, partition, consumer.positions[partition], consumer.range(partition))


def go_on(pipeline: Pipeline, partition: Partition, at: int, kept: tuple[int, int]) -> int:
    """Where to go on in a partition whose log, of the offsets `kept`, has nothing at `at`.

    Raises:
        StreamError: the log ends before.
    """
    first, end = kept
    if at >= first:
        hint = "was the topic made anew? Then backfill the views of it"
        raise StreamError(f"{partition[0]}[{partition[1]}]", expected=f"offset {at}", got=f"an end at {end}", hint=hint)
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
    """Per partition, where the view that is least far in it goes on; None: at the partition's start."""
    found: dict[Partition, int | None] = {}
    for view, of_view in starts.items():
        for partition, start in of_view.items():
            if partition not in without.get(view, ()):
                known = found.setdefault(partition, start)
                found[partition] = None if start is None or known is None else min(start, known)
    return found
