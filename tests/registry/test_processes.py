"""Several processes at one SQLite registry: each sees the commits of the others while the registry opens and closes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from feature_store import FeatureStore

DEFINITIONS = """
from feature_store import *
user = Entity("user", join_key="user_id")
stats = FeatureView("stats", entities=[user], schema=[Field("f{number}", Float32)])
"""
LOOK = "import sys; from feature_store import FeatureStore; print(FeatureStore(sys.argv[1]).registry.latest().version)"


def seen_by_another_process(folder: Path) -> int:
    command = [sys.executable, "-c", LOOK, str(folder)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_second_store_in_the_process_takes_no_locks_away(tmp_path: Path, redis_url: str) -> None:
    """Otherwise another process that closes the registry believes it is the last one and removes SQLite's log."""
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store: {{url: '{redis_url}'}}\n")
    (tmp_path / "features.py").write_text(DEFINITIONS.format(number=0))
    with FeatureStore(tmp_path) as store:
        store.apply()
        for number in range(1, 4):
            with FeatureStore(tmp_path) as other:
                assert other.registry.latest() is not None
                assert seen_by_another_process(tmp_path) == number
                (tmp_path / "features.py").write_text(DEFINITIONS.format(number=number))
                store.apply(allow_destructive=True)
            assert seen_by_another_process(tmp_path) == number + 1
