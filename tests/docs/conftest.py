from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project that `feature-store init shop` makes."""
    folder = tmp_path_factory.mktemp("guides")
    subprocess.run([BIN / "feature-store", "init", "shop"], cwd=folder, check=True, capture_output=True)
    return folder / "shop"


@pytest.fixture
def shop(template: Path, tmp_path: Path, redis_url: str) -> Path:
    """The project of `init`, on a real server, applied and materialized."""
    from feature_store import FeatureStore

    folder = tmp_path / "shop"
    shutil.copytree(template, folder)
    (folder / "feature_store.yaml").write_text(f"project: shop\nonline_store: {{url: '{redis_url}'}}\n")
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize()
    return folder


@pytest.fixture
def run(redis_url: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command as a scheduler does: almost no environment, no terminal, and the commands on the PATH."""

    def run(*command: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "REDIS_URL": redis_url, "LANG": "C.UTF-8"}
        ran = subprocess.run(
            list(map(str, command)), cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert ran.returncode == code, (command, ran.returncode, ran.stdout, ran.stderr)
        return ran

    return run
