"""The request fields of on-demand functions, checked and converted to the arrays that functions get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.errors import DataError, RequestError
from feature_store.online.codec import object_column
from feature_store.online.entity_rows import is_scalar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_store.definitions.dtypes import DType
    from feature_store.functions import Column
    from feature_store.online.transforms import TransformInput


def request_column(wanted: TransformInput, values: Mapping[str, Any], count: int) -> Column:
    """A field of the request as its function gets it: (count,) of its numpy type; (count, length) for arrays of fixed
    size, (count,) object of lists for other arrays. A scalar stands for every row. The default stands for a missing
    field and for null.

    Raises:
        RequestError: the field is missing or null without a default, or of a wrong type.
    """
    if wanted.name not in values and wanted.default is None:
        got = ", ".join(values) or "nothing"
        raise RequestError(wanted.name, expected=f"the request field ({wanted.dtype})", got=got)
    given = values.get(wanted.name)
    if given is None or is_scalar(given):
        value = _fitted(wanted, given, wanted.name)
        if wanted.dtype.width is None:
            return _shown(wanted.dtype, [value] * count)
        return np.repeat(_shown(wanted.dtype, [value]), count, axis=0)
    fitted = [_fitted(wanted, item, f"{wanted.name}[{i}]") for i, item in enumerate(_items(given))]
    return _shown(wanted.dtype, fitted)


def request_nulls(wanted: TransformInput, values: Mapping[str, Any], count: int) -> Column:
    """(count,) bool, True where the request gives no value for the field."""
    given = values.get(wanted.name)
    if given is None or is_scalar(given):
        return np.full(count, given is None)
    return np.array([item is None for item in given], bool)


def _fitted(wanted: TransformInput, item: Any, where: str) -> Any:
    if item is None:
        if wanted.default is None:
            raise RequestError(where, expected=f"a value of {wanted.dtype}", got="null")
        return wanted.default
    try:
        return wanted.dtype.fit(item, where)
    except DataError as error:
        raise error.as_kind(RequestError) from None


def _shown(dtype: DType, values: list[Any]) -> Column:
    """Canonical values → the array that a function gets."""
    if dtype.width is None:
        # Rows that share a value would share a list.
        return object_column(values if dtype.element is None else [list(value) for value in values])
    if not dtype.scalar.is_stored_as_is:
        values = [dtype.to_stored(value) for value in values]
    array = np.array(values, dtype.numpy)
    return array if dtype.length is None else array.reshape(len(values), dtype.length)


def _items(given: Any) -> list[Any]:
    """The values of a request field as Python has them. Times are exact to the microsecond; numpy's `tolist` would make
    integers of nanoseconds."""
    if not isinstance(given, np.ndarray):
        return list(given)
    items: list[Any] = given.astype("M8[us]").tolist() if given.dtype.kind == "M" else given.tolist()
    return items
