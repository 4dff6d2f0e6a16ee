"""Batch sources: stored rows, which batch views read and topics have as their history.

A kind of source is a subclass of BatchSource, found by its `kind` (`SOURCES`). Packages add kinds by the entry point
group `feature_store.sources`.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence, Set as AbstractSet
from typing import Annotated, Any, ClassVar

from pydantic import (
    BeforeValidator,
    Field as Attribute,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from feature_store.definitions.definition import refuse_repeats
from feature_store.definitions.field import Field, HasSchema
from feature_store.definitions.kinds import Kinds
from feature_store.errors import DefinitionError

_Column = Annotated[str, StringConstraints(min_length=1)]
# The path of a file or folder, as text; also given as a pathlib.Path.
PathText = Annotated[
    str,
    StringConstraints(min_length=1),
    BeforeValidator(lambda path: os.fspath(path) if isinstance(path, os.PathLike) else path),
]


class BatchSource(HasSchema):
    """The base of every source whose rows are read in batches.

    A subclass declares the place of its rows in attributes of JSON types without secrets, and sets the two class
    variables.

    Args:
        event_timestamp: the column with the time at which a row became true.
        created_timestamp: the column with the time at which a row was recorded. Of two rows with the same event time
            the one recorded later wins. Without this column, the event timestamp is used.
        field_mapping: column in the data -> its name here. Views, SQL and the other arguments of the source use the
            new name. Other columns keep their names.
        schema: for a table of events: the columns that aggregations and entity keys read.

    Attributes:
        kind: the name under which the class is registered, and which stored documents hold.
        reader: `module:class` of the OfflineSource that reads it. It is a string, because definitions do not load
            Arrow.

    Raises:
        DefinitionError: an argument is empty or of a wrong type, or two columns are mapped to the same name.
    """

    kind: ClassVar[str]
    reader: ClassVar[str]
    # Attributes that earlier releases did not have. Where they are empty, documents and their hashes are as before.
    later: ClassVar[tuple[str, ...]] = ("field_mapping",)

    event_timestamp: str = Attribute(min_length=1)
    created_timestamp: str | None = Attribute(default=None, min_length=1)
    field_mapping: Annotated[
        dict[_Column, _Column], BeforeValidator(lambda mapping: {} if mapping is None else mapping)
    ] = Attribute(default_factory=dict)

    def __hash__(self) -> int:
        return hash((type(self), self.name))

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the source in lists and errors. Two sources of one name read the same rows."""

    @property
    def opened_by(self) -> str:
        """The class that opens this definition. It is `reader`, unless attributes choose another one."""
        return self.reader

    def location(self) -> dict[str, Any]:
        """All attributes but the schema, as JSON types: they decide which rows the source reads, and their times."""
        return self.model_dump(mode="json", exclude={"fields"})

    @model_validator(mode="after")
    def _mapping_fits(self) -> BatchSource:
        check_field_mapping(self.field_mapping, self.event_timestamp, self.created_timestamp)
        return self

    @model_validator(mode="after")
    def _fields_fit(self) -> BatchSource:
        check_event_columns(self.fields, {self.event_timestamp, self.created_timestamp})
        return self

    @model_serializer(mode="wrap")
    def _with_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        for name in self.later:
            if not document.get(name):
                document.pop(name, None)
        return document if self.kind == SOURCES.unnamed else {"kind": self.kind} | document


SOURCES: Kinds[BatchSource] = Kinds(
    "source of kind",
    "feature_store.sources",
    {
        "arrow": "feature_store.definitions.source:ArrowSource",
        "avro": "feature_store.definitions.avro_source:AvroSource",
        "csv": "feature_store.definitions.csv_source:CsvSource",
        "delta": "feature_store.definitions.delta_source:DeltaSource",
        "iceberg": "feature_store.definitions.iceberg_source:IcebergSource",
        "json_lines": "feature_store.definitions.json_lines_source:JsonLinesSource",
        "memory": "feature_store.definitions.memory_source:InMemorySource",
        "parquet": "feature_store.definitions.source:ParquetSource",
        "sql": "feature_store.definitions.sql_source:SqlSource",
    },
    unnamed="parquet",
)


def _check_batch_source(source: Any) -> Any:
    if source is None:
        return source
    if not isinstance(source, BatchSource):
        raise ValueError("expected a batch source, such as a ParquetSource")
    return SOURCES.check(source.kind, source)


# An attribute that holds a batch source of any kind.
AnyBatchSource = Annotated[SerializeAsAny[BatchSource], BeforeValidator(_check_batch_source)]


def check_field_mapping(mapping: Mapping[str, str], *times: str | None) -> None:
    """Raise a DefinitionError if two columns get the same name, or if a timestamp is named by its name in the data."""
    repeated = [name for name, count in Counter(mapping.values()).items() if count > 1]
    if repeated:
        raise DefinitionError("field_mapping", problem=f"it gives two columns the name {repeated[0]!r}")
    for name in filter(None, times):
        if name in mapping and name not in mapping.values():
            hint = f"write {mapping[name]!r}, or leave the column out of field_mapping"
            problem = f"field_mapping renames the timestamp {name!r}, and the source names it by its old name"
            raise DefinitionError("field_mapping", problem=problem, hint=hint)


def check_event_columns(fields: Sequence[Field], times: AbstractSet[str | None]) -> None:
    """Raise a DefinitionError if columns of events are repeated, are timestamps of the source, or are not scalars."""
    refuse_repeats([field.name for field in fields], "schema")
    for i, field in enumerate(fields):
        if field.max_null_rate is not None:
            hint = "events arrive one by one: declare expectations of each value, or of a FeatureView's features"
            problem = "events take no null rate"
            raise DefinitionError(f"schema[{i}].max_null_rate", problem=problem, hint=hint)
        if field.name in times:
            raise DefinitionError(
                "schema", problem=f"{field.name!r} is a timestamp of the source, not a column of its schema"
            )
        if field.dtype.element is not None:
            raise DefinitionError(f"schema[{i}].dtype", expected="a scalar type", got=str(field.dtype))
