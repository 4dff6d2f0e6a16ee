"""Which files a path names: one file, the Parquet files of a folder, or those of a glob.

Paths are refused when reading them as plain Parquet files fails, or brings back deleted rows.
"""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterable
from pathlib import Path

from feature_store.errors import DataError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# A file or folder in the root of a table -> the format. Such a table's log says which Parquet files belong to it.
_TABLES = {"_delta_log": "Delta Lake", ".hoodie": "Hudi", "metadata/version-hint.text": "Iceberg"}
_ICEBERG_METADATA = "metadata/*.metadata.json"


def source_files(path: str, folder: Path) -> list[Path]:
    """The files of a path, sorted. Names that start with `_` or `.` are unfinished work of other programs.

    Args:
        path: a file, a folder or a glob.
        folder: what a relative path is relative to.

    Raises:
        DataError: there is no file, or the path is a URL, or the files belong to a table of another format.
    """
    root, files = files_found(path, folder)
    if not files:
        hint = "names that start with _ or . are passed over"
        raise DataError(f"source {path}", expected=f"Parquet files under {folder}", got="none", hint=hint)
    if root.is_dir():
        _refuse_tables(path, root, files)
    return files


def files_found(path: str, folder: Path) -> tuple[Path, list[Path]]:
    """The file or folder that a path names, and the files in it, sorted; there may be none.

    Raises:
        DataError: the path is a URL.
    """
    _refuse_url(path)
    named = folder / path
    if named.is_file():
        return named, [named]
    if named.is_dir():
        return named, parquet_files(named)
    parts = Path(path).parts
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    root = folder.joinpath(*fixed)
    pattern = str(Path(*parts[len(fixed) :]))
    matching = [root / name for name in glob.glob(pattern, root_dir=root, recursive=True)]  # noqa: PTH207 - Path.glob finds hidden files
    return root, _finished(root, matching)


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files in a folder and its folders, sorted, without unfinished work."""
    return _finished(folder, folder.rglob("*.parquet"))


def _finished(root: Path, files: Iterable[Path]) -> list[Path]:
    return sorted(
        file
        for file in files
        if file.is_file() and not any(part.startswith(("_", ".")) for part in file.relative_to(root).parts)
    )


def _refuse_url(path: str) -> None:
    """Raise a DataError when a path is not one of this machine's file system."""
    if _URL.match(path):
        raise DataError(
            f"source {path}",
            problem="sources are read from the file system, and a URL is not supported",
            hint="mount the bucket or copy the files, and give the source a path",
        )


def _refuse_tables(path: str, root: Path, files: Iterable[Path]) -> None:
    """Raise a DataError when files belong to a table whose log says which of them count.

    Args:
        path: of the source, for the error.
        root: the folder that it names; tables above it do not matter.
        files: of the source.
    """
    folders = {parent for file in files for parent in (file.parent, *file.parents) if parent.is_relative_to(root)}
    for folder in sorted(folders):
        found = _table_format(folder)
        if found is not None:
            raise DataError(
                f"source {path}",
                problem=f"{folder} is a {found} table, and reading its Parquet files would bring back deleted rows",
                hint="export the table to plain Parquet files, and name their folder",
            )


def _table_format(folder: Path) -> str | None:
    for name, found in _TABLES.items():
        if (folder / name).exists():
            return found
    return "Iceberg" if any(folder.glob(_ICEBERG_METADATA)) else None
