"""Databases pass the conformance suite of sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite
from tests.arrow.sources.databases import Postgres, StoredDuckDb, StoredPostgres, StoredSqlite


class OnPostgres:
    @pytest.fixture
    def stored(self, postgres: Postgres, tmp_path: Path) -> StoredPostgres:
        return StoredPostgres(postgres, tmp_path)


class OnDuckDb:
    @pytest.fixture
    def stored(self, tmp_path: Path) -> StoredDuckDb:
        return StoredDuckDb(tmp_path)


class OnSqlite:
    @pytest.fixture
    def stored(self, tmp_path: Path) -> StoredSqlite:
        return StoredSqlite(tmp_path)


class TestPostgres(OnPostgres, OfflineSourceSuite):
    pass


class TestPostgresOnLocalEngine(OnPostgres, SourceOnEngineSuite):
    pass


class TestDuckDb(OnDuckDb, OfflineSourceSuite):
    pass


class TestDuckDbOnLocalEngine(OnDuckDb, SourceOnEngineSuite):
    pass


class TestSqlite(OnSqlite, OfflineSourceSuite):
    pass


class TestSqliteOnLocalEngine(OnSqlite, SourceOnEngineSuite):
    pass


class TestPostgresOnSpark(OnPostgres, SourceOnEngineSuite):
    @pytest.fixture
    def engine(self, spark_engine: object) -> object:
        return spark_engine


class TestDuckDbOnSpark(OnDuckDb, SourceOnEngineSuite):
    @pytest.fixture
    def engine(self, spark_engine: object) -> object:
        return spark_engine


class TestSqliteOnSpark(OnSqlite, SourceOnEngineSuite):
    @pytest.fixture
    def engine(self, spark_engine: object) -> object:
        return spark_engine
