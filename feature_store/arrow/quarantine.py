"""Quarantine: a Parquet file with the rows that do not fit their view, and the reason for each row."""

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
from feature_store.arrow.encoded import stored_batch
from feature_store.arrow.reading import reading
from feature_store.arrow.rows import shown


class QuarantineFile:
    """A file of invalid rows: their original columns, and the reason. The first invalid row creates the file.

    A column becomes text if the files of a source disagree on its type, or if Parquet cannot store its values.

    Args:
        path: the final path of the file.
        unfinished: the path of the file while it is written.
        schema: a schema from `joint_schema` if other tasks write files beside this one. None: the schema of the first
            rows.
    """

    def __init__(self, path: Path, unfinished: Path, schema: pa.Schema | None = None) -> None:
        self._path, self._unfinished, self._schema = path, unfinished, schema
        self._writer: Any = None
        self.rows = 0

    def add(self, bad: pa.RecordBatch) -> None:
        """Add invalid rows.

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
        """Finish the file and move it to its final path.

        Raises:
            DataError: the file cannot be written.
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
        """Rewrite the file in a wider schema. This happens at most once for each column."""
        self._writer.close()
        earlier = self._unfinished.rename(self._unfinished.with_name(f"{self._unfinished.name}.earlier"))
        self._open(schema)
        with pq.ParquetFile(earlier) as file:
            for batch in file.iter_batches():
                self._writer.write_batch(_as(batch, schema))
        earlier.unlink()


class Quarantine(QuarantineFile):
    """The invalid rows of one job: a file, or a folder of files if many tasks write it.

    Args:
        folder: the folder of the finished file.
        work: the folder of the unfinished file, so that a killed job leaves no incomplete file in `folder`.
        view: the name of the view.
    """

    def __init__(self, folder: Path, work: Path, view: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + f"-{time.time_ns() % 1_000_000_000:09d}"
        super().__init__(folder / f"{view}-{stamp}.parquet", work / "quarantine.unfinished")

    @property
    def path(self) -> Path | None:
        """The path of the file or folder, or None if no row was invalid."""
        return self._path if self.rows else None

    @property
    def parts(self) -> Path:
        """The folder for the files of tasks. Tasks write there instead of calling `add`."""
        return self._unfinished

    def count_parts(self, rows: int) -> None:
        """Add the number of rows that tasks wrote to `parts`."""
        self.rows += rows


def joint_schema(examples: Iterable[pa.RecordBatch]) -> pa.Schema:
    """A quarantine schema that can hold rows like each of the examples. The examples may be empty."""
    return reduce(_joined, (_storable(example).schema for example in examples))


def _joined(a: pa.Schema, b: pa.Schema) -> pa.Schema:
    """Schema `a`, with text for the columns whose types differ in `b`."""
    return pa.schema([mine if mine.type == its.type else _text(mine) for mine, its in zip(a, b, strict=True)])


def _storable(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows converted so that Parquet can store them and every Parquet reader can read them.

    Parquet converts times in seconds to milliseconds, which may overflow. Most readers refuse a whole file if it has
    text that is not UTF-8.
    """
    rows = stored_batch(rows)
    rows = pa.RecordBatch.from_arrays([_readable(column) for column in rows.columns], schema=rows.schema)
    schema = pa.schema([pa.field(field.name, _storable_type(field.type)) for field in rows.schema])
    try:
        arrays = [array.cast(kind) for array, kind in zip(rows.columns, schema.types, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)
    except pa.ArrowInvalid:
        changes = zip(schema, rows.schema, strict=True)
        return _as(rows, pa.schema([new if new.type == old.type else _text(new) for new, old in changes]))


def _readable(values: pa.Array) -> pa.Array:
    """The values, with an escape such as `\\xe9` for each byte that is not UTF-8."""
    try:
        values.validate(full=True)
        return values
    except pa.ArrowInvalid:
        pass
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        raw = values.cast(pa.large_binary()).to_pylist()
        return pa.array([one if one is None else one.decode(errors="backslashreplace") for one in raw], values.type)
    # The values are lists of texts: no other type that fits a declared type contains text.
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
