"""Sequences: several columns of the latest events of an entity, aligned, for models of sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence as Items
from datetime import timedelta
from typing import Any

from feature_store.definitions.aggregated import check_categories
from feature_store.definitions.aggregation import Aggregation
from feature_store.definitions.definition import Name
from feature_store.definitions.dtypes import DType, Int32
from feature_store.definitions.field import Field
from feature_store.definitions.validation import as_list, shown
from feature_store.errors import DefinitionError
from feature_store.functions.sequence import EVENT_TIMESTAMP


class Sequence:
    """Several columns of the n latest events of an entity, newest first.

    It stands among the aggregations of a view, and makes a feature of each column: `recent_item_id`, `recent_price`.
    With a window, `recent_item_id_7d`. Element i of all its features comes from the same event. The features are lists
    of equal lengths, and `padded` makes matrices of them.

    Args:
        name: the start of the features' names.
        columns: columns of the source's schema, and `event_timestamp` for the time of each event. An event counts if
            all of them have a value.
        n: how many events, from 1 to 500.
        window: how old events may be; None for all events. The window begins exactly at this age.
        filter: which events count, such as `action == 'click'`.
        categories: for each column of texts the list of its texts. Its feature has the place of each text in this list,
            from 1, and 0 for any other text. Booleans and integers may have categories, too.
        distinct: one of the columns. Of the events with the same value of this column, only the newest counts.

    Raises:
        DefinitionError: an argument is not allowed; the error names it and says why.

    Example:
        >>> from feature_store import Sequence
        >>> recent = Sequence("recent", columns=["item_id", "event_timestamp"], n=50, distinct="item_id")
        >>> recent.columns
        ('item_id', 'event_timestamp')
    """

    def __init__(
        self,
        name: str,
        *,
        columns: Items[str],
        n: int,
        window: timedelta | None = None,
        filter: str | None = None,
        categories: Mapping[str, Items[Any]] | None = None,
        distinct: str | None = None,
    ) -> None:
        self._where = f"Sequence({shown(name)})"
        self.name: Name = name
        self.columns = tuple(as_list(f"{self._where}.columns", "columns", columns))
        self.n, self.window, self.filter, self.distinct = n, window, filter, distinct
        self.categories = {column: list(listed) for column, listed in (categories or {}).items()}
        stored = self._stored
        if len(set(self.columns)) < len(self.columns):
            raise DefinitionError(f"{self._where}.columns", problem="a column occurs twice")
        if not stored:
            raise DefinitionError(f"{self._where}.columns", expected=f"a column beside {EVENT_TIMESTAMP}", got="none")
        for column in self.categories:
            if column not in stored:
                expected = f"one of the columns: {', '.join(map(str, stored))}"
                raise DefinitionError(f"{self._where}.categories", expected=expected, got=shown(column))
        if distinct is not None and distinct not in stored:
            expected = f"one of the columns: {', '.join(map(str, stored))}"
            raise DefinitionError(f"{self._where}.distinct", expected=expected, got=shown(distinct))

    def __repr__(self) -> str:
        return f"Sequence({self.name!r}, columns={list(self.columns)!r}, n={self.n!r})"

    @property
    def _stored(self) -> list[str]:
        return [column for column in self.columns if column != EVENT_TIMESTAMP]

    def aggregations(self, fields: Mapping[str, DType]) -> list[Aggregation]:
        """An aggregation of each column. All of them need the same cell.

        Args:
            fields: the types of the source's columns.
        """
        types = [(column, str(self._type(column, fields))) for column in self._stored]
        return [
            Aggregation(
                self._stored[0],
                "sequence",
                windows=["lifetime" if self.window is None else self.window],
                name=f"{self.name}_{column}",
                filter=self.filter,
                n=self.n,
                columns=types,
                serves=column,
                categories_of=self.categories or None,
                distinct=self.distinct,
            )
            for column in self.columns
        ]

    def _type(self, column: Any, fields: Mapping[str, DType]) -> DType:
        where = f"{self._where}.columns"
        if column not in fields:
            expected = f"a column of the events, or {EVENT_TIMESTAMP}: {', '.join(fields)}"
            raise DefinitionError(where, expected=expected, got=shown(column))
        dtype = fields[column]
        if column in self.categories:
            check_categories(f"{self._where}.categories[{column!r}]", dtype, self.categories[column])
            return Int32
        if dtype.width is None or dtype.element is not None:
            hint = f"list the texts: categories={{{column!r}: [...]}}" if dtype.element is None else ""
            raise DefinitionError(where, expected="columns of fixed width", got=f"{column}: {dtype}", hint=hint)
        return dtype


def with_sequences(where: str, aggregations: Any, columns: Items[Field]) -> list[Any]:
    """Aggregations, with those of each Sequence in its place."""
    types = {field.name: field.dtype for field in columns}
    made: list[Any] = []
    for one in as_list(where, "aggregations", aggregations):
        made += one.aggregations(types) if isinstance(one, Sequence) else [one]
    return made
