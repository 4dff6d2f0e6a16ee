"""Decodes messages that are one JSON object each. Undeclared members are ignored; a missing member is null."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from feature_store.streaming.formats.documents import Document, DocumentDecoder, Documents


class JsonDecoder(DocumentDecoder):
    """The decoder of JsonFormat."""

    def documents(self, values: Sequence[bytes | None]) -> Documents:
        """See DocumentDecoder. It takes one step for all values, unless one of them is bad."""
        try:
            # Each message is parsed alone. In one joined array, a message such as `{},{}` would count as two.
            documents = [orjson.loads(value) for value in values]  # type: ignore[arg-type]
            if set(map(type, documents)) <= {dict}:
                return Documents(documents, {})
        except orjson.JSONDecodeError:
            pass
        return super().documents(values)

    def document(self, value: bytes) -> Document:
        """See DocumentDecoder."""
        try:
            found = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"expected a JSON object: {error}") from None
        if type(found) is not dict:
            raise ValueError(f"expected a JSON object, got {found!r}")
        return found
