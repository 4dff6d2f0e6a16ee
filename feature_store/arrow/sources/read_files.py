"""Which files of a source an earlier read saw, for sources that are incremental by file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from feature_store.arrow.file_versions import FileVersion

_HASH_BYTES = 8


def unread_files(files: Sequence[FileVersion], known: bytes) -> tuple[bytes, list[bool]]:
    """The files of a source that were not read when `known` was recorded; see `OfflineSource.unread`.

    A file that has the same path, size and time of the last change counts as read.

    Returns:
        The document of the source, with a hash of 8 bytes for each file; and whether each file was not read.
    """
    read = {known[start : start + _HASH_BYTES] for start in range(0, len(known), _HASH_BYTES)}
    hashes = [_hash(version) for version in files]
    return b"".join(hashes), [found not in read for found in hashes]


def _hash(version: FileVersion) -> bytes:
    return hashlib.blake2b(repr(version.identity).encode(), digest_size=_HASH_BYTES).digest()
