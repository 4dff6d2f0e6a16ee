"""Finds the files of a path: one file, the files of a kind in a folder, or the files of a glob.

A path is refused if it is a URL, or if reading its files would bring back deleted rows.
"""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from feature_store.errors import DataError


class FileKind(NamedTuple):
    """A kind of file.

    Attributes:
        name: the kind in errors, such as `Parquet`.
        suffixes: the ends of the names of such files in a folder. A file or a glob may have other names.
    """

    name: str
    suffixes: tuple[str, ...]


PARQUET = FileKind("Parquet", (".parquet",))
ARROW = FileKind("Arrow", (".arrow", ".feather"))
AVRO = FileKind("Avro", (".avro",))
CSV = FileKind("CSV", (".csv", ".csv.gz", ".csv.zst"))
_JSON_LINES = (".jsonl", ".ndjson")
JSON_LINES = FileKind("JSON lines", tuple(name + end for name in _JSON_LINES for end in ("", ".gz", ".zst")))
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# A file or folder in the root of a table -> the table's format. The log of such a table lists its current files.
_TABLES = {"_delta_log": "Delta Lake", ".hoodie": "Hudi", "metadata/version-hint.text": "Iceberg"}
# A table's format -> the source that reads it.
_TABLE_HINTS = {
    "Delta Lake": "read it with DeltaSource, which names the folder of the table",
    "Iceberg": "read it with IcebergSource, which names the table in its catalog",
}
_ICEBERG_METADATA = "metadata/*.metadata.json"


def source_files(path: str, folder: Path, kind: FileKind) -> list[Path]:
    """The files of a path, sorted. Names that begin with `_` or `.` are left out: other programs' unfinished files.

    Args:
        path: a file, a folder or a glob.
        folder: the folder that a relative path refers to.
        kind: the kind of the files.

    Raises:
        DataError: there is no file, the path is a URL, or the files belong to a Delta Lake, Hudi or Iceberg table.
    """
    root, files = files_found(path, folder, kind)
    if not files:
        hint = "names that start with _ or . are passed over"
        raise DataError(f"source {path}", expected=f"{kind.name} files under {folder}", got="none", hint=hint)
    if root.is_dir():
        _refuse_tables(path, root, files, kind)
    return files


def files_found(path: str, folder: Path, kind: FileKind) -> tuple[Path, list[Path]]:
    """The file or folder that a path names, and its files, sorted. There may be no files.

    Raises:
        DataError: the path is a URL.
    """
    _refuse_url(path)
    named = folder / path
    if named.is_file():
        return named, [named]
    if named.is_dir():
        return named, files_in(named, kind)
    parts = Path(path).parts
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    root = folder.joinpath(*fixed)
    pattern = str(Path(*parts[len(fixed) :]))
    matching = [root / name for name in glob.glob(pattern, root_dir=root, recursive=True)]  # noqa: PTH207 - Path.glob finds hidden files
    return root, _finished(root, matching)


def files_in(folder: Path, kind: FileKind) -> list[Path]:
    """The files of a kind in a folder and its subfolders, sorted, without unfinished files."""
    return _finished(folder, itertools.chain.from_iterable(folder.rglob(f"*{suffix}") for suffix in kind.suffixes))


def _finished(root: Path, files: Iterable[Path]) -> list[Path]:
    return sorted(
        file
        for file in files
        if file.is_file() and not any(part.startswith(("_", ".")) for part in file.relative_to(root).parts)
    )


def _refuse_url(path: str) -> None:
    """Raise a DataError if a path is a URL."""
    if _URL.match(path):
        raise DataError(
            f"source {path}",
            problem="sources are read from the file system, and a URL is not supported",
            hint="mount the bucket or copy the files, and give the source a path",
        )


def _refuse_tables(path: str, root: Path, files: Iterable[Path], kind: FileKind) -> None:
    """Raise a DataError if files belong to a table whose log decides which of them are current.

    Args:
        path: the path of the source, for the error.
        root: the folder that the path names. Tables in folders above it do not matter.
        files: the files of the source.
        kind: the kind of the files.
    """
    folders = {parent for file in files for parent in (file.parent, *file.parents) if parent.is_relative_to(root)}
    for folder in sorted(folders):
        found = _table_format(folder)
        if found is not None:
            raise DataError(
                f"source {path}",
                problem=f"{folder} is a {found} table, and reading its {kind.name} files would bring back deleted rows",
                hint=_TABLE_HINTS.get(found, "export the table to plain Parquet files, and name their folder"),
            )


def _table_format(folder: Path) -> str | None:
    for name, found in _TABLES.items():
        if (folder / name).exists():
            return found
    return "Iceberg" if any(folder.glob(_ICEBERG_METADATA)) else None
