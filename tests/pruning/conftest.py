from __future__ import annotations

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Use one thread: several threads that wait for busy cores take longer."""
    with threadpool_limits(1):
        yield
