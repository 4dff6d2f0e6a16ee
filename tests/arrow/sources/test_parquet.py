"""Parquet files pass the conformance suite of sources."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.definitions import ParquetSource
from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite


class StoredParquet:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = ParquetSource("rows", event_timestamp="at", created_timestamp="made")
        self._count = 0

    def append(self, rows: pa.Table) -> None:
        path = self.folder / "rows" / f"part-{self._count:04d}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(rows, path, row_group_size=16)
        self._count += 1


@pytest.fixture
def stored(tmp_path: Path) -> StoredParquet:
    return StoredParquet(tmp_path)


class TestParquet(OfflineSourceSuite):
    pass


class TestParquetOnLocalEngine(SourceOnEngineSuite):
    pass
