"""The Redis-protocol server of a run: one for all sides, on loopback, without persistence, on one core."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, NamedTuple

import redis

from feature_store.online.redis.embedded_process import find_server

if TYPE_CHECKING:
    from collections.abc import Iterator

_WAIT_S = 10.0


class Server(NamedTuple):
    """A running server: `address` is HOST:PORT."""

    address: str
    pid: int

    @property
    def url(self) -> str:
        """As clients read it."""
        return f"redis://{self.address}"


@contextlib.contextmanager
def server(core: int | None = None) -> Iterator[Server]:
    """A server with no data, on the given core, or where the scheduler likes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="fs-bench-") as folder:
        options = ["--port", str(port), "--dir", folder, "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
        process = subprocess.Popen([find_server(), *options], stdout=subprocess.DEVNULL)
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        try:
            _await(port)
            yield Server(f"127.0.0.1:{port}", process.pid)
        finally:
            process.kill()
            process.wait()


def _await(port: int) -> None:
    with redis.Redis(port=port) as client:
        give_up = time.monotonic() + _WAIT_S
        while True:
            try:
                client.ping()
            except redis.ConnectionError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.02)
            else:
                return
