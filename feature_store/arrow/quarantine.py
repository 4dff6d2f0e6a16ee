"""Quarantine: a Parquet file with the rows that do not fit their view, and the reason for each."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store._private_files import private_file, private_folder
from feature_store.arrow.reading import reading
from feature_store.arrow.rows import shown


class QuarantineFile:
    """A file of bad rows: their columns as they were, and the reason. The first bad row creates it.

    A column becomes text when the files of a source have it in different types, or Parquet does not have its values.

    Args:
        path: where it goes when it is whole.
        unfinished: where it is written.
        schema: from `joint_schema`, if others write to files beside it; else that of the first rows.
    """

    def __init__(self, path: Path, unfinished: Path, schema: pa.Schema | None = None) -> None:
        self._path, self._unfinished, self._schema = path, unfinished, schema
        self._writer: Any = None
        self.rows = 0

    def add(self, bad: pa.RecordBatch) -> None:
        """Set rows aside.

        Raises:
            DataError: the file cannot be written.
        """
        if not len(bad):
            return
        bad = _storable(bad)
        with reading(f"quarantine file {self._unfinished}"):
            schema = _joined(self._schema or bad.schema, bad.schema)
            if self._writer is None:
                private_folder(self._unfinished.parent)
                self._open(schema)
            elif schema != self._schema:
                self._widen(schema)
            self._writer.write_batch(_as(bad, schema))
        self.rows += len(bad)

    def close(self) -> None:
        """Finish the file and put it into its place.

        Raises:
            DataError: it cannot be written.
        """
        if not self.rows:
            return
        with reading(f"quarantine file {self._path}"):
            if self._writer is not None:
                self._writer.close()
            private_folder(self._path.parent)
            shutil.move(self._unfinished, self._path)

    def _open(self, schema: pa.Schema) -> None:
        self._writer, self._schema = pq.ParquetWriter(private_file(self._unfinished), schema), schema

    def _widen(self, schema: pa.Schema) -> None:
        """Write what is there again: at most once for each column."""
        self._writer.close()
        earlier = self._unfinished.rename(self._unfinished.with_name(f"{self._unfinished.name}.earlier"))
        self._open(schema)
        with pq.ParquetFile(earlier) as file:
            for batch in file.iter_batches():
                self._writer.write_batch(_as(batch, schema))
        earlier.unlink()


class Quarantine(QuarantineFile):
    """One job's bad rows: a file, or a folder of files when many tasks set rows aside.

    Args:
        folder: where it goes when it is whole.
        work: where it is written, so that a killed job leaves no half file among the whole ones.
        view: whose rows.
    """

    def __init__(self, folder: Path, work: Path, view: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + f"-{time.time_ns() % 1_000_000_000:09d}"
        super().__init__(folder / f"{view}-{stamp}.parquet", work / "quarantine.unfinished")

    @property
    def path(self) -> Path | None:
        """Where the rows are, or None when none was bad."""
        return self._path if self.rows else None

    @property
    def parts(self) -> Path:
        """The folder for the files of tasks, which do not call `add`."""
        return self._unfinished

    def count_parts(self, rows: int) -> None:
        """Take the rows into account that tasks have put into `parts`."""
        self.rows += rows


def joint_schema(examples: Iterable[pa.RecordBatch]) -> pa.Schema:
    """The schema in which rows like any of the examples can be put aside; these need not have rows."""
    return reduce(_joined, (_storable(example).schema for example in examples))


def _joined(a: pa.Schema, b: pa.Schema) -> pa.Schema:
    """With text where the types differ."""
    return pa.schema([mine if mine.type == its.type else _text(mine) for mine, its in zip(a, b, strict=True)])


def _storable(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows that Parquet can hold, and every reader of Parquet can read: times in seconds it would turn into
    milliseconds, which may overflow, and text that is not UTF-8 most readers refuse with the whole file."""
    rows = pa.RecordBatch.from_arrays([_readable(column) for column in rows.columns], schema=rows.schema)
    schema = pa.schema([pa.field(field.name, _storable_type(field.type)) for field in rows.schema])
    try:
        arrays = [array.cast(kind) for array, kind in zip(rows.columns, schema.types, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)
    except pa.ArrowInvalid:
        changes = zip(schema, rows.schema, strict=True)
        return _as(rows, pa.schema([new if new.type == old.type else _text(new) for new, old in changes]))


def _readable(values: pa.Array) -> pa.Array:
    """The same values, with `\\xe9` for a byte that is not UTF-8."""
    try:
        values.validate(full=True)
        return values
    except pa.ArrowInvalid:
        pass
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        raw = values.cast(pa.large_binary()).to_pylist()
        return pa.array([one if one is None else one.decode(errors="backslashreplace") for one in raw], values.type)
    # A list of texts: nothing else that fits a declared type has text in it.
    return pa.array([_readable(one.values).to_pylist() if one.is_valid else None for one in values], values.type)


def _storable_type(found: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(found) and found.unit == "s":
        return pa.timestamp("ms", found.tz)
    if pa.types.is_decimal256(found):  # DuckDB and polars refuse files with more than 38 digits
        return pa.string()
    return pa.date32() if pa.types.is_date(found) else found


def _text(field: pa.Field) -> pa.Field:
    return field.with_type(pa.string())


def _as(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    arrays = [
        array if array.type == kind else pa.array([shown(value) if value.is_valid else None for value in array], kind)
        for array, kind in zip(rows.columns, schema.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
