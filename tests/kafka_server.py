"""A real Kafka broker for the tests: one KRaft node, from pinned jars (see `jars`)."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.jars import fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent / "kafka"
JAVA = 17
START_TIMEOUT_S, STOP_TIMEOUT_S = 60, 30

# A small heap, and a compiler and collector that start fast.
JVM = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
)
# One node cannot replicate. With few partitions of internal topics and few threads it starts faster. The controller
# admits a killed broker again when its last session has expired.
SETTINGS = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=2
"""


# A second listener, whose clients log in and have permissions. Clients of the first listener may do everything.
SASL = """\
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port},SASL_PLAINTEXT://127.0.0.1:{sasl_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config={module} required user_alice="secret";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
PLAIN_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"


class KafkaServer:
    """A broker on a port of its own. It keeps the port and its data over a restart. `settings` are lines of its file.

    With `sasl`, user alice can log in at `sasl_bootstrap` with the password `secret`. She has no permissions yet.
    """

    def __init__(self, folder: Path, *settings: str, sasl: bool = False) -> None:
        self.folder, self.log = folder, folder / "log"
        self._java, self._jars = java(), fetch("kafka")
        port, controller_port, sasl_port = free_ports(3)
        self.bootstrap, self.sasl_bootstrap = f"127.0.0.1:{port}", f"127.0.0.1:{sasl_port}"
        self._settings = folder / "server.properties"
        text = SETTINGS.format(port=port, controller_port=controller_port, data=folder / "data")
        if sasl:  # of two settings with one name, the last counts
            ports = {"port": port, "controller_port": controller_port, "sasl_port": sasl_port}
            text += SASL.format(**ports, module=PLAIN_LOGIN)
        self._settings.write_text(text + "".join(f"{line}\n" for line in settings))
        self._format()
        self.start()

    def start(self) -> None:
        """Start it and wait until it serves."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command("kafka.Kafka", self._settings), stdout=log, stderr=log)
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 100})
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(KafkaException):
                if admin.list_topics(timeout=0.5).brokers:  # none until the controller has admitted the broker
                    return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"Kafka does not serve; the end of its log: {self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop it as an operator does: it hands over and closes its files."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL it."""
        self._process.kill()
        self._process.wait()

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        options = ("format", "--standalone", f"--cluster-id={cluster}", "--config", self._settings)
        done = subprocess.run(
            self._command("kafka.tools.StorageTool", *options), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"Kafka's storage cannot be formatted: {done.stdout}{done.stderr}")

    def _command(self, *command: str | Path) -> list[str | Path]:
        return [
            self._java,
            *JVM,
            f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}",
            "-cp",
            f"{self._jars}/*",
            *command,
        ]


@contextlib.contextmanager
def kafka_server(*settings: str, sasl: bool = False) -> Iterator[KafkaServer]:
    """A broker without topics, which runs as long as the block."""
    folder = Path(tempfile.mkdtemp(prefix="fs-kafka-"))
    try:
        server = KafkaServer(folder, *settings, sasl=sasl)
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder)


def java() -> str:
    """The `java` of JAVA_HOME, else of the PATH."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(f"{home}/bin/java" if home else "java")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr if found else ""
    version = re.search(r'version "(\d+)', said)
    if found is None or version is None or int(version[1]) < JAVA:
        got = f"{found}, of version {version[1]}" if version else "none"
        raise RuntimeError(f"Kafka needs Java {JAVA} or newer, in JAVA_HOME or on the PATH; found {got}")
    return found


def free_ports(count: int) -> list[int]:
    """Ports below those that systems give to clients, so that one is still free when its server starts again."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for port in random.Random(os.urandom(8)).sample(range(15_000, 30_000), 200):
            taken = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                taken.bind(("127.0.0.1", port))
                ports.append(port)
                if len(ports) == count:
                    return ports
    raise RuntimeError("no free port")
