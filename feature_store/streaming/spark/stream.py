"""The driver of a stream on Spark: it runs a query that begins at the fences, and restarts it if the fences change.

    fences ─▶ query ─▶ micro-batch ─▶ tasks, one a partition: merge ─▶ counts ─▶ the next batch
       ▲                                  │ behind, refused, stale; Redis or Kafka away
       └──────────────────────────────────┘

Spark's own checkpoint does not matter. Redis holds both the tiles and the fences, so they are lost and restored
together. Each query gets a new checkpoint, which is deleted with it.

Views that are far behind the others have their own query until they have caught up, so that the others stay fresh.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from feature_store.engines.spark.kafka import TOLD, KafkaQuery, require_connector
from feature_store.engines.spark.session import Session, kept_interrupts
from feature_store.errors import (
    CorruptRowError,
    EngineError,
    FeatureStoreError,
    FenceError,
    OnlineStoreError,
    RegistryError,
    StaleWriteError,
    StreamError,
)
from feature_store.streaming.catalog import Catalog
from feature_store.streaming.fences import fences_moved
from feature_store.streaming.kafka import Partition, PartitionConsumer
from feature_store.streaming.kafka_errors import missing_topic
from feature_store.streaming.kafka_topics import Topics
from feature_store.streaming.pipeline import Pipeline
from feature_store.streaming.progress import Goals
from feature_store.streaming.routes import StreamedView, intact, routes_of, wanted_of
from feature_store.streaming.spark.reading import Reading, start_offsets
from feature_store.streaming.spark.tasks import LOST, STALE, MergeTask, behind, outcome_of
from feature_store.streaming.status import StreamStatus
from feature_store.streaming.subscription import Subscription
from feature_store.streaming.worker import far_behind
from feature_store.streaming.workers import prepare_topics

Offsets = dict[Partition, int]

# The most messages per batch: seconds of work, which a stop waits for.
MAX_MESSAGES = 100_000
# A view that is more than this many batches behind another view in a partition gets its own query, until it is at most
# one batch behind. The other view's batch under way can make it two, which is still below the limit.
_FAR = 3
_WATCH_S = 0.2
# Seconds between checks of all fences and the plan. A batch checks only the fences of the partitions that it reads.
_CHECK_S = 1.0
# How long a stop waits for the batch that is under way.
_STOP_S = 20.0
# Seconds between attempts after a failure.
_RETRY_S, _LONGEST_RETRY_S = 0.05, 1.0
# Give up when queries have failed this many times in a row without merging a batch.
_MOST_FAILED = 5
_LOG = logging.getLogger("feature_store.streaming")


class SparkStream:
    """Streams on Spark.

    Args:
        subscription: the views to stream, and their project.
        session: a session with the Kafka connector.
        options: options of Spark's source `kafka`.
        stopped: returns True if streaming should end.
        tell: is called with the status several times a second, and at the end.
    """

    def __init__(
        self,
        subscription: Subscription,
        session: Session,
        options: Mapping[str, str],
        stopped: Callable[[], bool],
        tell: Callable[[StreamStatus], None],
    ) -> None:
        self._subscription, self._session, self._options = subscription, session, options
        self._stopped, self._tell = stopped, tell
        self._catalog = Catalog(subscription)
        self._status, self._counting = StreamStatus(), threading.Lock()
        self._views: list[StreamedView] = []
        self._readings: list[Reading] = []
        self._checked_at = time.monotonic()
        self._failed = 0

    def run(self) -> None:
        """Stream until `stopped` returns True. If Redis, Kafka, the registry or the plan is unavailable, wait for it.

        Raises:
            NotFoundError: a view is no longer served.
            CorruptRowError: a stored value does not have its view's layout.
            EngineError: queries failed 5 times in a row without merging a batch.
        """
        delay_s = 0.0
        try:
            while not self._stopped():
                try:
                    self._turn()
                    delay_s, self._status.trouble = 0.0, ""
                except CorruptRowError:
                    raise
                except (OnlineStoreError, RegistryError, StreamError, EngineError) as error:
                    self._refuse_for_good(error)
                    delay_s = self._fall_back(error, delay_s)
        finally:
            self._let_go()
            self._catalog.close()
            self._tell_status()

    def _turn(self) -> None:
        if not self._readings:
            self._begin()
        for reading in self._readings:
            if reading.failure is None and reading.query is not None:
                reading.query.wait(_WATCH_S / len(self._readings))
            if reading.failure is not None:
                raise reading.failure
        now = time.monotonic()
        if now - self._checked_at > _CHECK_S:
            self._checked_at = now
            self._check()
        self._tell_status()

    # -- starting queries ---------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Choose the views to stream, read their fences, and start the queries."""
        self._views = self._catalog.views()
        views = self._intact(self._views)
        kept = self._kept(sorted({view.source.topic for view in views}))
        with contextlib.closing(Pipeline(routes_of(self._catalog.online, views), None, StreamStatus())) as pipeline:
            pipeline.load(wanted_of(views, kept))
            for partition, (start, _) in kept.items():
                pipeline.skip(partition, start)
            far = far_behind(pipeline.starts(), _FAR * MAX_MESSAGES)
        ahead = [view for view in views if view.tiles.view not in far]
        first = self._read(ahead or views, kept, None)
        if ahead and far:
            _LOG.warning(
                "far behind in the stream, and read for by themselves until caught up: %s", ", ".join(sorted(far))
            )
            self._read([view for view in views if view.tiles.view in far], kept, first)

    def _intact(self, served: list[StreamedView]) -> list[StreamedView]:
        """The views that can be streamed.

        Raises:
            FencesLostError, TopicReplacedError: no view can be streamed; the error of one of them.
        """
        ids = Topics(self._subscription.kafka).ids(sorted({view.source.topic for view in served}))
        views, lost = intact(self._catalog.online, served, ids)
        with self._counting:
            self._status.stopped = {name: str(error) for name, error in lost.items()}
        if not views:
            raise next(iter(lost.values()))
        return views

    def _read(
        self, views: list[StreamedView], kept: Mapping[Partition, tuple[int, int]], others: Reading | None
    ) -> Reading:
        """Start a query for some views."""
        topics = {view.source.topic for view in views}
        mine = {partition: found for partition, found in kept.items() if partition[0] in topics}
        pipeline = Pipeline(routes_of(self._catalog.online, views), None, StreamStatus())
        try:
            pipeline.load(wanted_of(views, mine))
            at = start_offsets(pipeline, mine)
            # If Kafka has deleted all messages of a partition, no batch will move its fences.
            pipeline.catch_up([partition for partition, (first, _) in mine.items() if 0 < first == at[partition]])
            if pipeline.refused:
                raise fences_moved("stream")
        except BaseException:
            pipeline.close()
            raise
        with self._counting:
            self._status.add(pipeline.status)
        firsts, ends = ({partition: found[i] for partition, found in mine.items()} for i in (0, 1))
        reading = Reading(views, pipeline, firsts, at, ends, others)
        self._readings.append(reading)
        options = {"maxOffsetsPerTrigger": str(MAX_MESSAGES), **self._options}
        reading.query = KafkaQuery(
            self._session, options, dict(at), lambda frame, ends: self._merge(reading, frame, ends)
        )
        return reading

    def _kept(self, topics: list[str]) -> dict[Partition, tuple[int, int]]:
        """The offsets that Kafka keeps of each partition: the first, and the one after the last."""
        found = Topics(self._subscription.kafka).partitions(topics)
        for topic in topics:
            if topic not in found:
                raise missing_topic(topic, self._subscription.kafka)
        consumer = PartitionConsumer(self._subscription.kafka)
        try:
            partitions = [(topic, number) for topic, numbers in found.items() for number in numbers]
            return {partition: consumer.range(partition) for partition in partitions}
        finally:
            consumer.close()

    def _check(self) -> None:
        """Check the plan, the fences, and whether views that were far behind have caught up.

        Raises:
            StaleWriteError: another plan is published.
            FenceError: Redis went back in time, or views that were far behind have caught up.
        """
        if self._catalog.views() != self._views:
            raise _replaced()
        for reading in self._readings:
            at = dict(reading.at)  # read before the fences, which a batch may move meanwhile
            reading.pipeline.load(wanted_of(reading.views, at))
            for partition, first in reading.firsts.items():
                reading.pipeline.skip(partition, first)
            if behind(reading.pipeline.starts(), at):
                raise fences_moved("stream")
            if reading.others is not None and not far_behind({"these": at, "others": reading.others.at}, MAX_MESSAGES):
                raise fences_moved("stream")

    # -- a batch ------------------------------------------------------------------------------------------------

    def _merge(self, reading: Reading, frame: Any, ends: Offsets) -> None:
        """Merge a batch, in a thread of Spark.

        While the query is closing, and after a failure, batches are skipped. The next query begins at the fences and
        reads their messages again.
        """
        with reading.busy:
            if reading.closing or reading.failure is not None:
                return
            try:
                self._merge_spans(reading, frame, ends)
            except (OnlineStoreError, StreamError, EngineError) as error:
                reading.failure = error

    def _merge_spans(self, reading: Reading, frame: Any, ends: Offsets) -> None:
        at = {partition: reading.at.get(partition, 0) for partition in ends}
        spans = {partition: (at[partition], end) for partition, end in ends.items() if end > at[partition]}
        lettered = {} if reading.others is None else reading.others.at
        task = MergeTask(self._subscription, tuple(reading.views), spans, reading.firsts, lettered)
        rows = self._session.collect(self._session.then(frame, task.run, TOLD))
        outcomes = [outcome_of(row.told) for row in rows]
        silent = spans.keys() - {partition for outcome in outcomes for partition in outcome.partitions}
        if silent:
            outcomes.append(task.finish(silent))
        with self._counting:
            for outcome in outcomes:
                self._status.add(outcome.status)
        faults = {outcome.fault for outcome in outcomes} - {""}
        if STALE in faults:
            raise _replaced()
        if LOST in faults:
            self._intact(self._views)
        if faults:
            raise fences_moved("stream")
        reading.at = reading.at | ends
        self._failed = 0

    # -- failures -----------------------------------------------------------------------------------------------

    def _refuse_for_good(self, error: FeatureStoreError) -> None:
        self._failed = self._failed + 1 if isinstance(error, EngineError) else self._failed
        if self._failed == _MOST_FAILED:
            raise error

    def _fall_back(self, error: FeatureStoreError, delay_s: float) -> float:
        """End the queries, and wait before the next attempt. Returns the delay in seconds."""
        if isinstance(error, (StaleWriteError, FenceError)):
            self._status.reloads += isinstance(error, StaleWriteError)
            delay_s = 0.0
        else:
            if self._status.trouble != str(error):
                _LOG.warning("waiting: %s", error)
            self._status.trouble = str(error)
            delay_s = min(max(2 * delay_s, _RETRY_S), _LONGEST_RETRY_S)
        self._let_go()
        self._tell_status()
        until = time.monotonic() + delay_s
        while not self._stopped() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _WATCH_S))
        return delay_s

    def _let_go(self) -> None:
        """Let the batches under way finish, and end the queries."""
        readings, self._readings = self._readings, []
        for reading in readings:
            reading.closing = True
        until = time.monotonic() + _STOP_S
        for reading in readings:
            # A batch that takes too long is cancelled. The fences record how much of it is merged.
            if reading.busy.acquire(timeout=max(0.0, until - time.monotonic())):
                reading.busy.release()
            if reading.query is not None:
                with contextlib.suppress(EngineError):
                    reading.query.close()
            self._see(reading)
            reading.pipeline.close()

    # -- status -------------------------------------------------------------------------------------------------

    def _tell_status(self) -> None:
        for reading in self._readings:
            if reading.query is not None:
                with contextlib.suppress(EngineError):
                    reading.ends |= reading.query.ends()
            self._see(reading)
        with self._counting:
            told = copy.deepcopy(self._status)
        self._tell(told)

    def _see(self, reading: Reading) -> None:
        """Record how far the topics are read. If two queries read a partition, only the one that is ahead counts."""
        found = {partition: (at, reading.ends.get(partition)) for partition, at in reading.at.items()}
        ahead = {} if reading.others is None else reading.others.at
        self._status.positions |= {name: position for name, position in found.items() if name not in ahead}


def stream(
    subscription: Subscription,
    session: Session,
    options: Mapping[str, str],
    *,
    stopped: Callable[[], bool],
    until_caught_up: bool = False,
    report: Callable[[StreamStatus], None] = lambda _: None,
) -> StreamStatus:
    """Stream on Spark until `stopped` returns True, or until the views have caught up.

    Args:
        subscription: the views to stream, and their project.
        session: a session with the Kafka connector.
        options: options of Spark's source `kafka`.
        stopped: returns True if streaming should end.
        until_caught_up: end when all messages are merged that Kafka held at the start.
        report: is called with the status several times a second.

    Raises:
        NotFoundError: a view is not served.
        NotPublishedError: no plan is published.
        FencesLostError, TopicReplacedError: `until_caught_up` is set and a view cannot be streamed. The other views
            have caught up.
        StreamError: Kafka cannot be reached, lacks a topic, or refuses this client.
        EngineError: Spark cannot be started, has no Kafka connector, or fails 5 times in a row.
    """
    prepare_topics(subscription)
    with kept_interrupts():
        require_connector(session)
    goals = Goals(subscription) if until_caught_up else None
    found = StreamStatus()

    def tell(status: StreamStatus) -> None:
        nonlocal found
        found = status
        report(status)

    def done() -> bool:
        return stopped() or (goals is not None and goals.are_reached())

    try:
        SparkStream(subscription, session, options, done, tell).run()
    finally:
        if goals is not None:
            goals.close()
    if goals is not None:
        goals.refuse_lost()
    return found


def _replaced() -> StaleWriteError:
    return StaleWriteError("stream", problem="another plan was published meanwhile")
