"""Converts the Arrow columns of a training set to the numpy arrays that models take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.arrow.reading import reading
from feature_store.errors import DataError


class Columns:
    """Some columns of a training set.

    Args:
        table: an Arrow table, or the path of a Parquet file or of a folder of Parquet files.
        names: the names of the columns.

    Raises:
        DataError: the table cannot be read, lacks a column, or has no rows.
    """

    def __init__(self, table: pa.Table | Path | str, names: Sequence[str]) -> None:
        self._where = "training set" if isinstance(table, pa.Table) else f"training set {table}"
        with reading(self._where):
            there = table.schema if isinstance(table, pa.Table) else pq.ParquetDataset(table).schema
            missing = [name for name in dict.fromkeys(names) if name not in there.names]
            if missing:
                expected = f"columns {', '.join(dict.fromkeys(names))}"
                raise DataError(self._where, expected=expected, got=f"no {', '.join(missing)}")
            wanted = list(dict.fromkeys(names))
            self._table = table.select(wanted) if isinstance(table, pa.Table) else pq.read_table(table, columns=wanted)
        if not len(self._table):
            raise DataError(self._where, expected="rows", got="none")

    def feature(self, name: str) -> npt.NDArray[np.float32]:
        """(n, 1) float32, or (n, k) float32 for lists of k numbers. A missing value is NaN.

        Raises:
            DataError: the values are neither numbers, booleans, nor lists of numbers of equal length.
        """
        column = self._table[name].combine_chunks()
        if _is_list(column.type):
            return self._lists(name, column)
        if not _is_number(column.type):
            raise DataError(f"{self._where}.{name}", expected="numbers or booleans", got=str(column.type))
        return _floats(column)[:, None]

    def label(self, name: str) -> npt.NDArray[Any]:
        """(n,) int64, or (n,) float64 for a column of floats.

        Raises:
            DataError: the values are not numbers or booleans, or one is null, NaN or infinite.
        """
        column = self._filled(name)
        if not _is_number(column.type):
            raise DataError(f"{self._where}.{name}", expected="labels: numbers or booleans", got=str(column.type))
        kind = pa.float64() if pa.types.is_floating(column.type) else pa.int64()
        labels: npt.NDArray[Any] = column.cast(kind).to_numpy(zero_copy_only=False)
        if not np.all(np.isfinite(labels)):
            raise DataError(f"{self._where}.{name}", expected="labels", got="NaN or inf")
        return labels

    def codes(self, name: str) -> npt.NDArray[np.int64]:
        """(n,) int64 codes. Equal values have equal codes.

        Raises:
            DataError: a value is null.
        """
        indices = self._filled(name).dictionary_encode().indices
        codes: npt.NDArray[np.int64] = indices.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return codes

    def microseconds(self, name: str) -> npt.NDArray[np.int64]:
        """(n,) int64, microseconds since 1970 UTC.

        Raises:
            DataError: the values are not timestamps, or one is null.
        """
        column = self._filled(name)
        if not pa.types.is_timestamp(column.type):
            raise DataError(f"{self._where}.{name}", expected="timestamps", got=str(column.type))
        whole = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
        times: npt.NDArray[np.int64] = whole.to_numpy(zero_copy_only=False)
        return times

    def _filled(self, name: str) -> pa.Array:
        column = self._table[name].combine_chunks()
        if column.null_count:
            raise DataError(f"{self._where}.{name}", expected="a value in every row", got=f"{column.null_count} nulls")
        return column

    def _lists(self, name: str, column: pa.Array) -> npt.NDArray[np.float32]:
        lengths = pc.unique(pc.list_value_length(column.drop_null())).to_pylist()
        if len(lengths) != 1 or not _is_number(column.type.value_type):
            expected, got = "lists of numbers of one length", f"{column.type} of lengths {lengths[:5]}"
            raise DataError(f"{self._where}.{name}", expected=expected, got=got)
        out = np.full((len(column), lengths[0]), np.nan, np.float32)
        is_there = column.is_valid().to_numpy(zero_copy_only=False)
        out[is_there] = _floats(pc.list_flatten(column)).reshape(-1, lengths[0])
        return out


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _floats(column: pa.Array) -> npt.NDArray[np.float32]:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    wide = column.cast(pa.float64(), safe=False).fill_null(float("nan")).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # as in serving, a float64 beyond float32 is inf
        values: npt.NDArray[np.float32] = wide.astype(np.float32)
    return values
