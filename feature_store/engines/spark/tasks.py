"""What executors do when a view is materialized. Tasks are plain data, sent to them pickled.

    Read         takes a piece of the source, checks its rows as the local engine does, keeps the latest of each batch
                 (so that a hot key crosses the network once a batch), and packs them for the parts of their keys
    KeepLatest   takes a part, keeps the latest rows, and puts them into a file by a rename
    Write        takes some of these files, and writes them to the online store on a connection of its own

A task that is killed, retried, or run twice at once does no harm: files are renamed over their equals, and the online
store takes a row again without a change.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from feature_store.engines.quarantine import QuarantineFile
from feature_store.engines.rows import SEQUENCE, check, checked_schema, to_row_batch, within
from feature_store.engines.sources import piece_rows, reading
from feature_store.engines.spark.latest import latest_rows, parts_of
from feature_store.engines.spark.packed import Packed, received, split, to_arrow, unpack
from feature_store.online.writer import WriteCounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store.definitions.feature_view import FeatureView
    from feature_store.engines.engine import Destination
    from feature_store.engines.rows import SourceColumns
    from feature_store.engines.sources import Piece

_HELD_BYTES = 64 << 20  # of rows that are not yet reduced to the latest ones
_BATCH_ROWS = 50_000
_ROWS, _COUNTS = 0, 1  # tags


class ReadCounts(NamedTuple):
    """Of a source: rows read, those of them in the interval, those of them that do not fit."""

    read: int = 0
    inside: int = 0
    quarantined: int = 0


class BadRows(NamedTuple):
    """Where rows that do not fit go: a folder for a file of each task, and the schema that all these files have."""

    folder: Path
    schema: pa.Schema

    def file(self, number: int) -> QuarantineFile:
        """The file of a task."""
        path = self.folder / f"part-{number:05d}.parquet"
        return QuarantineFile(path, _hidden(path), self.schema)


@dataclass(frozen=True)
class Read:
    """Reads pieces of a source; see the module.

    Attributes:
        view: whose rows.
        columns: what to take.
        pieces: a task reads the one of its number.
        where: what the source is, for errors.
        interval: event times that count, in microseconds.
        parts: how many parts there are.
        bad: takes the rows that do not fit.
    """

    view: FeatureView
    columns: SourceColumns
    pieces: tuple[Piece, ...]
    where: str
    interval: tuple[int, int]
    parts: int
    bad: BadRows

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Packed rows, and the counts, which go with them so that no retry counts twice."""
        for number in _numbers(batches):
            yield from self._piece(number)

    def _piece(self, number: int) -> Iterator[pa.RecordBatch]:
        piece, columns, keys = self.pieces[number], self.columns, self.view.join_keys
        bad_rows = self.bad.file(number)
        read = inside = 0
        place = piece.first
        for batch in piece_rows(piece, self.where).batches(columns.names, columns.event_timestamp, *self.interval):
            wanted = within(batch, columns, *self.interval)
            good, bad = check(wanted, columns, keys, place)
            bad_rows.add(bad)
            read, inside, place = read + len(batch), inside + len(wanted), place + len(wanted)
            if len(good):
                latest = latest_rows(good, keys)
                yield to_arrow(list(split(latest, parts_of(latest, keys, self.parts), _ROWS)))
        bad_rows.close()
        counts = np.array(ReadCounts(read, inside, bad_rows.rows), np.int64)
        yield to_arrow([Packed(number % self.parts, _COUNTS, counts.tobytes())])


@dataclass(frozen=True)
class KeepLatest:
    """Keeps the latest rows of parts; see the module.

    Attributes:
        view: whose rows.
        columns: what they have.
        folder: where their files go.
    """

    view: FeatureView
    columns: SourceColumns
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
            if held_bytes > kept_bytes + _HELD_BYTES:
                held = [self._latest(held)]
                held_bytes = kept_bytes = held[0].nbytes
        if held:
            self._put(self.folder / name, self._latest(held))
        yield _one_row(dict(zip(ReadCounts._fields, counts.tolist(), strict=True)))

    def _latest(self, batches: list[pa.RecordBatch]) -> pa.RecordBatch:
        return latest_rows(pa.concat_batches(batches), self.view.join_keys)

    def _put(self, path: Path, rows: pa.RecordBatch) -> None:
        unfinished = _hidden(path)
        rows = rows.drop_columns([SEQUENCE])
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with reading(f"staged rows {path}"), unfinished.open("wb") as file:
            with pa.ipc.new_file(file, rows.schema, options=options) as writer:
                writer.write_table(pa.Table.from_batches([rows]), max_chunksize=_BATCH_ROWS)
            file.flush()
            os.fsync(file.fileno())
            unfinished.rename(path)


@dataclass(frozen=True)
class Write:
    """Writes staged files; see the module.

    Attributes:
        view: whose rows.
        shares: a task writes the files of its number.
        destination: where to.
    """

    view: FeatureView
    shares: tuple[tuple[Path, ...], ...]
    destination: Destination

    RESULT = "rows long, written long, older long"

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """What became of the rows."""
        for number in _numbers(batches):
            rows, counts = 0, WriteCounts()
            with self.destination.open() as sink:
                for path in self.shares[number]:
                    for batch in _staged(path):
                        counts = counts.plus(sink.write(to_row_batch(batch, self.view)))
                        rows += len(batch)
            yield _one_row({"rows": rows, "written": counts.written, "older": counts.older})


def staged_files(folder: Path) -> list[Path]:
    """The files that KeepLatest has made, in order."""
    with reading(f"staged rows {folder}"):
        return sorted(folder.glob("part-*.arrow"))


def _staged(path: Path) -> Iterator[pa.RecordBatch]:
    with reading(f"staged rows {path}"), pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


def _numbers(batches: Iterator[pa.RecordBatch]) -> Iterator[int]:
    for batch in batches:
        yield from batch["id"].to_pylist()


def _one_row(values: dict[str, int]) -> pa.RecordBatch:
    return pa.record_batch({name: pa.array([value], pa.int64()) for name, value in values.items()})


def _hidden(path: Path) -> Path:
    """Where a file is until it is whole: one for each try, of which several may be under way."""
    return path.with_name(f".{path.name}-{secrets.token_hex(8)}")
