"""Where rows come from: Parquet files of a source, or a table that is pushed. All become Arrow record batches."""

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

from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, from_microseconds
from feature_store.definitions.feature_view import FeatureView
from feature_store.engines.csv_text import csv_batches
from feature_store.engines.rows import TO_MICROSECONDS, source_columns
from feature_store.engines.source_formats import refuse_tables, refuse_url
from feature_store.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from feature_store.definitions.source import ParquetSource
    from feature_store.definitions.stream_view import StreamFeatureView

_BATCH_BYTES, _MOST_BATCH_ROWS = 16 << 20, 128 * 1024
_BUFFER_BYTES = 1 << 20  # read at once of each column of a file
# Spark's old timestamps count nanoseconds since 4713 BC: as nanoseconds since 1970 they would wrap.
_INT96_UNIT = "us"
_DAY_US = 86_400_000_000


class Piece(NamedTuple):
    """Some neighbouring row groups of a file, as plain data: what one of several readers takes.

    Attributes:
        file: its path.
        row_groups: their numbers.
        rows: how many there are.
        first: the place of the first of them in the source.
    """

    file: str
    row_groups: tuple[int, ...]
    rows: int
    first: int


class Rows(NamedTuple):
    """Rows to be read once.

    Attributes:
        where: what they are, for errors.
        schema: of all their columns; of files that differ, the first one's.
        total: how many, before any filter; None when not known.
        dataset: files that hold them, or None.
        stream: else their batches.
        text: whether all columns are text that is to be parsed.
    """

    where: str
    schema: pa.Schema
    total: int | None
    dataset: Any = None
    stream: Iterable[pa.RecordBatch] = ()
    text: bool = False

    @property
    def pushed(self) -> bool:
        """Whether they come from a caller and not from a view's source."""
        return self.dataset is None

    def batches(self, columns: list[str], event_timestamp: str, start_us: int, end_us: int) -> Iterator[pa.RecordBatch]:
        """The rows, in the order of the source. Of files, those that cannot be in `[start_us, end_us)` are left out.

        Raises:
            DataError: they cannot be read.
        """
        names = list(dict.fromkeys(columns))
        with reading(self.where):
            if self.dataset is None:
                for batch in self.stream:
                    yield batch.select(names)
                return
            # One file after the other, each with its own types: casting all to one type could round, and rows are
            # checked against the declared types anyway.
            for file in self.dataset.get_fragments():
                inside = between(file.physical_schema.field(event_timestamp), start_us, end_us)
                yield from _file_batches(file, names, inside)

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
            for file, schema in zip(self.dataset.get_fragments(), self.schemas(columns), strict=True):
                wanted = between(file.physical_schema.field(event_timestamp), start_us, end_us)
                found += _pieces_of(file, most_bytes // row_bytes(schema), wanted, place)
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
        """Of these columns in each file."""
        names = dict.fromkeys(columns)
        found = [file.physical_schema for file in self.dataset.get_fragments()]
        return [pa.schema([schema.field(name) for name in names]) for schema in found]


def piece_rows(piece: Piece, where: str) -> Rows:
    """The rows of a piece, wherever it was cut.

    Raises:
        DataError: the file is not there, or is another.
    """
    with reading(where):
        whole = _parquet([piece.file])
        (file,) = whole.get_fragments()
        part = ds.FileSystemDataset(
            [file.subset(row_group_ids=list(piece.row_groups))], whole.schema, whole.format, whole.filesystem
        )
        return Rows(where, whole.schema, piece.rows, dataset=part)


def source_rows_of(file: Any, where: str) -> Rows:
    """The rows of a file of a dataset, or of the row groups that it is cut to."""
    schema = file.physical_schema
    part = ds.FileSystemDataset([file], schema, file.format, file.filesystem)
    return Rows(where, schema, None, dataset=part)


def parquet_rows(source: ParquetSource, view: FeatureView | StreamFeatureView, folder: Path) -> Rows:
    """The rows of a source: a file, a folder of files or a glob, relative to `folder`.

    Raises:
        DataError: there is no file, one is not Parquet, or one has not the columns that the view takes; what the SQL of
            a view takes of them is not known here.
    """
    takes_columns = not isinstance(view, FeatureView) or view.sql is None
    where = f"source {source.path}"
    files = source_files(source, folder)
    with reading(where):
        dataset = _parquet([str(file) for file in files])
        total = 0
        for file in dataset.get_fragments():
            if takes_columns:
                source_columns(view, file.physical_schema, f"source {Path(file.path).name}")
            total += file.metadata.num_rows
        return Rows(where, dataset.schema, total, dataset=dataset)


def path_rows(where: str, path: Path) -> Rows:
    """The rows of a Parquet file, or of those in a folder in the order of their names.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    with reading(where):
        inside = sorted(file for file in path.rglob("*.parquet") if not _is_unfinished(file.relative_to(path)))
        dataset = _parquet([str(file) for file in inside or [path]])
        total = sum(file.metadata.num_rows for file in dataset.get_fragments())
        return Rows(where, dataset.schema, total, dataset=dataset)


def source_files(source: ParquetSource, folder: Path) -> list[Path]:
    """The files of a source, sorted; names that start with `_` or `.` are other programs' unfinished work.

    Raises:
        DataError: there is none, or the path is a URL, or files belong to a table of another format.
    """
    root, files = files_found(source, folder)
    if not files:
        hint = "names that start with _ or . are passed over"
        raise DataError(f"source {source.path}", expected=f"Parquet files under {folder}", got="none", hint=hint)
    if root.is_dir():
        refuse_tables(source, root, files)
    return files


def files_found(source: ParquetSource, folder: Path) -> tuple[Path, list[Path]]:
    """The file or folder that a source names, and its files, sorted, if there are any.

    Raises:
        DataError: the path is a URL.
    """
    refuse_url(source)
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


def fingerprint(source: ParquetSource, folder: Path) -> str:
    """A hash of the names, sizes and times of a source's files: another when they have changed."""
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in source_files(source, folder)]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def pushed_rows(table: Any, view: FeatureView) -> Rows:
    """The rows of an Arrow table, batch or reader, a DataFrame, or the path of a CSV or Parquet file.

    Raises:
        DataError: it is none of them, or cannot be read.
    """
    where = f"push to {view.name}"
    with reading(where):
        if isinstance(table, (str, Path)):
            return _file_rows(Path(table), where)
        if isinstance(table, pa.RecordBatchReader):
            return Rows(where, table.schema, None, stream=table)
        if isinstance(table, pa.RecordBatch):
            return Rows(where, table.schema, len(table), stream=[table])
        if type(table).__name__ == "DataFrame" and hasattr(table, "columns"):
            table = pa.Table.from_pandas(table, preserve_index=False)
        if isinstance(table, pa.Table):
            rows = batch_rows(table.schema)
            return Rows(where, table.schema, len(table), stream=table.to_batches(max_chunksize=rows))
    raise DataError(where, expected="an Arrow table, a DataFrame or a .csv or .parquet file", got=type(table).__name__)


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
    read = ds.ParquetReadOptions(coerce_int96_timestamp_unit=_INT96_UNIT)
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=streamed, read_options=read)
    return ds.dataset(files, format=parquet)


def _pieces_of(file: Any, most_rows: int, wanted: Any, place: int) -> Iterator[Piece]:
    """Pieces of one file, whose first row has that place in the source."""
    groups = file.row_groups
    chosen = file if wanted is None else file.subset(filter=wanted, schema=file.physical_schema)
    inside = {group.id for group in chosen.row_groups}
    taken: list[int] = []
    rows = 0
    for group in groups:
        if taken and (group.id not in inside or rows + group.num_rows > most_rows):
            yield Piece(file.path, tuple(taken), rows, place - rows)
            taken, rows = [], 0
        if group.id in inside:
            taken.append(group.id)
            rows += group.num_rows
        place += group.num_rows
    if taken:
        yield Piece(file.path, tuple(taken), rows, place - rows)


def _file_rows(path: Path, where: str) -> Rows:
    if not path.exists():
        raise DataError(where, expected="readable data", got=f"no file {path}")
    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        rows = batch_rows(file.schema_arrow)
        return Rows(where, file.schema_arrow, file.metadata.num_rows, stream=file.iter_batches(batch_size=rows))
    if path.suffix == ".csv":
        schema, batches = csv_batches(path)
        return Rows(where, schema, None, stream=batches, text=True)
    raise DataError(where, expected="a .csv or .parquet file", got=str(path))


def _file_batches(fragment: ds.ParquetFileFragment, names: list[str], inside: Any) -> Iterator[pa.RecordBatch]:
    """A file's rows that pass the filter. A dataset's scanner reads whole row groups ahead of a slow consumer, however
    little it is told to: 460 MB of 30M rows of 10 floats in groups of a million, against 60 MB in the same 2.7 s."""
    found = fragment.physical_schema
    groups = (fragment if inside is None else fragment.subset(filter=inside, schema=found)).row_groups
    size = batch_rows(pa.schema([found.field(name) for name in names]))
    options = {"pre_buffer": False, "buffer_size": _BUFFER_BYTES, "coerce_int96_timestamp_unit": _INT96_UNIT}
    with pq.ParquetFile(fragment.path, **options) as file:
        for batch in file.iter_batches(size, row_groups=[group.id for group in groups], columns=names):
            yield batch.select(names) if inside is None else batch.select(names).filter(inside)


def dictionary_columns(schema: pa.Schema) -> list[str]:
    """The columns of training sets that dictionaries make smaller.

    Those of numbers that hardly repeat cost four times the rest of the writing.
    """
    return [field.name for field in schema if not pa.types.is_primitive(field.type)]


def batch_rows(schema: pa.Schema) -> int:
    """Rows of a batch of about 16 MB: enough to keep the reader busy, little enough that a few can be held."""
    return max(1024, min(_MOST_BATCH_ROWS, _BATCH_BYTES // row_bytes(schema)))


def row_bytes(schema: pa.Schema) -> int:
    """How many bytes of memory a row takes, about."""
    return max(1, sum(_width(field.type) for field in schema))


def _width(found: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(found):
        return int(found.list_size) * _width(found.value_type)
    # What has no fixed width is guessed: a short text, an embedding.
    return found.bit_width // 8 or 1 if pa.types.is_primitive(found) else 512 if pa.types.is_nested(found) else 32


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
