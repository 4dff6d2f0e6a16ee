"""Consumers and a producer. Only this module and kafka_topics.py use confluent-kafka; they map its errors.

The fences in Redis, not Kafka's committed offsets, determine where reading resumes. A partition that the group assigns
to a consumer is therefore not read until the worker *places* it at an offset. To go back, the worker places it again.
The client's callbacks run during a poll and record which partitions are assigned and revoked. Before partitions are
revoked, the worker can hand them over.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import Message as ClientMessage

from feature_store._extras import requires_extra
from feature_store.errors import StreamError
from feature_store.streaming.kafka_errors import Reason, is_telling, stream_error
from feature_store.streaming.messages import Message, MessageSpan, Partition, Polled

with requires_extra("kafka", "streaming"):
    from confluent_kafka import (
        OFFSET_BEGINNING,
        Consumer,
        KafkaError,
        KafkaException,
        Producer,
        TopicPartition,
    )


Options = Mapping[str, str | int | float | bool]

__all__ = ["GroupConsumer", "Message", "MessageSpan", "Partition", "PartitionConsumer", "Polled", "Reader", "Sender"]

# Settings that the fences and the loop rely on.
_OWN: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
}
_DEFAULTS: dict[str, Any] = {
    # A pending fetch delays a consumer that goes to another offset: 0.5 s with the client's default of 500 ms.
    "fetch.wait.max.ms": 50,
    # New partitions are read within seconds; with the client's default, only after 5 minutes.
    "topic.metadata.refresh.interval.ms": 2_000,
    # The client's pause in fetching when its queue is full. The default of 1 s starves a worker that empties the queue
    # in 0.1 s.
    "fetch.queue.backoff.ms": 5,
    # The queue between the client's thread and ours: about 1 s of events, bounded in memory.
    "queued.min.messages": 50_000,
    "queued.max.messages.kbytes": 32 << 10,
}
# The group removes a lost worker after the session timeout; this is the shortest that brokers allow by default. When a
# worker joins or leaves, the others learn of it at their next heartbeat.
_GROUP_DEFAULTS: dict[str, Any] = {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 200}
# A rebalance is one round in which all partitions pause. Workers hold no state outside Redis, so that is cheap.
# docs/decisions/0006-workers-that-come-and-go.md has the measurements.
_GROUP_OWN: dict[str, Any] = {"group.protocol": "classic", "partition.assignment.strategy": "roundrobin"}
_PRODUCER: dict[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    # The topic's limit decides which messages are too large, not the client's.
    "message.max.bytes": 1_000_000_000,
    "log_level": 3,
}
_LOG = logging.getLogger("feature_store.kafka")
# The client's own log has a line for each attempt to connect. Important problems also arrive as errors.
CLIENT_LOG = logging.getLogger("feature_store.kafka.client")
CLIENT_LOG.setLevel(logging.CRITICAL)
ANSWER_S, _LEAVE_S, _CLOSE_S = 10.0, 1.0, 5.0


class Reader:
    """The base of both consumers. It reads partitions from the offsets at which they are placed.

    Attributes:
        trouble: the client's last error; empty once messages arrive.
        is_dead: whether the client has failed permanently and must be replaced by a new consumer.
    """

    def __init__(self, options: Options, own: Mapping[str, Any]) -> None:
        self.trouble, self.is_dead = "", False
        # The next offset of each partition; -1: its start.
        self._placed: dict[Partition, int] = {}
        settings = {**_DEFAULTS, **options, **_OWN, **own, "error_cb": self._note}
        with errors("Kafka consumer"):
            self._consumer = Consumer(settings, logger=CLIENT_LOG)

    def poll(self, limit: int, wait_s: float, linger_s: float = 0.0) -> Polled:
        """At most `limit` messages. Waits at most `wait_s` seconds for the first, and `linger_s` for more.

        Raises:
            StreamError: the client has failed permanently. A GroupConsumer also raises the errors of `hand_over`.
        """
        with errors("Kafka consumer"):
            first = self._consumer.poll(wait_s)
            if first is None:
                return Polled({}, set())
            batch = [first, *self._consumer.consume(limit - 1, linger_s)] if limit > 1 else [first]
        grouped: dict[Partition, list[Message]] = {}
        ends: dict[Partition, int] = {}
        outside: set[Partition] = set()
        for message in batch:
            partition: Any = (message.topic(), message.partition())
            if message.error() is None:
                grouped.setdefault(partition, []).append(message)
            else:
                self._take_error(message, partition, ends, outside)
        if grouped:
            self.trouble = ""
        # Drop messages that were fetched before a callback revoked or reassigned their partition.
        spans = {}
        for partition in self._placed.keys() & (grouped.keys() | ends.keys()):
            start, messages = self._placed[partition], grouped.get(partition, [])
            end = max(ends.get(partition, 0), (messages[-1].offset() or 0) + 1 if messages else 0)
            if end > start:
                spans[partition] = MessageSpan(start, end, messages)
                self._placed[partition] = end
        return Polled(spans, outside & self._placed.keys())

    @property
    def positions(self) -> dict[Partition, int]:
        """The offset up to which each placed partition was read; -1: placed at its start, and not read yet."""
        return dict(self._placed)

    def range(self, partition: Partition) -> tuple[int, int]:
        """The offset of a partition's first message, and the offset after its last message.

        Raises:
            StreamError: Kafka does not answer.
        """
        with errors(_shown(partition)):
            low, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), timeout=ANSWER_S)
        return low, high

    def end(self, partition: Partition) -> int | None:
        """The offset after a partition's last message, as of the last fetch. None: there was no fetch yet."""
        with errors(_shown(partition)):
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return high if high >= 0 else None

    def offsets_at(self, topic: str, partitions: Iterable[int], time_us: int) -> dict[Partition, int]:
        """By partition, the first offset whose message has a timestamp at or after a time, else the partition's end.

        Raises:
            StreamError: Kafka does not answer.
        """
        asked = [TopicPartition(topic, partition, time_us // 1000) for partition in partitions]
        with errors(f"topic {topic}"):
            found = self._consumer.offsets_for_times(asked, timeout=ANSWER_S)
        return {
            (topic, item.partition): item.offset if item.offset >= 0 else self.range((topic, item.partition))[1]
            for item in found
        }

    def close(self) -> None:
        """Leave the group and close, waiting at most 5 s if the broker is unreachable."""
        closing = threading.Thread(target=self._consumer.close, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    def _take_error(
        self, message: ClientMessage, partition: Partition, ends: dict[Partition, int], outside: set[Partition]
    ) -> None:
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:
            # Control records of transactions can follow the last message, so this offset may be beyond it.
            ends[partition] = message.offset() or 0
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            outside.add(partition)
        else:
            self._note(error)

    def _note(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self.is_dead = True
            raise StreamError("Kafka consumer", got=error.str())
        reason = Reason(error.name(), error.str())
        told = str(stream_error("Kafka", reason)) if is_telling(reason) else reason.text
        # A client that a broker refuses also reports that no broker answers. Keep the error that says more.
        if not self.trouble or is_telling(reason):
            if self.trouble != told:
                _LOG.warning("Kafka: %s", told)
            self.trouble = told


class GroupConsumer(Reader):
    """A member of a consumer group.

    Args:
        options: the client's options from feature_store.yaml.
        group: the name of the group. `group.id` in the options overrides it.
        topics: the topics to read.
        hand_over: is called during a poll, before partitions go to other members. The poll raises its errors.

    Attributes:
        topics: the topics to read.
        assigned: the partitions that the group assigned to this member.

    Raises:
        StreamError: an option is invalid.
    """

    def __init__(self, options: Options, group: str, topics: Sequence[str], hand_over: Callable[[], None]) -> None:
        super().__init__({**_GROUP_DEFAULTS, "group.id": group, **options}, _GROUP_OWN)
        self._hand_over = hand_over
        self.assigned: set[Partition] = set()
        self.subscribe(topics)

    @property
    def unplaced(self) -> set[Partition]:
        """Assigned partitions that are not placed yet."""
        return self.assigned - self._placed.keys()

    def subscribe(self, topics: Sequence[str]) -> None:
        """Read these topics instead of the earlier ones."""
        self.topics = list(topics)
        with errors("Kafka consumer"):
            self._consumer.subscribe(list(topics), on_assign=self._give, on_revoke=self._take, on_lost=self._lose)

    def place(self, offsets: Mapping[Partition, int | None]) -> None:
        """Read partitions from these offsets on; None: from the partition's start. Ignores unassigned partitions.

        Raises:
            StreamError: the client refuses the assignment.
        """
        mine = [(partition, at) for partition, at in offsets.items() if partition in self.assigned]
        if not mine:
            return
        self._placed.update((partition, -1 if at is None else at) for partition, at in mine)
        with errors("Kafka consumer"):
            # Unlike seek(), assign() drops messages fetched at the old offset, and works in any state of the partition.
            self._consumer.assign([TopicPartition(*p, _offset(at)) for p, at in self._placed.items()])

    def unplace(self) -> None:
        """Read no partition until it is placed again."""
        with errors("Kafka consumer"):
            self._consumer.assign([])
        self._placed.clear()

    def commit(self) -> None:
        """Commit this member's offsets for tools that monitor the group's lag. This library never reads them."""
        mine = [TopicPartition(*partition, at) for partition, at in self._placed.items() if at >= 0]
        if mine:
            with contextlib.suppress(KafkaException):
                self._consumer.commit(offsets=mine, asynchronous=True)

    def close(self) -> None:
        """Leave the group, so that other members need not wait for the session timeout, and close the connections."""
        with contextlib.suppress(KafkaException):
            # A static member (group.instance.id) leaves by unsubscribing only, not by closing.
            self._consumer.unsubscribe()
            until = time.monotonic() + _LEAVE_S
            while self._consumer.memberid() and time.monotonic() < until:
                self._consumer.poll(_LEAVE_S / 100)
        super().close()

    def _give(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.assigned = {(item.topic, item.partition) for item in partitions}
        consumer.assign([])  # the worker places them before they are read

    def _take(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            self._hand_over()
        finally:
            self._lose(consumer, partitions)

    def _lose(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self.assigned = set()
        self._placed.clear()
        consumer.unassign()


class PartitionConsumer(Reader):
    """Reads partitions that the caller chooses, outside any group."""

    def __init__(self, options: Options) -> None:
        # The client requires a group id even if a consumer joins no group.
        super().__init__(options, {"group.id": "feature-store-reader"})

    def place(self, offsets: Mapping[Partition, int | None]) -> None:
        """Read only these partitions, from these offsets on; None: from the partition's start.

        Raises:
            StreamError: the client refuses the assignment.
        """
        with errors("Kafka consumer"):
            self._consumer.assign([TopicPartition(*partition, _offset(at)) for partition, at in offsets.items()])
        self._placed = {partition: -1 if at is None else at for partition, at in offsets.items()}


class Sender:
    """Sends messages and reports whether they arrived.

    Attributes:
        failure: why the client has failed permanently and must be replaced by a new sender. None: it works.
    """

    def __init__(self, options: Options) -> None:
        self.failure: Reason | None = None
        # Without an error callback, the client raises fatal errors inside other callbacks.
        settings = {**options, **_PRODUCER, "error_cb": self._note}
        with errors("Kafka producer"):
            self._producer = Producer(settings, logger=CLIENT_LOG)

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: list[tuple[str, str | bytes | None]],
        told: Callable[[Reason | None], None],
    ) -> None:
        """Send one message. `told` is called once, during a later call: with None if it arrived, else with the reason.

        Raises:
            StreamError: the client refuses the message.
        """

        def note(error: KafkaError | None, _message: ClientMessage) -> None:
            told(None if error is None else Reason(error.name(), error.str()))

        with errors(f"topic {topic}"), self._failures():
            while self.failure is None:
                try:
                    self._producer.produce(topic, value, key, headers=headers, on_delivery=note)
                    return
                except BufferError:
                    self._producer.poll(0.1)

    def flush(self, wait_s: float) -> int:
        """Wait for sent messages. Returns how many have not arrived yet; 0 after a permanent failure."""
        with errors("Kafka producer"), self._failures():
            left = self._producer.flush(wait_s)
        return 0 if self.failure is not None else left

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Record a permanent failure of the client. Inside a callback, it is the cause of a SystemError."""
        try:
            yield
        except SystemError as error:
            if not isinstance(error.__cause__, KafkaException):
                raise
            self._note(error.__cause__.args[0])
        except KafkaException as error:
            if not error.args[0].fatal() and error.args[0].code() != KafkaError._FATAL:
                raise
            self._note(error.args[0])

    def _note(self, error: KafkaError) -> None:
        if self.failure is None and (error.fatal() or error.code() == KafkaError._FATAL):
            self.failure = Reason(error.name(), error.str())


@contextlib.contextmanager
def errors(where: str) -> Iterator[None]:
    """Map errors of confluent-kafka to StreamError."""
    try:
        yield
    except KafkaException as error:
        raise stream_error(where, reason_of(error)) from error


def reason_of(error: KafkaException) -> Reason:
    """The name and text of an error of confluent-kafka."""
    found = error.args[0]
    return Reason(found.name(), found.str()) if isinstance(found, KafkaError) else Reason("error", str(found))


def _offset(at: int | None) -> int:
    return OFFSET_BEGINNING if at is None or at < 0 else at


def _shown(partition: Partition) -> str:
    return f"{partition[0]}[{partition[1]}]"
