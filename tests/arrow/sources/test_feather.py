"""A kind of source that the library does not know needs only a definition, a module and an entry point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from feature_store.definitions.batch_source import SOURCES
from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite
from tests.arrow.sources.feather_source import FeatherSource


class StoredFeather:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = FeatherSource(folder="rows", event_timestamp="at", created_timestamp="made")
        self._count = 0

    def append(self, rows: pa.Table) -> None:
        path = self.folder / "rows" / f"part-{self._count:04d}.arrow"
        path.parent.mkdir(exist_ok=True)
        with pa.ipc.new_file(path, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=16)
        self._count += 1


@pytest.fixture(autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package, as its metadata with the entry point."""
    site = tmp_path_factory.mktemp("site")
    about = site / "feather_source-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: feather-source\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[feature_store.sources]\nfeather = tests.arrow.sources.feather_source:FeatherSource\n"
    )
    monkeypatch.syspath_prepend(site)
    SOURCES.named.cache_clear()
    yield
    SOURCES.named.cache_clear()


@pytest.fixture
def stored(tmp_path: Path) -> StoredFeather:
    return StoredFeather(tmp_path)


class TestFeather(OfflineSourceSuite):
    pass


class TestFeatherOnLocalEngine(SourceOnEngineSuite):
    pass


class TestFeatherOnSpark(SourceOnEngineSuite):
    @pytest.fixture
    def engine(self, spark_engine: object) -> object:
        return spark_engine
