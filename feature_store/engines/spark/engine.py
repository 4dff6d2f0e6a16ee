"""The Spark engine. Executors process all rows (`tasks.py`, `join_tasks.py`); the driver plans and gets counts only."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_store._private_files import private_folder
from feature_store.arrow.inspection import Inspection
from feature_store.arrow.rows import source_columns
from feature_store.arrow.sources.source import OfflineSource
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.feature_view import FeatureView
from feature_store.engines.engine import RowDestination, StageRequest, Written
from feature_store.engines.join import Joined, JoinRequest, LabelQuery, Labels
from feature_store.engines.report import Report
from feature_store.engines.spark import packed
from feature_store.engines.spark.join import join, labels_of
from feature_store.engines.spark.session import Session
from feature_store.engines.spark.sql import selected
from feature_store.engines.spark.tasks import BadRows, Inspect, Keep, Read, ReadCounts, Write, staged_files
from feature_store.engines.windows import reached_us
from feature_store.errors import EngineError
from feature_store.online.writer import WriteCounts

TASK_BYTES = 32 << 20  # of rows in memory for each task; starting a task takes some 50 ms
_MOST_PARTS = 4096  # with more, a batch of 16 MB would be packed into very small pieces
FILES_PER_CHUNK = 8
# More writers are no faster with one Redis, and readers of that Redis wait behind every writer's call.
_WRITERS = 4


class SparkEngine:
    """See Engine and JoinEngine.

    Args:
        settings: settings of Spark, by name.
        work: a folder that executors see under the same path. It holds training sets until they are read or written.

    Attributes:
        session: the Spark session.
    """

    name = "spark"

    def __init__(self, settings: Mapping[str, Any], work: Path) -> None:
        self.session, self._work = Session(settings), work

    def stage(self, request: StageRequest) -> int:
        """See Engine."""
        view, rows, selection = request.view, request.rows, request.target.with_suffix(".selected")
        if not isinstance(rows, OfflineSource):
            problem = "pushed rows are in this process, which is where the local engine takes them"
            raise EngineError(f"engine spark: {rows.where}", problem=problem)
        unfinished = request.target.with_suffix(".unfinished")
        for left in (request.target, unfinished, selection, request.quarantine.parts):
            shutil.rmtree(left, ignore_errors=True)
        private_folder(unfinished)
        start_us = reached_us(view, request.start_us, request.end_us) if view.aggregations else request.start_us
        if view.sql is not None:
            rows = selected(self.session, view, rows, selection, start_us, request.end_us)
        columns = source_columns(view, rows.schema, rows.where)
        times = TimeRange(columns.event_timestamp, start_us, request.end_us)
        pieces = rows.pieces(columns.names, times, most_bytes=TASK_BYTES)
        counts = ReadCounts()
        request.report.started(view.name, rows.total)
        if pieces:
            read = Read(
                view=view,
                columns=columns,
                pieces=tuple(pieces),
                interval=(request.start_us, request.end_us),
                reach=(start_us, request.end_us),
                parts=min(len(pieces), _MOST_PARTS),
                bad=BadRows.of(request.quarantine.parts, rows, columns),
            )
            with rows.unchanged():
                counts = self._staged(read, Keep(view, columns, request.end_us, unfinished), request.report)
        request.report.finished()
        request.quarantine.count_parts(counts.quarantined)
        shutil.rmtree(selection, ignore_errors=True)
        unfinished.rename(request.target)
        return counts.inside

    def chunk_count(self, target: Path) -> int:
        """See Engine."""
        return -(-len(staged_files(target)) // FILES_PER_CHUNK)

    def inspect(self, target: Path, view: FeatureView) -> Inspection:
        """See Engine."""
        files = staged_files(target)
        found = Inspection()
        if files:
            tasks = min(_WRITERS, len(files))
            look = Inspect(view, tuple(tuple(files[i::tasks]) for i in range(tasks)))
            for row in self.session.collect(self.session.tasks(tasks, look.run, Inspect.RESULT)):
                found = found.plus(Inspect.read(row.found))
        return found

    def write(self, target: Path, view: FeatureView, first: int, destination: RowDestination) -> Iterator[Written]:
        """See Engine."""
        files = staged_files(target)
        for start in range(first * FILES_PER_CHUNK, len(files), FILES_PER_CHUNK):
            chunk = files[start : start + FILES_PER_CHUNK]
            tasks = min(_WRITERS, len(chunk))
            write = Write(view, tuple(tuple(chunk[i::tasks]) for i in range(tasks)), destination)
            done = self.session.collect(self.session.tasks(tasks, write.run, Write.RESULT))
            counts = WriteCounts(sum(row.written for row in done), sum(row.older for row in done))
            yield Written(sum(row.rows for row in done), counts)

    def labels(self, given: pa.Table | Path | LabelQuery) -> Labels:
        """See JoinEngine."""
        return labels_of(self.session, given, self._work)

    def join(self, request: JoinRequest) -> Joined:
        """See JoinEngine."""
        return join(self.session, request, self._work)

    def close(self) -> None:
        """Stop Spark, if this engine started it."""
        self.session.close()

    def _staged(self, read: Read, keep: Keep, report: Report) -> ReadCounts:
        session = self.session
        sent = session.tasks(len(read.pieces), read.run, packed.SCHEMA)
        kept = session.then(session.exchanged(sent, read.parts), keep.run, Keep.RESULT)
        with session.watched(len(read.pieces), sum(piece.rows for piece in read.pieces), report) as tell:
            found = session.collect(kept)
            counts = ReadCounts(*(sum(getattr(row, name) for row in found) for name in ReadCounts._fields))
            tell(counts.read)
        return counts
