"""`feature-store stream` as a process of its own, so that tests can kill and pause it and its workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from feature_store import FeatureStore
from feature_store.streaming.backfill import HISTORY

START_S, CATCH_UP_S, STOP_S = 30, 120, 40
MAIN = "from feature_store.cli import main; main()"


class Streaming:
    """A running command."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.errors = folder / "stream.log"
        command = [sys.executable, "-c", MAIN, "stream", "--repo", str(folder), "--json", *options]
        with self.errors.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

    def workers(self) -> list[int]:
        """The process ids of the workers that run now."""
        return [pid for pid in children(self.process.pid) if b"spawn_main" in command_line(pid)]

    def signal(self, pid: int, number: int) -> None:
        """Send a signal, unless the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def wait(self, timeout_s: float = CATCH_UP_S) -> dict[str, Any]:
        """Wait for its end. Returns what it printed."""
        out, _ = self.process.communicate(timeout=timeout_s)
        assert self.process.returncode == 0, self.log()
        document: dict[str, Any] = json.loads(out)
        return document

    def stop(self) -> dict[str, Any]:
        """Stop it as an operator does. Returns what it printed."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(STOP_S)

    def log(self) -> str:
        """The last lines of its log."""
        return self.errors.read_text()[-4000:]


@contextlib.contextmanager
def streaming(folder: Path, *options: str) -> Iterator[Streaming]:
    """The command, running. It is stopped at the end of the block at the latest."""
    running = Streaming(folder, *options)
    try:
        yield running
    finally:
        for pid in running.workers():
            running.signal(pid, signal.SIGCONT)
        running.process.kill()
        running.process.wait()
        if running.process.stdout is not None:
            running.process.stdout.close()


def until(holds: Callable[[], Any], timeout_s: float = START_S, about: Callable[[], str] = lambda: "") -> None:
    """Wait until `holds()` is true."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, about()
        time.sleep(0.05)


def merged_up_to(store: FeatureStore) -> dict[str, int]:
    """Per view, the sum of the lowest fences of all partitions: how many messages are merged."""
    found = {}
    for view in store.definitions.stream_feature_views:
        with store.online.tile_writer(view) as writer:
            found[view] = sum(merged_messages(writer.fences()).values())
    return found


def merged_messages(fences: list[dict[str, int]]) -> dict[str, int]:
    """Per partition, the lowest fence: how many messages are merged."""
    lowest: dict[str, int] = {}
    for of_bucket in fences:
        for name, at in of_bucket.items():
            source = name.rpartition("/")[0]
            lowest[source] = min(at, lowest.get(source, at))
    return {source: at for source, at in lowest.items() if not source.startswith(HISTORY)}


def children(pid: int) -> list[int]:
    """The running child processes of a process, started by any of its threads."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """The children of a process, their children, and so on; parents first."""
    return [found for child in children(pid) for found in (child, *descendants(child))]


def command_line(pid: int) -> bytes:
    """The command line of a process; empty when the process is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
