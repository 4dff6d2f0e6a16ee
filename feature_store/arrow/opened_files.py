"""Opens files of a version, on this machine or at a URL, as the readers of formats take them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_store.arrow.file_versions import FileVersion, stores
from feature_store.definitions.file_url import is_url

# The begin of a file, which holds a header or the first lines of text. Readers of these look at 4 MB at most.
_BEGIN_BYTES = 16 << 20


def opened_object(file: FileVersion) -> tuple[pa.PythonFile, Any]:
    """An object at a URL: as a file for Arrow, and the ObjectFile that it reads from.

    Raises:
        MissingDependencyError: obstore is not installed.
    """
    read = _object(file)
    return pa.PythonFile(read, "r"), read


def opened_file(file: FileVersion) -> pa.NativeFile:
    """A file, open for reads at any place.

    Raises:
        OSError: the file cannot be read.
        MissingDependencyError: obstore is not installed.
    """
    return opened_object(file)[0] if file.is_remote else pa.OSFile(file.path)


@contextlib.contextmanager
def local_file(file: FileVersion, *, only_begin: bool = False) -> Iterator[str]:
    """The path of a file on this machine. An object at a URL is copied to a temporary file as long as the block runs.

    Formats that are read from the begin to the end are parsed by threads, which must not call Python; and some are read
    more than once.

    Args:
        file: the file.
        only_begin: whether the first 16 MB are enough.

    Raises:
        DataError: the object changed, or cannot be read.
        OSError: there is no space for the copy.
    """
    if not file.is_remote:
        yield file.path
        return
    from feature_store.arrow.object_file import copied

    with tempfile.TemporaryDirectory(prefix="feature-store-") as folder:
        target = Path(folder) / Path(file.path).name
        copied(_object(file), min(file.size, _BEGIN_BYTES) if only_begin else file.size, target)
        yield str(target)


def content_of(path: str) -> bytes | None:
    """All bytes of a small file or object, or None if there is none of this path or URL.

    Raises:
        DataError, OSError: it cannot be read.
    """
    if not is_url(path):
        return Path(path).read_bytes() if Path(path).exists() else None
    found = stores().described(path)
    return None if found is None else bytes(_object(FileVersion(*found)).read())


def _object(file: FileVersion) -> Any:
    stores()  # names the extra, if it is not installed
    from feature_store.arrow.object_file import ObjectFile

    return ObjectFile(file.path, file.size, file.etag)
