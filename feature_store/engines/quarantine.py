"""Rows that do not fit are lost to nobody: they go to a Parquet file with the reason."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.engines.rows import shown
from feature_store.engines.sources import reading

if TYPE_CHECKING:
    from pathlib import Path


class Quarantine:
    """A file for one job's bad rows: their columns as they were, and why. Made with the first of them.

    A column becomes text when the files of a source have it in different types, or Parquet does not have its values.

    Args:
        folder: where it goes when it is whole.
        work: where it is written, so that a killed job leaves no half file among the whole ones.
        view: whose rows.
    """

    def __init__(self, folder: Path, work: Path, view: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + f"-{time.time_ns() % 1_000_000_000:09d}"
        self._path = folder / f"{view}-{stamp}.parquet"
        self._unfinished = work / "quarantine.unfinished"
        self._writer: Any = None
        self._schema: pa.Schema = pa.schema([])
        self.rows = 0

    @property
    def path(self) -> Path | None:
        """The file, or None when no row was bad."""
        return self._path if self.rows else None

    def add(self, bad: pa.RecordBatch) -> None:
        """Set rows aside.

        Raises:
            DataError: the file cannot be written.
        """
        if not len(bad):
            return
        bad = _storable(bad)
        with reading(f"quarantine file {self._unfinished}"):
            if self._writer is None:
                self._open(bad.schema)
            elif bad.schema != self._schema:
                self._widen(bad.schema)
            self._writer.write_batch(_as(bad, self._schema))
        self.rows += len(bad)

    def close(self) -> None:
        """Finish the file and put it into its place.

        Raises:
            DataError: it cannot be written.
        """
        if self._writer is None:
            return
        with reading(f"quarantine file {self._path}"):
            self._writer.close()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self._unfinished, self._path)

    def _open(self, schema: pa.Schema) -> None:
        self._writer, self._schema = pq.ParquetWriter(self._unfinished, schema), schema

    def _widen(self, other: pa.Schema) -> None:
        """Write what is there again, with text where the types differ: at most once for each column."""
        self._writer.close()
        earlier = self._unfinished.rename(self._unfinished.with_suffix(".earlier"))
        self._open(
            pa.schema([mine if mine == its else _text(mine) for mine, its in zip(self._schema, other, strict=True)])
        )
        with pq.ParquetFile(earlier) as file:
            for batch in file.iter_batches():
                self._writer.write_batch(_as(batch, self._schema))
        earlier.unlink()


def _storable(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows that Parquet can hold: times in seconds it would turn into milliseconds, which may overflow."""
    schema = pa.schema([pa.field(field.name, _storable_type(field.type)) for field in rows.schema])
    try:
        arrays = [array.cast(kind) for array, kind in zip(rows.columns, schema.types, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)
    except pa.ArrowInvalid:
        changes = zip(schema, rows.schema, strict=True)
        return _as(rows, pa.schema([new if new.type == old.type else _text(new) for new, old in changes]))


def _storable_type(found: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(found) and found.unit == "s":
        return pa.timestamp("ms", found.tz)
    return pa.date32() if pa.types.is_date(found) else found


def _text(field: pa.Field) -> pa.Field:
    return field.with_type(pa.string())


def _as(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    arrays = [
        array if array.type == kind else pa.array([shown(value) if value.is_valid else None for value in array], kind)
        for array, kind in zip(rows.columns, schema.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
