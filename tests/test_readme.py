"""The README's tutorial is run as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_tutorial_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```(\w+)([^\n]*)\n(.*?)```", README.read_text(), re.DOTALL)
    programs = 0
    for language, about, text in blocks:
        if file := re.search(r"file=(\S+)", about):
            (tmp_path / file[1]).write_text(text)
        elif language == "python" and "no-run" not in about:
            ran = subprocess.run(
                [sys.executable, "-W", "error", "-c", text], cwd=tmp_path, capture_output=True, text=True
            )
            assert ran.returncode == 0, ran.stderr
            assert "create FeatureView product_stats" in ran.stdout
            programs += 1
    assert programs == 1
