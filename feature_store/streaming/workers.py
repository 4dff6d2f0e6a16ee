"""Starts worker processes, watches them, restarts those that die, and stops them gracefully.

Workers send their status through a pipe. They end when their parent process ends.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import multiprocessing
import multiprocessing.connection
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from feature_store.engines.error_text import error_of, error_text
from feature_store.errors import FeatureStoreError, StreamError
from feature_store.streaming.catalog import Catalog
from feature_store.streaming.kafka_errors import missing_topic
from feature_store.streaming.kafka_topics import Described, Topics
from feature_store.streaming.progress import Goals
from feature_store.streaming.status import StreamStatus, total
from feature_store.streaming.subscription import Subscription
from feature_store.streaming.worker import Worker

# Spawned, not forked: the Kafka client has threads, which a forked process would lack.
_PROCESSES = multiprocessing.get_context("spawn")
_WATCH_S = 0.1
# A worker that merges a batch or waits for Redis checks within this time whether to stop.
_STOP_S = 20.0
# Give up after 5 crashes in a row, each within 5 s of the start. A worker that is killed by a signal does not count.
_SOON_S, _MOST_SOON = 5.0, 5
_KILLED = (-signal.SIGKILL, -signal.SIGTERM)
_LOG = logging.getLogger("feature_store.streaming")


@dataclass
class _Running:
    name: str
    process: BaseProcess
    pipe: Connection
    started_at: float
    status: StreamStatus


class Workers:
    """Streams with worker processes.

    Args:
        subscription: the views to stream, and their project.
        count: the number of processes.

    Raises:
        NotFoundError: a view is not served.
        NotPublishedError: no plan is published.
        StreamError: Kafka cannot be reached, lacks a topic, or refuses this client.
    """

    def __init__(self, subscription: Subscription, count: int) -> None:
        self._subscription = subscription
        prepare_topics(subscription)
        self._running: list[_Running] = []
        self._ended: list[StreamStatus] = []
        self._restarts = self._died_soon = 0
        # A worker that replaces a dead one takes its name. It gets the partitions at once, not after the session ends.
        base = subscription.kafka.get("group.instance.id", f"feature-store-{uuid.uuid4().hex}")
        try:
            for i in range(count):
                self._start(f"{base}-{i}")
        except BaseException:
            self.kill()
            raise

    @property
    def pids(self) -> list[int]:
        """The process ids of the running workers."""
        return [running.process.pid or 0 for running in self._running]

    @property
    def status(self) -> StreamStatus:
        """The status of all workers together."""
        found = total([*self._ended, *(running.status for running in self._running)])
        found.restarts = self._restarts
        return found

    def watch(self) -> None:
        """Receive the status of workers, and replace workers that died. Waits at most 0.1 s for a status.

        Raises:
            FeatureStoreError: a worker gave up with this error.
            StreamError: workers crashed 5 times in a row, each within 5 s of its start.
        """
        waiting: list[Any] = [running.pipe for running in self._running]
        multiprocessing.connection.wait(waiting, _WATCH_S)
        for running in list(self._running):
            self._take(running)
            if not running.process.is_alive():
                self._take(running)
                self._replace(running)

    def stop(self) -> None:
        """Let all workers finish their batches and leave the group. A worker that takes longer than 20 s is killed."""
        for running in self._running:
            running.process.terminate()
        until = time.monotonic() + _STOP_S
        for running in self._running:
            while running.process.is_alive() and time.monotonic() < until:
                running.pipe.poll(_WATCH_S)
                self._take(running)
            self._take(running)
        self.kill()

    def kill(self) -> None:
        """Kill all workers."""
        for running in self._running:
            running.process.kill()
            running.process.join()
            running.pipe.close()
            self._ended.append(running.status)
        self._running.clear()

    def _start(self, name: str) -> None:
        subscription = self._subscription.as_member(name)
        pipe, theirs = _PROCESSES.Pipe()
        process = _PROCESSES.Process(target=_work, args=(subscription, theirs), name="feature-store worker")
        process.start()
        theirs.close()
        self._running.append(_Running(name, process, pipe, time.monotonic(), StreamStatus()))

    def _take(self, running: _Running) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while running.pipe.poll():
                received = running.pipe.recv()
                if isinstance(received, StreamStatus):
                    running.status = received
                else:
                    raise error_of(received)

    def _replace(self, dead: _Running) -> None:
        self._running.remove(dead)
        dead.process.join()
        dead.pipe.close()
        ended = copy.copy(dead.status)
        ended.positions, ended.trouble = {}, ""
        self._ended.append(ended)
        code = dead.process.exitcode
        soon = time.monotonic() - dead.started_at < _SOON_S and code not in _KILLED
        self._died_soon = self._died_soon + 1 if soon else 0
        _LOG.warning("worker %s ended with %s; another takes its place", dead.process.pid, code)
        if self._died_soon == _MOST_SOON:
            hint = "its output says why"
            problem = f"a worker exited with code {code} soon after its start, {_MOST_SOON} times in a row"
            raise StreamError("stream", problem=problem, hint=hint)
        self._restarts += 1
        self._start(dead.name)


def stream(
    subscription: Subscription,
    count: int,
    *,
    stopped: Callable[[], bool],
    until_caught_up: bool = False,
    report: Callable[[StreamStatus], None] = lambda _: None,
) -> StreamStatus:
    """Stream until `stopped` returns True, or until the views have caught up.

    Args:
        subscription: the views to stream, and their project.
        count: the number of worker processes.
        stopped: returns True if streaming should end.
        until_caught_up: end when all messages are merged that Kafka held at the start.
        report: is called with the status of all workers several times a second.

    Raises:
        FencesLostError, TopicReplacedError: `until_caught_up` is set and a view cannot be streamed. The other views
            have caught up.
        FeatureStoreError: see Workers and Workers.watch.
    """
    goals = Goals(subscription) if until_caught_up else None
    workers = Workers(subscription, count)
    try:
        while not stopped() and not (goals is not None and goals.are_reached()):
            workers.watch()
            report(workers.status)
        workers.stop()
    finally:
        workers.kill()
        if goals is not None:
            goals.close()
    report(workers.status)
    if goals is not None:
        goals.refuse_lost()
    return workers.status


def prepare_topics(subscription: Subscription) -> None:
    """Check that the topics exist, and create the dead-letter topics.

    Raises:
        NotFoundError: a view is not served.
        NotPublishedError: no plan is published.
        StreamError: Kafka cannot be reached, lacks a topic, or this client lacks a permission that streaming needs.
    """
    catalog = Catalog(subscription)
    try:
        wanted = sorted({view.source.topic for view in catalog.views()})
    finally:
        catalog.close()
    topics = Topics(subscription.kafka)
    found = topics.partitions(wanted)
    descriptions = topics.described(wanted)
    for topic in wanted:
        if topic not in found:
            raise missing_topic(topic, subscription.kafka)
        topics.create(subscription.dead_letters_of(topic), like=topic)
        _refuse_without(descriptions.get(topic), "READ", f"topic {topic}", "its messages cannot be read")
    letters = {subscription.dead_letters_of(topic) for topic in wanted}
    for topic, described in topics.described(sorted(letters)).items():
        _refuse_without(described, "WRITE", f"topic {topic}", "messages that cannot be merged are sent there")
    topics.refuse_group(str(subscription.kafka.get("group.id", subscription.group)))


def _refuse_without(described: Described | None, operation: str, where: str, without: str) -> None:
    """Raise a StreamError if Kafka reports that this user has no permission for an operation on a topic."""
    if described is not None and described.operations is not None and operation not in described.operations:
        problem = f"the user has no permission to {operation} it, and {without}"
        raise StreamError(where, problem=problem, hint=f"grant {operation} on the topic")


def _work(subscription: Subscription, pipe: Connection) -> None:
    """Run a worker, in its own process."""
    stop = False

    def finish(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, finish)
    # Ctrl-C reaches the whole process group. The parent stops its workers gracefully.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def stopped() -> bool:
        return stop or parent is None or not parent.is_alive()

    def tell(status: StreamStatus) -> None:
        with contextlib.suppress(ConnectionError):
            pipe.send(status)

    try:
        Worker(subscription, stopped, tell).run()
    except FeatureStoreError as error:
        pipe.send(error_text(error))  # pickling the error would lose its attributes
