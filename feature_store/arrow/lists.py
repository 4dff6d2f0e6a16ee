"""Columns of lists of an Arrow table, for models of sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.arrow.rows import one_array
from feature_store.definitions.dtypes import DType
from feature_store.functions import Column
from feature_store.online.sequences import Ragged, aligned


def ragged_table(rows: pa.Table, types: Mapping[str, DType], names: Sequence[str]) -> Ragged:
    """Lists of several columns. A null is a list without elements.

    Raises:
        RequestError: the lengths of two columns differ.
    """
    return aligned({name: _flat(one_array(rows[name]), types[name].element) for name in names})


def _flat(lists: pa.Array, element: DType | None) -> tuple[Column, Column]:
    assert element is not None
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    elements = pc.list_flatten(lists)
    if pa.types.is_timestamp(elements.type):
        elements = elements.cast(pa.int64())
    return elements.to_numpy(zero_copy_only=False).astype(element.numpy, copy=False), lengths
