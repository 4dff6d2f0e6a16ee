"""Staged rows: the files in a view's working folder, and the note that marks them as complete.

A job's name is a digest of its input, so that the run after a kill finds the rows that the killed run staged.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from feature_store._intervals import BEGINNING, Interval
from feature_store._private_files import private_file, private_folder
from feature_store.errors import DataError

# A note has a few numbers and a path. A larger file is not a note.
_MOST_NOTE_BYTES = 1 << 16
_MOST_ROWS = 1 << 62
_NOTED_ID = re.compile("[0-9a-f]{16}")


class Note(NamedTuple):
    """A description of staged rows.

    Attributes:
        id: a random id. Written chunks are recorded under it, so that the record never counts for other staged rows.
        interval: the event times that were read, `[start, end)` in microseconds since 1970.
        source_rows: the number of source rows in the interval.
        quarantined: the number of rows that do not fit the view.
        quarantine_file: the file with these rows; None: there are none.
    """

    id: str
    interval: Interval
    source_rows: int
    quarantined: int
    quarantine_file: str | None

    @classmethod
    def of(cls, interval: Interval, source_rows: int, quarantined: int, quarantine_file: str | None) -> Note:
        """A note with a new id."""
        return cls(secrets.token_hex(8), interval, source_rows, quarantined, quarantine_file)

    def write(self, path: Path) -> None:
        """Write the note. A rename makes it appear whole. The caller writes it after the rows that it describes."""
        unfinished = path.with_suffix(".unfinished")
        private_file(unfinished).write_text(json.dumps(self))
        unfinished.rename(path)


def read_note(path: Path) -> Note | None:
    """The note in a file. None: there is no note in this release's format, so the rows must be staged again."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MOST_NOTE_BYTES))
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return None
    match document:
        case [str(id), [int(start), int(end)], int(source_rows), int(quarantined), str() | None as file_name]:
            note = Note(id, (start, end), source_rows, quarantined, file_name)
            return note if _NOTED_ID.fullmatch(id) and _is_possible(note) else None
    return None


def _is_possible(note: Note) -> bool:
    start, end = note.interval
    is_interval = BEGINNING <= start < end <= -BEGINNING
    return is_interval and 0 <= note.quarantined < _MOST_ROWS and 0 <= note.source_rows < _MOST_ROWS


def job_name(rows_digest: str, interval: Interval) -> str:
    """The name of a job. Runs over the same rows and interval have the same name."""
    return hashlib.sha256(json.dumps([rows_digest, interval]).encode()).hexdigest()[:24]


def leftover_first(intervals: list[Interval], work: Path, rows_digest: str) -> list[Interval]:
    """The intervals, with the interval that a killed job staged split off and put first.

    An interval until now ends later in each run. Without the split, no run would find the rows of an earlier run.
    """
    for path in work.glob("*.json"):
        note = read_note(path)
        if note is None:
            continue
        start, end = note.interval
        around = [interval for interval in intervals if interval[0] <= start and end <= interval[1]]
        if around and path.stem == job_name(rows_digest, (start, end)):
            rest = [interval for interval in intervals if interval not in around]
            cut = [(around[0][0], start), (end, around[0][1])]
            return [(start, end), *sorted([*rest, *(piece for piece in cut if piece[0] < piece[1])])]
    return intervals


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Lock a view's working folder for one process at a time. A second process waits, and finds the work done.

    Raises:
        DataError: the folder cannot be created or written to.
    """
    try:
        private_folder(folder)
        with private_file(folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    except OSError as error:
        if isinstance(error, DataError) or error.filename is None:
            raise
        raise DataError(f"working folder {folder}", expected="a folder to write to", got=str(error)) from error


def notes_in(folder: Path) -> list[Note]:
    """The notes that jobs left in a working folder."""
    return [note for path in folder.glob("*.json") if (note := read_note(path)) is not None]


def clear(folder: Path) -> None:
    """Remove all files that jobs left in a working folder, except the lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()
