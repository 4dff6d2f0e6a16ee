"""A job materializes the rows of a view in an interval of event time. A killed job resumes.

stage    the engine writes the latest rows to disk; a rename makes them appear whole
inspect  the staged rows are checked against their fields' expectations; with `on_breach="block"` a breach ends the job
write    the engine writes chunk after chunk; the online store records, beside the rows, how many are written
record   the online store records the interval, then the staged rows are removed

If the online store loses rows, it also loses the records of them, so the next run writes them again.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from feature_store._intervals import BEGINNING, Interval
from feature_store.arrow.inspection import Breach, expects
from feature_store.arrow.pushed import PushedRows, pushed_rows
from feature_store.arrow.quarantine import Quarantine
from feature_store.arrow.sources.late_rows import LateRows, late_rows
from feature_store.arrow.sources.opening import open_view
from feature_store.arrow.sources.source import OfflineSource
from feature_store.definitions.feature_view import FeatureView
from feature_store.engines.engine import Engine, RowDestination, StageRequest, Written
from feature_store.engines.report import Report, Silent
from feature_store.errors import DataError, LostWriteError
from feature_store.materialize.progress import Progress
from feature_store.materialize.span import Span
from feature_store.materialize.staged import Note, clear, job_name, leftover_first, locked, notes_in, read_note
from feature_store.materialize.summary import Summary

if TYPE_CHECKING:
    from feature_store.project.context import ProjectFolders

# How often a job tries to write if Redis loses acknowledged rows meanwhile. If it fails more often, a person must look.
_ATTEMPTS = 3


class Target(NamedTuple):
    """Where a job writes: one generation of a view's rows, and the progress of jobs on it."""

    destination: RowDestination
    progress: Progress


def materialize(
    view: FeatureView,
    span: Span,
    target: Target,
    *,
    folders: ProjectFolders,
    engine: Engine,
    digest: str,
    report: Report | None = None,
) -> Summary:
    """Write the latest rows of a view's source to the online store.

    Args:
        view: a view with a source.
        span: the event times to read.
        target: where rows are written and recorded.
        folders: the folders of the project.
        engine: finds the latest rows, and writes them.
        digest: the digest of the definitions. Rows that were staged under other definitions are staged again.
        report: gets the progress.

    Raises:
        DataError: the view has no source; the source does not fit the view, or cannot be read; the span is empty; or
            values break expectations of a view with `on_breach="block"`, in which case no row of the interval is
            written.
        LostWriteError: Redis lost acknowledged rows in each of 3 attempts.
    """
    begun = time.perf_counter()
    if view.source is None:
        raise DataError(f"materialize {view.name}", problem="the view has no source", hint="push its rows")
    progress = target.progress
    start_us, end_us = span.start_us, span.end_at(progress.now_us(), f"materialize {view.name}")
    summary = Summary(view.name)
    with locked(folders.work("materialize") / view.name) as work:
        rows = open_view(view.source, view, folders.source)
        rows_digest = json.dumps([engine.name, view.name, digest, rows.version])
        recorded = progress.finished_intervals()
        unread = late_rows(rows, view, progress.files_read())
        # If the source or the SQL changed, the recorded intervals hold other rows: all are computed again.
        finished = recorded if unread.is_known else []
        intervals = span.intervals(finished, end_us)
        late = _late(view, unread, finished, intervals) if start_us is None else []
        intervals = leftover_first([*intervals, *late], work, rows_digest)
        jobs = [
            _Job(job_name(rows_digest, interval), view, rows, interval, work, folders.quarantine)
            for interval in intervals
        ]
        if not jobs or read_note(jobs[0].note) is None:
            _drop(work, progress)
        # A job over given times does not read the files that earlier jobs left unread.
        files_read = unread.document if start_us is None or not recorded else b""
        for job in jobs:
            done = _run(job, engine, target, report or Silent(), files_read if job is jobs[-1] else b"")
            clear(work)
            is_late = any(start <= job.interval[0] and job.interval[1] <= end for start, end in late)
            summary = summary.plus(replace(done, late_rows=done.source_rows if is_late else 0))
    return replace(summary, intervals=tuple(intervals), seconds=time.perf_counter() - begun)


def push(
    view: FeatureView,
    table: Any,
    destination: RowDestination,
    *,
    folders: ProjectFolders,
    engine: Engine,
    report: Report | None = None,
) -> Summary:
    """Write the latest rows of a table to the online store.

    Args:
        view: the view.
        table: an Arrow table, record batch or reader, a DataFrame, or the path of a .csv or .parquet file. It has the
            columns of the view's source. For a view without a source: join keys, fields, `event_timestamp` and
            optionally `created_timestamp`.
        destination: where rows are written.
        folders, engine, report: see `materialize`.

    Raises:
        DataError: the table does not fit the view, or cannot be read; the view aggregates events; or values break
            expectations of a view with `on_breach="block"`.
    """
    begun = time.perf_counter()
    if view.aggregations:
        problem, hint = "the view aggregates events", "put the events into its source, and materialize"
        raise DataError(f"push to {view.name}", problem=problem, hint=hint)
    rows = pushed_rows(table, view)
    with locked(folders.work("materialize") / f"push-{view.name}") as work:
        clear(work)
        job = _Job("push", view, rows, (BEGINNING, -BEGINNING), work, folders.quarantine)
        done = _run(job, engine, Target(destination, _Unrecorded()), report or Silent())
        clear(work)
    return replace(done, seconds=time.perf_counter() - begun)


def _late(view: FeatureView, unread: LateRows, finished: list[Interval], intervals: list[Interval]) -> list[Interval]:
    """The interval of finished event times that has late rows, except times that are read again anyway.

    A late row is a row in a file that was not read before. The job reads all files over these times, because the last
    of equal rows in the source wins. A view with aggregations needs no such interval: its windows are always computed
    from all their events.
    """
    if view.aggregations or view.source is None or not finished:
        return []
    last = finished[-1][1]
    end_us = min([last, *(start for start, end in intervals if start < last <= end)])
    if view.sql is None:
        times = unread.times_before(view.source.event_timestamp, end_us)
        return [times] if times is not None else []
    # The times of the rows are known only after the SQL has run.
    return [(BEGINNING, end_us)] if unread.pieces else []


class _Job(NamedTuple):
    name: str
    view: FeatureView
    rows: OfflineSource | PushedRows
    interval: Interval
    work: Path
    quarantine: Path

    @property
    def staged(self) -> Path:
        """The staged rows."""
        return self.work / f"{self.name}.parquet"

    @property
    def note(self) -> Path:
        """The file of the note. It is written after the staged rows, so its presence means that they are complete."""
        return self.work / f"{self.name}.json"


def _run(job: _Job, engine: Engine, target: Target, report: Report, files_read: bytes = b"") -> Summary:
    note = read_note(job.note) or _stage(job, engine, report)
    breaches = _breaches(job, engine)
    report.started(f"{job.view.name}: write", None)
    written: dict[int, Written] = {}
    resumed, attempt = target.progress.chunks_done(note.id), 1
    while True:
        try:
            _write(job, note.id, engine, target, report, written)
            target.progress.record_interval(note.id, engine.chunk_count(job.staged), job.interval, files_read)
            break
        except LostWriteError:
            if attempt == _ATTEMPTS:
                raise
            attempt += 1
    report.finished()
    counts = [chunk.counts for chunk in written.values()]
    return Summary(
        job.view.name,
        source_rows=note.source_rows,
        latest_rows=sum(chunk.rows for chunk in written.values()),
        written=sum(count.written for count in counts),
        older=sum(count.older for count in counts),
        quarantined=note.quarantined,
        quarantine_file=note.quarantine_file,
        breaches=breaches,
        resumed_chunks=resumed,
    )


def _write(job: _Job, id: str, engine: Engine, target: Target, report: Report, written: dict[int, Written]) -> None:
    """Write the chunks that are not recorded as written.

    Raises:
        LostWriteError: Redis may have lost chunks that it acknowledged.
    """
    first = target.progress.chunks_done(id)
    for chunk, done in enumerate(engine.write(job.staged, job.view, first, target.destination), first):
        target.progress.record_chunk(id, chunk + 1)
        written[chunk] = done
        report.advanced(done.rows)


def _stage(job: _Job, engine: Engine, report: Report) -> Note:
    quarantine = Quarantine(job.quarantine, job.work, job.view.name)
    try:
        source_rows = engine.stage(StageRequest(job.view, job.rows, *job.interval, job.staged, quarantine, report))
    finally:
        quarantine.close()
    file = str(quarantine.path) if quarantine.path else None
    note = Note.of(job.interval, source_rows, quarantine.rows, file)
    note.write(job.note)
    return note


def _breaches(job: _Job, engine: Engine) -> tuple[Breach, ...]:
    """The expectations that the staged rows break.

    Raises:
        DataError: the rows break an expectation, and the view has `on_breach="block"`.
    """
    if not expects(job.view):
        return ()
    breaches = engine.inspect(job.staged, job.view).breaches(job.view)
    if breaches and job.view.on_breach == "block":
        first, *others = breaches
        also = f"; also {'; '.join(map(str, others))}" if others else ""
        raise DataError(
            f"{job.view.name}.{first.field}",
            expected=first.expected,
            got=f"{first.got}{also}",
            hint='no row was written: correct the source or the expectation, or set on_breach="warn"',
        )
    return tuple(breaches)


def _drop(work: Path, progress: Progress) -> None:
    """Remove rows that a killed job staged and that no run will use."""
    for note in notes_in(work):
        progress.forget_job(note.id)
    clear(work)


class _Unrecorded:
    """The progress of a push. It records nothing: a push cannot be resumed, since only the caller holds the rows."""

    def now_us(self) -> int:
        """See Progress."""
        return time.time_ns() // 1000

    def finished_intervals(self) -> list[Interval]:
        """See Progress."""
        return []

    def files_read(self) -> bytes:
        """See Progress."""
        return b""

    def chunks_done(self, job: str) -> int:
        """See Progress."""
        return 0

    def record_chunk(self, job: str, done: int) -> None:
        """See Progress."""

    def record_interval(self, job: str, chunks: int, interval: Interval, files_read: bytes = b"") -> None:
        """See Progress."""

    def forget_job(self, job: str) -> None:
        """See Progress."""
