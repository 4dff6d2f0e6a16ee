"""The base of decoders whose messages become Python dicts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from feature_store.definitions.dtypes import DType
from feature_store.definitions.json_members import Typed, typed_member
from feature_store.streaming.decoder import Decoder
from feature_store.streaming.messages import Message

# The longest reason of a rejected message, in characters.
LONGEST_REASON = 200
NO_VALUE = "expected a message with a value, got no value"
Document: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Documents:
    """The members of messages that became dicts. See `Members`.

    Attributes:
        documents: the dict of each message; an empty one for a message that is rejected.
        rejected: the reason for each message that is not of the format, by place.
    """

    documents: Sequence[Document]
    rejected: Mapping[int, str]

    def typed(self, name: str, dtype: DType, unit_us: int) -> Typed:
        """See Members."""
        return typed_member([document.get(name) for document in self.documents], dtype, unit_us)


class DocumentDecoder(Decoder):
    """A decoder that turns the value of each message into a dict of Python values.

    Values may be those of JSON, and bytes, datetimes, dates and Decimals.
    """

    @abstractmethod
    def document(self, value: bytes) -> Document:
        """The dict of a message's value.

        Raises:
            ValueError: the value is not of the format. Its text is the reason in the dead letter.
        """

    def members(self, messages: Sequence[Message]) -> Documents:
        """See Decoder."""
        return self.documents([message.value() for message in messages])

    def documents(self, values: Sequence[bytes | None]) -> Documents:
        """The dicts of values, one after the other."""
        documents: list[Document] = []
        rejected: dict[int, str] = {}
        for place, value in enumerate(values):
            document: Document = {}
            try:
                if value is None:
                    raise ValueError(NO_VALUE)
                document = self.document(value)
            except ValueError as error:
                rejected[place] = str(error)[:LONGEST_REASON]
            documents.append(document)
        return Documents(documents, rejected)
