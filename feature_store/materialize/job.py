"""A job: rows of a view in an interval, staged, written in chunks, recorded. Killed anywhere, it goes on when rerun.

stage    the engine puts the latest rows on disk; a rename makes them be there whole or not at all
inspect  they are compared with what their fields expect; a view says whether a breach blocks what follows
write    the engine writes chunk after chunk; beside the rows, the online store notes how many are written
record   the online store notes the interval, then the staged rows go

What the online store has lost, with the notes that speak of it, the next run writes again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from feature_store._intervals import BEGINNING, missing
from feature_store._private_files import private_file, private_folder
from feature_store.arrow.inspection import expects
from feature_store.arrow.pushed import pushed_rows
from feature_store.arrow.quarantine import Quarantine
from feature_store.arrow.read_files import computation_of, look_at
from feature_store.arrow.sources import fingerprint, parquet_rows
from feature_store.definitions.dtypes import MIN_TIMESTAMP_US, from_microseconds
from feature_store.engines.engine import Stage
from feature_store.engines.report import Silent
from feature_store.errors import DataError, LostWriteError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store._intervals import Interval
    from feature_store.arrow.inspection import Breach
    from feature_store.arrow.read_files import ReadFiles
    from feature_store.arrow.sources import Rows
    from feature_store.definitions.feature_view import FeatureView
    from feature_store.engines.engine import Destination, Engine, Written
    from feature_store.engines.report import Report
    from feature_store.materialize.progress import Progress

# How often a job writes what Redis may have lost while it ran: a Redis that is lost more often needs a person.
_ATTEMPTS = 3
# Of a note, which is a few numbers and a file's path.
_MOST_NOTE_BYTES = 1 << 16
_MOST_ROWS = 1 << 62
_NOTED_ID = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class Summary:
    """What a job did.

    Attributes:
        view: whose rows.
        intervals: what was read, `[start, end)` in microseconds.
        source_rows: rows of the source in the intervals.
        latest_rows: of them, the latest of each entity.
        written: of them, those that the store took.
        older: of them, those that the store had newer.
        quarantined: rows that do not fit the view.
        quarantine_file: where they are.
        breaches: what is not as fields expect of the rows that were written; none where a view lets breaches block.
        resumed_chunks: chunks that an earlier, killed run had written.
        late_rows: of the source's rows, those of finished times that were read again, because files brought some late.
        seconds: how long it took.
    """

    view: str
    intervals: tuple[Interval, ...] = ()
    source_rows: int = 0
    latest_rows: int = 0
    written: int = 0
    older: int = 0
    quarantined: int = 0
    quarantine_file: str | None = None
    breaches: tuple[Breach, ...] = ()
    resumed_chunks: int = 0
    late_rows: int = 0
    seconds: float = 0.0

    def __repr__(self) -> str:
        """Its counts that are not 0, and its intervals as times."""
        counts = {name: value for name, value in vars(self).items() if value and name not in ("view", "intervals")}
        counts["seconds"] = round(self.seconds, 3)
        times = [f"{_iso(start) or 'the beginning'} to {_iso(end)}" for start, end in self.intervals]
        told = {"intervals": times} if times else {}
        return f"Summary({', '.join([self.view, *(f'{name}={value!r}' for name, value in (told | counts).items())])})"

    def to_document(self) -> dict[str, Any]:
        """The summary as JSON types: times as ISO 8601, a start at the beginning of all as None."""
        intervals = [[_iso(start), _iso(end)] for start, end in self.intervals]
        return asdict(self) | {"intervals": intervals}


def _iso(time_us: int) -> str | None:
    return None if time_us == BEGINNING else from_microseconds(time_us).isoformat()


@dataclass(frozen=True)
class Folders:
    """Where jobs keep their files: `work` staged rows, `quarantine` rows that do not fit."""

    work: Path
    quarantine: Path


def materialize(
    view: FeatureView,
    *,
    source_folder: Path,
    start_us: int | None,
    end_us: int | None,
    lookback_us: int,
    engine: Engine,
    destination: Destination,
    progress: Progress,
    folders: Folders,
    digest: str,
    report: Report | None = None,
) -> Summary:
    """Write the latest rows of a view's source to the online store.

    Args:
        view: a view with a source.
        source_folder: what the source's path is relative to.
        start_us: where to begin; None: read what is not recorded, what files brought since they were read, and
            `lookback_us` before the end of what is recorded again.
        end_us: where to end; None, or a time to come: now, by the clock of `progress`.
        lookback_us: see `start_us`.
        engine: what finds the latest rows, and writes them.
        destination: where they go.
        progress: what is recorded, beside the rows in the online store.
        folders: where files go.
        digest: of the definitions; rows staged under others are not used.
        report: is told of the progress.

    Raises:
        DataError: the source does not fit the view, or cannot be read; or the interval is empty; or values are not as
            fields expect, and the view lets that block: then no row of the interval is written.
    """
    begun = time.perf_counter()
    if view.source is None:
        raise DataError(f"materialize {view.name}", expected="a view with a source", got="none", hint="push its rows")
    end_us = _past_end(view.name, start_us, end_us, progress.now_us())
    summary = Summary(view.name)
    with _locked(folders.work / view.name) as work:
        source = fingerprint(view.source, source_folder)
        rows_digest = json.dumps([engine.name, view.name, digest, source])
        recorded = progress.finished_intervals()
        rows = parquet_rows(view.source, view, source_folder)
        files = look_at(rows, progress.files_read(), computation_of(view))
        # Rows that another source or other SQL gave are not those that are wanted: they are computed anew.
        finished = recorded if files.is_known else []
        intervals = _intervals(finished, start_us, end_us, lookback_us)
        late = _late(view, files, finished, intervals) if start_us is None else []
        intervals = _leftover_first([*intervals, *late], work, rows_digest)
        jobs = [
            _Job(_job_name(rows_digest, interval), view, rows, interval, work, folders.quarantine)
            for interval in intervals
        ]
        if not jobs or _read_note(jobs[0].note) is None:
            _drop(work, progress)
        # What earlier jobs have left unread, a job over given times does not read.
        files_read = files.document if start_us is None or not recorded else b""
        for job in jobs:
            done = _run(job, engine, destination, progress, report or Silent(), files_read if job is jobs[-1] else b"")
            _clear(work)
            is_late = any(start <= job.interval[0] and job.interval[1] <= end for start, end in late)
            summary = _add(summary, replace(done, late_rows=done.source_rows if is_late else 0))
    return replace(summary, intervals=tuple(intervals), seconds=time.perf_counter() - begun)


def _late(view: FeatureView, files: ReadFiles, finished: list[Interval], intervals: list[Interval]) -> list[Interval]:
    """The times, among those that are finished and not read again anyway, of what files brought since they were read.

    All files are read over these times: of equal rows, the last in the source counts. Windows need no such interval:
    they are computed of all events that they hold, whenever those came.
    """
    if view.aggregations or view.source is None or not finished:
        return []
    last = finished[-1][1]
    end_us = min([last, *(start for start, end in intervals if start < last <= end)])
    if view.sql is None:
        found = files.times_before(view.source.event_timestamp, end_us)
        return [found] if found is not None else []
    # Which times SQL makes of rows, only running it would say.
    return [(BEGINNING, end_us)] if files.unread else []


def _past_end(view: str, start_us: int | None, end_us: int | None, now_us: int) -> int:
    """Where to end: nothing that is yet to come counts as done."""
    end = now_us if end_us is None else min(end_us, now_us)
    if start_us is not None and start_us >= end:
        got = f"{from_microseconds(start_us)} and {from_microseconds(end)}"
        hint = "an end that is to come counts as now, by Redis's clock" if end == now_us else ""
        raise DataError(f"materialize {view}", expected="a start before the end", got=got, hint=hint)
    return end


def push(
    view: FeatureView,
    table: Any,
    *,
    engine: Engine,
    destination: Destination,
    folders: Folders,
    report: Report | None = None,
) -> Summary:
    """Write the latest rows of a table to the online store.

    Args:
        view: whose rows.
        table: an Arrow table, record batch or reader, a DataFrame, or the path of a .csv or .parquet file, with the
            columns of the view's source; of a view without one: join keys, fields, `event_timestamp` and, if there is
            one, `created_timestamp`.
        engine, destination, folders, report: as of `materialize`.

    Raises:
        DataError: the table does not fit the view, or cannot be read; or the view is computed from events; or values
            are not as fields expect, as of `materialize`.
    """
    begun = time.perf_counter()
    if view.aggregations:
        got, hint = "aggregations of events", "put the events into its source, and materialize"
        raise DataError(f"push to {view.name}", expected="a view whose rows are given", got=got, hint=hint)
    rows = pushed_rows(table, view)
    with _locked(folders.work / f"push-{view.name}") as work:
        _clear(work)
        job = _Job("push", view, rows, (BEGINNING, -BEGINNING), work, folders.quarantine)
        done = _run(job, engine, destination, _Unrecorded(), report or Silent())
        _clear(work)
    return replace(done, seconds=time.perf_counter() - begun)


class _Job(NamedTuple):
    name: str
    view: FeatureView
    rows: Rows
    interval: Interval
    work: Path
    quarantine: Path
    is_late: bool = False

    @property
    def staged(self) -> Path:
        """The latest rows."""
        return self.work / f"{self.name}.parquet"

    @property
    def note(self) -> Path:
        """The file that says what the staged rows are; made after them, so that with it they are whole."""
        return self.work / f"{self.name}.json"


class _Note(NamedTuple):
    id: str  # of these staged rows alone: how many chunks of others are written says nothing of these
    interval: Interval
    source_rows: int
    quarantined: int
    quarantine_file: str | None


def _job_name(rows_digest: str, interval: Interval) -> str:
    """The same for the same rows and interval, so that a killed job is found again."""
    return hashlib.sha256(json.dumps([rows_digest, interval]).encode()).hexdigest()[:24]


def _read_note(path: Path) -> _Note | None:
    """The note; None where there is none, or one that this release does not write: its rows are staged again."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MOST_NOTE_BYTES))
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return None
    match found:
        case [str(id), [int(start), int(end)], int(source_rows), int(quarantined), str() | None as file_name]:
            note = _Note(id, (start, end), source_rows, quarantined, file_name)
            return note if _NOTED_ID.fullmatch(id) and _is_possible(note) else None
    return None


def _is_possible(note: _Note) -> bool:
    start, end = note.interval
    is_interval = BEGINNING <= start < end <= -BEGINNING
    return is_interval and 0 <= note.quarantined < _MOST_ROWS and 0 <= note.source_rows < _MOST_ROWS


def _leftover_first(intervals: list[Interval], work: Path, rows_digest: str) -> list[Interval]:
    """Split off what a killed job has staged: "until now" ends later at each run, and would never find it again."""
    for path in work.glob("*.json"):
        note = _read_note(path)
        if note is None:
            continue
        start, end = note.interval
        holds = [held for held in intervals if held[0] <= start and end <= held[1]]
        if holds and path.stem == _job_name(rows_digest, (start, end)):
            rest = [part for part in intervals if part not in holds]
            cut = [(holds[0][0], start), (end, holds[0][1])]
            return [(start, end), *sorted([*rest, *(part for part in cut if part[0] < part[1])])]
    return intervals


def _intervals(finished: list[Interval], start_us: int | None, end_us: int, lookback_us: int) -> list[Interval]:
    if start_us is not None:
        return [(start_us, end_us)]
    last = finished[-1][1] if finished else BEGINNING
    start = min(last, end_us) - lookback_us
    again = (start if start >= MIN_TIMESTAMP_US else BEGINNING, end_us)
    fresh = missing((BEGINNING, end_us), finished)
    if not finished or lookback_us <= 0:
        return fresh
    return [*missing((BEGINNING, again[0]), finished), again]


def _run(
    job: _Job,
    engine: Engine,
    destination: Destination,
    progress: Progress,
    report: Report,
    files_read: bytes = b"",
) -> Summary:
    note = _read_note(job.note) or _stage(job, engine, report)
    breaches = _breaches(job, engine)
    report.started(f"{job.view.name}: write", None)
    written: dict[int, Written] = {}
    resumed, attempt = progress.chunks_done(note.id), 1
    while True:
        try:
            _write(job, note.id, engine, destination, progress, report, written)
            progress.record_interval(note.id, engine.chunk_count(job.staged), job.interval, files_read)
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


def _write(
    job: _Job,
    id: str,
    engine: Engine,
    destination: Destination,
    progress: Progress,
    report: Report,
    written: dict[int, Written],
) -> None:
    """Write the chunks that are not noted.

    Raises:
        LostWriteError: Redis may have lost chunks that it acknowledged.
    """
    first = progress.chunks_done(id)
    for chunk, done in enumerate(engine.write(job.staged, job.view, first, destination), first):
        progress.record_chunk(id, chunk + 1)
        written[chunk] = done
        report.advanced(done.rows)


def _stage(job: _Job, engine: Engine, report: Report) -> _Note:
    quarantine = Quarantine(job.quarantine, job.work, job.view.name)
    try:
        source_rows = engine.stage(Stage(job.view, job.rows, *job.interval, job.staged, quarantine, report))
    finally:
        quarantine.close()
    file = str(quarantine.path) if quarantine.path else None
    note = _Note(secrets.token_hex(8), job.interval, source_rows, quarantine.rows, file)
    unfinished = job.note.with_suffix(".unfinished")
    private_file(unfinished).write_text(json.dumps(note))
    unfinished.rename(job.note)
    return note


def _breaches(job: _Job, engine: Engine) -> tuple[Breach, ...]:
    """What is not as the view's fields expect of the staged rows.

    Raises:
        DataError: something is not, and the view lets that block.
    """
    if not expects(job.view):
        return ()
    found = engine.inspect(job.staged, job.view).breaches(job.view)
    if found and job.view.on_breach == "block":
        first, *others = found
        also = f"; also {'; '.join(map(str, others))}" if others else ""
        raise DataError(
            f"{job.view.name}.{first.field}",
            expected=first.expected,
            got=f"{first.got}{also}",
            hint='nothing of it was written: correct the source or the expectation, or say on_breach="warn"',
        )
    return tuple(found)


def _add(a: Summary, b: Summary) -> Summary:
    return replace(
        a,
        source_rows=a.source_rows + b.source_rows,
        latest_rows=a.latest_rows + b.latest_rows,
        written=a.written + b.written,
        older=a.older + b.older,
        quarantined=a.quarantined + b.quarantined,
        quarantine_file=b.quarantine_file or a.quarantine_file,
        breaches=(*a.breaches, *b.breaches),
        late_rows=a.late_rows + b.late_rows,
        resumed_chunks=a.resumed_chunks + b.resumed_chunks,
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """A view's working folder, for one process at a time: the second waits, and then finds the work done."""
    try:
        private_folder(folder)
        with private_file(folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    except OSError as error:
        if isinstance(error, DataError) or error.filename is None:
            raise
        raise DataError(f"working folder {folder}", expected="a folder to write to", got=str(error)) from error


def _drop(work: Path, progress: Progress) -> None:
    """Give up what a killed job has staged, because nobody will ask for it again."""
    for path in work.glob("*.json"):
        note = _read_note(path)
        if note is not None:
            progress.forget_job(note.id)
    _clear(work)


def _clear(folder: Path) -> None:
    """Remove what jobs have left."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


class _Unrecorded:
    """The progress of what cannot be resumed, because its rows are nowhere but in the caller's hands."""

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
