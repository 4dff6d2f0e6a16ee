"""One consumer: it reads the partitions that its group assigns to it, and merges them. It can be killed at any point.

The fences in Redis record which events are merged. If partitions are assigned or revoked, a fence refuses a merge,
Redis was unavailable, or another plan is published, the worker drops all merges under way, reads the fences and resumes
there. A view whose fences are lost is stopped, and the others continue. A view that is far behind the others of its
topic gets its own reader until it has caught up, so that the others stay fresh.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from feature_store.errors import (
    CorruptRowError,
    FeatureStoreError,
    OnlineStoreError,
    RegistryError,
    StaleWriteError,
    StreamError,
)
from feature_store.streaming.catalog import Catalog
from feature_store.streaming.dead_letters import DeadLetters
from feature_store.streaming.kafka import GroupConsumer, Partition
from feature_store.streaming.kafka_topics import Topics
from feature_store.streaming.pipeline import Pipeline
from feature_store.streaming.replay import Replay, earliest, enter
from feature_store.streaming.routes import StreamedView, intact, routes_of, wanted_of
from feature_store.streaming.status import StreamStatus
from feature_store.streaming.subscription import Subscription

# The most messages per batch. Larger batches hardly need fewer merges per event, and two batches are in memory.
BATCH = 5_000
# How long a batch waits for more messages: fewer small batches, for 5 ms of freshness.
LINGER_S = 0.005
_IDLE_WAIT_S = 0.1
# Seconds between moves of all fences, between commits of offsets to Kafka, and between reports of the status.
_CATCH_UP_S, _COMMIT_S, _TELL_S = 1.0, 5.0, 0.25
# Seconds between attempts to reach Redis, the registry or Kafka again.
_RETRY_S, _LONGEST_RETRY_S = 0.05, 1.0
# A view that is this many messages behind another in a partition gets its own reader: seconds of work.
FAR_BEHIND = 50_000
_LOG = logging.getLogger("feature_store.streaming")


@dataclass
class _Open:
    """The state of a worker under one plan.

    Attributes:
        served: the stream views of the plan.
        views: the views among them that are streamed.
        consumer: reads the partitions.
        pipeline: merges the messages.
        partitions: the partitions whose fences the pipeline has loaded.
        behind: the reader for views that are far behind; None: no view is.
    """

    served: list[StreamedView]
    views: list[StreamedView]
    consumer: GroupConsumer
    pipeline: Pipeline
    partitions: set[Partition] = field(default_factory=set)
    behind: Replay | None = None

    def let_go_of_behind(self) -> None:
        """Close the reader for views that are far behind."""
        behind, self.behind = self.behind, None
        if behind is not None:
            behind.close()


class Worker:
    """One member of a consumer group.

    Args:
        subscription: the views to stream, and their project.
        stopped: returns True if the worker should finish.
        tell: is called with the status several times a second, and at the end.
    """

    def __init__(
        self, subscription: Subscription, stopped: Callable[[], bool], tell: Callable[[StreamStatus], None]
    ) -> None:
        self._subscription, self._stopped, self._tell = subscription, stopped, tell
        self._status = StreamStatus()
        self._catalog = Catalog(subscription)
        self._topics: Topics | None = None
        self._ids: dict[str, str] = {}
        self._evicted: int | None = None
        self._letters = DeadLetters(subscription.kafka, subscription.project.dead_letters, stopped)
        self._consumer: GroupConsumer | None = None
        self._open: _Open | None = None
        self._read_at = self._moved_at = self._committed_at = self._told_at = time.monotonic()

    def run(self) -> None:
        """Stream until `stopped` returns True. If Redis, Kafka, the registry or the plan is unavailable, wait for it.

        Raises:
            NotFoundError: a view is no longer served.
            CorruptRowError: a stored value does not have its view's layout.
        """
        delay_s = 0.0
        try:
            while not self._stopped():
                try:
                    self._turn()
                    delay_s, self._status.trouble = 0.0, ""
                except CorruptRowError:
                    raise
                except (OnlineStoreError, RegistryError, StreamError) as error:
                    delay_s = self._fall_back(error, delay_s)
            self._finish()
        finally:
            self._close()

    def _turn(self) -> None:
        opened = self._open or self._begin()
        consumer, pipeline = opened.consumer, opened.pipeline
        if pipeline.refused or consumer.unplaced or consumer.assigned != opened.partitions:
            self._place(opened)
        idle = not pipeline.is_busy and opened.behind is None
        polled = consumer.poll(BATCH, _IDLE_WAIT_S if idle else 0.0, LINGER_S)
        for partition in polled.outside:
            consumer.place({partition: enter(consumer, pipeline, partition)})
        if polled.spans:
            pipeline.process(polled.spans)
            self._read_at = time.monotonic()
        else:
            pipeline.settle()
        if opened.behind is not None:
            opened.behind.turn(0.0)
            if opened.behind.has_reached(consumer.positions):
                consumer.unplace()
        self._now_and_then(opened)

    # -- where to read ------------------------------------------------------------------------------------------

    def _begin(self) -> _Open:
        """Choose the views to stream, and connect."""
        served = self._catalog.views()
        views = self._intact(served)
        topics = sorted({view.source.topic for view in views})
        if self._consumer is None:
            self._consumer = GroupConsumer(self._subscription.kafka, self._subscription.group, topics, self._hand_over)
        elif self._consumer.topics != topics:
            self._consumer.subscribe(topics)
        self._open = _Open(
            served, views, self._consumer, Pipeline(routes_of(self._catalog.online, views), self._letters, self._status)
        )
        return self._open

    def _intact(self, served: list[StreamedView]) -> list[StreamedView]:
        """The views that can be streamed.

        Raises:
            FencesLostError, TopicReplacedError: no view can be streamed; the error of one of them.
        """
        ids = self._ids_of(served)
        views, lost = intact(self._catalog.online, served, ids)
        for name, error in lost.items():
            if name not in self._status.stopped:
                _LOG.error("%s is not streamed: %s", name, error)
        self._status.stopped = {name: str(error) for name, error in lost.items()}
        if not views:
            raise next(iter(lost.values()))
        self._ids = ids
        return views

    def _ids_of(self, served: list[StreamedView]) -> dict[str, str]:
        if self._topics is None:
            self._topics = Topics(self._subscription.kafka)
        return self._topics.ids(sorted({view.source.topic for view in served}))

    def _hand_over(self) -> None:
        """Move the fences to the offset up to which events were taken, so that the next consumer reads none again."""
        if self._open is not None:
            self._open.pipeline.catch_up(self._open.partitions & self._open.consumer.assigned)

    def _place(self, opened: _Open) -> None:
        """Resume at the fences, in all partitions that are now assigned to this worker."""
        pipeline, consumer = opened.pipeline, opened.consumer
        if opened.behind is not None:
            opened.behind.catch_up()
            opened.let_go_of_behind()
        pipeline.catch_up(opened.partitions & consumer.assigned)
        opened.partitions = set(consumer.assigned)
        pipeline.load(wanted_of(opened.views, opened.partitions))
        starts = pipeline.starts()
        far = far_behind(starts, FAR_BEHIND)
        consumer.place(earliest(starts, without=far))
        if far:
            names = ", ".join(sorted(far))
            _LOG.warning("far behind in the stream, and read separately until caught up: %s", names)
            routes = routes_of(self._catalog.online, (view for view in opened.views if view.tiles.view in far))
            replayed = Pipeline(routes, self._letters, self._status, lettered=pipeline.fronts())
            opened.behind = Replay(self._subscription.kafka, replayed, far)

    # -- failures -----------------------------------------------------------------------------------------------

    def _fall_back(self, error: FeatureStoreError, delay_s: float) -> float:
        """Drop all merges under way, and wait before the next attempt. Returns the delay in seconds."""
        if isinstance(error, StaleWriteError):
            self._status.reloads += 1
            delay_s = 0.0
        else:
            if self._status.trouble != str(error):
                _LOG.warning("waiting: %s", error)
            self._status.trouble = str(error)
            delay_s = min(max(2 * delay_s, _RETRY_S), _LONGEST_RETRY_S)
        self._let_go()
        until = time.monotonic() + delay_s
        while not self._stopped() and (left := until - time.monotonic()) > 0:
            if self._consumer is None:
                time.sleep(left)
            else:
                # No message is read, but the poll keeps this member in the group.
                self._consumer.poll(1, left)
        self._tell_status()
        return delay_s

    def _let_go(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            with contextlib.suppress(StreamError):
                opened.let_go_of_behind()
            opened.pipeline.close()
        if self._consumer is not None and self._consumer.is_dead:
            self._consumer.close()
            self._consumer = None
        elif self._consumer is not None:
            self._consumer.unplace()

    def _finish(self) -> None:
        """Finish the merges under way, commit, and report the status."""
        if self._open is None:
            return
        try:
            self._open.let_go_of_behind()
            self._open.pipeline.catch_up(self._open.partitions & self._open.consumer.assigned)
            self._open.consumer.commit()
            self._tell_status()
        except (OnlineStoreError, StreamError) as error:
            _LOG.warning("stopped with merges under way, which the next consumer repeats: %s", error)

    def _close(self) -> None:
        with contextlib.suppress(StreamError):
            self._let_go()
        if self._consumer is not None:
            self._consumer.close()
        self._catalog.close()
        self._tell_status()

    # -- at intervals -------------------------------------------------------------------------------------------

    def _now_and_then(self, opened: _Open) -> None:
        now = time.monotonic()
        if now - self._moved_at > _CATCH_UP_S:
            self._moved_at = now
            opened.pipeline.catch_up(opened.partitions & opened.consumer.assigned)
            if self._status.stopped and self._catalog.views() != opened.served:
                raise StaleWriteError("stream", problem="another plan was published meanwhile")
            if now - self._read_at > _CATCH_UP_S:
                # Without merges, only a check shows that Redis went back in time.
                opened.pipeline.verify()
        if now - self._committed_at > _COMMIT_S:
            self._committed_at = now
            opened.consumer.commit()
            now_there = self._ids_of(opened.served)
            if any(now_there.get(topic, known) != known for topic, known in self._ids.items()):
                raise StreamError("stream", problem="a topic was deleted and created again")
            self._watch_evictions()
        if now - self._told_at > _TELL_S:
            self._tell_status()

    def _watch_evictions(self) -> None:
        """Report keys that Redis evicts while this worker runs. Values are then missing, and windows are incomplete."""
        seen, self._evicted = self._evicted, self._catalog.online.evicted_keys()
        if seen is not None and self._evicted > seen:
            self._status.evicted += self._evicted - seen
            _LOG.error(
                "Redis evicted %d keys for lack of memory: rows and tiles are missing. Set maxmemory-policy "
                "noeviction, raise maxmemory, then materialize and backfill again",
                self._evicted - seen,
            )

    def _tell_status(self) -> None:
        self._told_at = time.monotonic()
        if self._open is not None:
            consumer = self._open.consumer
            self._status.positions = {name: (at, consumer.end(name)) for name, at in consumer.positions.items()}
        told = copy.deepcopy(self._status)
        if not told.trouble and self._consumer is not None:
            told.trouble = self._consumer.trouble
        self._tell(told)


def far_behind(starts: Mapping[str, Mapping[Partition, int | None]], messages: int) -> dict[str, set[Partition]]:
    """By view, the partitions in which it is more than `messages` behind another view."""
    fronts: dict[Partition, int] = {}
    for found in starts.values():
        for partition, start in found.items():
            fronts[partition] = max(fronts.get(partition, 0), start or 0)
    far = {
        view: {partition for partition, start in found.items() if fronts[partition] - (start or 0) > messages}
        for view, found in starts.items()
    }
    return {view: partitions for view, partitions in far.items() if partitions}
