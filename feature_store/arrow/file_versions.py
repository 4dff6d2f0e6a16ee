"""Checks that files do not change while they are read.

A file that is replaced, truncated, removed or appended to while it is read gives rows of two versions of it, or not all
rows of one. Readers of a source read inside `unchanged`, which compares the files with their versions at the opening of
the source. If a file changed, the read is an error, and so nothing is recorded as done.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from feature_store.errors import DataError

# Two writes within one tick of a file system's clock leave one time. The slowest tick of Linux is 10 ms.
_TICK_S = 0.02


class FileVersion(NamedTuple):
    """A file as it was: another version has another size or another time of its last change."""

    path: str
    size: int
    modified_ns: int


def file_versions(paths: Sequence[str | Path]) -> tuple[FileVersion, ...]:
    """The present versions of files.

    A file that was written within the last tick of the clock is waited for, at most 20 ms: another write in that tick
    would have the same time.

    Raises:
        OSError: a file does not exist.
    """
    found = tuple(_version(str(path)) for path in paths)
    youngest_s = time.time() - max((version.modified_ns for version in found), default=0) / 1e9
    if 0 <= youngest_s < _TICK_S:
        time.sleep(_TICK_S - youngest_s)
        return tuple(_version(version.path) for version in found)
    return found


@contextlib.contextmanager
def unchanged(where: str, files: Sequence[FileVersion]) -> Iterator[None]:
    """Around reading files.

    Raises:
        DataError: a file was changed meanwhile; also in place of the errors that the change caused.
    """
    try:
        yield
    except (DataError, pa.ArrowException, OSError) as error:
        refuse_changes(where, files, error)
        raise
    refuse_changes(where, files)


def refuse_changes(where: str, files: Sequence[FileVersion], cause: Exception | None = None) -> None:
    """Raise a DataError when a file is not what it was."""
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
