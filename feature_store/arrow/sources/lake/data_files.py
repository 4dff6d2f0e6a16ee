"""The rows of the Parquet files of a lake table, with the columns of the table.

A data file may differ from its table: columns that were added later are missing, partition columns are in the metadata
of the table only, columns have other names or narrower types, and rows are deleted by their positions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.arrow.batch_sizes import schema_row_bytes
from feature_store.arrow.encoded import is_encoded
from feature_store.arrow.file_versions import FileVersion, size_of, unchanged
from feature_store.arrow.plain import plain_schema, plain_type
from feature_store.arrow.reading import reading
from feature_store.arrow.sources.parquet.batches import file_batches, file_row_bytes, parquet_fragment
from feature_store.arrow.time_range import TimeRange
from feature_store.errors import DataError

_FIELD_ID = b"PARQUET:field_id"


class LakeColumns(NamedTuple):
    """The columns of a table, and how to find them in its data files.

    Attributes:
        schema: the columns of the table, in plain types.
        stored: column of the table -> its names in data files, of which each file has one at most. Other columns have
            their name in the table.
        ids: column of the table -> its field id. A file with field ids is read by ids; other files, and all files if
            this is empty, by names.
    """

    schema: pa.Schema
    stored: dict[str, tuple[str, ...]]
    ids: dict[str, int]

    def locate(self, found: pa.Schema) -> dict[str, str]:
        """Column of the table -> its name in a file with the given schema. Columns that the file lacks are left out."""
        by_id = _ids(found) if self.ids else {}
        if by_id:
            return {name: by_id[number] for name, number in self.ids.items() if number in by_id}
        names = set(found.names)
        located = {name: names.intersection(self.stored.get(name, (name,))) for name in self.schema.names}
        return {name: stored.pop() for name, stored in located.items() if stored}


class DataFile(NamedTuple):
    """A Parquet file of a version of a table. It is plain, picklable data.

    Attributes:
        where: names the source in errors.
        table: names the version of the table in errors: `version 12`.
        path: the path.
        size: the size in bytes, as recorded by the table.
        rows: the number of rows, deleted ones included. None: the table does not record it.
        constants: (column, value) for columns that have one value in the whole file.
        deleted: the ascending positions of deleted rows in the file, int64 in the byte order of the machine.
        version: the version of the file, which a read must find. None: the table never changes a file that it has.
    """

    where: str
    table: str
    path: str
    size: int
    rows: int | None
    constants: tuple[tuple[str, pa.Scalar], ...] = ()
    deleted: bytes = b""
    version: FileVersion | None = None

    @property
    def source(self) -> FileVersion:
        """The file as readers open it."""
        return self.version or FileVersion(self.path, self.size, 0)

    @property
    def deleted_places(self) -> NDArray[np.int64]:
        """The ascending positions of deleted rows in the file: (m,) int64."""
        return np.frombuffer(self.deleted, np.int64)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """A block that reads the file.

        Raises:
            DataError: the file is missing, has another size than the table records, changed, or cannot be read.
        """
        if self.version is not None:
            with unchanged(self.where, [self.version]), reading(f"{self.where}, {Path(self.path).name}"):
                yield
            return
        if not self.source.is_remote:  # a request for each check would take as long as one that reads
            self._check()
        try:
            with reading(f"{self.where}, {Path(self.path).name}"):
                yield
        except DataError:
            self._check()
            raise

    def _check(self) -> None:
        name = Path(self.path).name
        with reading(self.where):
            size = size_of(self.path)
        if size is None:
            hint = "a clean-up such as VACUUM removes files of old versions: run this again to read the newest version"
            raise DataError(self.where, problem=f"{name} of {self.table} is missing", hint=hint)
        if size != self.size:
            hint = "the file was not completely written, or was replaced: restore it, or remove it from the table"
            problem = f"{name} has {size:,} bytes, and {self.table} records {self.size:,}"
            raise DataError(self.where, problem=problem, hint=hint)


class OpenedFile:
    """A data file whose footer was read.

    Args:
        file: the file.
        columns: the columns of the table.

    Attributes:
        groups: the number of rows of each row group, deleted ones included.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, file: DataFile, columns: LakeColumns) -> None:
        self._file, self._columns = file, columns
        with file.reading():
            self._fragment = parquet_fragment(file.source)
            self._found: pa.Schema = self._fragment.physical_schema
            self.groups = [group.num_rows for group in self._fragment.row_groups]
        self._starts = np.cumsum([0, *self.groups])
        self._constants = dict(file.constants)
        located = columns.locate(self._found)
        self._stored = {name: stored for name, stored in located.items() if name not in self._constants}
        if columns.ids and not located and not _ids(self._found):
            names = ", ".join(self._found.names)
            hint = f"its columns {names} have no field ids: give the table a name mapping"
            problem = f"the columns of {Path(file.path).name} cannot be matched with those of the table"
            raise DataError(file.where, problem=problem, hint=hint)

    def wanted(self, times: TimeRange | None) -> list[int]:
        """The numbers of the row groups that may hold rows in a range of times."""
        everything = list(range(len(self.groups)))
        stored = None if times is None else self._stored.get(times.column)
        if times is None or stored is None:
            return everything
        inside = times._replace(column=stored).filter(self._found.field(stored))
        if inside is None:
            return everything
        with self._file.reading():
            return [group.id for group in self._fragment.subset(filter=inside, schema=self._found).row_groups]

    def kept(self, group: int) -> int:
        """The number of rows of a row group that are not deleted."""
        first, after = np.searchsorted(self._file.deleted_places, self._starts[group : group + 2])
        return int(self.groups[group] - (after - first))

    def row_bytes(self, names: Sequence[str]) -> int:
        """The approximate size in memory of a row of some columns of the table, in bytes: at least 1."""
        stored = [self._found.field(self._stored[name]) for name in names if name in self._stored]
        others = pa.schema([self._columns.schema.field(name) for name in names if name not in self._stored])
        with self._file.reading():
            in_file = file_row_bytes(self._fragment, plain_schema(pa.schema(stored))) if stored else 0
        return max(1, in_file + (schema_row_bytes(others) if len(others) else 0))

    def batches(
        self, columns: Sequence[str], times: TimeRange | None, groups: Sequence[int]
    ) -> Iterator[pa.RecordBatch]:
        """Columns of the rows of some row groups, in plain batches with the types of the table.

        Args:
            columns: the names of the columns in the table, each once.
            times: rows outside this range are left out. None: all rows.
            groups: the numbers of the row groups, ascending.
        """
        inside = None if times is None else times.filter(self._columns.schema.field(times.column))
        names = list(columns)
        read = names if times is None or inside is None or times.column in names else [*names, times.column]
        stored = list(dict.fromkeys(self._stored[name] for name in read if name in self._stored))
        with self._file.reading():
            for batch in self._live_rows(stored or [self._narrowest()], groups):
                made = self._as_table(batch, read)
                yield made if inside is None else made.filter(inside).select(names)

    def _live_rows(self, stored: Sequence[str], groups: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """Columns of the file, without the deleted rows."""
        if not self._file.deleted:
            yield from file_batches(self._file.source, self._fragment, stored, groups)
            return
        deleted = self._file.deleted_places
        for group in groups:
            place = int(self._starts[group])
            for batch in file_batches(self._file.source, self._fragment, stored, [group]):
                first, after = np.searchsorted(deleted, [place, place + len(batch)])
                live = np.ones(len(batch), bool)
                live[deleted[first:after] - place] = False
                place += len(batch)
                yield batch if live.all() else batch.filter(pa.array(live))

    def _as_table(self, batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
        """A batch of the file as columns of the table."""
        fields = [self._columns.schema.field(name) for name in names]
        return pa.RecordBatch.from_arrays([self._column(batch, field) for field in fields], schema=pa.schema(fields))

    def _column(self, batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
        if field.name in self._constants:
            values = pa.repeat(self._constants[field.name], len(batch))
            return pa.ExtensionArray.from_storage(field.type, values) if is_encoded(field.type) else values
        if field.name not in self._stored:
            return pa.nulls(len(batch), field.type)
        values = batch.column(self._stored[field.name])
        if values.type == field.type:
            return values
        try:
            return values.cast(field.type)
        except pa.ArrowException as error:
            name = f"{self._file.where}, {Path(self._file.path).name}: column {field.name}"
            raise DataError(name, expected=f"values of the table's type {field.type}", got=str(error)) from error

    def _narrowest(self) -> str:
        """The column that takes the least memory. It is read for the number of rows if no other column is."""
        name: str = min(self._found, key=lambda field: schema_row_bytes(pa.schema([field]))).name
        return name


def _ids(found: pa.Schema) -> dict[int, str]:
    """Field id -> column of a file, for the columns that have one."""
    return {int(field.metadata[_FIELD_ID]): field.name for field in found if _FIELD_ID in (field.metadata or {})}


def table_schema(fields: Any) -> pa.Schema:
    """The columns of a table in plain types, without metadata; all may be null."""
    return pa.schema([pa.field(field.name, plain_type(field.type)) for field in fields])
