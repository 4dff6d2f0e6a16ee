"""The soak, as long as the suite can wait: all values are right. `python -m benchmarks.soak` measures memory, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_everything_at_once_with_kills_serves_right_values() -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.35"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            told, _ = process.communicate()
        finally:
            process.terminate()  # what the soak has started ends with it
    assert process.returncode == 0, told[-5000:]
    assert "nothing was wrong" in told
