"""Topics, partitions, offsets and permissions of a Kafka cluster. Only this module and kafka.py use confluent-kafka."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from feature_store._extras import requires_extra
from feature_store.errors import StreamError
from feature_store.streaming.kafka import ANSWER_S, CLIENT_LOG, Options, errors, reason_of
from feature_store.streaming.kafka_errors import Reason, is_telling, stream_error
from feature_store.streaming.messages import Partition

with requires_extra("kafka", "streaming"):
    from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
    from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType  # type: ignore[attr-defined]


_LIST_S = 2.0
_LOG = logging.getLogger("feature_store.kafka")


class Described(NamedTuple):
    """A topic, as Kafka describes it.

    Attributes:
        id: the topic's id. It changes if the topic is deleted and created again. Empty: Kafka does not report it.
        operations: the operations that this client may perform (`READ`, `WRITE`, …). None: Kafka does not report them.
    """

    id: str
    operations: frozenset[str] | None


class Topics:
    """The topics, partitions and offsets of a Kafka cluster.

    Args:
        options: the options of librdkafka.
        answer_s: seconds to wait for an answer.

    Raises:
        StreamError: an option is invalid.
    """

    def __init__(self, options: Options, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._noted: Reason | None = None
        with errors("Kafka"):
            settings: dict[str, Any] = {**options, "error_cb": self._note}
            self._admin = AdminClient(settings, logger=CLIENT_LOG)

    def partitions(self, topics: Iterable[str]) -> dict[str, list[int]]:
        """The numbers of topics' partitions. Topics that do not exist are left out.

        Raises:
            StreamError: Kafka cannot be reached, or refuses this client.
        """
        known = self._listed()
        return {topic: sorted(known[topic].partitions) for topic in topics if topic in known and not known[topic].error}

    def described(self, topics: Iterable[str]) -> dict[str, Described]:
        """The descriptions of topics. Topics that Kafka does not describe are left out.

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
                    raise stream_error(f"topic {topic}", reason_of(error)) from error
                continue
            allowed = told.authorized_operations
            operations = None if allowed is None else frozenset(one.name for one in allowed)
            found[topic] = Described(str(told.topic_id) if told.topic_id is not None else "", operations)
        return found

    def ids(self, topics: Iterable[str]) -> dict[str, str]:
        """The ids of topics. A topic whose id Kafka does not report is left out.

        Raises:
            StreamError: this client has no permission for one of the topics.
        """
        return {topic: told.id for topic, told in self.described(topics).items() if told.id}

    def refuse_group(self, group: str) -> None:
        """Check that this client may join a consumer group.

        Raises:
            StreamError: it has no permission.
        """
        with errors("Kafka"):
            asked = self._admin.describe_consumer_groups([group], request_timeout=self._answer_s)
        try:
            asked[group].result(self._answer_s)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise stream_error(f"consumer group {group}", reason_of(error)) from error

    def ranges(self, partitions: Iterable[Partition]) -> dict[Partition, tuple[int, int]]:
        """By partition, the offset of its first message and the offset after its last message.

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
        """Whether brokers, not producers, set the timestamps of a topic's messages. False if that is unknown."""
        asked = ConfigResource(ResourceType.TOPIC, topic)
        try:
            found = self._admin.describe_configs([asked])[asked].result(self._answer_s)
        except KafkaException as error:
            _LOG.info("the settings of topic %s cannot be read: %s", topic, reason_of(error).text)
            return False
        # Other servers that implement Kafka's protocol may lack this setting; Tansu does.
        setting = found.get("message.timestamp.type")
        return setting is not None and str(setting.value) == "LogAppendTime"

    def create(self, topic: str, like: str) -> None:
        """Create a topic with as many partitions as the topic `like`, unless it exists.

        Raises:
            StreamError: Kafka cannot be reached, or refuses to create the topic.
        """
        found = self.partitions([topic, like])
        if topic in found:
            return
        try:
            made = self._admin.create_topics([NewTopic(topic, len(found.get(like, [0])))])
            made[topic].result(self._answer_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                hint, reason = "create it, or grant CREATE on it", reason_of(error)
                raise StreamError(
                    f"topic {topic}", problem=f"it cannot be created ({reason.name}: {reason.text})", hint=hint
                ) from error

    def _listed(self) -> Any:
        until = time.monotonic() + self._answer_s
        while True:
            try:
                return self._admin.list_topics(timeout=min(_LIST_S, self._answer_s)).topics
            except KafkaException as error:
                # The error callback gets the reason for the missing answer, such as a wrong password.
                self._admin.poll(0.0)
                reason = self._noted or reason_of(error)
                if self._noted is not None or time.monotonic() > until:
                    raise stream_error("Kafka", reason) from error

    def _note(self, error: KafkaError) -> None:
        reason = Reason(error.name(), error.str())
        if is_telling(reason):
            self._noted = reason
