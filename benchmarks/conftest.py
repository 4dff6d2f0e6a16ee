from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.server import Server, server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    """A server with no data."""
    with server() as running:
        yield running
