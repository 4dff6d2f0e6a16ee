"""MessagePackFormat: messages in MessagePack."""

from __future__ import annotations

from typing import ClassVar

from feature_store.definitions.message_format import MessageFormat


class MessagePackFormat(MessageFormat):
    """One MessagePack map a message. Undeclared members are ignored; a missing member is null.

    Bytes fit a field of Bytes as they are, and MessagePack's own timestamps a Timestamp.

    Example:
        >>> from feature_store import Field, Int64, KafkaSource
        >>> fields = [Field("user_id", Int64)]
        >>> clicks = KafkaSource("clicks", topic="clicks", event_timestamp="at", schema=fields, format="msgpack")
        >>> clicks.format.kind
        'msgpack'
    """

    kind: ClassVar[str] = "msgpack"
    decoder: ClassVar[str] = "feature_store.streaming.formats.message_pack_messages:MessagePackDecoder"
