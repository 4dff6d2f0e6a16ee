"""Checks of label rows, for all engines: the required columns exist, and every row has a time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.arrow.reading import reading
from feature_store.arrow.rows import refuse_column, shown
from feature_store.arrow.types import fit, storage_type
from feature_store.definitions.dtypes import DType, Timestamp
from feature_store.errors import DataError

Places = NDArray[np.int64]

_LABEL, _RECORD = "place of label", "place of record"


def refuse_labels(schema: pa.Schema, where: str, wanted: Mapping[str, DType], timestamp: str) -> None:
    """Check that label rows have the columns that a join needs.

    Args:
        schema: the schema of the label rows.
        where: names them in an error.
        wanted: the join keys and request fields, with types.
        timestamp: the column of the times.

    Raises:
        DataError: a column is missing, occurs twice, or has a type that cannot fit.
    """
    for name, dtype in {**wanted, timestamp: Timestamp}.items():
        refuse_column(f"{where}: column {name}", name, dtype, schema)


def refuse_unstorable(schema: pa.Schema, where: str) -> None:
    """Raise a DataError if labels have a column whose type Parquet cannot store."""
    for field in schema:
        if pa.types.is_union(field.type) or pa.types.is_interval(field.type):
            raise DataError(
                f"{where}: column {field.name}", expected="a type that Parquet has", got=str(field.type), hint="drop it"
            )


def refuse_corrupt(rows: pa.Table, where: str, *, first: int = 0) -> None:
    """Raise a DataError if a column of labels has text that is not UTF-8, since a training set could not return it.

    Args:
        rows: the label rows.
        where: names them in an error.
        first: the number of the first row, for an error.
    """
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        row = first
        for chunk in column.chunks:
            try:
                chunk.validate(full=True)
            except pa.ArrowInvalid:
                place = next(i for i in range(len(chunk)) if _is_corrupt(chunk.slice(i, 1)))
                got = shown(chunk[place])
                raise DataError(
                    f"{where}: column {name}, row {row + place}", expected="text in UTF-8", got=got
                ) from None
            row += len(chunk)


def _is_corrupt(values: pa.Array) -> bool:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return True
    return False


def label_times(values: pa.ChunkedArray, where: str, *, first: int = 0) -> NDArray[np.int64]:
    """The times of labels: (n,) int64, microseconds since 1970.

    Args:
        values: the column.
        where: names it in an error.
        first: the number of its first row, for an error.

    Raises:
        DataError: a label has no time, or a time outside the years 1 to 9999.
    """
    times = label_values(values, Timestamp, where, first=first)
    if times.null_count:
        row = first + int(np.flatnonzero(times.is_null().to_numpy())[0])
        raise DataError(f"{where}, row {row}", expected="a time", got="null", hint="leave out labels without a time")
    microseconds: NDArray[np.int64] = times.to_numpy()
    return microseconds


def label_values(values: pa.ChunkedArray, dtype: DType, where: str, *, first: int = 0) -> pa.ChunkedArray:
    """A column of labels as `types.storage_type`. Nulls stay null.

    Raises:
        DataError: a value does not fit the type.
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


def labels_at(columns: Mapping[str, list[Any]], at: datetime) -> pa.Table:
    """Label rows with one common time, in the column `event_timestamp`.

    Args:
        columns: the other columns, n values each.
        at: the time.
    """
    count = max(map(len, columns.values()), default=0)
    return pa.table({**columns, "event_timestamp": pa.array([at] * count, pa.timestamp("us", "UTC"))})


def matches(labels: Mapping[str, Any], records: Mapping[str, Any], where: str) -> tuple[Places, Places]:
    """The pairs of labels and records whose values are equal in all columns.

    Args:
        labels: columns of n labels.
        records: the same columns of m records.
        where: names the labels in an error.

    Returns:
        The places of the labels, in order, and of their records: (k,) int64 each.

    Raises:
        DataError: Arrow cannot join the columns.
    """
    left = pa.table({**labels, _LABEL: _counting(labels)})
    right = pa.table({**records, _RECORD: _counting(records)})
    with reading(where):
        pairs = left.join(right, list(labels), join_type="inner").sort_by(_LABEL)
    return pairs[_LABEL].to_numpy(), pairs[_RECORD].to_numpy()


def _counting(columns: Mapping[str, Any]) -> Places:
    return np.arange(len(next(iter(columns.values()))))
