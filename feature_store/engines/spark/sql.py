"""Runs the SQL of views and of label queries on Spark: DuckDB runs in the executors and writes Parquet files.

Spark's own SQL returns different values for the same query: integer division, casts, null order, time zones, texts,
regular expressions. Spark therefore only distributes the work, and each task runs the code of the local engine.

    SQL handles each row alone      each task takes some files
    SQL combines rows that share    tasks partition the files by the hash of that column (Cut), then each task takes
    a column's value                all rows of one part
    SQL needs all rows together     one task takes all files, and spills to disk the rows that do not fit in memory
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

# Bytes of files per task: the task takes some seconds, and its rows fit in 1 GB.
_TASK_BYTES = 64 << 20
_MOST_TASKS = 4096
# DuckDB's settings in a task. An executor runs one task on each core.
_SETTINGS = {"threads": 1}
_RESULT = "done long"


@dataclass(frozen=True)
class Export:
    """Exports a source that does not consist of Parquet files to Parquet files.

    Attributes:
        pieces: the pieces of the source. Task i writes piece i.
        columns: all columns of the source.
        folder: takes one file from each task whose piece has rows.
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
    """Partitions the files of a source by the hash of a column.

    Attributes:
        request: the selection that will run on the parts.
        shares: the files of each task.
        column: the partitioning column.
        parts: the number of parts.
        folder: takes one folder from each task.
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
    """Runs a view's SQL on files of its source.

    Attributes:
        request: the selection to run.
        shares: the files of each task. Unused if `cut` is given.
        cut: the folder that Cut wrote. Task i takes all rows of part i. None: tasks take `shares`.
        folder: takes one file from each task.
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
    """Runs a query for label rows in one task, which keeps the order of the result.

    Attributes:
        query: the query to run.
        folder: takes the result's file.
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
    """The result of a view's SQL on its source, in Parquet files.

    Args:
        session: the Spark session that runs the tasks.
        view: a view with SQL.
        rows: the view's source.
        folder: the folder for the result. It must not exist.
        start_us, end_us: the interval `[start_us, end_us)`, microseconds since 1970. Result rows with event times
            outside of it may be left out.

    Raises:
        DataError: the SQL is not allowed, it fails, or its result lacks a column of the view.
        EngineError: the Spark job fails.
    """
    exported = folder.with_name(f"{folder.name}.source")
    shutil.rmtree(exported, ignore_errors=True)  # left by a killed job
    try:
        with rows.unchanged():
            files = _exported(session, rows, exported)
            _select(session, selection(view, rows, files, start_us, end_us), files, folder)
    finally:
        shutil.rmtree(exported, ignore_errors=True)
    return path_rows(f"{view.name}.sql", folder)


def _exported(session: Session, rows: OfflineSource, folder: Path) -> Sequence[str]:
    """Parquet files with the rows of a source: its own files, else files that tasks write, one for each piece."""
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
        pq.write_table(schema.empty_table(), folder / "part-none.parquet")  # keeps the schema if no task wrote rows


def _run_on_parts(
    session: Session, request: Selection, shares: tuple[tuple[str, ...], ...], column: str, folder: Path
) -> None:
    cut = folder.with_name(f"{folder.name}.cut")
    shutil.rmtree(cut, ignore_errors=True)  # left by a killed job
    try:
        _run(session, Cut(request, shares, column, len(shares), cut), len(shares))
        _run(session, Select(request, (), cut, folder), len(shares))
    finally:
        shutil.rmtree(cut, ignore_errors=True)


def queried(session: Session, query: LabelQuery, folder: Path) -> ParquetRows:
    """The result of a query over Parquet files, in the order of the query.

    Args:
        session: the Spark session that runs the task.
        query: the query, in DuckDB's dialect. It names files in quotes, in place of tables.
        folder: the folder for the result. It must not exist.

    Raises:
        DataError: the query fails.
        EngineError: the Spark job fails.
    """
    _run(session, Ask(query, folder), 1)
    return path_rows("labels of a query", folder)


def _run(session: Session, task: Export | Cut | Select | Ask, count: int) -> None:
    task.folder.mkdir(parents=True, exist_ok=True)
    session.collect(session.tasks(count, task.run, _RESULT))


def _shares(files: Sequence[str], parallelism: int) -> tuple[tuple[str, ...], ...]:
    """The files of each task.

    Raises:
        DataError: a file cannot be read.
    """
    with reading("source"):
        size = sum(Path(file).stat().st_size for file in files)
    count = min(len(files), _MOST_TASKS, max(parallelism, -(-size // _TASK_BYTES)))
    return tuple(tuple(files[i::count]) for i in range(count))


def _files_of_part(cut: Path, number: int) -> list[str]:
    return sorted(str(file) for file in cut.glob(f"cut-*/part={number}/*.parquet"))


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A temporary path to write to. If the block succeeds, the file is renamed to `target`; else it is deleted."""
    unfinished = hidden(target)
    try:
        yield unfinished
        with reading(str(target)):
            unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _put_folder(unfinished: Path, target: Path) -> None:
    """Rename a folder to its final name. If another attempt of the task was first, delete it: both are equal."""
    try:
        unfinished.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def _spill() -> Iterator[Path]:
    """A temporary folder on the executor's disk, for rows that do not fit in memory."""
    with tempfile.TemporaryDirectory(prefix="feature-store-sql-") as folder:
        yield Path(folder)


def _done() -> pa.RecordBatch:
    return pa.record_batch({"done": pa.array([1], pa.int64())})
