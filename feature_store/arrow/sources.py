"""Where rows come from: Parquet files of a source, or a table that is pushed. All become Arrow record batches, whose
columns are plain (`plain.py`), and which are of about 16 MB each, whatever is in the rows.

Reading takes place in `unchanged`: rows of a file that is another one in the end are an error.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from feature_store.arrow.batch_sizes import (
    batch_rows,
    columns_of_repeats,
    group_row_bytes,
    split,
)
from feature_store.arrow.file_versions import FileVersion, file_versions, unchanged
from feature_store.arrow.plain import plain_batch, plain_schema
from feature_store.arrow.rows import source_columns
from feature_store.arrow.source_formats import refuse_tables, refuse_url
from feature_store.arrow.types import TO_MICROSECONDS
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, from_microseconds
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.source import ParquetSource
from feature_store.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from feature_store.definitions.batch_source import BatchSource
    from feature_store.definitions.stream_view import StreamFeatureView

_BUFFER_BYTES = 1 << 20  # read at once of each column of a file
# Spark's old timestamps count nanoseconds since 4713 BC: as nanoseconds since 1970 they would wrap.
INT96_UNIT = "us"
_DAY_US = 86_400_000_000
# Where a file does not say how large rows are, the first of a row group are measured, unless there are few.
_PILOT_ROWS, _FEW_ROWS = 1024, 8192


class Piece(NamedTuple):
    """Some neighbouring row groups of a file, as plain data: what one of several readers takes.

    Attributes:
        file: its path.
        row_groups: their numbers.
        rows: how many there are.
        first: the place of the first of them in the source.
        version: the file as it was when it was cut.
        row_bytes: how many bytes of memory a row takes, about.
    """

    file: str
    row_groups: tuple[int, ...]
    rows: int
    first: int
    version: FileVersion
    row_bytes: int = 1


class Rows(NamedTuple):
    """Rows to be read once.

    Attributes:
        where: what they are, for errors.
        schema: of all their columns; of files that differ, the first one's.
        total: how many, before any filter; None when not known.
        dataset: files that hold them, or None.
        stream: else their batches.
        text: whether all columns are text that is to be parsed.
        files: the files as they were when they were opened.
        pushed: whether they come from a caller and not from a view's source.
    """

    where: str
    schema: pa.Schema
    total: int | None
    dataset: Any = None
    stream: Iterable[pa.RecordBatch] = ()
    text: bool = False
    files: tuple[FileVersion, ...] = ()
    pushed: bool = False

    def batches(self, columns: list[str], event_timestamp: str, start_us: int, end_us: int) -> Iterator[pa.RecordBatch]:
        """The rows, in the order of the source. Of files, those that cannot be in `[start_us, end_us)` are left out.

        Raises:
            DataError: they cannot be read, or a file was changed meanwhile.
        """
        names = list(dict.fromkeys(columns))
        with self.unchanged(), reading(self.where):
            if self.dataset is None:
                for batch in self.stream:
                    yield from split(plain_batch(batch.select(names)))
                return
            # One file after the other, each with its own types: casting all to one type could round, and rows are
            # checked against the declared types anyway.
            for file in self.dataset.get_fragments():
                inside = between(file.physical_schema.field(event_timestamp), start_us, end_us)
                chosen = file if inside is None else file.subset(filter=inside, schema=file.physical_schema)
                for batch in file_batches(file, names, [group.id for group in chosen.row_groups]):
                    yield batch if inside is None else batch.filter(inside)

    def unchanged(self) -> AbstractContextManager[None]:
        """See file_versions: for whoever reads the files in another way."""
        return unchanged(self.where, self.files)

    def pieces(
        self, columns: list[str], event_timestamp: str, start_us: int, end_us: int, *, most_bytes: int
    ) -> list[Piece]:
        """The files cut into pieces of at most so many bytes of these columns in memory, or of one row group.

        Row groups that cannot be in `[start_us, end_us)` are left out.

        Raises:
            DataError: they cannot be read.
        """
        found: list[Piece] = []
        place = 0
        with reading(self.where):
            files = zip(self.dataset.get_fragments(), self.schemas(columns), self.files, strict=True)
            for file, schema, version in files:
                wanted = between(file.physical_schema.field(event_timestamp), start_us, end_us)
                row_bytes = _file_row_bytes(file, schema)
                cut = _pieces_of(file, most_bytes // row_bytes, wanted, place, version)
                found += [piece._replace(row_bytes=row_bytes) for piece in cut]
                place += file.metadata.num_rows
        return found

    def count_between(self, event_timestamp: str, start_us: int, end_us: int) -> int | None:
        """How many rows of the files have an event time in `[start_us, end_us)`, or none; None when that is not known
        without parsing the times.

        Raises:
            DataError: they cannot be read.
        """
        found = 0
        with reading(self.where):
            for file in self.dataset.get_fragments():
                inside = between(file.physical_schema.field(event_timestamp), start_us, end_us)
                if inside is None:
                    return None
                found += file.count_rows(filter=inside)
        return found

    def schemas(self, columns: list[str]) -> list[pa.Schema]:
        """Of these columns in each file, plain."""
        names = dict.fromkeys(columns)
        found = [file.physical_schema for file in self.dataset.get_fragments()]
        return [plain_schema(pa.schema([schema.field(name) for name in names])) for schema in found]


def piece_rows(piece: Piece, where: str) -> Rows:
    """The rows of a piece, wherever it was cut.

    Raises:
        DataError: the file is not there, or is another.
    """
    files = (piece.version,)
    with unchanged(where, files), reading(where):
        whole = _parquet([piece.file])
        (file,) = whole.get_fragments()
        part = ds.FileSystemDataset(
            [file.subset(row_group_ids=list(piece.row_groups))], whole.schema, whole.format, whole.filesystem
        )
        return Rows(where, whole.schema, piece.rows, dataset=part, files=files)


def source_rows_of(file: Any, where: str) -> Rows:
    """The rows of a file of a dataset, or of the row groups that it is cut to."""
    schema = file.physical_schema
    part = ds.FileSystemDataset([file], schema, file.format, file.filesystem)
    return Rows(where, schema, None, dataset=part)


def parquet_rows(source: BatchSource, view: FeatureView | StreamFeatureView, folder: Path) -> Rows:
    """The rows of a source: a file, a folder of files or a glob, relative to `folder`.

    Raises:
        DataError: there is no file, one is not Parquet, or one has not the columns that the view takes; what the SQL of
            a view takes of them is not known here.
    """
    takes_columns = not isinstance(view, FeatureView) or view.sql is None
    where = f"source {source.name}"
    rows = file_rows(where, source_files(source, folder))
    for file in rows.dataset.get_fragments() if takes_columns else ():
        with reading(where):
            source_columns(view, file.physical_schema, f"source {Path(file.path).name}")
    return rows


def path_rows(where: str, path: Path) -> Rows:
    """The rows of a Parquet file, or of those in a folder in the order of their names.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    with reading(where):
        inside = sorted(file for file in path.rglob("*.parquet") if not _is_unfinished(file.relative_to(path)))
    return file_rows(where, inside or [path])


def file_rows(where: str, paths: Sequence[Path]) -> Rows:
    """The rows of Parquet files, in this order.

    Raises:
        DataError: one cannot be read.
    """
    with reading(where):
        files = file_versions(paths)
        with unchanged(where, files):
            dataset = _parquet([version.path for version in files])
            total = sum(file.metadata.num_rows for file in dataset.get_fragments())
            return Rows(where, dataset.schema, total, dataset=dataset, files=files)


def source_files(source: BatchSource, folder: Path) -> list[Path]:
    """The files of a source, sorted; names that start with `_` or `.` are other programs' unfinished work.

    Raises:
        DataError: there is none, or the path is a URL, or files belong to a table of another format.
    """
    root, files = files_found(source, folder)
    if not files:
        hint = "names that start with _ or . are passed over"
        raise DataError(f"source {source.name}", expected=f"Parquet files under {folder}", got="none", hint=hint)
    if root.is_dir():
        refuse_tables(source.name, root, files)
    return files


def files_found(source: BatchSource, folder: Path) -> tuple[Path, list[Path]]:
    """The file or folder that a source names, and its files, sorted, if there are any.

    Raises:
        DataError: the path is a URL.
    """
    assert isinstance(source, ParquetSource)  # the only kind that has files so far
    refuse_url(source.path)
    path = folder / source.path
    if path.is_file():
        return path, [path]
    if path.is_dir():
        root, inside = path, list(path.rglob("*.parquet"))
    else:
        parts = Path(source.path).parts
        fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
        root = folder.joinpath(*fixed)
        pattern = str(Path(*parts[len(fixed) :]))
        inside = [root / name for name in glob.glob(pattern, root_dir=root, recursive=True)]  # noqa: PTH207 - Path.glob finds hidden files
    return root, sorted(file for file in inside if file.is_file() and not _is_unfinished(file.relative_to(root)))


def _is_unfinished(file: Path) -> bool:
    return any(part.startswith(("_", ".")) for part in file.parts)


def fingerprint(source: BatchSource, folder: Path) -> str:
    """A hash of the names, sizes and times of a source's files: another when they have changed."""
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in source_files(source, folder)]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Map what pyarrow and the file system raise."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataError(where, expected="readable data", got=str(error)) from error


def _parquet(files: list[str]) -> Any:
    # By default pyarrow fetches whole row groups ahead: 2.3 GB for 20M rows of 10 floats in groups of a million.
    streamed = ds.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True, buffer_size=_BUFFER_BYTES)
    read = ds.ParquetReadOptions(coerce_int96_timestamp_unit=INT96_UNIT)
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=streamed, read_options=read)
    return ds.dataset(files, format=parquet)


def _pieces_of(file: Any, most_rows: int, wanted: Any, place: int, version: FileVersion) -> Iterator[Piece]:
    """Pieces of one file, whose first row has that place in the source."""
    groups = file.row_groups
    chosen = file if wanted is None else file.subset(filter=wanted, schema=file.physical_schema)
    inside = {group.id for group in chosen.row_groups}
    taken: list[int] = []
    rows = 0
    for group in groups:
        if taken and (group.id not in inside or rows + group.num_rows > most_rows):
            yield Piece(file.path, tuple(taken), rows, place - rows, version)
            taken, rows = [], 0
        if group.id in inside:
            taken.append(group.id)
            rows += group.num_rows
        place += group.num_rows
    if taken:
        yield Piece(file.path, tuple(taken), rows, place - rows, version)


def file_batches(file: ds.ParquetFileFragment, names: Sequence[str], groups: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Columns of a file's row groups, plain, in batches of about 16 MB.

    A dataset's scanner reads whole row groups ahead of a slow consumer, however little it is told to: 460 MB of 30M
    rows of 10 floats in groups of a million, against 60 MB in the same 2.7 s.
    """
    found = file.physical_schema
    schema = pa.schema([found.field(name) for name in names])
    options = {"pre_buffer": False, "buffer_size": _BUFFER_BYTES, "coerce_int96_timestamp_unit": INT96_UNIT}
    with pq.ParquetFile(file.path, **options) as opened:
        for chosen, size in _sized(opened, groups, schema):
            for batch in opened.iter_batches(size, row_groups=chosen, columns=names):
                yield from split(plain_batch(batch.select(names)))


def _sized(file: pq.ParquetFile, groups: Sequence[int], schema: pa.Schema) -> Iterator[tuple[list[int], int]]:
    """Neighbouring row groups to be read together, and how many rows a batch of them may have."""
    for size, together in itertools.groupby(groups, lambda number: _group_batch_rows(file, number, schema)):
        yield list(together), size


def _group_batch_rows(file: pq.ParquetFile, number: int, schema: pa.Schema) -> int:
    """Rows of a batch of a row group: a power of two, so that alike row groups have the same."""
    row_bytes = group_row_bytes(file.metadata, [number], schema)
    repeated = columns_of_repeats(file.metadata, number, schema)
    if repeated and file.metadata.row_group(number).num_rows > _FEW_ROWS:
        pilot = plain_batch(next(file.iter_batches(_PILOT_ROWS, row_groups=[number], columns=repeated)))
        row_bytes = max(row_bytes, pilot.nbytes // len(pilot))
    return 1 << batch_rows(row_bytes).bit_length() - 1


def _file_row_bytes(file: Any, schema: pa.Schema) -> int:
    """How many bytes of memory a row of a file takes, about."""
    return group_row_bytes(file.metadata, range(file.metadata.num_row_groups), schema)


def dictionary_columns(schema: pa.Schema) -> list[str]:
    """The columns of training sets that dictionaries make smaller.

    Those of numbers that hardly repeat cost four times the rest of the writing.
    """
    return [field.name for field in schema if not pa.types.is_primitive(field.type)]


def between(field: pa.Field, start_us: int, end_us: int) -> Any:
    """Rows in the interval, and those without a time, which are to be set aside rather than passed over."""
    column = ds.field(field.name)
    if not (pa.types.is_timestamp(field.type) or pa.types.is_date(field.type)):
        return None
    wanted: Any = column.is_null()
    inside: Any = None
    if start_us > MIN_TIMESTAMP_US:
        inside = column >= _scalar(start_us, field.type)
    if end_us <= MAX_TIMESTAMP_US:
        below = column < _scalar(end_us, field.type, up=True)
        inside = below if inside is None else inside & below
    return None if inside is None else inside | wanted


def _scalar(time_us: int, wanted: pa.DataType, *, up: bool = False) -> pa.Scalar:
    """A bound in a column's own unit, rounded outward: what this lets through is tested exactly later."""
    if pa.types.is_date(wanted):
        day = min(time_us + (_DAY_US - 1 if up else 0), MAX_TIMESTAMP_US)
        return pa.scalar(from_microseconds(day).date(), wanted)
    times, parts = TO_MICROSECONDS[wanted.unit]
    raw = (-(-time_us // times) if up else time_us // times) * parts
    return pa.scalar(max(min(raw, (1 << 63) - 1), -(1 << 63)), wanted)
