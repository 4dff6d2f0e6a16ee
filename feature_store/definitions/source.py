"""The sources that this library reads. `batch_source.py` is their base and the seam for others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field as Attribute,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from feature_store.definitions.batch_source import AnyBatchSource, BatchSource, PathText, check_event_columns
from feature_store.definitions.definition import Definition, refuse_repeats
from feature_store.definitions.expressions.derived import Derivation
from feature_store.definitions.field import Field, HasSchema, refuse_expectations
from feature_store.definitions.file_url import check_file_url
from feature_store.definitions.message_format import FORMATS, AnyMessageFormat, JsonFormat, MessageFormat
from feature_store.definitions.message_parts import check_metadata

# The path or URL of files. A URL must not hold a password, since the registry stores it.
FilePath = Annotated[PathText, AfterValidator(lambda path: check_file_url("path", path))]


class FileSource(BatchSource):
    """The base of sources of files: a file, a folder of files, or a glob, or a URL of these."""

    path: FilePath

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        event_timestamp: str,
        created_timestamp: str | None = None,
        field_mapping: Mapping[str, str] | None = None,
        schema: Sequence[Field] = (),
        **options: Any,
    ) -> None:
        super().__init__(
            path=path,
            event_timestamp=event_timestamp,
            created_timestamp=created_timestamp,
            field_mapping=field_mapping,
            schema=schema,
            **options,
        )

    @property
    def name(self) -> str:
        """The path."""
        return self.path


class ParquetSource(FileSource):
    """Parquet data: a file, a folder of files, or a glob.

    Args:
        path: absolute, or relative to the folder of feature_store.yaml; or a URL, such as
            `s3://bucket/orders/*.parquet`, whose credentials are in the environment.
        event_timestamp, created_timestamp, field_mapping, schema: as for BatchSource.
        partitioning: `hive`: the names of the folders below the path are columns too, as in `day=2026-01-05/`. Their
            values are parsed as the declared types. None: the names of folders have no meaning.

    Raises:
        DefinitionError: an argument is empty or of a wrong type, or two columns are mapped to the same name.

    Example:
        >>> from feature_store import ParquetSource
        >>> ParquetSource("orders/*.parquet", event_timestamp="at", created_timestamp="recorded_at").path
        'orders/*.parquet'
    """

    kind: ClassVar[str] = "parquet"
    reader: ClassVar[str] = "feature_store.arrow.sources.parquet.rows:ParquetRows"
    later: ClassVar[tuple[str, ...]] = ("field_mapping", "partitioning")

    partitioning: Literal["hive"] | None = None

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        event_timestamp: str,
        created_timestamp: str | None = None,
        field_mapping: Mapping[str, str] | None = None,
        schema: Sequence[Field] = (),
        partitioning: str | None = None,
    ) -> None:
        super().__init__(
            path,
            event_timestamp=event_timestamp,
            created_timestamp=created_timestamp,
            field_mapping=field_mapping,
            schema=schema,
            partitioning=partitioning,
        )

    @property
    def opened_by(self) -> str:
        """See BatchSource."""
        return self.reader if self.partitioning is None else "feature_store.arrow.sources.lake.folders:PartitionedRows"


class ArrowSource(FileSource):
    """Arrow IPC files, also called Feather files: a file, a folder of `.arrow` and `.feather` files, or a glob.

    A range of times is read by record batches: batches without rows in it are left out. Write batches of at most
    100,000 rows, since each one is read whole.

    Args:
        path: absolute, or relative to the folder of feature_store.yaml; or a URL, such as
            `s3://bucket/orders/*.parquet`, whose credentials are in the environment.
        event_timestamp, created_timestamp, field_mapping, schema: as for BatchSource.

    Raises:
        DefinitionError: an argument is empty or of a wrong type, or two columns are mapped to the same name.

    Example:
        >>> from feature_store import ArrowSource
        >>> ArrowSource("orders/*.arrow", event_timestamp="at").path
        'orders/*.arrow'
    """

    kind: ClassVar[str] = "arrow"
    reader: ClassVar[str] = "feature_store.arrow.sources.arrow_files:ArrowRows"


class KafkaSource(HasSchema, Definition):
    """Events on a Kafka topic: one event a message.

    Args:
        name: the source's name.
        topic: the topic.
        event_timestamp: the member with the time of the event: ISO 8601, a number in `timestamp_unit`, or a timestamp
            of the format.
        schema: the members that aggregations and entity keys read; others are ignored.
        timestamp_unit: the unit of numeric event times, counted from 1970.
        history: a batch source of past events of the topic, for backfills and training sets.
        format: how the value of a message is encoded: `JsonFormat`, `AvroFormat`, or the name of a format that needs no
            arguments.
        derive: further columns of the events: name -> expression, such as `{"spend": "price * quantity"}`. Aggregations
            and their filters read them like members of the schema. docs/expressions.md describes the language.
        metadata: fields that are not in the value but in the message around it: `{"user_id": "key", "trace":
            "headers.trace"}`. Parts are `key`, `headers.<name>`, `topic`, `partition`, `offset` and `timestamp`, the
            time of Kafka. Keys and headers are read as text, for a field of Bytes as they are.
        description, owner, tags: for the people who browse the registry.

    Raises:
        DefinitionError: an argument is not allowed; the error names it and says why.

    Example:
        >>> from feature_store import Field, Int64, KafkaSource, String
        >>> clicks = KafkaSource(
        ...     "clicks", topic="clicks", event_timestamp="at", schema=[Field("user_id", Int64), Field("page", String)]
        ... )
        >>> clicks.topic
        'clicks'
    """

    topic: str = Attribute(min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")
    event_timestamp: str = Attribute(min_length=1)
    timestamp_unit: Literal["s", "ms", "us"] = "ms"
    history: AnyBatchSource | None = None
    format: AnyMessageFormat = Attribute(default_factory=JsonFormat)
    derive: dict[str, str] = Attribute(default_factory=dict)
    metadata: dict[str, str] = Attribute(default_factory=dict)
    fields: tuple[Field, ...] = Attribute(alias="schema", min_length=1)

    def __init__(
        self,
        name: str,
        *,
        topic: str,
        event_timestamp: str,
        schema: Sequence[Field],
        timestamp_unit: str = "ms",
        history: BatchSource | None = None,
        format: MessageFormat | str = FORMATS.unnamed,
        derive: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        **about: Any,
    ) -> None:
        super().__init__(
            name=name,
            topic=topic,
            event_timestamp=event_timestamp,
            schema=schema,
            timestamp_unit=timestamp_unit,
            history=history,
            format=format,
            derive={} if derive is None else derive,
            metadata={} if metadata is None else metadata,
            **about,
        )

    @model_validator(mode="after")
    def _parts_fit(self) -> KafkaSource:
        check_event_columns(self.fields, {self.event_timestamp})
        self.derivation.types  # noqa: B018 - raises the errors of the expressions
        check_metadata(self.metadata, self.fields, self.event_timestamp)
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Documents of sources that state none of the later arguments are as before, and so are their hashes."""
        document: dict[str, Any] = handler(self)
        if self.format.kind == FORMATS.unnamed:
            document.pop("format", None)
        for later in ("derive", "metadata"):
            if not document[later]:
                document.pop(later)
        return document

    @property
    def derivation(self) -> Derivation:
        """The derived columns."""
        return Derivation.of(self.derive, {field.name: field.dtype for field in self.fields}, self.event_timestamp)

    @property
    def columns(self) -> tuple[Field, ...]:
        """The columns of the events: the fields, and the derived columns."""
        return (*self.fields, *(Field(name, dtype) for name, dtype in self.derivation.types.items()))

    def field(self, name: str) -> Field | None:
        """The field of that name, or None."""
        return next((field for field in self.fields if field.name == name), None)


class RequestSource(HasSchema, Definition):
    """Fields that the caller gives with each request, for on-demand views.

    Args:
        name: the source's name.
        schema: the fields that a request must carry.
        description, owner, tags: for the people who browse the registry.

    Raises:
        DefinitionError: a field is repeated or there is none.

    Example:
        >>> from feature_store import Field, Float32, RequestSource
        >>> RequestSource("basket", [Field("budget", Float32)]).name
        'basket'
    """

    fields: tuple[Field, ...] = Attribute(alias="schema", min_length=1)

    def __init__(self, name: str, schema: Sequence[Field], **about: Any) -> None:
        super().__init__(name=name, schema=schema, **about)

    @model_validator(mode="after")
    def _names_are_unique(self) -> RequestSource:
        refuse_repeats([field.name for field in self.fields], "schema")
        refuse_expectations(self.fields, "schema")
        return self
