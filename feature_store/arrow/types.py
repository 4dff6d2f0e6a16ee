"""Arrow columns of every declared type, scalars and arrays: how they are checked, stored and served.

A column passes through three types:

    source         any Arrow type that can hold such values, made plain (`plain`), or encoded text (`encoded`)
    storage        checked values, with the elements that numpy and rows hold: a Timestamp is an int64
    served         the type that users get: a Timestamp is a timestamp[us, UTC] (`online.arrow.arrow_type`)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.arrow.conversions import (
    Mask,
    fit_text,
    no_mask,
    null_mask,
)
from feature_store.arrow.encoded import CsvText, JsonText
from feature_store.arrow.json_text import fit_json
from feature_store.arrow.plain import plain
from feature_store.arrow.scalars import ARROW
from feature_store.definitions.dtypes import DType
from feature_store.online.arrow import arrow_type
from feature_store.online.batch import Values
from feature_store.online.codec import object_column


def storage_type(dtype: DType) -> pa.DataType:
    """The Arrow type of checked values: times are int64 microseconds since 1970, arrays are lists."""
    storage = ARROW[dtype].storage
    return storage if dtype.element is None else pa.list_(storage)


def can_fit(found: pa.DataType, dtype: DType) -> bool:
    """Whether values of a plain type can fit a declared type."""
    if pa.types.is_null(found):
        return True
    if isinstance(found, CsvText):
        return dtype.element is None
    if isinstance(found, JsonText):
        return True
    if dtype.element is not None:
        lists = pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)
        return lists and can_fit(found.value_type, dtype.element)
    return ARROW[dtype].accepts(found)


def fit(values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
    """A column as `storage_type(dtype)`, and a mask of values that do not fit: (n,) bool. Such values are arbitrary."""
    return fit_plain(plain(values), dtype)


def fit_plain(values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
    """`fit` for a plain column."""
    if pa.types.is_null(values.type):
        return values.cast(storage_type(dtype)), no_mask(values)
    if isinstance(values.type, CsvText):
        return _fit_csv(values.storage, dtype)
    if isinstance(values.type, JsonText):
        return fit_json(values.storage, dtype, storage_type(dtype), values.type.unit_us)
    return _fit_lists(values, dtype) if dtype.element is not None else ARROW[dtype].fit(values, dtype)


def numpy_values(values: pa.Array, dtype: DType) -> Values:
    """Checked values in the form that the online store takes."""
    nulls = null_mask(values) if values.null_count else None
    if dtype.width is None:
        return Values(_objects(values, dtype), nulls)
    if dtype.element is None:
        return Values(ARROW[dtype].filled(values), nulls)
    stacked = np.zeros((len(values), dtype.size), dtype.numpy)
    there = ~nulls if nulls is not None else slice(None)
    stacked[there] = ARROW[dtype].filled(pc.list_flatten(values)).reshape(-1, dtype.size)
    return Values(stacked, nulls)


def served_values(values: pa.Array, dtype: DType) -> pa.Array:
    """Checked values in the type that users get, `online.arrow.arrow_type(dtype)`."""
    scalar = ARROW[dtype]
    if dtype.element is None:
        return scalar.served(values, dtype)
    nulls = null_mask(values)
    elements = scalar.served(pc.list_flatten(values), dtype.element)
    if dtype.length is not None:
        # Arrow's cast to a fixed-size list leaves arbitrary bytes under a null. pandas fails if they are no valid day.
        places = np.full((len(values), dtype.length), -1)
        places[~nulls] = np.arange(len(elements)).reshape(-1, dtype.length)
        elements = elements.take(pa.array(places.ravel(), mask=places.ravel() < 0))
        return pa.FixedSizeListArray.from_arrays(elements, type=arrow_type(dtype), mask=pa.array(nulls))
    lengths = pc.list_value_length(values).fill_null(0).to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), elements, mask=pa.array(nulls))


def _fit_csv(values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
    """`fit` for the text of CSV, which is parsed as a scalar type."""
    text, not_text = fit_text(values)
    fitted, bad = ARROW[dtype].fit_csv(text, dtype)
    return fitted, bad | not_text


def _fit_lists(values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
    assert dtype.element is not None
    nulls = null_mask(values)
    lengths = pc.list_value_length(values).fill_null(0).to_numpy().astype(np.int64)
    lengths[nulls] = 0
    elements, bad_elements = fit(pc.list_flatten(values), dtype.element)
    owner = np.repeat(np.arange(len(values)), lengths)
    bad = no_mask(values)
    bad[owner[bad_elements | null_mask(elements)]] = True
    if dtype.length is not None:
        bad |= ~nulls & (lengths != dtype.length)
    lengths[bad] = 0
    kept = elements.filter(pa.array(~bad[owner]))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), kept, mask=pa.array(nulls)), bad


def _objects(values: pa.Array, dtype: DType) -> np.ndarray[Any, Any]:
    if dtype.element is None or not dtype.scalar.code:
        return object_column(values.to_pylist())
    scalar = ARROW[dtype]
    return object_column([None if item.values is None else scalar.filled(item.values) for item in values])
