"""Fixtures of the tests of jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from feature_store.engines.local import latest as local_latest
from tests.materialize.job_worlds import (
    World,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_latest, "CHUNK_ROWS", 2048)
