"""What Spark's tasks do with a micro-batch: a task merges what the batch has of one partition, as a worker would.

A task begins where the fences are, whatever ran before it: what it is given and is merged already, it passes over. So
it can be run again, or twice at once, or beside a worker. What it must not do is merge beyond a gap: when Redis has
gone back to before the batch, that is a *fault* for the driver, who begins again at the fences.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from feature_store.engines.spark.kafka import messages, row_of
from feature_store.errors import FencesLostError, StaleWriteError
from feature_store.streaming.dead_letters import DeadLetters
from feature_store.streaming.kafka import Message, MessageSpan, Partition
from feature_store.streaming.pipeline import Pipeline
from feature_store.streaming.routes import StreamedView, routes_of, wanted_of
from feature_store.streaming.status import StreamStatus, TopicCounts, ViewCounts
from feature_store.streaming.subscription import Subscription

if TYPE_CHECKING:
    import pyarrow as pa

# Faults: fences are before the batch; somebody else moved them meanwhile; another plan was published meanwhile; fences
# are lost.
BEHIND, REFUSED, STALE, LOST = "behind", "refused", "stale", "lost"
# Messages that are merged at a time, as by a worker.
_BATCH = 5_000
# How long letters may take to arrive before the task fails, and with it the batch.
_LETTERS_S = 60.0


class TaskOutcome(NamedTuple):
    """What a task tells.

    Attributes:
        status: its counts.
        partitions: those that it had messages of.
        fault: why it did not merge them all; empty: it did.
    """

    status: StreamStatus
    partitions: list[Partition]
    fault: str


@dataclass(frozen=True)
class MergeTask:
    """Merges a micro-batch.

    Attributes:
        subscription: which views to stream, of which project.
        views: what to merge into.
        spans: by partition, the offsets `[start, end)` that the batch has all messages of.
        firsts: by partition, the offset of its first message; 0 where it is left out.
        lettered: by partition, before which offset others have sent the letters of messages that are no events.
    """

    subscription: Subscription = field(repr=False)
    views: tuple[StreamedView, ...]
    spans: Mapping[Partition, tuple[int, int]]
    firsts: Mapping[Partition, int]
    lettered: Mapping[Partition, int]

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """What became of the messages: one row, of `outcome_of`."""
        share = _Share(self)
        try:
            for batch in batches:
                for first in range(0, len(batch), _BATCH):
                    share.take(batch.slice(first, _BATCH))
            told = share.finish()
        finally:
            share.close()
        if told.partitions:
            yield row_of(outcome_text(told))

    def finish(self, partitions: Iterable[Partition]) -> TaskOutcome:
        """Move the fences of partitions that the batch has no message of, only offsets without any."""
        share = _Share(self)
        try:
            for partition in partitions:
                share.enter(partition)
            return share.finish()
        finally:
            share.close()


class _Share:
    """A task's part of the batch: of one partition, as Spark cuts it; but nothing here counts on that."""

    def __init__(self, task: MergeTask) -> None:
        self._task = task
        self._status = StreamStatus()
        self._at: dict[Partition, int] = {}
        self._fault = ""
        until = time.monotonic() + _LETTERS_S
        self._letters = DeadLetters(
            task.subscription.kafka, task.subscription.project.dead_letters, lambda: time.monotonic() > until
        )
        self._online = task.subscription.project.open_online()
        self._pipelines: dict[Partition, Pipeline] = {}

    def take(self, batch: pa.RecordBatch) -> None:
        """Merge messages, those of a partition in the order of offsets."""
        for partition, found in messages(batch):
            self.enter(partition)
            self._process(partition, found[-1].offset() + 1, list(found))

    def enter(self, partition: Partition) -> None:
        """Read the fences of a partition, if it is not known yet."""
        if partition in self._at:
            return
        self._at[partition], _ = self._task.spans[partition]
        if self._fault:
            return
        views = [view for view in self._task.views if view.source.topic == partition[0]]
        try:
            pipeline = Pipeline(routes_of(self._online, views), self._letters, self._status, self._task.lettered)
        except StaleWriteError:
            self._fault = STALE
            return
        self._pipelines[partition] = pipeline
        try:
            pipeline.load(wanted_of(views, [partition]))
        except FencesLostError:
            self._fault = LOST
            return
        pipeline.skip(partition, self._task.firsts.get(partition, 0))
        if behind(pipeline.starts(), self._at):
            self._fault = BEHIND

    def finish(self) -> TaskOutcome:
        """Take all answers, and move all fences to the ends."""
        for partition in self._at:
            self._process(partition, self._task.spans[partition][1], [])
        return TaskOutcome(self._status, list(self._at), self._fault)

    def close(self) -> None:
        """Close the connections."""
        for pipeline in self._pipelines.values():
            pipeline.close()
        self._online.close()

    def _process(self, partition: Partition, end: int, messages: list[Message]) -> None:
        """Merge what a partition has up to an offset; without messages, all fences follow. Nothing after a fault."""
        start, self._at[partition] = self._at[partition], end
        if self._fault:
            return
        pipeline = self._pipelines[partition]
        try:
            if end > start:
                pipeline.process({partition: MessageSpan(start, end, messages)})
            if not messages:
                pipeline.catch_up([partition])
        except StaleWriteError:
            self._fault = STALE
        except FencesLostError:
            self._fault = LOST
        if pipeline.refused:
            self._fault = REFUSED


def behind(
    starts: Mapping[str, Mapping[Partition, int | None]], at: Mapping[Partition, int]
) -> dict[str, set[Partition]]:
    """Per view, the partitions that it cannot go on in at some offsets, because it has not merged what is before."""
    found = {
        view: {partition for partition, start in of_view.items() if (start or 0) < at.get(partition, 0)}
        for view, of_view in starts.items()
    }
    return {view: partitions for view, partitions in found.items() if partitions}


def outcome_of(text: str) -> TaskOutcome:
    """What a task has told."""
    found: dict[str, Any] = json.loads(text)
    status = StreamStatus(
        views={name: ViewCounts(**counts) for name, counts in found["views"].items()},
        topics={name: TopicCounts(**counts) for name, counts in found["topics"].items()},
        refused=found["refused"],
        batches=found["batches"],
        merge_seconds=found["merge_seconds"],
    )
    return TaskOutcome(status, [(topic, number) for topic, number in found["partitions"]], found["fault"])


def outcome_text(told: TaskOutcome) -> str:
    """The inverse of `outcome_of`."""
    status = told.status
    return json.dumps(
        {
            "views": {name: asdict(counts) for name, counts in status.views.items()},
            "topics": {name: asdict(counts) for name, counts in status.topics.items()},
            "refused": status.refused,
            "batches": status.batches,
            "merge_seconds": status.merge_seconds,
            "partitions": told.partitions,
            "fault": told.fault,
        }
    )
