from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from feature_store.cli import main

if TYPE_CHECKING:
    from pathlib import Path

_INIT = "import sys; from feature_store.cli import main; sys.argv[1:1] = ['init']; main()"


@pytest.fixture
def project(tmp_path: Path, redis_url: str) -> Path:
    """The project that `init` makes, on the tests' own server."""
    subprocess.run([sys.executable, "-c", _INIT, str(tmp_path / "shop")], check=True, capture_output=True)
    config = tmp_path / "shop" / "feature_store.yaml"
    config.write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    return tmp_path / "shop"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], project: Path) -> Any:
    """Run the command in a project's folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(project)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["feature-store", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        out, error = capsys.readouterr()
        return code if isinstance(code, int) else 0, out, error

    return call
