"""A real object store for the tests: S3Proxy, from pinned jars (see `jars`), which speaks the protocol of S3."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.jars import fetch
from tests.kafka_server import JVM, free_ports, java

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGBACK = Path(__file__).resolve().parent / "s3proxy" / "logback.xml"
START_TIMEOUT_S = 60
IDENTITY, CREDENTIAL = "reader", "correct-horse-battery"
SETTINGS = """\
s3proxy.endpoint=http://127.0.0.1:{port}
s3proxy.authorization=aws-v2-or-v4
s3proxy.identity={identity}
s3proxy.credential={credential}
jclouds.provider=filesystem-nio2
jclouds.filesystem.basedir={data}
"""


class ObjectServer:
    """A store on a port of its own. Its buckets are folders of `data`, and its objects are files of these."""

    def __init__(self, folder: Path) -> None:
        self.log, self.data = folder / "log", folder / "data"
        self.data.mkdir()
        (self.port,) = free_ports(1)
        self._settings = folder / "s3proxy.conf"
        values = {"port": self.port, "identity": IDENTITY, "credential": CREDENTIAL, "data": self.data}
        self._settings.write_text(SETTINGS.format(**values))
        self._jars = fetch("s3proxy")
        self.start()

    @property
    def endpoint(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that let a process read and write."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": IDENTITY,
            "AWS_SECRET_ACCESS_KEY": CREDENTIAL,
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        command = [java(), *JVM, f"-Dlogback.configurationFile={LOGBACK}", "-cp", f"{self._jars}/*"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "org.gaul.s3proxy.Main", "--properties", self._settings], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"S3Proxy does not serve; the end of its log: {self.log.read_text()[-2000:]}")

    def bucket(self, name: str) -> None:
        """Make a bucket."""
        (self.data / name).mkdir()

    def kill(self) -> None:
        """SIGKILL it."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def object_server() -> Iterator[ObjectServer]:
    """A store without buckets, which runs as long as the block."""
    folder = Path(tempfile.mkdtemp(prefix="fs-objects-"))
    try:
        server = ObjectServer(folder)
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder)
