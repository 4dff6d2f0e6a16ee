"""Materialize a project in a process that is killed: when a batch of a database arrives, or before a command to Redis.

    python -m tests.arrow.sources.killed FOLDER read|send NUMBER

The process ends with 0 when the job has no such step.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from feature_store import FeatureStore
from feature_store.arrow.sources.sql.session import Session
from tests.steps import at_send


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, kind: str, number: int) -> None:
    read, count = Session.batches, itertools.count(1)

    def batches(self: Session, *arguments: Any) -> Iterator[Any]:
        for batch in read(self, *arguments):
            if kind == "read" and next(count) == number:
                die()
            yield batch

    patched = mock.patch.object(Session, "batches", batches)
    with FeatureStore(folder) as store, patched, at_send(number if kind == "send" else 0, die):
        store.materialize()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
