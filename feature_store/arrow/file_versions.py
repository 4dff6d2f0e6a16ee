"""Checks that files do not change while they are read.

If a file is replaced, truncated, removed or appended to during a read, the rows can come from two versions, or be
incomplete. Readers of a source read inside `unchanged`, which compares the files with their versions when the source
was opened. If a file changed, the read fails, and nothing is recorded as done.

A file may be an object at a URL. Where its store compares the version of the object in each request, no check follows.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from feature_store._extras import requires_extra
from feature_store.definitions.file_url import is_url
from feature_store.errors import DataError

# Two writes in one tick of the file system's clock leave the same time. The longest tick on Linux is 10 ms.
_TICK_S = 0.02


class FileVersion(NamedTuple):
    """The version of a file. Two versions differ in size, in the time of the last change, or in their tags.

    Attributes:
        path: the path, or the URL.
        size: the size in bytes.
        modified_ns: the time of the last change, in nanoseconds since 1970.
        etag: the entity tag of an object at a URL. Empty: a file, or an object without one.
    """

    path: str
    size: int
    modified_ns: int
    etag: str = ""

    @property
    def is_remote(self) -> bool:
        """Whether the file is an object at a URL."""
        return is_url(self.path)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What stored hashes are made of. Do not change it for files: names of killed jobs depend on it."""
        return tuple(self) if self.etag else tuple(self)[:3]


def file_versions(paths: Sequence[str | Path | FileVersion]) -> tuple[FileVersion, ...]:
    """The current versions of files. Those that are given as versions, because a listing described them, stay.

    If a file was written within the last tick of the clock, wait at most 20 ms: another write in the same tick would
    leave the same time.

    Raises:
        OSError: a file does not exist, or cannot be accessed.
    """
    found = tuple(path if isinstance(path, FileVersion) else _version(str(path)) for path in paths)
    youngest_s = time.time() - max((version.modified_ns for version in found if not version.is_remote), default=0) / 1e9
    if 0 <= youngest_s < _TICK_S:
        time.sleep(_TICK_S - youngest_s)
        return tuple(version if version.is_remote else _version(version.path) for version in found)
    return found


def size_of(path: str) -> int | None:
    """The size of a file or object in bytes, or None if there is none.

    Raises:
        DataError, OSError: it cannot be accessed.
    """
    try:
        return _version(path).size
    except FileNotFoundError:
        return None


def version_of(files: Sequence[FileVersion]) -> str:
    """A text that changes if one of the files changes: 16 digits."""
    # Do not change this hash: names of killed jobs and of fences of histories, which are stored, depend on it.
    return hashlib.sha256(repr([version.identity for version in files]).encode()).hexdigest()[:16]


@contextlib.contextmanager
def unchanged(where: str, files: Sequence[FileVersion]) -> Iterator[None]:
    """A block that reads files, and fails if they change.

    Args:
        where: names the files in an error.
        files: the files, in the versions that the block expects.

    Raises:
        DataError: a file changed. This error replaces errors that the change caused in the block.
    """
    try:
        yield
    except (DataError, pa.ArrowException, OSError) as error:
        refuse_changes(where, files, error)
        raise
    refuse_changes(where, files)


def refuse_changes(where: str, files: Sequence[FileVersion], cause: Exception | None = None) -> None:
    """Raise a DataError if a file is no longer in its version."""
    for version in files:
        if version.is_remote and stores().is_compared(version.path, version.etag):
            continue
        what = _change(version)
        if what:
            raise DataError(
                where,
                problem=f"{Path(version.path).name} was {what} while it was read, so nothing of it is recorded as done",
                hint="run this again when no program writes to the file; write a new version beside it, then rename it",
            ) from cause


def stores() -> Any:
    """The module `arrow.objects`, which is loaded when the first URL is read.

    Raises:
        MissingDependencyError: obstore is not installed.
    """
    with requires_extra("objects", "files at URLs"):
        from feature_store.arrow import objects
    return objects


def _change(version: FileVersion) -> str:
    """What happened to a file since it had a version. Empty: nothing."""
    try:
        return "changed" if _version(version.path) != version else ""
    except FileNotFoundError:
        return "removed"
    except OSError as error:
        return f"made unreadable ({error.strerror})"


def _version(path: str) -> FileVersion:
    if is_url(path):
        found = stores().described(path)
        if found is None:
            raise FileNotFoundError(path)
        return FileVersion(*found)
    about = Path(path).stat()
    return FileVersion(path, about.st_size, about.st_mtime_ns)
