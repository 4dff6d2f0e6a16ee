"""The outputs of on-demand functions, checked against the view's schema.

Arrays of numpy's own types are checked as a whole. Values without a numpy type (a list with None, datetimes, text in an
object array) are checked one by one, as the fields of a request are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US
from feature_store.definitions.type_table import TypeTable
from feature_store.errors import DataError, TransformError
from feature_store.online.codec import object_column

if TYPE_CHECKING:
    from feature_store.definitions.dtypes import DType
    from feature_store.functions import Column

# Units of datetime64 that are no coarser than a microsecond.
_FINE_UNITS = {"us", "ns", "ps", "fs", "as"}


def fitted_output(where: str, dtype: DType, output: Any, count: int) -> Column:
    """An output as (count,) of the numpy type of `dtype`, object for String; a copy.

    Args:
        where: the name of the output, for errors.
        dtype: a scalar type.
        output: the value that the function returned.
        count: how many values there must be.

    Raises:
        TransformError: the output has another shape, a row without a value, or values of another type.
    """
    array = _as_array(where, output)
    if array.shape != (count,):
        raise TransformError(where, expected=f"an array of shape ({count},)", got=f"shape {array.shape}")
    if array.dtype.kind == "O":
        return _fitted_each(where, dtype, array)
    # numpy makes floats of an empty list, so its type says nothing.
    if array.dtype.kind not in OUTPUTS[dtype].kinds and (count or isinstance(output, np.ndarray)):
        raise TransformError(where, expected=f"values of {dtype}", got=f"an array of {array.dtype}")
    return OUTPUTS[dtype].fit(where, dtype, array)


def _as_array(where: str, output: Any) -> Column:
    if isinstance(output, np.ma.MaskedArray) and np.ma.is_masked(output):
        masked = np.flatnonzero(np.ma.getmaskarray(output))
        row = f" (first in row {masked[0]})" if output.ndim == 1 else ""
        raise TransformError(where, expected="a value in each row", got=f"{masked.size} masked values{row}")
    try:
        return np.asarray(output)
    except Exception as error:  # a list of lists of several lengths, an object that does not become an array
        raise TransformError(where, expected="an array", got=f"{type(output).__name__}: {error}") from error


def _numbers(where: str, dtype: DType, array: Column) -> Column:
    with np.errstate(over="ignore"):  # beyond float32 is inf, as numpy users expect
        return array.astype(dtype.numpy)


def _integers(where: str, dtype: DType, array: Column) -> Column:
    info = np.iinfo(dtype.numpy)
    _refuse_beyond(where, str(dtype), array, int(info.min), int(info.max))
    return array.astype(dtype.numpy)


def _times(where: str, dtype: DType, array: Column) -> Column:
    if array.dtype.kind == "M":
        empty = np.flatnonzero(np.isnat(array))
        if empty.size:
            raise TransformError(f"{where}[{empty[0]}]", expected="a time", got="NaT")
        times = array.astype("datetime64[us]")
        # A coarser unit can hold a time beyond int64 microseconds. It wraps, and the way back gives another time.
        if np.datetime_data(array.dtype)[0] not in _FINE_UNITS and (times.astype(array.dtype) != array).any():
            raise TransformError(where, expected="values of Timestamp", got="a time beyond the years 1 to 9999")
        array = times.astype(np.int64)
    _refuse_beyond(where, "Timestamp", array, MIN_TIMESTAMP_US, MAX_TIMESTAMP_US)
    return array.astype(np.int64)


def _objects(where: str, dtype: DType, array: Column) -> Column:
    return _fitted_each(where, dtype, array.astype(object))


def _values(where: str, dtype: DType, array: Column) -> Column:
    """Fit each element of a numpy array on its own."""
    values = np.empty(len(array), object)
    values[:] = list(array)  # numpy scalars, whose type tells their precision
    return _fitted_each(where, dtype, values)


def _refuse_beyond(where: str, name: str, array: Column, least: int, most: int) -> None:
    if not array.size or array.dtype.kind == "b":
        return
    # As Python integers, which do not wrap.
    for place in (int(array.argmin()), int(array.argmax())):
        value = int(array[place])
        if not least <= value <= most:
            raise TransformError(f"{where}[{place}]", expected=f"a value of {name}", got=f"{value}, which is beyond it")


def _fitted_each(where: str, dtype: DType, array: Column) -> Column:
    try:
        values = [dtype.fit(value, f"{where}[{i}]") for i, value in enumerate(array.tolist())]
        if dtype.width is None:
            return object_column([_encodable(value, f"{where}[{i}]") for i, value in enumerate(values)])
        return np.array([dtype.to_stored(value) for value in values], dtype.numpy)
    except DataError as error:
        raise error.as_kind(TransformError) from None


def _encodable(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(where, expected="text that UTF-8 can hold", got=ascii(value)) from None
    return str(value)


class Output(NamedTuple):
    """How arrays that a function returned become a column of a type.

    Attributes:
        kinds: the kinds of numpy arrays (`dtype.kind`) that fit without a check of each value's Python type.
        fit: `fit(where, dtype, array)`, for arrays of these kinds.
    """

    kinds: str
    fit: Callable[[str, DType, Column], Column]


OUTPUTS: TypeTable[Output] = TypeTable(
    {
        "Bool": Output("b", _numbers),
        "Int8": Output("biu", _integers),
        "Int16": Output("biu", _integers),
        "Int32": Output("biu", _integers),
        "Int64": Output("biu", _integers),
        "Float16": Output("biuf", _numbers),
        "Float32": Output("biuf", _numbers),
        "Float64": Output("biuf", _numbers),
        "Decimal": Output("biuf", _values),
        "String": Output("UT", _objects),
        "Bytes": Output("S", _objects),
        "Date": Output("M", _values),
        "Timestamp": Output("iuM", _times),
    }
)
