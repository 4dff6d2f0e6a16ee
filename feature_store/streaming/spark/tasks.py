"""The tasks that merge a micro-batch. A task merges the batch's messages of one partition, as a worker does.

A task begins at the fences and skips messages that are already merged. It can therefore be run again, run twice at
once, or run beside a worker. It must not merge beyond a gap: if Redis went back to a state before the batch, the task
reports a *fault*, and the driver begins again at the fences.
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

# Faults: the fences are before the batch; another consumer moved them; another plan was published; the fences are lost.
BEHIND, REFUSED, STALE, LOST = "behind", "refused", "stale", "lost"
# Messages per merge, as in a worker.
_BATCH = 5_000
# If dead letters take longer than this to arrive, the task and its batch fail.
_LETTERS_S = 60.0


class TaskOutcome(NamedTuple):
    """The result of a task.

    Attributes:
        status: the task's counts.
        partitions: the partitions of its messages.
        fault: the reason why it did not merge all messages; empty: it merged all.
    """

    status: StreamStatus
    partitions: list[Partition]
    fault: str


@dataclass(frozen=True)
class MergeTask:
    """Merges a micro-batch.

    Attributes:
        subscription: the views to stream, and their project.
        views: the views to merge into.
        spans: by partition, the offsets `[start, end)` whose messages are all in the batch.
        firsts: by partition, the offset of its first message; 0 for a partition that is left out.
        lettered: by partition, the offset up to which another query has sent the dead letters.
    """

    subscription: Subscription = field(repr=False)
    views: tuple[StreamedView, ...]
    spans: Mapping[Partition, tuple[int, int]]
    firsts: Mapping[Partition, int]
    lettered: Mapping[Partition, int]

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """One row with the outcome, for `outcome_of`; no row if the task had no messages."""
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
        """Move the fences of partitions whose offsets in the batch have no messages."""
        share = _Share(self)
        try:
            for partition in partitions:
                share.enter(partition)
            return share.finish()
        finally:
            share.close()


class _Share:
    """A task's share of the batch. Spark gives a task one partition, but this class handles several as well."""

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
        """Merge messages. Those of one partition must be in the order of offsets."""
        for partition, found in messages(batch):
            self.enter(partition)
            self._process(partition, found[-1].offset() + 1, list(found))

    def enter(self, partition: Partition) -> None:
        """Read the fences of a partition, unless they have been read."""
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
        """Take all answers, and move all fences to the ends of the spans."""
        for partition in self._at:
            self._process(partition, self._task.spans[partition][1], [])
        return TaskOutcome(self._status, list(self._at), self._fault)

    def close(self) -> None:
        """Close the connections."""
        for pipeline in self._pipelines.values():
            pipeline.close()
        self._online.close()

    def _process(self, partition: Partition, end: int, messages: list[Message]) -> None:
        """Merge messages of a partition up to an offset; without messages, move all fences. A no-op after a fault."""
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
    """By view, the partitions in which it has not merged all messages before the given offsets."""
    found = {
        view: {partition for partition, start in of_view.items() if (start or 0) < at.get(partition, 0)}
        for view, of_view in starts.items()
    }
    return {view: partitions for view, partitions in found.items() if partitions}


def outcome_of(text: str) -> TaskOutcome:
    """The outcome in a task's result row."""
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
