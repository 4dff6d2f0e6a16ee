"""The forms in which callers give entity rows and services, converted to one form: columns by name, and plain names.

A list of dicts is Feast's form. Tables may be pandas', Arrow's or Polars'. None of these libraries is imported here: a
table is recognized by its methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from feature_store.errors import RequestError

# The types of nearly all values and columns, which need no search for methods.
_USUAL = frozenset({int, float, str, bool, list, tuple, type(None), np.ndarray})
_FORMS = "{name: value or values}, a list of dicts, a DataFrame or an Arrow table"


def entity_columns(entity_rows: Any) -> Mapping[str, Any]:
    """Entity rows as `{name: value or values}`.

    Args:
        entity_rows: a mapping; a list of mappings that have the same names; an Arrow table or record batch; or a
            DataFrame of pandas or Polars, whose missing values become None.

    Raises:
        RequestError: `entity_rows` has another type, or its rows have different names.
    """
    if type(entity_rows) is dict:
        return _plain(entity_rows)
    if isinstance(entity_rows, Mapping):
        return _plain(dict(entity_rows))
    if isinstance(entity_rows, (list, tuple)):
        return _of_rows(entity_rows)
    for convert in (_of_arrow, _of_pandas, _of_polars):
        columns = convert(entity_rows)
        if columns is not None:
            return columns
    raise RequestError("entity_rows", expected=_FORMS, got=type(entity_rows).__name__)


def feature_names(service: Any) -> str | Sequence[str]:
    """A service's name or a list of feature references. The definition of a service gives its name.

    Raises:
        RequestError: `service` has another type.
    """
    if isinstance(service, (str, list, tuple)):
        return service
    if isinstance(service, np.ndarray) and service.ndim:
        return list(service.tolist())
    name = getattr(service, "name", None)
    if isinstance(name, str) and "features" in getattr(type(service), "model_fields", ()):
        return name
    if isinstance(service, Sequence):
        return service
    expected = "a service's name or a list of feature references"
    raise RequestError("service", expected=expected, got=type(service).__name__)


def _plain(columns: dict[str, Any]) -> dict[str, Any]:
    """Columns of pandas and Arrow as lists, with None for missing values. Other columns stay as they are."""
    for value in columns.values():
        if type(value) not in _USUAL:
            return {name: _values(value) for name, value in columns.items()}
    return columns


def _values(column: Any) -> Any:
    if hasattr(column, "to_pylist"):
        return column.to_pylist()
    if not hasattr(column, "isna"):
        return column
    missing = np.asarray(column.isna())
    if not missing.any() and isinstance(getattr(column, "dtype", None), np.dtype):
        return np.asarray(column)
    return [None if gone else value for value, gone in zip(column.tolist(), missing.tolist(), strict=True)]


def _of_rows(rows: Sequence[Any]) -> dict[str, list[Any]]:
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise RequestError(f"entity_rows[{i}]", expected="a dict of names and values", got=type(row).__name__)
        if row.keys() != rows[0].keys():
            expected, got = ", ".join(map(str, rows[0])), ", ".join(map(str, row)) or "nothing"
            raise RequestError(f"entity_rows[{i}]", expected=f"the names of the first row: {expected}", got=got)
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _of_arrow(table: Any) -> dict[str, Any] | None:
    if not hasattr(table, "to_pydict"):
        return None
    columns: dict[str, Any] = table.to_pydict()
    return columns


def _of_pandas(frame: Any) -> dict[str, Any] | None:
    if not hasattr(frame, "itertuples"):
        return None
    return {str(name): _values(frame[name]) for name in frame.columns}


def _of_polars(frame: Any) -> dict[str, Any] | None:
    if not hasattr(frame, "iter_rows"):
        return None
    columns: dict[str, Any] = frame.to_dict(as_series=False)
    return columns
