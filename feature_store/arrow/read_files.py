"""Which parts of a source's Parquet files are read, so that rows that come late are found by the files that bring them.

What is read is kept as bytes: 8 bytes of a hash of how the view's rows are computed, then one entry per file: 8 bytes
of a hash of its path, size and time, the number of its row groups (uint32, big-endian), and 8 bytes of a hash of each
row group. The hash of a row group is of its bytes in the file and of the names of its columns. So a file that was
rewritten with more rows, copied or touched is known by its row groups, and a file that is as it was is not looked at.
Footers alone would not do: two files of one day can have the same counts, sizes, least and greatest values.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import pyarrow.parquet as pq

from feature_store.arrow.sources import reading, source_rows_of
from feature_store.arrow.types import fit
from feature_store.definitions.dtypes import MIN_TIMESTAMP_US, Timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store._intervals import Interval
    from feature_store.arrow.sources import Rows
    from feature_store.definitions.feature_view import FeatureView

_HASH_BYTES, _COUNT_BYTES = 8, 4
_PIECE_BYTES = 1 << 20
# At the start: a document of a kind that this release does not know says nothing of what is read.
_FORMAT = b"2"


class ReadFiles(NamedTuple):
    """The files of a source, beside what was read of them.

    Attributes:
        document: what is kept when all of them are read.
        is_known: whether rows were computed before in the way in which they are computed now.
        unread: the files, each cut to its row groups that were not read as they are now.
        where: what the source is, for errors.
    """

    document: bytes
    is_known: bool
    unread: tuple[Any, ...]
    where: str

    def times_before(self, event_timestamp: str, end_us: int) -> Interval | None:
        """From the first to the last event time before `end_us` of what was not read; None: there is none.

        Raises:
            DataError: it cannot be read.
        """
        found = [interval for file in self.unread for interval in self._times(file, event_timestamp, end_us)]
        return (min(start for start, _ in found), max(end for _, end in found)) if found else None

    def _times(self, file: Any, event_timestamp: str, end_us: int) -> Iterator[Interval]:
        """Of each batch of a file, the times before an end."""
        source = source_rows_of(file, self.where)
        for batch in source.batches([event_timestamp], event_timestamp, MIN_TIMESTAMP_US, end_us):
            values, bad = fit(batch.column(0), Timestamp)
            times = values.fill_null(end_us).to_numpy()[~bad]
            before = times[times < end_us]
            if len(before):
                yield int(before.min()), int(before.max()) + 1


def computation_of(view: FeatureView) -> bytes:
    """A hash of what decides which rows a view's source gives. Rows that were computed otherwise count as not read.

    The types of fields are not part of it: other types are another layout, in a generation of its own.
    """
    assert view.source is not None
    source = view.source.model_dump(mode="json", include={"path", "event_timestamp", "created_timestamp"})
    aggregations = [aggregation.model_dump(mode="json") for aggregation in view.aggregations]
    return _hash(json.dumps([source, view.sql, aggregations], sort_keys=True))


def look_at(rows: Rows, known: bytes, computation: bytes) -> ReadFiles:
    """Compare a source's files with what was read of them.

    Args:
        rows: the source.
        known: the document of when it was read last; empty: never.
        computation: see `computation_of`.

    Raises:
        DataError: a file cannot be read.
    """
    head = _FORMAT + computation
    files, groups = _parsed(known, head)
    document, unread = [head], []
    with reading(rows.where):
        for file in rows.dataset.get_fragments():
            about = Path(file.path).stat()
            name = _hash(file.path, about.st_size, about.st_mtime_ns)
            hashes = files.get(name)
            if hashes is None:
                # Read after the time: of a file that is replaced meanwhile, the time is then the old one's.
                hashes = _group_hashes(file.path)
                new = [i for i, found in enumerate(hashes) if found not in groups]
                if new:
                    unread.append(file.subset(row_group_ids=new))
            document += [name, len(hashes).to_bytes(_COUNT_BYTES, "big"), *hashes]
    return ReadFiles(b"".join(document), known.startswith(head), tuple(unread), rows.where)


def _parsed(document: bytes, head: bytes) -> tuple[dict[bytes, list[bytes]], set[bytes]]:
    """By file the hashes of its row groups, and all of them."""
    files: dict[bytes, list[bytes]] = {}
    if not document.startswith(head):
        return files, set()
    at = len(head)
    while at < len(document):
        name, at = document[at : at + _HASH_BYTES], at + _HASH_BYTES
        count, at = int.from_bytes(document[at : at + _COUNT_BYTES], "big"), at + _COUNT_BYTES
        end = at + count * _HASH_BYTES
        if end > len(document):
            return {}, set()
        files[name] = [document[i : i + _HASH_BYTES] for i in range(at, end, _HASH_BYTES)]
        at = end
    return files, {found for hashes in files.values() for found in hashes}


def _group_hashes(path: str) -> list[bytes]:
    """A hash of each row group of a file."""
    with Path(path).open("rb") as file:
        footer = pq.read_metadata(file)
        return [_group_hash(file, footer.row_group(i)) for i in range(footer.num_row_groups)]


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
