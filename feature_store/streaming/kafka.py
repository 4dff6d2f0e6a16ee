"""confluent-kafka's one door in the package: it maps its errors, and nothing else sees its clients.

Where reading goes on is never Kafka's to say: the fences in Redis are the truth. So a partition that a group gives to a
consumer waits, unread, until the worker *places* it at an offset; to go back is to place it again. Callbacks of the
client, which run in the middle of a poll, note what was given and taken; before partitions are taken, the worker can
hand them over.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from feature_store.errors import StreamError, extra
from feature_store.streaming.kafka_errors import Reason, is_telling, stream_error

with extra("kafka", "streaming"):
    from confluent_kafka import (
        OFFSET_BEGINNING,
        Consumer,
        KafkaError,
        KafkaException,
        Producer,
        TopicCollection,
        TopicPartition,
    )
    from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from confluent_kafka import Message as ClientMessage

    Options = Mapping[str, str | int | float | bool]

__all__ = ["GroupConsumer", "Message", "Partition", "PartitionConsumer", "Polled", "Reader", "Sender", "Span", "Topics"]

# A topic and the number of one of its partitions.
Partition = tuple[str, int]

# What the fences decide, and what the loop needs to be told.
_OWN: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
}
_DEFAULTS: dict[str, Any] = {
    # An idle fetch under way delays a consumer that goes to another offset: measured 0.5 s with the client's 500 ms.
    "fetch.wait.max.ms": 50,
    # Partitions that are added are read within seconds; the client's default is 5 minutes.
    "topic.metadata.refresh.interval.ms": 2_000,
    # How long the client does not fetch when its queue is full. Its default, a second, starves a worker that empties
    # the queue in a tenth of that.
    "fetch.queue.backoff.ms": 5,
    # The queue between the client's thread and ours: a second or so of events, bounded in memory.
    "queued.min.messages": 50_000,
    "queued.max.messages.kbytes": 32 << 10,
}
# A worker that was lost is given up after the session: the shortest that brokers allow by default. When one joins or
# leaves, the others are told at their next heartbeat.
_GROUP_DEFAULTS: dict[str, Any] = {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 200}
# Partitions change hands in one round, in which all of them stand still: nobody holds anything but what is in Redis.
# docs/decisions/0006-workers-that-come-and-go.md has the measurements.
_GROUP_OWN: dict[str, Any] = {"group.protocol": "classic", "partition.assignment.strategy": "roundrobin"}
_PRODUCER: dict[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    # What a topic refuses by its size is for the topic to say.
    "message.max.bytes": 1_000_000_000,
    "log_level": 3,
}
_LOG = logging.getLogger("feature_store.kafka")
# What the client itself tells: each attempt to connect. What matters of it comes as errors, too.
_CLIENT_LOG = logging.getLogger("feature_store.kafka.client")
_CLIENT_LOG.setLevel(logging.CRITICAL)
_ANSWER_S, _LIST_S, _LEAVE_S, _CLOSE_S = 10.0, 2.0, 1.0, 5.0


class Message(Protocol):
    """A message, whoever has read it: with confluent-kafka's names."""

    def topic(self) -> str | None:
        """Where it is from."""
        ...

    def partition(self) -> int | None:
        """The partition's number."""
        ...

    def offset(self) -> int | None:
        """Its place there."""
        ...

    def key(self) -> bytes | None:
        """What chose the partition."""
        ...

    def value(self) -> bytes | None:
        """What it says."""
        ...

    def headers(self) -> Any:
        """What is said beside."""
        ...

    def __len__(self) -> int:
        """Bytes of the value."""
        ...


class Span(NamedTuple):
    """What was read of a partition: all that it has from offset `start` (-1: its own start) up to `end`. Offsets may be
    missing between: messages that were compacted away, and marks of transactions."""

    start: int
    end: int
    messages: list[Message]


class Polled(NamedTuple):
    """What a poll brought.

    Attributes:
        spans: by partition, of those that are placed and went on.
        outside: those that were placed where the log has nothing: before its start or beyond its end.
    """

    spans: dict[Partition, Span]
    outside: set[Partition]


class Described(NamedTuple):
    """What Kafka tells of a topic.

    Attributes:
        id: another when the topic is deleted and made anew; empty: not told.
        operations: what this client may do with it (`READ`, `WRITE`, …); None: not told.
    """

    id: str
    operations: frozenset[str] | None


class Reader:
    """What both kinds of consumers share: reading partitions that are placed at an offset.

    Attributes:
        trouble: what the client last complained of; empty when messages come.
        is_dead: whether the client has given up for good; another has to take its place.
    """

    def __init__(self, options: Options, own: Mapping[str, Any]) -> None:
        self.trouble, self.is_dead = "", False
        # Where each partition goes on; -1: at its start.
        self._placed: dict[Partition, int] = {}
        settings = {**_DEFAULTS, **options, **_OWN, **own, "error_cb": self._note}
        with errors("Kafka consumer"):
            self._consumer = Consumer(settings, logger=_CLIENT_LOG)

    def poll(self, limit: int, wait_s: float, linger_s: float = 0.0) -> Polled:
        """At most `limit` messages: waits `wait_s` seconds at most for the first, and `linger_s` for more."""
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
        # What the call had taken before a callback took the partition away, or gave it anew, counts for nothing.
        spans = {}
        for partition in self._placed.keys() & (grouped.keys() | ends.keys()):
            start, messages = self._placed[partition], grouped.get(partition, [])
            end = max(ends.get(partition, 0), (messages[-1].offset() or 0) + 1 if messages else 0)
            if end > start:
                spans[partition] = Span(start, end, messages)
                self._placed[partition] = end
        return Polled(spans, outside & self._placed.keys())

    @property
    def positions(self) -> dict[Partition, int]:
        """Up to where each partition that is placed was read; -1: nothing yet, and it began at its own start."""
        return dict(self._placed)

    def range(self, partition: Partition) -> tuple[int, int]:
        """The first offset that a partition has, and the one after its last.

        Raises:
            StreamError: Kafka does not answer.
        """
        with errors(_shown(partition)):
            low, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), timeout=_ANSWER_S)
        return low, high

    def end(self, partition: Partition) -> int | None:
        """The offset after a partition's last, as far as the last fetch told; None: it did not yet."""
        with errors(_shown(partition)):
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return high if high >= 0 else None

    def offsets_at(self, topic: str, partitions: Iterable[int], time_us: int) -> dict[Partition, int]:
        """Per partition, the first offset whose message is not older than a time; its end when there is none.

        Raises:
            StreamError: Kafka does not answer.
        """
        asked = [TopicPartition(topic, partition, time_us // 1000) for partition in partitions]
        with errors(f"topic {topic}"):
            found = self._consumer.offsets_for_times(asked, timeout=_ANSWER_S)
        return {
            (topic, item.partition): item.offset if item.offset >= 0 else self.range((topic, item.partition))[1]
            for item in found
        }

    def close(self) -> None:
        """Leave, and close the connections; not for ever, where nobody is there to be left."""
        closing = threading.Thread(target=self._consumer.close, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    def _take_error(
        self, message: ClientMessage, partition: Partition, ends: dict[Partition, int], outside: set[Partition]
    ) -> None:
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:
            # Beyond the last message when marks of transactions follow it.
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
        # Once nobody lets the client in, it also tells that it has no broker, which says less.
        if not self.trouble or is_telling(reason):
            if self.trouble != told:
                _LOG.warning("Kafka: %s", told)
            self.trouble = told


class GroupConsumer(Reader):
    """A member of a consumer group.

    Args:
        options: feature_store.yaml's.
        group: the group's name; `group.id` in the options wins.
        topics: what to read.
        hand_over: called during a poll, before partitions go to others; what it raises, the poll raises.

    Attributes:
        topics: what it reads.
        assigned: the partitions that the group gave to this member.

    Raises:
        StreamError: the options are wrong.
    """

    def __init__(self, options: Options, group: str, topics: Sequence[str], hand_over: Callable[[], None]) -> None:
        super().__init__({**_GROUP_DEFAULTS, "group.id": group, **options}, _GROUP_OWN)
        self._hand_over = hand_over
        self.assigned: set[Partition] = set()
        self.subscribe(topics)

    @property
    def unplaced(self) -> set[Partition]:
        """Partitions that are this member's, and wait to be placed."""
        return self.assigned - self._placed.keys()

    def subscribe(self, topics: Sequence[str]) -> None:
        """Read these topics instead."""
        self.topics = list(topics)
        with errors("Kafka consumer"):
            self._consumer.subscribe(list(topics), on_assign=self._give, on_revoke=self._take, on_lost=self._lose)

    def place(self, offsets: Mapping[Partition, int | None]) -> None:
        """Go on at these offsets; None: at the partition's start. Partitions that are not this member's are left out.

        Raises:
            StreamError: Kafka refuses.
        """
        mine = [(partition, at) for partition, at in offsets.items() if partition in self.assigned]
        if not mine:
            return
        self._placed.update((partition, -1 if at is None else at) for partition, at in mine)
        with errors("Kafka consumer"):
            # Not seek(): this drops what was fetched for the old place, and works in every state of the partition.
            self._consumer.assign([TopicPartition(*p, _offset(at)) for p, at in self._placed.items()])

    def unplace(self) -> None:
        """Read nothing until partitions are placed again."""
        with errors("Kafka consumer"):
            self._consumer.assign([])
        self._placed.clear()

    def commit(self) -> None:
        """Tell Kafka how far this member is, for those who watch the group's lag. Nothing here reads it."""
        mine = [TopicPartition(*partition, at) for partition, at in self._placed.items() if at >= 0]
        if mine:
            with contextlib.suppress(KafkaException):
                self._consumer.commit(offsets=mine, asynchronous=True)

    def close(self) -> None:
        """Leave the group, so that others need not wait for the session's end, and close the connections."""
        with contextlib.suppress(KafkaException):
            # A member with a name of its own (group.instance.id) leaves by this alone, not when it is closed.
            self._consumer.unsubscribe()
            until = time.monotonic() + _LEAVE_S
            while self._consumer.memberid() and time.monotonic() < until:
                self._consumer.poll(_LEAVE_S / 100)
        super().close()

    def _give(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.assigned = {(item.topic, item.partition) for item in partitions}
        consumer.assign([])  # they are read as soon as they are placed

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
    """Reads partitions of its own choice, whatever groups do."""

    def __init__(self, options: Options) -> None:
        # The client demands a group's name even of those who join none.
        super().__init__(options, {"group.id": "feature-store-reader"})

    def place(self, offsets: Mapping[Partition, int | None]) -> None:
        """Read these partitions from these offsets on, and no others; None: from the partition's start.

        Raises:
            StreamError: Kafka refuses.
        """
        with errors("Kafka consumer"):
            self._consumer.assign([TopicPartition(*partition, _offset(at)) for partition, at in offsets.items()])
        self._placed = {partition: -1 if at is None else at for partition, at in offsets.items()}


class Sender:
    """Sends messages and sees to it that they arrive.

    Attributes:
        failure: why the client has given up for good; None: it has not. Another sender has to take its place then.
    """

    def __init__(self, options: Options) -> None:
        self.failure: Reason | None = None
        # Without a callback, the client raises a fatal error within other callbacks.
        settings = {**options, **_PRODUCER, "error_cb": self._note}
        with errors("Kafka producer"):
            self._producer = Producer(settings, logger=_CLIENT_LOG)

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: list[tuple[str, str | bytes | None]],
        told: Callable[[Reason | None], None],
    ) -> None:
        """Send one message. `told` is called once, during a later call: with None, or why it did not arrive."""

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
        """Wait for what was sent; returns how many messages have not arrived yet: none after a failure for good, when
        some will never be told of."""
        with errors("Kafka producer"), self._failures():
            left = self._producer.flush(wait_s)
        return 0 if self.failure is not None else left

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Note the error with which the client gives up. While it calls back, it raises it as a SystemError's cause."""
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


class Topics:
    """What a Kafka has.

    Args:
        options: librdkafka's.
        answer_s: how long to wait for an answer.
    """

    def __init__(self, options: Options, answer_s: float = _ANSWER_S) -> None:
        self._answer_s = answer_s
        self._noted: Reason | None = None
        with errors("Kafka"):
            settings: dict[str, Any] = {**options, "error_cb": self._note}
            self._admin = AdminClient(settings, logger=_CLIENT_LOG)

    def partitions(self, topics: Iterable[str]) -> dict[str, list[int]]:
        """The partitions of topics; topics that there are not are left out.

        Raises:
            StreamError: Kafka cannot be reached, or lets this client not in.
        """
        known = self._listed()
        return {topic: sorted(known[topic].partitions) for topic in topics if topic in known and not known[topic].error}

    def described(self, topics: Iterable[str]) -> dict[str, Described]:
        """What Kafka tells of topics; those that it tells nothing of are left out.

        Raises:
            StreamError: this client has no permission for one of them.
        """
        names = list(topics)
        if not names:
            return {}
        with errors("Kafka"):
            asked = self._admin.describe_topics(
                TopicCollection(names), include_authorized_operations=True, request_timeout=self._answer_s
            )
        found = {}
        for topic, done in asked.items():
            try:
                told = done.result(self._answer_s)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise stream_error(f"topic {topic}", _reason(error)) from error
                continue
            allowed = told.authorized_operations
            operations = None if allowed is None else frozenset(one.name for one in allowed)
            found[topic] = Described(str(told.topic_id) if told.topic_id is not None else "", operations)
        return found

    def ids(self, topics: Iterable[str]) -> dict[str, str]:
        """The ids of topics; those that Kafka does not tell are left out.

        Raises:
            StreamError: as `described`.
        """
        return {topic: told.id for topic, told in self.described(topics).items() if told.id}

    def refuse_group(self, group: str) -> None:
        """Raise a StreamError when this client may not join a consumer group."""
        with errors("Kafka"):
            asked = self._admin.describe_consumer_groups([group], request_timeout=self._answer_s)
        try:
            asked[group].result(self._answer_s)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise stream_error(f"consumer group {group}", _reason(error)) from error

    def ranges(self, partitions: Iterable[Partition]) -> dict[Partition, tuple[int, int]]:
        """Per partition the offset of its first message and that of the next one to come.

        Raises:
            StreamError: Kafka cannot be reached.
        """
        places = [TopicPartition(topic, number) for topic, number in partitions]
        found = []
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):  # type: ignore[no-untyped-call]
            with errors("Kafka"):
                asked = self._admin.list_offsets(dict.fromkeys(places, spec)) if places else {}
                found.append(
                    {(at.topic, at.partition): done.result(self._answer_s).offset for at, done in asked.items()}
                )
        first, end = found
        return {partition: (first[partition], end[partition]) for partition in first}

    def are_times_of_brokers(self, topic: str) -> bool:
        """Whether brokers, not producers, set the timestamps of a topic's messages; False when Kafka does not tell."""
        asked = ConfigResource(ResourceType.TOPIC, topic)
        try:
            found = self._admin.describe_configs([asked])[asked].result(self._answer_s)
        except KafkaException as error:
            _LOG.info("the settings of topic %s cannot be read: %s", topic, _reason(error).text)
            return False
        # Servers that speak Kafka's protocol need not know all of Kafka's settings: Tansu tells none of this name.
        setting = found.get("message.timestamp.type")
        return setting is not None and str(setting.value) == "LogAppendTime"

    def create(self, topic: str, like: str) -> None:
        """Make a topic with as many partitions as another, unless there is one.

        Raises:
            StreamError: Kafka cannot be reached, or refuses.
        """
        found = self.partitions([topic, like])
        if topic in found:
            return
        try:
            made = self._admin.create_topics([NewTopic(topic, len(found.get(like, [0])))])
            made[topic].result(self._answer_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                hint, reason = "create it, or grant CREATE on it", _reason(error)
                raise StreamError(
                    f"topic {topic}", problem=f"it cannot be created ({reason.name}: {reason.text})", hint=hint
                ) from error

    def _listed(self) -> Any:
        until = time.monotonic() + self._answer_s
        while True:
            try:
                return self._admin.list_topics(timeout=min(_LIST_S, self._answer_s)).topics
            except KafkaException as error:
                # The callback says why nobody answers, such as a wrong password.
                self._admin.poll(0.0)
                reason = self._noted or _reason(error)
                if self._noted is not None or time.monotonic() > until:
                    raise stream_error("Kafka", reason) from error

    def _note(self, error: KafkaError) -> None:
        reason = Reason(error.name(), error.str())
        if is_telling(reason):
            self._noted = reason


@contextlib.contextmanager
def errors(where: str) -> Iterator[None]:
    """Map what confluent-kafka raises."""
    try:
        yield
    except KafkaException as error:
        raise stream_error(where, _reason(error)) from error


def _reason(error: KafkaException) -> Reason:
    found = error.args[0]
    return Reason(found.name(), found.str()) if isinstance(found, KafkaError) else Reason("error", str(found))


def _offset(at: int | None) -> int:
    return OFFSET_BEGINNING if at is None or at < 0 else at


def _shown(partition: Partition) -> str:
    return f"{partition[0]}[{partition[1]}]"
