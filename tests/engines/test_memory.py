"""Memory is bounded in bytes, not rows: staging a gigabyte of texts of 20 kB takes as much memory as 200 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engines.offline_worlds import NOW_US

TEXT = "lorem ipsum " * 1700  # 20 kB
STAGE = """
import json, sys
import pyarrow as pa
from pathlib import Path
from feature_store.definitions import Entity, FeatureView, Field, ParquetSource, String
from feature_store.engines.engine import StageRequest
from feature_store.engines.local.engine import LocalEngine
from feature_store.arrow.quarantine import Quarantine
from feature_store.engines.report import Silent
from feature_store.arrow.sources.opening import open_view

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
rows = open_view(view.source, view, folder)
engine.stage(StageRequest(view, rows, -(2**62), 2**62, folder / "staged", Quarantine(folder, folder, "docs"), Silent()))
written = sum(chunk.rows for chunk in engine.write(folder / "staged", view, 0, Counted()))
# ru_maxrss begins with what the parent had when it forked.
peak = next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM")) // 1024
print(json.dumps({"rows": written, "peak_mb": peak, "chunk_mb": Counted.largest >> 20,
                  "arrow_mb": pa.default_memory_pool().max_memory() >> 20}))
"""


def _different(count: int) -> Iterator[pa.Array]:
    for first in range(0, count, 1000):
        yield pa.array([f"{i} {TEXT}" for i in range(first, first + 1000)])


def _same(count: int) -> Iterator[pa.Array]:
    """A column of equal texts. The file stores the text once, so its size does not show how large the rows are."""
    yield pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([TEXT]))


def _staged(folder: Path, texts: Iterator[pa.Array]) -> dict[str, int]:
    writer, first = None, 0
    for column in texts:
        at = pa.array([NOW_US] * len(column), pa.timestamp("us", "UTC"))
        rows = pa.table({"id": range(first, first + len(column)), "at": at, "text": column})
        writer = writer or pq.ParquetWriter(folder / "rows.parquet", rows.schema)
        writer.write_table(rows)
        first += len(column)
    assert writer is not None
    writer.close()
    command = [sys.executable, "-c", STAGE, str(folder), "64MB"]
    found: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    (folder / "rows.parquet").unlink()
    (folder / "staged").unlink()
    assert found["rows"] == first
    return found


@pytest.mark.parametrize("texts", [_different, _same], ids=["different", "repeated"])
def test_large_texts_are_staged_and_written_in_little_memory(
    texts: Callable[[int], Iterator[pa.Array]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few, many = _staged(tmp_path, texts(10_000)), _staged(tmp_path, texts(50_000))
    with capsys.disabled():
        print(f"\n{10_000 * len(TEXT) >> 20} MB of texts: {few}; five times as many: {many}", end=" ")
    assert many["chunk_mb"] <= 64
    assert many["arrow_mb"] <= 128
    # Allocators keep some freed memory: the amount varies by tens of MB.
    assert many["peak_mb"] - few["peak_mb"] <= 200 < 40_000 * len(TEXT) >> 20
