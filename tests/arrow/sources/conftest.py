"""A server of PostgreSQL for the tests of databases, with a new database for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arrow.sources.databases import Postgres
from tests.postgres_server import new_database, postgres_server


@pytest.fixture(scope="session")
def database_server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def postgres(database_server: str, tmp_path: Path) -> Iterator[Postgres]:
    with new_database(database_server, f"rows_{uuid.uuid4().hex}") as url:
        yield Postgres(url.replace("+psycopg", ""), tmp_path)
