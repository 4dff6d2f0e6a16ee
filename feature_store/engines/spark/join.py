"""Point-in-time joins on Spark. Executors process all rows (`join_tasks.py`); the driver plans and gets counts only.

    labels ─ blocks ─▶ ScanLabels: times, keys with very many labels
    labels ─ blocks ┐
    sources ─ pieces ┴▶ Shuffle ─ by entity ─▶ JoinPartition ─ by block ─▶ AssembleBlock ─▶ a Parquet file per block

Labels that come as a table or a query are written to files first, because tasks read them twice.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store._private_files import private_file, private_folder
from feature_store.arrow.batch_sizes import schema_row_bytes
from feature_store.arrow.plain import as_kept, kept_schema, plain_batch
from feature_store.arrow.reading import reading
from feature_store.arrow.rows import source_columns
from feature_store.arrow.sources.parquet.rows import path_rows
from feature_store.arrow.sources.source import OfflineSource
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.engines.join import JoinRequest, LabelQuery, Labels, ViewJoin
from feature_store.engines.spark import packed
from feature_store.engines.spark.join_inputs import EntityKind, Keys, LabelBlock, LabelFiles, Source
from feature_store.engines.spark.join_tasks import AssembleBlock, JoinPartition, ScanLabels, Shuffle, write_part
from feature_store.engines.spark.sql import queried, selected
from feature_store.engines.spark.tasks import BadRows
from feature_store.engines.windows import visible_us
from feature_store.errors import DataError

if TYPE_CHECKING:
    from feature_store.engines.spark.session import Session

TASK_BYTES = 32 << 20  # of rows in memory
_MOST_PARTS = 4096
FEWEST_LABELS, MOST_LABELS = 16 * 1024, 128 * 1024  # per block; MOST_LABELS also limits a key's labels per part
CHUNK_ROWS = 1 << 20  # see JoinPartition
GROUP_ROWS = 64 * 1024  # of labels that this module writes: it allows small blocks
_TEXT_BYTES = 32  # the assumed size of a value without a fixed width
_PARTS = "part-*.parquet"  # excludes hidden files that killed tasks left behind


class WorkFolder:
    """A folder that is deleted when the last reference to this object goes away.

    Raises:
        DataError: the folder cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(f"folder {path}"):
            private_folder(path)
        weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)


class SparkLabels(NamedTuple):
    """Label rows: a table or files, and, if a query produced the files, the folder that holds them."""

    rows: pa.Table | OfflineSource
    folder: WorkFolder | None = None


def labels_of(session: Session, given: pa.Table | Path | LabelQuery, work: Path) -> Labels:
    """See join.JoinEngine. The result of a query is written to a folder in `work`."""
    if isinstance(given, pa.Table):
        return Labels("labels", given.schema, SparkLabels(given))
    if isinstance(given, Path):
        rows = path_rows(f"labels {given}", given.absolute())  # executors have other working directories
        return Labels(rows.where, kept_schema(rows.schema), SparkLabels(rows))
    folder = WorkFolder(work / f"labels-{secrets.token_hex(8)}")
    rows = queried(session, given, folder.path / "rows")
    return Labels(rows.where, kept_schema(rows.schema), SparkLabels(rows, folder))


def join(session: Session, request: JoinRequest, work: Path) -> SparkJoined:
    """See join.JoinEngine. The training set is written to a folder in `work`."""
    labels = _label_files(request, session.parallelism)
    features = list(request.finish.features)
    folder = WorkFolder(work / f"joined-{secrets.token_hex(8)}")
    if not labels.blocks:
        write_part(folder.path, 0, request.finish.schema.empty_table())
        return SparkJoined(folder, request.finish.schema, 0, dict.fromkeys(features, 0))
    keys = tuple(dict.fromkeys(_keys(view.view) for view in request.views))
    scanned = _scanned(session, request, labels, keys)
    sources = tuple(_source(session, request, i, view, scanned) for i, view in enumerate(request.views))
    kinds = tuple(_kinds(keys, sources, len(labels.blocks), scanned.many))
    finish = AssembleBlock(labels, sources, request.finish, folder.path)
    done = _done(session, request, Shuffle(labels, sources, kinds), finish)
    for i, view in enumerate(request.views):
        view.quarantine.count_parts(sum(row.bad[i] for row in done))
    missing = [sum(row.missing[i] for row in done) for i, _ in enumerate(features)]
    rows = sum(row.rows for row in done)
    return SparkJoined(folder, request.finish.schema, rows, dict(zip(features, missing, strict=True)))


class _Scanned(NamedTuple):
    """The earliest and latest label time, microseconds since 1970, and frequent keys: `(kind, hash)` → label count."""

    first_us: int
    last_us: int
    many: Counter[tuple[int, int]]


def _label_files(request: JoinRequest, tasks: int) -> LabelFiles:
    """The labels in blocks, at least `tasks` of them unless blocks would fall below FEWEST_LABELS."""
    where, schema, rows = request.labels.where, request.labels.schema, request.labels.rows.rows
    if isinstance(rows, pa.Table):
        path = request.work / f"labels-{secrets.token_hex(8)}.parquet"
        with reading(where):
            pq.write_table(rows, private_file(path), row_group_size=GROUP_ROWS)
        rows = path_rows(where, path)
    types = [view.view.field(name).dtype for view in request.views for name in view.fields]
    width = schema_row_bytes(schema) + sum(dtype.width or _TEXT_BYTES for dtype in types)
    most = max(FEWEST_LABELS, min(MOST_LABELS, TASK_BYTES // width, -(-(rows.total or MOST_LABELS) // tasks)))
    pieces = rows.pieces(schema.names, None, most_bytes=most * schema_row_bytes(schema))
    blocks = tuple(
        LabelBlock(piece, skipped, min(most, piece.rows - skipped), piece.first + skipped)
        for piece in pieces
        for skipped in range(0, piece.rows, most)
    )
    return LabelFiles(where, schema, request.timestamp, blocks)


def _keys(view: FeatureView | StreamFeatureView) -> Keys:
    return tuple((entity.join_key, entity.dtype) for entity in view.entities)


def _scanned(session: Session, request: JoinRequest, labels: LabelFiles, keys: tuple[Keys, ...]) -> _Scanned:
    total = sum(block.rows for block in labels.blocks)
    request.report.started("labels", total)
    frame = session.tasks(len(labels.blocks), ScanLabels(labels, keys).run, ScanLabels.RESULT)
    with session.watched(len(labels.blocks), total, request.report) as tell:
        found = session.collect(frame)
        tell(total)
    request.report.finished()
    many: Counter[tuple[int, int]] = Counter()
    for row in found:
        for kind, key, count in json.loads(row.many):
            many[kind, key] += count
    return _Scanned(min(row.first_us for row in found), max(row.last_us for row in found), many)


def _source(session: Session, request: JoinRequest, number: int, wanted: ViewJoin, scanned: _Scanned) -> Source:
    view = wanted.view
    rows: OfflineSource = wanted.rows
    reach = visible_us(view, scanned.first_us, scanned.last_us)
    if isinstance(view, FeatureView) and view.sql is not None:
        rows = selected(session, view, rows, request.work / f"{view.name}-{secrets.token_hex(8)}", *reach)
    columns = source_columns(view, rows.schema, rows.where)
    times = TimeRange(columns.event_timestamp, *reach)
    columns = rows.sequence(times).to_check(view, columns, wanted.fields)
    bad = BadRows.of(wanted.quarantine.parts, rows, columns)
    pieces = rows.pieces(columns.names, times, most_bytes=TASK_BYTES)
    return Source(number, view, columns, wanted.fields, tuple(pieces), reach, bad)


def _kinds(
    keys: Sequence[Keys], sources: Sequence[Source], blocks: int, many: Mapping[tuple[int, int], int]
) -> Iterator[EntityKind]:
    """The parts of each kind of entity: one for each label block, or one for each TASK_BYTES of source rows if more."""
    first = 0
    for i, of_kind in enumerate(keys):
        views = tuple(source.number for source in sources if _keys(source.view) == of_kind)
        sent = sum(piece.rows * piece.row_bytes for view in views for piece in sources[view].pieces)
        parts = min(_MOST_PARTS, max(blocks, -(-sent // TASK_BYTES)))
        spread = {key: -(-count // MOST_LABELS) for (kind, key), count in many.items() if kind == i}
        spread = {key: min(over, parts) for key, over in spread.items() if over > 1}
        yield EntityKind(of_kind, first, parts, views, spread)
        first += parts


def _done(session: Session, request: JoinRequest, send: Shuffle, finish: AssembleBlock) -> list[Any]:
    blocks = send.labels.blocks
    tasks = len(blocks) + sum(len(source.pieces) for source in send.sources)
    rows = sum(block.rows for block in blocks)
    rows += sum(piece.rows for source in send.sources for piece in source.pieces)
    request.report.started("training set", rows)
    if send.kinds:
        parts = send.kinds[-1].first + send.kinds[-1].parts
        see = JoinPartition(send.sources, send.kinds, tuple(block.first for block in blocks), CHUNK_ROWS)
        sent = session.exchanged(session.tasks(tasks, send.run, packed.SCHEMA), parts, by_tag=True)
        seen = session.exchanged(session.then(sent, see.run, packed.SCHEMA), len(blocks))
        frame = session.then(seen, finish.run, AssembleBlock.RESULT)
    else:
        frame = session.tasks(tasks, finish.run_alone, AssembleBlock.RESULT)
    with session.watched(tasks, rows, request.report) as tell:
        done = session.collect(frame)
        tell(rows)
    request.report.finished()
    return done


class SparkJoined:
    """See join.Joined. Its files are deleted with it.

    Args:
        folder: the folder with one Parquet file for each block.
        schema, rows, missing: see Joined.
    """

    def __init__(self, folder: WorkFolder, schema: pa.Schema, rows: int, missing: Mapping[str, int]) -> None:
        self._folder, self.schema, self.rows, self.missing = folder, schema, rows, missing

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See join.Joined."""
        for path in sorted(self._folder.path.glob(_PARTS)):
            with reading(f"training set {path}"), pq.ParquetFile(path) as file:
                for batch in file.iter_batches():
                    yield from as_kept(pa.Table.from_batches([plain_batch(batch)]), self.schema).to_batches()

    def write(self, path: Path) -> None:
        """Write a folder of Parquet files. Sorted by name, the files are in the order of the labels; see join.Joined.

        The folder replaces an earlier training set at the path.

        Raises:
            DataError: the path is a folder with other files, or a file cannot be written.
        """
        where, unfinished = f"training set {path}", path.with_name(f"{path.name}.unfinished")
        with reading(where):
            if path.is_dir() and any(not file.match(_PARTS) for file in path.iterdir()):
                raise DataError(where, expected="a new name, or a training set's", got="a folder with other files")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            for part in self._folder.path.glob(_PARTS):
                _link(part, unfinished / part.name)
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            unfinished.rename(path)


def _link(source: Path, target: Path) -> None:
    """Hard-link a file. Copy it if the file system does not support the link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
