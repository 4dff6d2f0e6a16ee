"""InMemorySource: rows of the process, for notebooks and tests."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field as Attribute

from feature_store._extras import missing_dependency
from feature_store.definitions.batch_source import BatchSource
from feature_store.definitions.field import Field


class InMemorySource(BatchSource):
    """Rows of this process: a table of Arrow, a DataFrame, or a dict of columns. It is for notebooks and tests.

    The rows are copied, and kept as long as the process lives. The registry has only the name of the rows and a hash of
    their columns, so only a process that makes the object can read its rows. Of two objects of one name, the newer
    one's rows are read.

    Args:
        table: a table, batch or reader of Arrow; a DataFrame of pandas, whose index is ignored; an object with
            `__arrow_c_stream__`, such as a DataFrame of polars; or a mapping of column names to sequences of n values.
        event_timestamp, created_timestamp, field_mapping, schema: as for BatchSource.
        name: the name of the rows. Give one, so that the definition stays the same when the rows change. Without one,
            a hash of the rows is the name.
        columns: not an argument for users: stored documents have it in place of the table.

    Raises:
        DefinitionError: the table is none of these, or Arrow has no type for a column; an argument is empty or of a
            wrong type; or two columns are mapped to the same name.
        MissingDependencyError: the extra `local` is not installed.

    Example:
        >>> from datetime import datetime
        >>> from feature_store import InMemorySource
        >>> rows = {"user_id": [1, 2], "at": [datetime(2026, 1, 1), datetime(2026, 1, 2)], "clicks": [3, 5]}
        >>> InMemorySource(rows, event_timestamp="at", name="clicks").name
        'clicks'
    """

    kind: ClassVar[str] = "memory"
    reader: ClassVar[str] = "feature_store.arrow.sources.memory:MemoryRows"

    rows_name: str = Attribute(alias="name", min_length=1)
    columns: str = Attribute(min_length=1)

    def __init__(
        self,
        table: Any = None,
        *,
        event_timestamp: str,
        created_timestamp: str | None = None,
        field_mapping: Mapping[str, str] | None = None,
        name: str | None = None,
        schema: Sequence[Field] = (),
        columns: str | None = None,
    ) -> None:
        held = None if columns is not None else _held(table, name)
        super().__init__(
            name=name if held is None else held.name,
            columns=columns if held is None else held.columns,
            event_timestamp=event_timestamp,
            created_timestamp=created_timestamp,
            field_mapping=field_mapping,
            schema=schema,
        )
        if held is not None:
            held.keep()

    @property
    def name(self) -> str:
        """The name of the rows."""
        return self.rows_name


def _held(table: Any, name: str | None) -> Any:
    """A copy of the rows of a table, as the reader of this kind of source keeps it."""
    module, _, _ = InMemorySource.reader.partition(":")
    try:
        reader = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing_dependency(error, "InMemorySource") from error
    return reader.held_rows(table, name)
