"""Writes the served log as Parquet: `<folder>/service=<name>/date=<YYYY-MM-DD>/<first time>-<8 hex digits>.parquet`."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.arrow.reading import reading
from feature_store.arrow.served_log import SERVED_AT, About


def write_files(folder: Path, batches: Sequence[pa.RecordBatch]) -> None:
    """Write served records of one service under a folder, one file for each day. A rename makes each file appear whole.

    Raises:
        DataError: a file cannot be written.
    """
    table = pa.Table.from_batches(batches)
    service = About.of(table.schema, "served records").service
    for date, rows in _by_date(table):
        _write_file(folder / f"service={service}" / f"date={date}", rows)


def _write_file(folder: Path, table: pa.Table) -> None:
    name = f"{pc.min(table[SERVED_AT]).as_py():%H%M%S}-{uuid.uuid4().hex[:8]}.parquet"
    unfinished = folder / f".{name}"
    with reading(f"served log {folder / name}"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # Dictionaries of values that hardly repeat, and statistics that no reader uses, would double the time.
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
