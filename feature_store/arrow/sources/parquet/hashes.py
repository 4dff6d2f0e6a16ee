"""Records which row groups of Parquet files were read. Row groups that were not read hold the late rows.

The document has an entry for each file: 8 bytes with a hash of its path, size and time, the number of its row groups
(uint32, big-endian), and 8 bytes with a hash of each row group. The hash of a row group covers the bytes of its pages
and the names of its columns. If a file was copied, touched or rewritten with more rows, its old row groups are still
recognized. An unchanged file is not opened. Footers alone are not enough: two files of one day can have the same
counts, sizes, and least and greatest values.

An object at a URL is not read for its hashes. They are made of its version, so that a copy or a new version of it
counts as not read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import pyarrow.parquet as pq

from feature_store.arrow.file_versions import FileVersion
from feature_store.arrow.sources.parquet.batches import parquet_fragment

_HASH_BYTES, _COUNT_BYTES = 8, 4
_PIECE_BYTES = 1 << 20


class ReadGroups(NamedTuple):
    """The row groups that were read.

    Attributes:
        files: the hashes of each file's row groups, by the hash of the file.
        groups: the hashes of all row groups.
    """

    files: dict[bytes, list[bytes]]
    groups: set[bytes]

    @classmethod
    def parse(cls, document: bytes) -> Self:
        """The row groups in a document. Empty if the document is truncated."""
        files: dict[bytes, list[bytes]] = {}
        at = 0
        while at < len(document):
            name, at = document[at : at + _HASH_BYTES], at + _HASH_BYTES
            count, at = int.from_bytes(document[at : at + _COUNT_BYTES], "big"), at + _COUNT_BYTES
            end = at + count * _HASH_BYTES
            if end > len(document):
                return cls({}, set())
            files[name] = [document[i : i + _HASH_BYTES] for i in range(at, end, _HASH_BYTES)]
            at = end
        return cls(files, {found for hashes in files.values() for found in hashes})

    def compare(self, file: FileVersion) -> tuple[bytes, list[int]]:
        """The entry of a file for the next document, and the numbers of its row groups that were not read.

        Raises:
            OSError, ArrowException: the file cannot be read.
        """
        name = _hash(*file.identity)
        hashes = self.files.get(name)
        new: list[int] = []
        if hashes is None:
            hashes = _object_hashes(file) if file.is_remote else _group_hashes(file.path)
            new = [i for i, found in enumerate(hashes) if found not in self.groups]
        return b"".join([name, len(hashes).to_bytes(_COUNT_BYTES, "big"), *hashes]), new


def _group_hashes(path: str) -> list[bytes]:
    """The hash of each row group of a file."""
    with Path(path).open("rb") as file:
        footer = pq.read_metadata(file)
        return [_group_hash(file, footer.row_group(i)) for i in range(footer.num_row_groups)]


def _object_hashes(file: FileVersion) -> list[bytes]:
    """The hash of each row group of an object."""
    return [_hash(*file.identity, number) for number in range(parquet_fragment(file).metadata.num_row_groups)]


def _group_hash(file: BinaryIO, group: Any) -> bytes:
    """A hash of a row group's columns: their names, and the bytes of their pages."""
    digest = hashlib.blake2b(digest_size=_HASH_BYTES)
    for column in map(group.column, range(group.num_columns)):
        digest.update(repr((column.path_in_schema, column.total_compressed_size)).encode())
        file.seek(min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset))
        left = column.total_compressed_size
        while left > 0 and (piece := file.read(min(left, _PIECE_BYTES))):
            digest.update(piece)
            left -= len(piece)
    return digest.digest()


def _hash(*about: Any) -> bytes:
    return hashlib.blake2b(repr(about).encode(), digest_size=_HASH_BYTES).digest()
