"""Served records in a folder of Parquet files."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.arrow.reading import reading
from feature_store.arrow.served_log import SERVED_AT, About

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class ParquetSink:
    """Writes `<folder>/service=<name>/date=<YYYY-MM-DD>/<first time>-<8 hex digits>.parquet`, each file at once: it is
    there whole or not at all, and never written again. Any number of processes may write to one folder.

    Args:
        folder: where to write; made when it is not there.
        rows: a file is written when so many rows wait,
        seconds: or when the first of them has waited so long. A process that is killed loses what waits.

    Example:
        >>> from feature_store.monitoring import ParquetSink, ServedLog
        >>> log = ServedLog(ParquetSink("served"), rate=0.1)
        >>> log.close()
    """

    def __init__(self, folder: str | Path, *, rows: int = 100_000, seconds: float = 30.0) -> None:
        self._folder, self.most_rows, self.most_seconds = Path(folder), rows, seconds

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        """See served_log.Sink.

        Raises:
            DataError: a file cannot be written.
        """
        table = pa.Table.from_batches(batches)
        service = About.of(table.schema, "served records").service
        for date, rows in _by_date(table):
            self._write_file(self._folder / f"service={service}" / f"date={date}", rows)

    def close(self, wait_s: float) -> None:
        """See served_log.Sink."""

    def _write_file(self, folder: Path, table: pa.Table) -> None:
        name = f"{pc.min(table[SERVED_AT]).as_py():%H%M%S}-{uuid.uuid4().hex[:8]}.parquet"
        unfinished = folder / f".{name}"
        with reading(f"served log {folder / name}"):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                # Neither dictionaries of what hardly repeats nor statistics that nobody asks for: without them, writing
                # takes half the time.
                repeated = [field.name for field in table.schema if _repeats(field.type)]
                pq.write_table(table, unfinished, use_dictionary=repeated, write_statistics=[SERVED_AT])
                unfinished.rename(folder / name)
            except BaseException:
                with contextlib.suppress(OSError):
                    unfinished.unlink()
                raise


def _repeats(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_fixed_size_binary(kind))


def _by_date(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    dates = table[SERVED_AT].cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    distinct = pc.unique(dates)
    for date in distinct:
        yield str(date), table.filter(pc.equal(dates, date)) if len(distinct) > 1 else table
