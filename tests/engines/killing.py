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


@dataclass(frozen=True)
class Killing:
    """Kills each of the first `times` processes that send their `sends`-th command, after half of it is sent."""

    destination: Destination
    folder: Path
    times: int
    sends: int

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        with self.destination.open() as writer:
            writer._writer._calls = _Dying(writer._writer._calls, self)
            yield writer

    def is_due(self) -> bool:
        """Whether one more process is to be killed; each time it says so is one of them."""
        for i in range(self.times):
            with contextlib.suppress(FileExistsError):
                (self.folder / f"killed-{i}").touch(exist_ok=False)
                return True
        return False


class _Dying:
    def __init__(self, calls: Any, killing: Killing) -> None:
        self._calls, self._killing, self._sent = calls, killing, 0

    def send(self, key: bytes, command: bytes) -> None:
        self._sent += 1
        if self._sent == self._killing.sends and self._killing.is_due():
            self._calls.send(key, command[: len(command) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        self._calls.send(key, command)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._calls, name)
