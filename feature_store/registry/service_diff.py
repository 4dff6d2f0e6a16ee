"""The changes of a service's columns: their names, features, types and places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.graph import graph_of
from feature_store.definitions.service import FeatureService
from feature_store.registry.changes import ColumnChange


class Column(NamedTuple):
    """A column of a service.

    Attributes:
        place: 1 for the first column of the matrix.
        feature: `view:feature`.
        dtype: its type.
    """

    place: int
    feature: str
    dtype: str


def columns_of(definitions: DefinitionSet, service: str) -> dict[str, Column]:
    """The columns of a service by name, including those that a prune plan drops.

    Raises:
        NotFoundError: there is no such service.
    """
    return {
        column.name: Column(place, column.reference, str(column.field.dtype))
        for place, column in enumerate(graph_of(definitions).columns(service), 1)
    }


def column_changes(before: dict[str, Column], after: dict[str, Column]) -> list[ColumnChange]:
    """The columns that differ. A column has moved if its place among the columns that stay is another."""
    moved = _moved([name for name in before if name in after], [name for name in after if name in before])
    changes = []
    for name in dict.fromkeys([*before, *after]):
        was, becomes = before.get(name), after.get(name)
        if was is None or becomes is None or was[1:] != becomes[1:] or name in moved:
            changes.append(ColumnChange(f"columns.{name}", _document(was), _document(becomes)))
    return changes


def second_version(service: FeatureService, name: str) -> str:
    """The Python code that defines a service under another name."""
    parts = []
    for projection in service.features:
        listed = ", ".join(f'"{feature}"' for feature, _ in projection.columns)
        renamed = ", ".join(f'"{feature}": "{to}"' for feature, to in projection.columns if feature != to)
        parts.append(f"{projection.view}[[{listed}]]" + (f".rename({{{renamed}}})" if renamed else ""))
    return f'FeatureService("{name}", features=[{", ".join(parts)}])'


def _document(column: Column | None) -> dict[str, Any] | None:
    return None if column is None else {"column": column.place, "feature": column.feature, "dtype": column.dtype}


def _moved(before: Sequence[str], after: Sequence[str]) -> set[str]:
    return {name for name, other in zip(after, before, strict=True) if name != other}
