"""The rows of Apache Iceberg tables: the implementation of IcebergSource.

`pyiceberg` reads the catalog and the metadata of the table: the data files of a snapshot, their partitions, statistics
and deleted rows. The data files themselves are read as those of every lake table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFileContent, FileFormat, ManifestEntryStatus
from pyiceberg.transforms import IdentityTransform

from feature_store.arrow.reading import reading
from feature_store.arrow.sources.lake.data_files import DataFile, LakeColumns, table_schema
from feature_store.arrow.sources.lake.iceberg_catalog import iceberg_errors, opened_table, table_exists
from feature_store.arrow.sources.lake.iceberg_pruning import Within
from feature_store.arrow.sources.lake.iceberg_snapshots import ReadSnapshot, added_since
from feature_store.arrow.sources.lake.rows import LakeRows
from feature_store.arrow.sources.source import Unread
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.iceberg_source import IcebergSource
from feature_store.errors import DataError


class _Entry(NamedTuple):
    """A data file of a snapshot.

    Attributes:
        age: what the place of the file among the others follows from.
        snapshot: the id of the snapshot that added the file.
        file: the file, as pyiceberg describes it.
    """

    age: tuple[int, str]
    snapshot: int | None
    file: Any


class IcebergRows(LakeRows):
    """The rows of a snapshot of an Iceberg table, in the order in which its files were added; see LakeRows.

    Args:
        source: the definition.

    Raises:
        DataError: the catalog cannot be reached, there is no such table or snapshot, its metadata cannot be read, or
            it needs a feature that is not supported.
    """

    def __init__(self, source: IcebergSource) -> None:
        where = f"source {source.table}"
        with iceberg_errors(where):
            self._table = opened_table(where, source.table)
            snapshot = _snapshot(where, self._table, source.snapshot_id)
            self._schema = self._table.schema() if source.snapshot_id is None else self._schema_of(snapshot)
            self._now = ReadSnapshot(str(self._table.metadata.table_uuid), snapshot.snapshot_id if snapshot else 0)
            columns = _columns(self._table, self._schema)
            entries = [] if snapshot is None else _entries(self._table.io, snapshot)
            deleted = _deleted(where, self._scan()) if any(entry is None for entry in entries) else {}
            self._entries = sorted(filter(None, entries), key=lambda entry: entry.age)
            files = [
                _data_file(where, f"snapshot {self._now.snapshot}", self._table, columns, entry.file, deleted)
                for entry in self._entries
            ]
        self.pinned = {} if snapshot is None else {"snapshot_id": self._now.snapshot}
        version = f"{self._now.table} snapshot {self._now.snapshot} schema {self._schema.schema_id}"
        super().__init__(where, version, columns, files)

    @classmethod
    def open(cls, source: IcebergSource, folder: Path) -> Self:
        """See OfflineSource."""
        del folder
        return cls(source)

    @classmethod
    def exists(cls, source: IcebergSource, folder: Path) -> bool:
        """See OfflineSource."""
        del folder
        return table_exists(f"source {source.table}", source.table)

    def files_within(self, times: TimeRange | None) -> Sequence[DataFile]:
        """See LakeRows. The partition and the statistics of each file decide."""
        if times is None:
            return self._files
        with iceberg_errors(self.where):
            within = Within.of(times, self._table, self._schema)
            pairs = zip(self._entries, self._files, strict=True)
            return [file for entry, file in pairs if within is None or within.may_hold(entry.file)]

    def unread(self, known: bytes) -> Unread:
        """See OfflineSource. The snapshots of the table say which of them added files."""
        before = ReadSnapshot.parse(known)
        with iceberg_errors(self.where):
            added = None if before is None else added_since(self._table.snapshots(), before, self._now)
        pairs = zip(self._entries, self._files, strict=True)
        files = [file for entry, file in pairs if added is None or entry.snapshot in added]
        return Unread(self._now.document(), self.whole_pieces(files))

    def _schema_of(self, snapshot: Any) -> Any:
        schemas = self._table.schemas()
        return schemas.get(snapshot.schema_id, self._table.schema())

    def _scan(self) -> Any:
        return self._table.scan(snapshot_id=self._now.snapshot)


def _snapshot(where: str, table: Any, snapshot_id: int | None) -> Any:
    """A snapshot of a table, or None if the table has no snapshot yet."""
    if snapshot_id is None:
        return table.current_snapshot()
    found = table.snapshot_by_id(snapshot_id)
    if found is None:
        hint = "snapshots are removed when they expire: leave out snapshot_id=, or name another one"
        raise DataError(where, problem=f"there is no snapshot {snapshot_id}", hint=hint)
    return found


def _columns(table: Any, schema: Any) -> LakeColumns:
    fields = [field.with_type(_small(field.type)) for field in schema_to_pyarrow(schema, include_field_ids=False)]
    ids = {field.name: field.field_id for field in schema.fields}
    mapping = table.name_mapping()
    names = {field.field_id: tuple(field.names) for field in mapping} if mapping is not None else {}
    return LakeColumns(table_schema(fields), {name: names.get(number, ()) for name, number in ids.items()}, ids)


def _small(found: pa.DataType) -> pa.DataType:
    """A type with 32-bit offsets, as the Parquet reader returns it."""
    if pa.types.is_large_string(found):
        return pa.string()
    if pa.types.is_large_binary(found):
        return pa.binary()
    return pa.list_(_small(found.value_type)) if pa.types.is_large_list(found) else found


def _entries(io: Any, snapshot: Any) -> list[_Entry | None]:
    """The data files of a snapshot. None stands for a file that deletes rows."""
    found: list[_Entry | None] = []
    for manifest in snapshot.manifests(io):
        for entry in manifest.fetch_manifest_entry(io, discard_deleted=True):
            if entry.status == ManifestEntryStatus.DELETED:
                continue
            file = entry.data_file
            is_data = file.content == DataFileContent.DATA
            age = (entry.sequence_number or 0, file.file_path)
            found.append(_Entry(age, entry.snapshot_id, file) if is_data else None)
    return found


def _data_file(
    where: str, version: str, table: Any, columns: LakeColumns, file: Any, deleted: Mapping[str, bytes]
) -> DataFile:
    if file.file_format != FileFormat.PARQUET:
        hint = "rewrite the table with write.format.default = parquet"
        problem = f"{file.file_path} is a file of {file.file_format.name}, and only Parquet files are read"
        raise DataError(where, problem=problem, hint=hint)
    constants = _constants(table, columns, file)
    path, size = _local(where, file.file_path), file.file_size_in_bytes
    return DataFile(where, version, path, size, file.record_count, constants, deleted.get(file.file_path, b""))


def _local(where: str, path: str) -> str:
    """The path of a file. Iceberg does not encode paths.

    Raises:
        DataError: the file is not on this machine.
    """
    local = path.removeprefix("file://")
    if "://" in local:
        hint = "mount the warehouse, and register the table with paths of files"
        raise DataError(where, problem=f"the data file {path} is not on this machine", hint=hint)
    return local.removeprefix("file:")


def _constants(table: Any, columns: LakeColumns, file: Any) -> tuple[tuple[str, pa.Scalar], ...]:
    """(column, value) of the columns that a file is partitioned by without a transform."""
    names = {number: name for name, number in columns.ids.items()}
    spec = table.specs()[file.spec_id]
    return tuple(
        (names[field.source_id], pa.scalar(file.partition[place], columns.schema.field(names[field.source_id]).type))
        for place, field in enumerate(spec.fields)
        if isinstance(field.transform, IdentityTransform) and field.source_id in names
    )


def _deleted(where: str, scan: Any) -> dict[str, bytes]:
    """The positions of deleted rows, by the path of the data file.

    Raises:
        DataError: rows are deleted in another way than by positions in Parquet files.
    """
    found: dict[str, bytes] = {}
    for task in scan.plan_files():
        places: list[np.ndarray[Any, Any]] = []
        for file in task.delete_files:
            if file.content != DataFileContent.POSITION_DELETES or file.file_format != FileFormat.PARQUET:
                hint = "rewrite the table's data files, which applies the deletions"
                problem = f"the table uses deletions of a kind that is not supported: {Path(file.file_path).name}"
                raise DataError(where, problem=problem, hint=hint)
            places.append(_places(where, file.file_path, task.file.file_path))
        if places:
            found[task.file.file_path] = np.unique(np.concatenate(places)).astype(np.int64).tobytes()
    return found


def _places(where: str, deletes: str, data: str) -> np.ndarray[Any, Any]:
    """The positions in a data file that a file of deletions names."""
    with reading(f"{where}, {Path(deletes).name}"):
        listed = pq.read_table(_local(where, deletes), columns=["file_path", "pos"])
    return np.asarray(listed.filter(pc.equal(listed["file_path"], data))["pos"])
