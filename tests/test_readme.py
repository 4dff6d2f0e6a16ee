"""The README's tutorial is run as it stands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from feature_store import FeatureStore

README = Path(__file__).parents[1] / "README.md"


def serve(program: str, project: Path) -> None:
    """Run the model server's program in a folder that has the file with the definitions, and nothing else."""
    server = project / "server"
    server.mkdir()
    shutil.copy(project / "features.py", server)
    with FeatureStore(project) as store:
        text = program.replace("redis://localhost:6379", store.online_url)
        assert text != program
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", f"candidates = [2, 1]\n{text}\nprint(matrix.tolist())"],
            cwd=server,
            capture_output=True,
            text=True,
        )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[[20.0, 0.0, 0.5], [10.0, 3.0, 0.25]]"


def test_the_tutorial_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```(\w+)([^\n]*)\n(.*?)```", README.read_text(), re.DOTALL)
    programs = 0
    for language, about, text in blocks:
        if file := re.search(r"file=(\S+)", about):
            (tmp_path / file[1]).write_text(text)
        elif language == "python" and "model-server" in about:
            serve(text, tmp_path)
        elif language == "python" and "no-run" not in about:
            ran = subprocess.run(
                [sys.executable, "-W", "error", "-c", text], cwd=tmp_path, capture_output=True, text=True
            )
            assert ran.returncode == 0, ran.stderr
            assert "create FeatureView product_stats" in ran.stdout
            programs += 1
    assert programs == 1
