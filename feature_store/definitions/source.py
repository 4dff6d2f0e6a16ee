"""Sources: where the values of views come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field as Attribute
from pydantic import model_validator

from feature_store.definitions.definition import Definition, Model, refuse_repeats
from feature_store.definitions.field import Field

if TYPE_CHECKING:
    from collections.abc import Sequence


class ParquetSource(Model):
    """Parquet data: a file, a folder of files, or a glob.

    Args:
        path: relative to the folder of feature_store.yaml, or absolute.
        event_timestamp: the column that says when a row became true.
        created_timestamp: the column that says when a row was written; of two rows with the same event time the
            one created later wins. Without it, a row counts as created when it became true.

    Raises:
        DefinitionError: an argument is empty or of a wrong type.
    """

    path: str = Attribute(min_length=1)
    event_timestamp: str = Attribute(min_length=1)
    created_timestamp: str | None = Attribute(default=None, min_length=1)

    def __init__(self, path: str, *, event_timestamp: str, created_timestamp: str | None = None) -> None:
        super().__init__(path=path, event_timestamp=event_timestamp, created_timestamp=created_timestamp)


class RequestSource(Definition):
    """Fields that come with each request, for on-demand views.

    Args:
        name: the source's name.
        schema: the fields that a request must carry.
        description, owner, tags: for the people who browse the registry.

    Raises:
        DefinitionError: a field is repeated or there is none.
    """

    fields: tuple[Field, ...] = Attribute(alias="schema", min_length=1)

    def __init__(self, name: str, schema: Sequence[Field], **about: Any) -> None:
        super().__init__(name=name, schema=schema, **about)

    @model_validator(mode="after")
    def _names_are_unique(self) -> RequestSource:
        refuse_repeats([field.name for field in self.fields], "schema")
        return self
