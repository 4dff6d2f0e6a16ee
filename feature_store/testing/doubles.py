"""Test doubles for the interfaces of an engine: a sink, the progress of jobs, and the last step of a join."""

from __future__ import annotations

import contextlib
import pickle
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_store._intervals import Interval, merged
from feature_store.engines.join import Finished
from feature_store.online.batch import RowBatch
from feature_store.online.writer import WriteCounts


class FolderSink:
    """A destination and sink in a folder, for all processes of this machine. The newest row of a user wins."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    @contextlib.contextmanager
    def open(self) -> Iterator[FolderSink]:
        yield self

    def write(self, batch: RowBatch) -> WriteCounts:
        columns = [batch.columns[name].values.tolist() for name in ("score", "title")]
        times = (batch.event_ts.tolist(), batch.created_ts.tolist())
        rows = list(zip(batch.keys["user_id"].tolist(), *times, *columns, strict=True))
        (self._folder / secrets.token_hex(8)).write_bytes(pickle.dumps(rows))
        return WriteCounts(len(batch), 0)

    @property
    def rows(self) -> dict[int, tuple[Any, ...]]:
        """The newest row of each user: (event time, created time, score, title), times in microseconds since 1970."""
        found: dict[int, tuple[Any, ...]] = {}
        for path in self._folder.iterdir():
            for user_id, *row in pickle.loads(path.read_bytes()):
                found[user_id] = max(found.get(user_id, tuple(row)), tuple(row))
        return found


class MemoryProgress:
    """The progress of jobs, kept in memory. See materialize.progress.Progress."""

    def __init__(self) -> None:
        self._intervals: list[Interval] = []
        self._chunks: dict[str, int] = {}
        self._files = b""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def finished_intervals(self) -> list[Interval]:
        return merged(self._intervals)

    def files_read(self) -> bytes:
        return self._files

    def chunks_done(self, job: str) -> int:
        return self._chunks.get(job, 0)

    def record_chunk(self, job: str, done: int) -> None:
        self._chunks[job] = done

    def record_interval(self, job: str, chunks: int, interval: Interval, files_read: bytes = b"") -> None:
        self._intervals.append(interval)
        self._files = files_read or self._files

    def forget_job(self, job: str) -> None:
        self._chunks.pop(job, None)


class UnchangedLabels:
    """Returns the label columns unchanged, then the joined columns. See engines.join.Finish."""

    features: Sequence[str] = ("stats score", "stats title")

    def __init__(self, labels: pa.Schema) -> None:
        joined = [pa.field(self.features[0], pa.float64()), pa.field(self.features[1], pa.string())]
        self.schema = pa.schema([*labels, *joined])

    def check(self, labels: pa.RecordBatch, first: int) -> None:
        """Accept every label: these labels have no request fields."""

    def __call__(self, labels: pa.RecordBatch, joined: Sequence[pa.Array], first: int) -> Finished:
        batch = pa.RecordBatch.from_arrays([*labels.columns, *joined], schema=self.schema)
        return Finished(batch, [column.null_count for column in joined])
