"""Parses JSON values as the declared types, by the rules for members of events (`definitions/json_members.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from feature_store.arrow.conversions import Mask
from feature_store.definitions.dtypes import DType
from feature_store.definitions.json_members import typed_member


def encoded_values(values: Sequence[Any]) -> pa.StringArray:
    """Decoded values as the text of JSON. None is null."""
    return pa.array([None if value is None else orjson.dumps(value) for value in values], pa.string())


def plain_text(texts: pa.StringArray) -> pa.StringArray:
    """Strings without quotes and escapes; other values, and text that is not JSON, as they are."""
    values = [text if text is None or text[:1] != '"' else orjson.loads(text) for text in texts.to_pylist()]
    return pa.array(values, pa.string())


def fit_json(texts: pa.StringArray, dtype: DType, storage: pa.DataType, unit_us: int) -> tuple[pa.Array, Mask]:
    """The values of JSON texts as a storage type, and a mask of those that do not fit: (n,) bool.

    Args:
        texts: JSON texts. Text that is not JSON does not fit.
        dtype: the declared type.
        storage: the Arrow type of checked values.
        unit_us: the unit of numeric times, in microseconds.
    """
    values, malformed = _decoded(texts)
    if dtype.element is not None:
        fitted, bad = _fit_lists(values, dtype, storage, unit_us)
    else:
        fitted, bad = _fit_scalars(values, dtype, storage, unit_us)
    bad[malformed] = True
    return fitted, bad


def _decoded(texts: pa.StringArray) -> tuple[list[Any], list[int]]:
    """The decoded values, and the places of texts that are not JSON. Null is None."""
    listed = texts.to_pylist()
    try:
        values: list[Any] = orjson.loads(f"[{','.join('null' if text is None else text for text in listed)}]")
    except orjson.JSONDecodeError:
        pass
    else:
        return values, []
    values, malformed = [], []
    for i, text in enumerate(listed):
        try:
            values.append(None if text is None else orjson.loads(text))
        except orjson.JSONDecodeError:
            values.append(None)
            malformed.append(i)
    return values, malformed


def _fit_scalars(values: list[Any], dtype: DType, storage: pa.DataType, unit_us: int) -> tuple[pa.Array, Mask]:
    found, nulls, reasons = typed_member(values, dtype, unit_us)
    bad = np.zeros(len(values), bool)
    bad[list(reasons)] = True
    if found.dtype == np.float16:  # its storage is float32
        found = found.astype(np.float32)
    return pa.array(found, storage, mask=nulls | bad), bad


def _fit_lists(values: list[Any], dtype: DType, storage: pa.DataType, unit_us: int) -> tuple[pa.Array, Mask]:
    assert dtype.element is not None
    nulls = np.array([value is None for value in values], bool)
    bad = np.array([value is not None and not _is_list(value, dtype.length) for value in values], bool)
    lists = [[] if missing else value for value, missing in zip(values, nulls | bad, strict=True)]
    lengths = np.array([len(value) for value in lists], np.int64)
    elements = [element for value in lists for element in value]
    fitted, bad_elements = _fit_scalars(elements, dtype.element, storage.value_type, unit_us)
    owner = np.repeat(np.arange(len(values)), lengths)
    bad[owner[bad_elements | np.array([element is None for element in elements], bool)]] = True
    lengths[bad] = 0
    kept = fitted.filter(pa.array(~bad[owner]))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), kept, mask=pa.array(nulls | bad)), bad


def _is_list(value: Any, length: int | None) -> bool:
    return isinstance(value, list) and length in (None, len(value))
