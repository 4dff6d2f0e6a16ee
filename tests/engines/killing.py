"""Destinations whose processes are killed in the middle of a write. Tasks import this module."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_store.online.destination import Destination
from tests.steps import Send, at_send


@dataclass(frozen=True)
class Killing:
    """Kills each of the first `times` processes that send their `sends`-th command, after half of it is sent."""

    destination: Destination
    folder: Path
    times: int
    sends: int

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        with self.destination.open() as writer, at_send(self.sends, self._kill):
            yield writer

    def _kill(self, send: Send, command: bytes) -> None:
        if self._is_due():
            send(command[: len(command) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_due(self) -> bool:
        """Whether to kill this process. Each of the first `times` calls, of all processes, returns True."""
        for i in range(self.times):
            with contextlib.suppress(FileExistsError):
                (self.folder / f"killed-{i}").touch(exist_ok=False)
                return True
        return False
