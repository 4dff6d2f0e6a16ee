"""What a kind of offline source implements."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.arrow.file_versions import FileVersion
from feature_store.arrow.plain import plain_type
from feature_store.arrow.sources.sequence import RowSequence, taken, type_fits
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.dtypes import DType

# Of rows in memory, for a piece that is read for its times alone.
_PIECE_BYTES = 32 << 20


class Piece(Protocol):
    """Some neighbouring rows of a source, for one of several readers.

    A piece is plain data: it is pickled, and read in another process, on another machine.

    Attributes:
        rows: how many rows it has, before a range of times leaves out some.
        first: the place of its first row in the source. Places grow from piece to piece, so that
            `first + rows <= next.first`.
        row_bytes: about how many bytes of memory a row of the wanted columns takes.
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
    """What a source holds beyond an earlier read.

    Attributes:
        document: what says that all of the source was read, as it is now; kept and given back as `known`.
        pieces: the rows that were not read. A row that was read may be among them; none that was not may be missing.
    """

    document: bytes
    pieces: tuple[Piece, ...]


class OfflineSource(ABC):
    """The rows of one source, opened at one version of it.

    A kind of source subclasses it, and its BatchSource names the subclass as `reader`. Only `open`, `batches` and
    `pieces` must be written. The other methods have implementations that are right for every source; a source that
    knows more overrides them to read less.

    Every read of an open source, in whatever process, gives the rows of the version that was opened, in one order,
    or raises a DataError.

    Attributes:
        where: what the source is, for errors: `source data/users.parquet`.
        schema: the columns, named as views take them. Where parts of the source differ, this is the first part's
            schema, and `schemas` has all.
        version: a text that stays the same as long as the rows do, such as a hash of files or the id of a snapshot.
        total: how many rows there are; None: not known before they are read.
        files: the files that hold the rows, for the manifest of training sets; empty where there are none.
        parquet_files: paths of Parquet files that hold exactly these rows; DuckDB runs `sql=` on them. None: the rows
            are written to such files before SQL runs.
    """

    where: str
    schema: pa.Schema
    version: str
    total: int | None = None
    files: tuple[FileVersion, ...] = ()
    parquet_files: tuple[str, ...] | None = None

    @classmethod
    @abstractmethod
    def open(cls, source: Any, folder: Path) -> Self:
        """Open the newest version of a source. No rows are read.

        Args:
            source: the definition, of the class that names this one as its reader.
            folder: what relative paths are relative to.

        Raises:
            DataError: the source is missing, or cannot be reached or read.
        """

    @classmethod
    def exists(cls, source: Any, folder: Path) -> bool:
        """Whether there is anything to open yet: a view may be applied before its first rows arrive.

        Raises:
            DataError: nothing can ever be opened, such as a path that is not supported.
        """
        del source, folder
        return True

    @abstractmethod
    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """Columns of the rows, in the order of the source, in batches of about 16 MB (`batch_sizes.split`).

        Columns are plain (`plain.plain_batch`): no dictionaries, run-length encodings or views of text.

        Args:
            columns: names; the batches have them in this order, each once.
            times: rows outside of this range may be left out (see TimeRange). Which rows are left out must not depend
                on `columns`. None: all rows.

        Raises:
            DataError: the rows cannot be read, or changed since the source was opened.
        """

    @abstractmethod
    def pieces(self, columns: Sequence[str], times: TimeRange | None, *, most_bytes: int) -> Sequence[Piece]:
        """The rows cut into pieces for parallel readers, in order.

        Args:
            columns: names of the columns that will be read.
            times: pieces without rows in this range may be left out.
            most_bytes: a piece should take at most this much memory. One that cannot be cut may take more.

        Raises:
            DataError: the source cannot be read.
        """

    def unchanged(self) -> AbstractContextManager[None]:
        """Around a read that does not go through `batches`: raises a DataError when the rows changed meanwhile.

        The default is for sources whose versions stay readable, such as snapshots.
        """
        return contextlib.nullcontext()

    def schemas(self) -> Sequence[tuple[str, pa.Schema]]:
        """The schemas of all parts that may differ in their types, each with what the part is, for errors."""
        return [(self.where, self.schema)]

    def count(self, times: TimeRange) -> int | None:
        """How many rows have a time in a range, or none; None: not known without reading them.

        Raises:
            DataError: the source cannot be read.
        """
        del times
        return None

    def sequence(self, times: TimeRange) -> RowSequence:
        """The rows in a range of times as one sequence, of which some rows are read again by their places.

        Raises:
            DataError: the source cannot be read.
        """
        return StreamedSequence(self, times)

    def unread(self, known: bytes) -> Unread:
        """What was not read when `known` was the document; empty: nothing was read.

        The default knows versions alone: of another version, all rows count as not read.

        Raises:
            DataError: the source cannot be read.
        """
        document = self.version.encode()
        if known == document:
            return Unread(document, ())
        return Unread(document, tuple(self.pieces(self.schema.names, None, most_bytes=_PIECE_BYTES)))


class StreamedSequence(RowSequence):
    """The sequence of a source that cannot skip to a place: `gather` reads the rows again, up to the last place.

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
