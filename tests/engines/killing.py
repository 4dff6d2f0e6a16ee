"""Destinations whose processes are killed in the middle of a write. Tasks import this module."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

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
            writer._writer._connection = _Dying(writer._writer._connection, self)
            yield writer

    def is_due(self) -> bool:
        """Whether one more process is to be killed; each time it says so is one of them."""
        for i in range(self.times):
            with contextlib.suppress(FileExistsError):
                (self.folder / f"killed-{i}").touch(exist_ok=False)
                return True
        return False


class _Dying:
    def __init__(self, connection: Any, killing: Killing) -> None:
        self._connection, self._killing, self._sent = connection, killing, 0

    def send(self, command: bytes) -> None:
        self._sent += 1
        if self._sent == self._killing.sends and self._killing.is_due():
            self._connection.send(command[: len(command) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        self._connection.send(command)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
