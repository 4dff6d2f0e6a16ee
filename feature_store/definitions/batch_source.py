"""Batch sources: rows at rest, which views read in batches and streams have as their history.

A kind of source is a class of its own, found by its `kind`. Packages add kinds by the entry point group
`feature_store.sources`: the entry's name is the kind, its object the subclass of BatchSource.
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence, Set as AbstractSet
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import (
    BeforeValidator,
    Field as Attribute,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from feature_store.definitions.definition import refuse_repeats
from feature_store.definitions.field import Field, HasSchema
from feature_store.errors import DefinitionError, did_you_mean

ENTRY_POINTS = "feature_store.sources"
# A document without a kind is of this one: it is the only kind that documents had before they had kinds.
UNNAMED_KIND = "parquet"
_BUILT_IN = {"parquet": "feature_store.definitions.source:ParquetSource"}


class BatchSource(HasSchema):
    """The base of every source whose rows are read in batches.

    A subclass declares where its rows are, in attributes of JSON types without secrets, and sets the two class
    variables.

    Args:
        event_timestamp: the column that says when a row became true.
        created_timestamp: the column that says when a row was recorded; of two rows with the same event time the
            one recorded later wins. Without it, a row counts as recorded when it became true.
        schema: of a table of events that a view aggregates: the columns that its aggregations and entity keys take.

    Attributes:
        kind: the name under which the class is registered; stored documents hold it.
        reader: `module:class` of the OfflineSource that reads it. It is a text because definitions do not load Arrow.

    Raises:
        DefinitionError: an argument is empty or of a wrong type.
    """

    kind: ClassVar[str]
    reader: ClassVar[str]

    event_timestamp: str = Attribute(min_length=1)
    created_timestamp: str | None = Attribute(default=None, min_length=1)

    @property
    @abstractmethod
    def name(self) -> str:
        """What lists and errors call the source. Two sources of one name read the same rows."""

    def location(self) -> dict[str, Any]:
        """Which rows the source reads, and what their times are, as JSON types: all attributes but the schema."""
        return self.model_dump(mode="json", exclude={"fields"})

    @model_validator(mode="after")
    def _fields_fit(self) -> BatchSource:
        check_event_columns(self.fields, {self.event_timestamp, self.created_timestamp})
        return self

    @model_serializer(mode="wrap")
    def _with_kind(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        return document if self.kind == UNNAMED_KIND else {"kind": self.kind} | document


def batch_source(document: Mapping[str, Any]) -> BatchSource:
    """The source of a stored document.

    Raises:
        DefinitionError: no installed package registers its kind.
    """
    about = dict(document)
    return source_class(about.pop("kind", UNNAMED_KIND))(**about)


@cache
def source_class(kind: str) -> type[BatchSource]:
    """The class that is registered for a kind.

    Raises:
        DefinitionError: there is none.
    """
    if kind in _BUILT_IN:
        module, _, name = _BUILT_IN[kind].partition(":")
        found: type[BatchSource] = getattr(importlib.import_module(module), name)
        return found
    from importlib.metadata import entry_points

    registered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if kind not in registered:
        kinds = [*_BUILT_IN, *registered]
        raise DefinitionError(
            f"source of kind {kind!r}",
            problem=f"no installed package registers it under the entry point group {ENTRY_POINTS}",
            hint=did_you_mean(kind, kinds) or f"install the package that has it; kinds are {', '.join(sorted(kinds))}",
        )
    loaded: type[BatchSource] = registered[kind].load()
    return loaded


def _check_batch_source(source: Any) -> Any:
    if source is None:
        return source
    if not isinstance(source, BatchSource):
        raise ValueError("expected a batch source, such as a ParquetSource")
    known = source_class(source.kind)
    if known is not type(source):
        hint = f"register {type(source).__name__} under a kind of its own, in the group {ENTRY_POINTS}"
        problem = f"its kind {source.kind!r} is registered for {known.__module__}.{known.__name__}"
        raise DefinitionError(type(source).__name__, problem=problem, hint=hint)
    return source


# An attribute that holds a batch source of any kind.
AnyBatchSource = Annotated[SerializeAsAny[BatchSource], BeforeValidator(_check_batch_source)]


def check_event_columns(fields: Sequence[Field], times: AbstractSet[str | None]) -> None:
    """Raise a DefinitionError when columns of events are repeated, are their times, or hold no scalars."""
    refuse_repeats([field.name for field in fields], "schema")
    for i, field in enumerate(fields):
        if field.max_null_rate is not None:
            hint = "events come one by one: say what is expected of each, or of the features of a FeatureView"
            got = f"{field.max_null_rate:g}"
            raise DefinitionError(f"schema[{i}].max_null_rate", expected="none for events", got=got, hint=hint)
        if field.name in times:
            got = f"{field.name!r}, which is a timestamp of the source"
            raise DefinitionError("schema", expected="columns of their own", got=got)
        if field.dtype.element is not None:
            raise DefinitionError(f"schema[{i}].dtype", expected="a scalar type", got=str(field.dtype))
