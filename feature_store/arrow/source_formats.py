"""Sources that are refused, because reading them as plain Parquet files fails or brings back deleted rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from feature_store.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# A file or folder in the root of a table -> the format. Such a table's log says which Parquet files belong to it.
_TABLES = {"_delta_log": "Delta Lake", ".hoodie": "Hudi", "metadata/version-hint.text": "Iceberg"}
_ICEBERG_METADATA = "metadata/*.metadata.json"


def refuse_url(source: str) -> None:
    """Raise a DataError when a source is not a path of this machine's file system."""
    if _URL.match(source):
        raise DataError(
            f"source {source}",
            problem="sources are read from the file system, and a URL is not supported",
            hint="mount the bucket or copy the files, and give the source a path",
        )


def refuse_tables(source: str, root: Path, files: Iterable[Path]) -> None:
    """Raise a DataError when files of a source belong to a table whose log says which of them count.

    Args:
        source: its path, for the error.
        root: the folder that the source names; tables above it do not matter.
        files: of the source.
    """
    folders = {parent for file in files for parent in (file.parent, *file.parents) if parent.is_relative_to(root)}
    for folder in sorted(folders):
        found = _table_format(folder)
        if found is not None:
            raise DataError(
                f"source {source}",
                problem=f"{folder} is a {found} table, and reading its Parquet files would bring back deleted rows",
                hint="export the table to plain Parquet files, and name their folder",
            )


def _table_format(folder: Path) -> str | None:
    for name, found in _TABLES.items():
        if (folder / name).exists():
            return found
    return "Iceberg" if any(folder.glob(_ICEBERG_METADATA)) else None
