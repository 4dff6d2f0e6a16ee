"""A catalog of Iceberg tables in a folder, which pyiceberg finds by its environment variables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
)
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import Record

from feature_store.definitions import IcebergSource

SOURCE = IcebergSource("lake.sales.rows", event_timestamp="at", created_timestamp="made")


def catalog_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SqlCatalog:
    """A new catalog `lake` with the namespace `sales`, in SQLite."""
    properties = {"uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}/warehouse"}
    for name, value in ({"type": "sql"} | properties).items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__LAKE__{name.upper()}", value)
    catalog = SqlCatalog("lake", **properties)
    catalog.create_namespace("sales")
    return catalog


class StoredIceberg:
    """A table that the first rows create."""

    def __init__(self, folder: Path, catalog: SqlCatalog) -> None:
        self.folder, self.source, self._catalog = folder, SOURCE, catalog
        self._table: Any = None

    def append(self, rows: pa.Table) -> None:
        if self._table is None:
            self._table = self._catalog.create_table("sales.rows", rows.schema)
        self._table.append(rows)


class _DeleteManifest(ManifestWriterV2):
    """A manifest of files that delete rows, which pyiceberg reads but does not write."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return super()._meta | {"content": "deletes"}


class _Deletion(_FastAppendFiles):
    """A commit that adds files with deletions to a table."""

    files: list[DataFile]

    def _existing_manifests(self) -> list[Any]:
        table = self._transaction.table_metadata
        output = self._io.new_output(f"{table.location}/metadata/deletes-{self._snapshot_id}.avro")
        with _DeleteManifest(table.spec(), table.schema(), output, self._snapshot_id, "deflate") as writer:
            for file in self.files:
                about = {"status": ManifestEntryStatus.ADDED, "snapshot_id": self._snapshot_id, "data_file": file}
                writer.add(ManifestEntry.from_args(**about, sequence_number=None, file_sequence_number=None))
        return [*super()._existing_manifests(), writer.to_manifest_file()]


def delete_places(table: Any, path: str, places: Sequence[int], **about: Any) -> None:
    """Commit a file that deletes rows of a data file by their positions.

    Args:
        table: the table, without partitions.
        path: the data file.
        places: the positions.
        about: other attributes of the file with the deletions.
    """
    target = f"{table.location()}/data/deletes-{len(table.snapshots())}.parquet"
    local = Path(target.removeprefix("file://"))
    ids = [{b"PARQUET:field_id": number} for number in (b"2147483546", b"2147483545")]
    fields = [pa.field("file_path", pa.string(), metadata=ids[0]), pa.field("pos", pa.int64(), metadata=ids[1])]
    pq.write_table(pa.table([[path] * len(places), list(places)], schema=pa.schema(fields)), local)
    attributes = {
        "content": DataFileContent.POSITION_DELETES,
        "file_path": target,
        "file_format": FileFormat.PARQUET,
        "partition": Record(),
        "record_count": len(places),
        "file_size_in_bytes": local.stat().st_size,
    }
    file = DataFile.from_args(**attributes | about)
    file.spec_id = table.spec().spec_id
    with table.transaction() as transaction, _Deletion(Operation.DELETE, transaction, table.io) as deletion:
        deletion.files = [file]
