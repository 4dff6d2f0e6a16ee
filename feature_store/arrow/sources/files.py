"""Finds the files of a path or URL: one file, the files of a kind in a folder, or the files of a glob.

A path is refused if reading its files would bring back deleted rows.
"""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from feature_store.arrow.file_versions import FileVersion
from feature_store.arrow.sources.object_files import folders_of, objects_found
from feature_store.definitions.file_url import is_url
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
# A file or folder in the root of a table -> the table's format. The log of such a table lists its current files.
_TABLES = {"_delta_log": "Delta Lake", ".hoodie": "Hudi", "metadata/version-hint.text": "Iceberg"}
# A table's format -> the source that reads it.
_TABLE_HINTS = {
    "Delta Lake": "read it with DeltaSource, which names the folder of the table",
    "Iceberg": "read it with IcebergSource, which names the table in its catalog",
}
_ICEBERG_METADATA = "metadata/*.metadata.json"


def source_files(path: str, folder: Path, kind: FileKind) -> Sequence[Path | FileVersion]:
    """The files of a path, sorted. Names that begin with `_` or `.` are left out: other programs' unfinished files.

    Args:
        path: a file, a folder or a glob, or a URL of these.
        folder: the folder that a relative path refers to.
        kind: the kind of the files.

    Returns:
        Paths, or, for a URL, the objects in the versions that the store listed.

    Raises:
        DataError: there is no file, the files belong to a Delta Lake, Hudi or Iceberg table, or the store of a URL
            cannot be read.
    """
    return rooted_files(path, folder, kind)[1]


def rooted_files(path: str, folder: Path, kind: FileKind) -> tuple[Path, Sequence[Path | FileVersion]]:
    """The file or folder that a path or URL names, and its files; see `source_files`."""
    if is_url(path):
        found = objects_found(path, kind.suffixes)
        _refuse_none(path, path, kind, found.files)
        _refuse_remote_tables(path, found.names, [file.path[len(found.root) + 1 :] for file in found.files], kind)
        return Path(found.root), found.files
    root, files = _local_files(path, folder, kind)
    _refuse_none(path, folder, kind, files)
    if root.is_dir():
        _refuse_tables(path, root, files, kind)
    return root, files


def has_files(path: str, folder: Path, kind: FileKind) -> bool:
    """Whether a path or URL has files of a kind yet.

    Raises:
        DataError: the store of a URL cannot be read.
    """
    return bool(objects_found(path, kind.suffixes).files if is_url(path) else _local_files(path, folder, kind)[1])


def _local_files(path: str, folder: Path, kind: FileKind) -> tuple[Path, list[Path]]:
    """The file or folder that a path names, and its files, sorted. There may be no files."""
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


def _refuse_none(path: str, place: str | Path, kind: FileKind, files: Sequence[object]) -> None:
    """Raise a DataError if there are no files."""
    if not files:
        hint = "names that start with _ or . are passed over"
        raise DataError(f"source {path}", expected=f"{kind.name} files under {place}", got="none", hint=hint)


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
            raise _of_table(path, str(folder), found, kind)


def _refuse_remote_tables(path: str, names: Iterable[str], files: Iterable[str], kind: FileKind) -> None:
    """As `_refuse_tables`, by the names of all objects below a URL."""
    folders = folders_of(files)
    for name in sorted(names):
        for folder in folders_of([name]) & folders:
            found = _table_of_mark(name.removeprefix(folder))
            if found is not None:
                raise _of_table(path, folder or path, found, kind)


def _table_of_mark(name: str) -> str | None:
    """The format of the table that has a file of this name, relative to its root. None: no table has one."""
    for mark, found in _TABLES.items():
        if name == mark or name.startswith(f"{mark}/"):
            return found
    return "Iceberg" if fnmatchcase(name, _ICEBERG_METADATA) else None


def _of_table(path: str, folder: str, found: str, kind: FileKind) -> DataError:
    problem = f"{folder} is a {found} table, and reading its {kind.name} files would bring back deleted rows"
    hint = _TABLE_HINTS.get(found, "export the table to plain Parquet files, and name their folder")
    return DataError(f"source {path}", problem=problem, hint=hint)


def _table_format(folder: Path) -> str | None:
    for name, found in _TABLES.items():
        if (folder / name).exists():
            return found
    return "Iceberg" if any(folder.glob(_ICEBERG_METADATA)) else None
