"""The cost of importing the client in a model server, beside the libraries that it imports anyway."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest


@pytest.mark.parametrize("modules", ["feature_store.online", "numpy, redis", "sys"])
def test_import(benchmark: Any, modules: str) -> None:
    benchmark.group = "import"
    command = [sys.executable, "-c", f"import {modules}"]
    benchmark.pedantic(subprocess.run, (command,), {"check": True}, rounds=5, warmup_rounds=1)
