"""Materializes a project on the cluster that runs it, and kills an executor that holds rows for other executors."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from feature_store import FeatureStore
from feature_store.engines.spark import engine


class Killing:
    """A report that kills an executor when the first rows are read."""

    killed = 0

    def started(self, view: str, total_rows: int | None) -> None:
        pass

    def advanced(self, rows: int) -> None:
        if not self.killed:
            os.kill(_executors()[0], signal.SIGKILL)
            self.killed += 1

    def finished(self) -> None:
        pass


def _executors() -> list[int]:
    """The executors of this job: descendants of this process's parent, which is spark-submit."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"CoarseGrainedExecutorBackend" in (path / "cmdline").read_bytes() and _descends(int(path.name)):
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _descends(process: int) -> bool:
    while process > 1:
        if process == os.getppid():
            return True
        process = int((Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[1])
    return False


if __name__ == "__main__":
    engine.TASK_BYTES, engine.FILES_PER_CHUNK = 512 << 10, 2
    report = Killing()
    with FeatureStore(sys.argv[1]) as store:
        (summary,) = store.materialize(report=report)
    print(json.dumps(summary.to_document() | {"killed_executors": report.killed}))
