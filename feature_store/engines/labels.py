"""What labels must have for a join: a time in every row, and the entity keys of the views. Shared by all engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from feature_store.definitions.dtypes import Timestamp
from feature_store.engines.rows import fit, refuse_column, shown, storage_type
from feature_store.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from feature_store.definitions.dtypes import DType


def refuse_labels(schema: pa.Schema, where: str, wanted: Mapping[str, DType], timestamp: str) -> None:
    """Raise a DataError unless there are columns of times, of entity keys and of whatever else is wanted."""
    for name, dtype in {**wanted, timestamp: Timestamp}.items():
        refuse_column(f"{where}: column {name}", name, dtype, schema)


def label_times(values: pa.ChunkedArray, where: str, *, first: int = 0) -> NDArray[np.int64]:
    """The times of labels in microseconds.

    Args:
        values: the column; `where` names it.
        first: the number of its first row, for errors.

    Raises:
        DataError: a label has no time, or one outside of the years 1 to 9999.
    """
    times = label_values(values, Timestamp, where, first=first)
    if times.null_count:
        row = first + int(np.flatnonzero(times.is_null().to_numpy())[0])
        raise DataError(f"{where}, row {row}", expected="a time", got="null", hint="leave out labels without a time")
    microseconds: NDArray[np.int64] = times.to_numpy()
    return microseconds


def label_values(values: pa.ChunkedArray, dtype: DType, where: str, *, first: int = 0) -> pa.ChunkedArray:
    """A column of labels as `rows.storage_type`; nulls stay.

    Raises:
        DataError: a value is not of the type.
    """
    chunks: list[Any] = []
    for chunk in values.chunks:
        fitted, bad = fit(chunk, dtype)
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            raise DataError(f"{where}, row {first + i}", expected=str(dtype), got=shown(chunk[i]))
        chunks.append(fitted)
        first += len(chunk)
    return pa.chunked_array(chunks, storage_type(dtype))
