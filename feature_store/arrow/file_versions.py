"""Checks that files do not change while they are read.

If a file is replaced, truncated, removed or appended to during a read, the rows can come from two versions, or be
incomplete. Readers of a source read inside `unchanged`, which compares the files with their versions when the source
was opened. If a file changed, the read fails, and nothing is recorded as done.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from feature_store.errors import DataError

# Two writes in one tick of the file system's clock leave the same time. The longest tick on Linux is 10 ms.
_TICK_S = 0.02


class FileVersion(NamedTuple):
    """The version of a file. Two versions differ in size (bytes) or in the time of the last change."""

    path: str
    size: int
    modified_ns: int


def file_versions(paths: Sequence[str | Path]) -> tuple[FileVersion, ...]:
    """The current versions of files.

    If a file was written within the last tick of the clock, wait at most 20 ms: another write in the same tick would
    leave the same time.

    Raises:
        OSError: a file does not exist, or cannot be accessed.
    """
    found = tuple(_version(str(path)) for path in paths)
    youngest_s = time.time() - max((version.modified_ns for version in found), default=0) / 1e9
    if 0 <= youngest_s < _TICK_S:
        time.sleep(_TICK_S - youngest_s)
        return tuple(_version(version.path) for version in found)
    return found


def version_of(files: Sequence[FileVersion]) -> str:
    """A text that changes if one of the files changes: 16 digits."""
    # Do not change this hash: names of killed jobs and of fences of histories, which are stored, depend on it.
    return hashlib.sha256(repr([tuple(version) for version in files]).encode()).hexdigest()[:16]


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
        try:
            what = "changed" if _version(version.path) != version else ""
        except FileNotFoundError:
            what = "removed"
        except OSError as error:
            what = f"made unreadable ({error.strerror})"
        if what:
            raise DataError(
                where,
                problem=f"{Path(version.path).name} was {what} while it was read, so nothing of it is recorded as done",
                hint="run this again when no program writes to the file; write a new version beside it, then rename it",
            ) from cause


def _version(path: str) -> FileVersion:
    about = Path(path).stat()
    return FileVersion(path, about.st_size, about.st_mtime_ns)
