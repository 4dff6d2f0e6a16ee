"""Memory is bounded by bytes, not by rows: peak memory of a process that stages texts of 20 kB, of which there are many
times as many bytes as it may hold."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engines.offline_worlds import NOW_US

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = "lorem ipsum " * 1700  # 20 kB
# What Python, numpy, pyarrow and DuckDB take before the first row, and a few batches and chunks of 16 and 32 MB.
BASE_MB, LIMIT_MB = 450, 64
STAGE = """
import json, resource, sys
from pathlib import Path
from feature_store.definitions import Entity, FeatureView, Field, ParquetSource, String
from feature_store.engines.engine import Stage
from feature_store.engines.local.engine import LocalEngine
from feature_store.arrow.quarantine import Quarantine
from feature_store.engines.report import Silent
from feature_store.arrow.sources import parquet_rows

folder = Path(sys.argv[1])
view = FeatureView("docs", entities=[Entity("doc", join_key="id")], schema=[Field("text", String)],
    source=ParquetSource("rows.parquet", event_timestamp="at"))

class Counted:
    largest = 0
    def write(self, batch):
        Counted.largest = max(Counted.largest, sum(map(len, batch.columns["text"].values)))
        from feature_store.online.writer import WriteCounts
        return WriteCounts(len(batch), 0)
    def open(self):
        import contextlib
        return contextlib.nullcontext(self)

engine = LocalEngine(sys.argv[2])
rows = parquet_rows(view.source, view, folder)
engine.stage(Stage(view, rows, -(2**62), 2**62, folder / "staged", Quarantine(folder, folder, "docs"), Silent()))
written = sum(chunk.rows for chunk in engine.write(folder / "staged", view, 0, Counted()))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps({"rows": written, "peak_mb": peak, "chunk_mb": Counted.largest >> 20}))
"""


def _different(count: int) -> Iterator[pa.Array]:
    for first in range(0, count, 1000):
        yield pa.array([f"{i} {TEXT}" for i in range(first, first + 1000)])


def _same(count: int) -> Iterator[pa.Array]:
    """Stored once, so that the file does not say how large the rows are."""
    yield pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([TEXT]))


@pytest.mark.parametrize(("texts", "count"), [(_different, 20_000), (_same, 20_000)], ids=["different", "repeated"])
def test_large_texts_are_staged_and_written_in_little_memory(
    texts: object, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer, first = None, 0
    for column in texts(count):  # type: ignore[operator]
        at = pa.array([NOW_US] * len(column), pa.timestamp("us", "UTC"))
        rows = pa.table({"id": range(first, first + len(column)), "at": at, "text": column})
        writer = writer or pq.ParquetWriter(tmp_path / "rows.parquet", rows.schema)
        writer.write_table(rows)
        first += len(column)
    assert writer is not None
    writer.close()
    command = [sys.executable, "-c", STAGE, str(tmp_path), f"{LIMIT_MB}MB"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    with capsys.disabled():
        print(f"\n{count:,} texts of 20 kB, {count * len(TEXT) >> 20} MB: peak {found['peak_mb']} MB", end=" ")
    assert found["rows"] == count
    assert found["chunk_mb"] <= 64
    assert found["peak_mb"] <= BASE_MB + LIMIT_MB
