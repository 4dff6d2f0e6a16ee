"""Decodes messages that are one MessagePack map each. This module is the door of msgpack."""

from __future__ import annotations

from feature_store._extras import requires_extra
from feature_store.streaming.formats.documents import Document, DocumentDecoder

with requires_extra("msgpack", "messages in MessagePack"):
    import msgpack

_AS_DATETIME = 3  # msgpack's name for how it reads timestamps


class MessagePackDecoder(DocumentDecoder):
    """The decoder of MessagePackFormat."""

    def document(self, value: bytes) -> Document:
        """See DocumentDecoder."""
        try:
            found = msgpack.unpackb(value, timestamp=_AS_DATETIME, strict_map_key=False)
        except (ValueError, OverflowError, RecursionError, msgpack.UnpackException) as error:
            raise ValueError(f"expected a MessagePack map: {error or type(error).__name__}") from None
        if type(found) is not dict:
            raise ValueError(f"expected a MessagePack map, got {found!r}")
        return found
