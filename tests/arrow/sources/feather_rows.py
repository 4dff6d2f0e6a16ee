"""A kind of source as another package would add it: its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from feature_store.arrow.batch_sizes import schema_row_bytes, split
from feature_store.arrow.file_versions import FileVersion, file_versions, unchanged
from feature_store.arrow.plain import plain_batch
from feature_store.arrow.reading import reading
from feature_store.arrow.sources.source import OfflineSource
from feature_store.arrow.time_range import TimeRange
from feature_store.errors import DataError
from tests.arrow.sources.feather_source import FeatherSource


class FeatherPiece(NamedTuple):
    """A file as a piece of the source."""

    where: str
    version: FileVersion
    rows: int
    first: int
    row_bytes: int

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        del times  # all rows are read
        names = list(dict.fromkeys(columns))
        with unchanged(self.where, [self.version]), reading(self.where), pa.memory_map(self.version.path) as file:
            opened = pa.ipc.open_file(file)
            for number in range(opened.num_record_batches):
                yield from split(plain_batch(opened.get_batch(number).select(names)))


class FeatherRows(OfflineSource):
    """The rows of the files, in the order of their names."""

    def __init__(self, where: str, paths: Sequence[Path]) -> None:
        self.where = where
        self._pieces: list[FeatherPiece] = []
        with reading(where):
            self.files = file_versions(paths)
            first = 0
            for version in self.files:
                with pa.memory_map(version.path) as file:
                    opened = pa.ipc.open_file(file)
                    rows = sum(opened.get_batch(i).num_rows for i in range(opened.num_record_batches))
                    self.schema = opened.schema
                self._pieces.append(FeatherPiece(where, version, rows, first, schema_row_bytes(self.schema)))
                first += rows
        self.total = first
        self.version = hashlib.sha256(repr(self.files).encode()).hexdigest()

    @classmethod
    def open(cls, source: FeatherSource, folder: Path) -> FeatherRows:
        where, paths = f"source {source.folder}", _paths(source, folder)
        if not paths:
            raise DataError(where, problem="there is no Arrow file")
        return cls(where, paths)

    @classmethod
    def exists(cls, source: FeatherSource, folder: Path) -> bool:
        return bool(_paths(source, folder))

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        with unchanged(self.where, self.files):
            for piece in self._pieces:
                yield from piece.batches(columns, times)

    def pieces(self, columns: Sequence[str], times: TimeRange | None, *, most_bytes: int) -> list[FeatherPiece]:
        del columns, times, most_bytes  # a file cannot be cut
        return self._pieces


def _paths(source: FeatherSource, folder: Path) -> list[Path]:
    return sorted((folder / source.folder).glob("*.arrow"))
