from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "movielens"


@pytest.fixture(scope="session")
def data() -> Path:
    """The repository's own copy of the data, fetched unless it is there."""
    done = subprocess.run(
        [sys.executable, EXAMPLE / "fetch.py"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return EXAMPLE / "data"
