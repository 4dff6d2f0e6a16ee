"""Delta tables that are written by hand, with features of the format that deltalake reads but does not write."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_TABLE_ID = "11111111-1111-1111-1111-111111111111"


class WrittenTable:
    """A table whose commits are written by hand.

    Args:
        folder: its folder.
        fields: the columns: the name, the type in Delta's schema, and the metadata of each.
        features: the features that readers need.
        settings: the configuration of the table.
        partitions: the partition columns.
    """

    def __init__(
        self,
        folder: Path,
        fields: Sequence[tuple[str, str, Mapping[str, Any]]],
        *,
        features: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        partitions: Sequence[str] = (),
    ) -> None:
        self.folder, self._version = folder, -1
        (folder / "_delta_log").mkdir(parents=True)
        columns = [
            {"name": name, "type": kind, "nullable": True, "metadata": dict(about)} for name, kind, about in fields
        ]
        protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
        protocol |= {"readerFeatures": list(features), "writerFeatures": list(features)}
        about = {
            "id": _TABLE_ID,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps({"type": "struct", "fields": columns}),
            "partitionColumns": list(partitions),
            "createdTime": 1,
            "configuration": dict(settings or {}),
        }
        self.commit({"protocol": protocol}, {"metaData": about})

    def commit(self, *actions: Mapping[str, Any]) -> None:
        self._version += 1
        lines = "".join(json.dumps(action) + "\n" for action in actions)
        (self.folder / "_delta_log" / f"{self._version:020d}.json").write_text(lines)

    def file(self, name: str, rows: pa.Table, **options: Any) -> dict[str, Any]:
        """Write a data file. Returns the action that adds it."""
        pq.write_table(rows, self.folder / name, **options)
        size = (self.folder / name).stat().st_size
        added = {"path": name, "partitionValues": {}, "size": size, "modificationTime": 1, "dataChange": True}
        return added | {"stats": json.dumps({"numRecords": len(rows)})}


def deletion_vector(places: Sequence[int]) -> dict[str, Any]:
    """The deletion vector of some positions below 65536, inside of the log."""
    container = struct.pack("<IIHHI", 12346, 1, 0, len(places) - 1, 16)
    bitmap = container + b"".join(struct.pack("<H", place) for place in places)
    vector = struct.pack("<iqI", 1681511377, 1, 0) + bitmap
    about = {"storageType": "i", "pathOrInlineDv": _z85(vector), "sizeInBytes": len(vector)}
    return about | {"cardinality": len(places)}


def removal(added: Mapping[str, Any], *, changes: bool = True) -> dict[str, Any]:
    """The action that removes a file."""
    kept = {name: added[name] for name in ("path", "partitionValues", "size", "deletionVector") if name in added}
    return {"remove": kept | {"dataChange": changes, "deletionTimestamp": 2, "extendedFileMetadata": True}}


def _z85(data: bytes) -> str:
    text = ""
    data += bytes(-len(data) % 4)
    for start in range(0, len(data), 4):
        value = int.from_bytes(data[start : start + 4], "big")
        text += "".join(_Z85[value // 85**power % 85] for power in range(4, -1, -1))
    return text
