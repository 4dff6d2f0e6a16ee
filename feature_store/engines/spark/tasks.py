"""The tasks that materialize a view on executors. They are plain data that Spark pickles and sends.

    Read         takes a piece of the source and checks its rows as the local engine does. It keeps the latest row of
                 each entity per batch, so that a hot key crosses the network once a batch, and packs the rows for the
                 parts of their keys
    Keep         takes a part and keeps the latest row of each entity. For a view with aggregations, Read sends all
                 events, and Keep computes the windows of each entity. A rename puts the file in place
    Inspect      takes some of these files, and counts the values that break their fields' expectations
    Write        takes some of these files, and writes them to the online store on its own connection

A task can be killed, retried or run twice at once without harm: a rename replaces a file with an equal one, and the
online store ignores a row that it already has.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from feature_store._private_files import private_file
from feature_store.arrow.inspection import FieldCounts, Inspection, inspect
from feature_store.arrow.plain import plain_schema
from feature_store.arrow.quarantine import QuarantineFile, joint_schema
from feature_store.arrow.reading import reading
from feature_store.arrow.rows import SEQUENCE, SourceColumns, check, check_events, checked_schema, to_row_batch, within
from feature_store.arrow.sources.source import OfflineSource, Piece
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.feature_view import FeatureView
from feature_store.engines.engine import RowDestination
from feature_store.engines.spark.entities import entities_of, latest_rows, parts_of
from feature_store.engines.spark.packed import Packed, received, split, to_arrow, unpack
from feature_store.engines.windows import windows_of_entities, windows_schema
from feature_store.online.writer import WriteCounts

_HELD_BYTES = 64 << 20  # of rows that are not yet reduced to the latest row of each entity
_BATCH_ROWS = 50_000
_EVENTS = 1 << 20  # per step of the window computation, about 100 MB; an entity is never split
_ROWS, _COUNTS = 0, 1  # tags


class ReadCounts(NamedTuple):
    """Counts of source rows: those read, those in the interval, and invalid ones in the interval."""

    read: int = 0
    inside: int = 0
    quarantined: int = 0


class BadRows(NamedTuple):
    """Where invalid rows go: a folder with one file for each task, and the schema that all the files share."""

    folder: Path
    schema: pa.Schema

    @classmethod
    def of(cls, folder: Path, rows: OfflineSource, columns: SourceColumns) -> BadRows:
        """The destination for a source's invalid rows. The shared schema fits all files, even if their types differ."""
        names = list(dict.fromkeys(columns.names))
        schemas = (pa.schema([schema.field(name) for name in names]) for _, schema in rows.schemas())
        parts = (pa.RecordBatch.from_pylist([], schema=plain_schema(schema)) for schema in schemas)
        return cls(folder, joint_schema(check(part, columns, [], 0).bad for part in parts))

    def file(self, number: int) -> QuarantineFile:
        """The quarantine file of a task."""
        path = self.folder / f"part-{number:05d}.parquet"
        return QuarantineFile(path, hidden(path), self.schema)


@dataclass(frozen=True)
class Read:
    """Reads pieces of a source; see the module.

    Attributes:
        view: the view.
        columns: the source columns to read.
        pieces: the pieces of the source. Task i reads piece i.
        interval: the event times `[start, end)` whose rows are counted, microseconds since 1970.
        reach: the event times `[start, end)` to read, microseconds since 1970. For a view with aggregations it begins
            before the interval, since windows contain earlier events.
        parts: the number of parts.
        bad: takes the invalid rows.
    """

    view: FeatureView
    columns: SourceColumns
    pieces: tuple[Piece, ...]
    interval: tuple[int, int]
    reach: tuple[int, int]
    parts: int
    bad: BadRows

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Packed rows and counts. The counts travel with the rows, so that a retry does not count twice."""
        for number in numbers_of(batches):
            yield from self._piece(number)

    def _piece(self, number: int) -> Iterator[pa.RecordBatch]:
        piece, columns, keys = self.pieces[number], self.columns, self.view.join_keys
        bad_rows = self.bad.file(number)
        read = inside = 0
        place = piece.first
        for batch in piece.batches(columns.names, TimeRange(columns.event_timestamp, *self.reach)):
            reached = within(batch, columns, *self.reach)
            good, bad = (check_events if self.view.aggregations else check)(reached, columns, keys, place)
            bad_rows.add(within(bad, columns, *self.interval))
            read, place = read + len(batch), place + len(reached)
            inside += len(within(reached, columns, *self.interval))
            if len(good):
                sent = good if self.view.aggregations else latest_rows(good, keys)
                yield to_arrow(list(split(sent, parts_of(sent, keys, self.parts), _ROWS)))
        bad_rows.close()
        counts = np.array(ReadCounts(read, inside, bad_rows.rows), np.int64)
        yield to_arrow([Packed(number % self.parts, _COUNTS, counts.tobytes())])


@dataclass(frozen=True)
class Keep:
    """Stages the row to store for each entity of a part; see the module.

    Attributes:
        view: the view.
        columns: the columns of the received rows.
        end_us: the end of the interval, microseconds since 1970. Windows are computed for this time.
        folder: takes one file for each part.
    """

    view: FeatureView
    columns: SourceColumns
    end_us: int
    folder: Path

    RESULT = "read long, inside long, quarantined long"

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The counts of the part."""
        schema = checked_schema(self.columns)
        held: list[pa.RecordBatch] = []
        held_bytes, kept_bytes = 0, 0
        counts = np.zeros(len(ReadCounts._fields), np.int64)
        name = ""
        for part, tag, value in received(batches):
            if tag == _COUNTS:
                counts += np.frombuffer(value, np.int64)
                continue
            name = f"part-{part:05d}.arrow"
            held.append(unpack(value, schema))
            held_bytes += value.size
            if held_bytes > kept_bytes + _HELD_BYTES and not self.view.aggregations:
                held = [self._latest(held)]
                held_bytes = kept_bytes = held[0].nbytes
        if held and self.view.aggregations:
            self._put(self.folder / name, windows_schema(self.view), self._windows(pa.concat_batches(held)))
        elif held:
            rows = self._latest(held).drop_columns([SEQUENCE])
            self._put(self.folder / name, rows.schema, iter([pa.Table.from_batches([rows])]))
        yield _one_row(dict(zip(ReadCounts._fields, counts.tolist(), strict=True)))

    def _latest(self, batches: list[pa.RecordBatch]) -> pa.RecordBatch:
        return latest_rows(pa.concat_batches(batches), self.view.join_keys)

    def _windows(self, events: pa.RecordBatch) -> Iterator[pa.Table]:
        """The windows of all entities, in tables of some entities each."""
        entities, count = entities_of(events, self.view.join_keys)
        order = np.argsort(entities, kind="stable")
        events = pa.Table.from_batches([events])
        ends = np.cumsum(np.bincount(entities, minlength=count))
        first = 0
        while first < count:
            before = int(ends[first - 1]) if first else 0
            until = max(first + 1, int(np.searchsorted(ends, before + _EVENTS, side="right")))
            chosen = order[before : ends[until - 1]]
            of_entities = (entities[chosen] - first).astype(np.int32)
            begins = np.concatenate([[0], ends[first : until - 1] - before])
            yield windows_of_entities(self.view, events.take(pa.array(chosen)), of_entities, begins, self.end_us)
            first = until

    def _put(self, path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
        unfinished = hidden(path)
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with reading(f"staged rows {path}"), private_file(unfinished).open("wb") as file:
            with pa.ipc.new_file(file, schema, options=options) as writer:
                for table in tables:
                    writer.write_table(table, max_chunksize=_BATCH_ROWS)
            file.flush()
            os.fsync(file.fileno())
            unfinished.rename(path)


@dataclass(frozen=True)
class Write:
    """Writes staged files; see the module.

    Attributes:
        view: the view.
        shares: the files of each task.
        destination: the place to write to.
    """

    view: FeatureView
    shares: tuple[tuple[Path, ...], ...]
    destination: RowDestination

    RESULT = "rows long, written long, older long"

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """One row for each task: the counts of its rows."""
        for number in numbers_of(batches):
            rows, counts = 0, WriteCounts()
            with self.destination.open() as sink:
                for path in self.shares[number]:
                    for batch in _staged(path):
                        counts = counts.plus(sink.write(to_row_batch(batch, self.view)))
                        rows += len(batch)
            yield _one_row({"rows": rows, "written": counts.written, "older": counts.older})


@dataclass(frozen=True)
class Inspect:
    """Inspects staged files; see `arrow/inspection.py`.

    Attributes:
        view: the view.
        shares: the files of each task.
    """

    view: FeatureView
    shares: tuple[tuple[Path, ...], ...]

    RESULT = "found string"

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """One row for each task: its inspection, as JSON for `read`."""
        for number in numbers_of(batches):
            found = Inspection()
            for path in self.shares[number]:
                for batch in _staged(path):
                    found = found.plus(inspect(to_row_batch(batch, self.view), self.view))
            yield pa.record_batch({"found": pa.array([json.dumps(asdict(found))])})

    @staticmethod
    def read(told: str) -> Inspection:
        """The inspection in a task's result."""
        found = json.loads(told)
        return Inspection(found["rows"], {name: FieldCounts(**counts) for name, counts in found["fields"].items()})


def staged_files(folder: Path) -> list[Path]:
    """The files that Keep wrote, sorted by part."""
    with reading(f"staged rows {folder}"):
        return sorted(folder.glob("part-*.arrow"))


def _staged(path: Path) -> Iterator[pa.RecordBatch]:
    with reading(f"staged rows {path}"), pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


def numbers_of(batches: Iterator[pa.RecordBatch]) -> Iterator[int]:
    """The task numbers in the input that `Session.tasks` creates."""
    for batch in batches:
        yield from batch["id"].to_pylist()


def _one_row(values: dict[str, int]) -> pa.RecordBatch:
    return pa.record_batch({name: pa.array([value], pa.int64()) for name, value in values.items()})


def hidden(path: Path) -> Path:
    """A temporary name for an unfinished file. Each attempt of a task gets its own, since several may run at once."""
    return path.with_name(f".{path.name}-{secrets.token_hex(8)}")
