"""Apply a project in a process that is killed at a step. A step is right before or right after a change of Redis.

    python -m tests.project.dying FOLDER STEP

The process ends with 0 when the apply has no such step.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from feature_store import FeatureStore
from feature_store.online import OnlineStore
from feature_store.project import load_config
from feature_store.project.context import Project


class Dying(OnlineStore):
    """An online store whose process is killed at a step."""

    steps_to_live = 0

    def publish(self, *args: Any, **options: Any) -> Any:
        return self._between_steps(super().publish, *args, **options)

    def copy_rows(self, *args: Any) -> Any:
        return self._between_steps(super().copy_rows, *args)

    def drop_rows(self, *args: Any) -> Any:
        return self._between_steps(super().drop_rows, *args)

    def _between_steps(self, change: Any, *args: Any, **options: Any) -> Any:
        self._step()
        result = change(*args, **options)
        self._step()
        return result

    def _step(self) -> None:
        if self.steps_to_live == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.steps_to_live -= 1


def apply_killed_at(folder: Path, step: int) -> bool:
    """Apply in another process that is killed at a step, counted from 0. False: the apply ended before that step."""
    code = subprocess.run([sys.executable, "-m", __name__, str(folder), str(step)], check=False).returncode
    assert code in (0, -signal.SIGKILL)
    return code != 0


def main(folder: Path, step: int) -> None:
    def opened(url: str, project: str) -> Dying:
        online = Dying(url, project)
        online.steps_to_live = step
        return online

    FeatureStore(Project(load_config(folder), open_online=opened)).apply(allow_destructive=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
