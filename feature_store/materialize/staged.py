"""Staged rows: the files in a view's working folder, and the note that says they are whole.

A job's name is the digest of what it reads, so that a run after a kill finds what the killed run has staged.
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

# A note is a few numbers and a file's path. A larger file is not a note.
_MOST_NOTE_BYTES = 1 << 16
_MOST_ROWS = 1 << 62
_NOTED_ID = re.compile("[0-9a-f]{16}")


class Note(NamedTuple):
    """What staged rows are.

    Attributes:
        id: a random id. The record of written chunks carries it, so that it never counts for other staged rows.
        interval: the event times that were read, `[start, end)` in microseconds since 1970.
        source_rows: rows of the source in the interval.
        quarantined: rows that do not fit the view.
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
        """Write the note; the rename makes it appear whole, after the rows that it describes."""
        unfinished = path.with_suffix(".unfinished")
        private_file(unfinished).write_text(json.dumps(self))
        unfinished.rename(path)


def read_note(path: Path) -> Note | None:
    """The note in a file; None: there is no note of this release's form, so its rows are staged again."""
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
    """The name of a job: the same for the same rows and interval, in each run."""
    return hashlib.sha256(json.dumps([rows_digest, interval]).encode()).hexdigest()[:24]


def leftover_first(intervals: list[Interval], work: Path, rows_digest: str) -> list[Interval]:
    """The intervals, with the one that a killed job has staged split off and put first.

    "Until now" ends later at each run: unsplit, no run would ever find what an earlier one has staged.
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
    """A view's working folder, for one process at a time. A second process waits, and then has nothing left to do.

    Raises:
        DataError: the folder cannot be made or written to.
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
    """The notes of what jobs have left in a working folder."""
    return [note for path in folder.glob("*.json") if (note := read_note(path)) is not None]


def clear(folder: Path) -> None:
    """Remove what jobs have left in a working folder."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()
