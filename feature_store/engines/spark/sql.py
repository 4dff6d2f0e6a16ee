"""SQL on Spark: of views, and of label rows. DuckDB runs it, in the executors; its result is Parquet again.

Spark's own SQL gives other values for the same words: integer division, casts, null order, time zones, texts, regular
expressions. So Spark shares the work out, and each task runs what the local engine runs.

    each row alone       a task takes some files
    rows that meet by    tasks cut files by the hash of that column (Cut), and a task takes all rows of one part
    a column's value
    all rows together    one task takes all files; what does not fit in memory goes to its disk
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.arrow.reading import reading
from feature_store.arrow.sources.export import EXPORT_BYTES, schema_files, write_piece
from feature_store.arrow.sources.parquet.rows import ParquetRows, path_rows
from feature_store.arrow.sources.source import OfflineSource, Piece
from feature_store.definitions.feature_view import FeatureView
from feature_store.engines.join import LabelQuery
from feature_store.engines.spark.tasks import hidden, numbers_of
from feature_store.engines.sql.parts import cut_by, row_by_row
from feature_store.engines.sql.run import (
    Selection,
    selected_schema,
    selection,
    write_cut,
    write_queried,
    write_selected,
)
from feature_store.engines.sql.transformation import sql_of

if TYPE_CHECKING:
    from feature_store.engines.spark.session import Session

# Of files, for a task: it takes some seconds, and its rows fit in a gigabyte.
_TASK_BYTES = 64 << 20
_MOST_TASKS = 4096
# DuckDB's in a task, of which an executor runs one a core.
_SETTINGS = {"threads": 1}
_RESULT = "done long"


@dataclass(frozen=True)
class Export:
    """Writes a source to Parquet files, which it does not consist of.

    Attributes:
        pieces: a task writes the one of its number.
        columns: all columns of the source.
        folder: takes a file of each task whose piece has rows.
    """

    pieces: tuple[Piece, ...]
    columns: tuple[str, ...]
    folder: Path

    PREFIX = "piece-"

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run the task of each number."""
        for number in numbers_of(batches):
            target = self.folder / f"{self.PREFIX}{number:06d}.parquet"
            unfinished = hidden(target)
            if write_piece(self.pieces[number], self.columns, unfinished):
                with reading(str(target)):
                    unfinished.rename(target)
            yield _done()


@dataclass(frozen=True)
class Cut:
    """Cuts files of a source into parts.

    Attributes:
        request: what the parts are for.
        shares: a task cuts the files of its number.
        column: by which.
        parts: how many.
        folder: takes a folder for each task.
    """

    request: Selection
    shares: tuple[tuple[str, ...], ...]
    column: str
    parts: int
    folder: Path

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run the task of each number."""
        for number in numbers_of(batches):
            target = self.folder / f"cut-{number:05d}"
            unfinished = hidden(target)
            with _spill() as spill, reading(f"parts {target}"):
                unfinished.mkdir(parents=True)
                write_cut(self.request, self.shares[number], self.column, self.parts, unfinished, spill)
                _put_folder(unfinished, target)
            yield _done()


@dataclass(frozen=True)
class Select:
    """Runs SQL on files of a source.

    Attributes:
        request: what to run.
        shares: a task takes the files of its number,
        cut: or all rows that Cut put into the part of its number, in this folder.
        folder: takes a file of each task.
    """

    request: Selection
    shares: tuple[tuple[str, ...], ...]
    cut: Path | None
    folder: Path

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run the task of each number."""
        for number in numbers_of(batches):
            files = self.shares[number] if self.cut is None else _files_of_part(self.cut, number)
            if files:
                with _spill() as spill, _whole(self.folder / f"part-{number:05d}.parquet") as target:
                    write_selected(self.request, files, target, spill, _SETTINGS)
            yield _done()


@dataclass(frozen=True)
class Ask:
    """Runs a query for label rows, whose order is that of its result.

    Attributes:
        query: what to run.
        folder: takes the file.
    """

    query: LabelQuery
    folder: Path

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run the one task."""
        for _ in numbers_of(batches):
            with _spill() as spill, _whole(self.folder / "part-00000.parquet") as target:
                write_queried(self.query, target, spill)
            yield _done()


def selected(
    session: Session, view: FeatureView, rows: OfflineSource, folder: Path, start_us: int, end_us: int
) -> ParquetRows:
    """The result of a view's SQL on its source.

    Args:
        session: where it runs.
        view: one with SQL.
        rows: its source.
        folder: where the result is written; not there yet.
        start_us, end_us: rows with event times outside of `[start_us, end_us)` may be left out.

    Raises:
        DataError: the SQL is not allowed or fails, or its result has not the columns that the view takes.
    """
    exported = folder.with_name(f"{folder.name}.source")
    shutil.rmtree(exported, ignore_errors=True)  # of a job that was killed
    try:
        with rows.unchanged():
            files = _exported(session, rows, exported)
            _select(session, selection(view, files, start_us, end_us), files, folder)
    finally:
        shutil.rmtree(exported, ignore_errors=True)
    return path_rows(f"{view.name}.sql", folder)


def _exported(session: Session, rows: OfflineSource, folder: Path) -> Sequence[str]:
    """Parquet files that hold the rows of a source: its own, or else files that tasks write, one for each piece."""
    files = list(schema_files(rows, folder))
    if rows.parquet_files is None:
        pieces = tuple(rows.pieces(rows.schema.names, None, most_bytes=EXPORT_BYTES))
        if pieces:
            _run(session, Export(pieces, tuple(rows.schema.names), folder), len(pieces))
        files += sorted(str(file) for file in folder.glob(f"{Export.PREFIX}*.parquet"))
    return files


def _select(session: Session, request: Selection, files: Sequence[str], folder: Path) -> None:
    view, schema = request.view, selected_schema(request)
    tree = sql_of(view).tree
    shares = _shares(files, session.parallelism)
    column = None
    if not row_by_row(tree):
        column = cut_by(tree, [name for name, _ in request.columns], view.join_keys)
        shares = shares if column is not None else (tuple(files),)
    if column is None or len(shares) == 1:
        _run(session, Select(request, shares, None, folder), len(shares))
    else:
        _run_on_parts(session, request, shares, column, folder)
    with reading(request.where):
        pq.write_table(schema.empty_table(), folder / "part-none.parquet")  # a source without rows has no parts


def _run_on_parts(
    session: Session, request: Selection, shares: tuple[tuple[str, ...], ...], column: str, folder: Path
) -> None:
    cut = folder.with_name(f"{folder.name}.cut")
    shutil.rmtree(cut, ignore_errors=True)  # of a job that was killed
    try:
        _run(session, Cut(request, shares, column, len(shares), cut), len(shares))
        _run(session, Select(request, (), cut, folder), len(shares))
    finally:
        shutil.rmtree(cut, ignore_errors=True)


def queried(session: Session, query: LabelQuery, folder: Path) -> ParquetRows:
    """The result of a query over Parquet files, in its order.

    Args:
        session: where it runs.
        query: in DuckDB's words: files are named in quotes where tables are.
        folder: where the result is written; not there yet.

    Raises:
        DataError: the query fails.
    """
    _run(session, Ask(query, folder), 1)
    return path_rows("labels of a query", folder)


def _run(session: Session, task: Export | Cut | Select | Ask, count: int) -> None:
    task.folder.mkdir(parents=True, exist_ok=True)
    session.collect(session.tasks(count, task.run, _RESULT))


def _shares(files: Sequence[str], parallelism: int) -> tuple[tuple[str, ...], ...]:
    """Files for each task."""
    with reading("source"):
        size = sum(Path(file).stat().st_size for file in files)
    count = min(len(files), _MOST_TASKS, max(parallelism, -(-size // _TASK_BYTES)))
    return tuple(tuple(files[i::count]) for i in range(count))


def _files_of_part(cut: Path, number: int) -> list[str]:
    return sorted(str(file) for file in cut.glob(f"cut-*/part={number}/*.parquet"))


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A path to write to; what is written is put in place when it is whole."""
    unfinished = hidden(target)
    try:
        yield unfinished
        with reading(str(target)):
            unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _put_folder(unfinished: Path, target: Path) -> None:
    """Put a folder in place, unless another try of the task did: it is the same."""
    try:
        unfinished.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def _spill() -> Iterator[Path]:
    """A folder on the executor's own disk, for what does not fit in memory."""
    with tempfile.TemporaryDirectory(prefix="feature-store-sql-") as folder:
        yield Path(folder)


def _done() -> pa.RecordBatch:
    return pa.record_batch({"done": pa.array([1], pa.int64())})
