"""The interface that each kind of offline source implements."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.arrow.file_versions import FileVersion
from feature_store.arrow.plain import plain_type
from feature_store.arrow.sources.sequence import RowSequence, taken, type_fits
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.dtypes import DType

# Size in memory of the rows of a piece, for pieces of which only the times are read.
_PIECE_BYTES = 32 << 20


class Piece(Protocol):
    """Some rows of a source, for one of several parallel readers.

    A piece is plain, picklable data. It can be read in another process, on another machine.

    Attributes:
        rows: the number of its rows, before a range of times leaves out some.
        first: the place of its first row in the source. Places grow from piece to piece:
            `first + rows <= next.first`.
        row_bytes: the approximate size in memory of a row of the wanted columns, in bytes.
    """

    @property
    def rows(self) -> int: ...  # noqa: D102 - see the class

    @property
    def first(self) -> int: ...  # noqa: D102 - see the class

    @property
    def row_bytes(self) -> int: ...  # noqa: D102 - see the class

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """The rows, as `OfflineSource.batches` yields them.

        Raises:
            DataError: the piece cannot be read, or its source changed since the piece was made.
        """
        ...


class Unread(NamedTuple):
    """The rows of a source that an earlier read did not see.

    Attributes:
        document: records that the whole source was read, in its present state. It is kept, and passed to the next call
            as `known`.
        pieces: the rows that were not read. They must be complete, but may also contain rows that were read.
    """

    document: bytes
    pieces: tuple[Piece, ...]


class OfflineSource(ABC):
    """The rows of one source, opened at one version of it.

    Each kind of source has a subclass, which its BatchSource names as `reader`. A subclass must implement `open`,
    `batches` and `pieces`. The other methods have defaults that are correct for every source; a subclass can override
    them to read less.

    Every read of an open source, in any process, returns the rows of the version that was opened, always in the same
    order, or raises a DataError.

    Attributes:
        where: names the source in errors, such as `source data/users.parquet`.
        schema: the columns, named as views take them. If parts of the source differ, it has the columns of all parts,
            each in the type of the first part that has it, and `schemas` returns the types of each part.
        version: a text that changes if the rows change and stays if the source is unchanged, such as a hash of files or
            the id of a snapshot.
        pinned: attribute of the definition -> its value with which this version can be opened again. Empty: the source
            keeps no versions.
        total: the number of rows. None: unknown before they are read.
        files: the files that hold the rows, for the manifest of training sets. Empty: the source has no files.
        parquet_files: paths of Parquet files that hold exactly these rows; DuckDB runs `sql=` on them. None: the rows
            are exported to Parquet files before SQL runs.
    """

    where: str
    schema: pa.Schema
    version: str
    pinned: Mapping[str, int] = MappingProxyType({})
    total: int | None = None
    files: tuple[FileVersion, ...] = ()
    parquet_files: tuple[str, ...] | None = None

    @classmethod
    @abstractmethod
    def open(cls, source: Any, folder: Path) -> Self:
        """Open the newest version of a source. No rows are read.

        Args:
            source: the definition. Its class names this class as `reader`.
            folder: the folder that relative paths refer to.

        Raises:
            DataError: the source does not exist, or cannot be reached or read.
        """

    @classmethod
    def exists(cls, source: Any, folder: Path) -> bool:
        """Whether there are rows to open yet, since a view may be applied before its first rows arrive.

        Raises:
            DataError: the source can never be opened, for example because its path is not supported.
        """
        del source, folder
        return True

    @abstractmethod
    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """Columns of the rows, in the order of the source, in batches of about 16 MB (`batch_sizes.split`).

        Columns are plain (`plain.plain_batch`): no dictionaries, run-end encodings or string views.

        Args:
            columns: names of columns. The batches have them in this order, each once.
            times: rows outside this range may be left out (see TimeRange). The choice of rows must not depend on
                `columns`. None: all rows.

        Raises:
            DataError: the rows cannot be read, or changed since the source was opened.
        """

    @abstractmethod
    def pieces(self, columns: Sequence[str], times: TimeRange | None, *, most_bytes: int) -> Sequence[Piece]:
        """The rows as pieces for parallel readers, in order.

        Args:
            columns: names of the columns that will be read.
            times: pieces without rows in this range may be left out. None: all pieces.
            most_bytes: the memory that a piece should take at most. A piece that cannot be divided may take more.

        Raises:
            DataError: the source cannot be read.
        """

    def unchanged(self) -> AbstractContextManager[None]:
        """A block that reads the rows other than through `batches`. Raises a DataError if the rows change meanwhile.

        The default checks nothing. It is for sources whose versions stay readable, such as snapshots.
        """
        return contextlib.nullcontext()

    def schemas(self) -> Sequence[tuple[str, pa.Schema]]:
        """(name, schema) of each part whose types may differ. The name is for errors."""
        return [(self.where, self.schema)]

    def count(self, times: TimeRange) -> int | None:
        """The number of rows whose time is in a range or null. None: unknown without reading the rows.

        Raises:
            DataError: the source cannot be read.
        """
        del times
        return None

    def sequence(self, times: TimeRange) -> RowSequence:
        """The rows in a range of times as one sequence, of which rows can be read again by their places.

        Raises:
            DataError: the source cannot be read.
        """
        return StreamedSequence(self, times)

    def unread(self, known: bytes) -> Unread:
        """The rows that were not read when `known` was recorded. An empty `known`: nothing was read.

        The default compares versions only: if the version changed, all rows count as not read.

        Raises:
            DataError: the source cannot be read.
        """
        document = self.version.encode()
        if known == document:
            return Unread(document, ())
        return Unread(document, tuple(self.pieces(self.schema.names, None, most_bytes=_PIECE_BYTES)))


class StreamedSequence(RowSequence):
    """The sequence of a source that cannot skip to a place. `gather` reads all rows again, up to the last place.

    Args:
        source: the source.
        times: the range of times.
    """

    def __init__(self, source: OfflineSource, times: TimeRange) -> None:
        self._source, self._times = source, times
        self.total = source.total

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See RowSequence."""
        return self._source.batches(columns, self._times)

    def gather(self, columns: Sequence[str], places: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """See RowSequence."""
        return taken(self.batches(columns), places)

    def fits(self, column: str, dtype: DType) -> bool:
        """See RowSequence."""
        return all(type_fits(plain_type(schema.field(column).type), dtype) for _, schema in self._source.schemas())
