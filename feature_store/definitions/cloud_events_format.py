"""CloudEventsFormat: events of the CloudEvents specification."""

from __future__ import annotations

from typing import ClassVar

from feature_store.definitions.message_format import MessageFormat


class CloudEventsFormat(MessageFormat):
    """CloudEvents 1.0 in Kafka, whose data is a JSON object.

    Both modes are read, message by message. In the structured mode the value is a JSON object with the attributes and
    `data`. In the binary mode the value is the data, and headers `ce_<name>` are the attributes.

    Members of the data are fields by their names. Attributes are fields by the prefix `ce_`: `ce_id`, `ce_type`,
    `ce_source`, `ce_subject`, `ce_time`, and those of extensions. `event_timestamp="ce_time"` is the event's time.

    Example:
        >>> from feature_store import CloudEventsFormat, Field, Int64, KafkaSource, String
        >>> clicks = KafkaSource(
        ...     "clicks",
        ...     topic="clicks",
        ...     event_timestamp="ce_time",
        ...     schema=[Field("user_id", Int64), Field("ce_type", String)],
        ...     format=CloudEventsFormat(),
        ... )
        >>> clicks.format.kind
        'cloudevents'
    """

    kind: ClassVar[str] = "cloudevents"
    decoder: ClassVar[str] = "feature_store.streaming.formats.cloud_events_messages:CloudEventsDecoder"
