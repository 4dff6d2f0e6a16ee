from __future__ import annotations

import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.jars import fetch
from tests.kafka_server import KafkaServer, java, kafka_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka import KafkaError, Message

MESSAGES, PARTITIONS, START_MS = 1_000, 3, 1_700_000_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    with kafka_server() as server:
        yield server


def fill(server: KafkaServer, topic: str) -> set[bytes]:
    client = {"bootstrap.servers": server.bootstrap}
    admin = AdminClient(client)  # by a name: its end would end the request
    admin.create_topics([NewTopic(topic, PARTITIONS)])[topic].result(10)
    producer = Producer({**client, "acks": "all"})
    values = [b"value %d" % i for i in range(MESSAGES)]
    failed: list[KafkaError] = []
    for i, value in enumerate(values):
        producer.produce(topic, value, str(i % 97), timestamp=START_MS + i, on_delivery=partial(_note, failed))
    assert producer.flush(30) == 0
    assert not failed
    return set(values)


def _note(failed: list[KafkaError], error: KafkaError | None, message: Message) -> None:
    if error is not None:
        failed.append(error)


def consumer(server: KafkaServer, group: str) -> Consumer:
    earliest = {"auto.offset.reset": "earliest", "enable.auto.commit": False}
    return Consumer({"bootstrap.servers": server.bootstrap, "group.id": group, **earliest})


def read(client: Consumer, count: int) -> list[bytes]:
    values: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(values) < count and time.monotonic() < deadline:
        for message in client.consume(count - len(values), timeout=0.2):
            assert message.error() is None
            values.append(message.value())
    return values


def test_messages_survive_a_kill(server: KafkaServer):
    values = fill(server, "killed")
    server.kill()
    server.start()
    client = consumer(server, "killed")
    client.subscribe(["killed"])
    found = read(client, MESSAGES)
    client.close()
    assert len(found) == MESSAGES
    assert set(found) == values


def test_committed_offsets_survive_a_stop(server: KafkaServer):
    fill(server, "stopped")
    client = consumer(server, "stopped")
    client.subscribe(["stopped"])
    first = read(client, 400)
    client.commit(asynchronous=False)
    client.close()
    server.stop()
    server.start()
    client = consumer(server, "stopped")
    client.subscribe(["stopped"])
    rest = read(client, MESSAGES - len(first))
    client.close()
    assert len({*first, *rest}) == len(first) + len(rest) == MESSAGES


def test_offsets_are_found_by_time(server: KafkaServer):
    fill(server, "timed")
    client = consumer(server, "timed")
    at = [TopicPartition("timed", partition, START_MS + MESSAGES // 2) for partition in range(PARTITIONS)]
    client.assign(client.offsets_for_times(at, timeout=10))
    found = read(client, MESSAGES // 2)
    client.close()
    assert len(found) == MESSAGES // 2


def test_a_topic_is_not_made_by_naming_it(server: KafkaServer):
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    assert admin.list_topics("absent", 10).topics["absent"].error is not None
    assert "absent" not in admin.list_topics(timeout=10).topics


def test_a_wrong_setting_is_told_with_the_log():
    with pytest.raises(RuntimeError, match=r"num\.io\.threads"), kafka_server("num.io.threads=none"):
        pass


@pytest.mark.parametrize("version", ["", "11.0.2", "1.8.0_292"])
def test_an_old_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    if version:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "java").write_text(f"""#!/bin/sh\necho 'openjdk version "{version}"' >&2\n""")
        (tmp_path / "bin" / "java").chmod(0o755)
    with pytest.raises(RuntimeError, match="Kafka needs Java 17 or newer"):
        java()


@pytest.mark.parametrize(("java", "found"), [(None, "none"), ('openjdk version "11.0.2"', "11")])
def test_the_tests_say_that_they_need_java(tmp_path: Path, java: str | None, found: str):
    for tool in ("bash", "basename", "dirname", "sed"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    if java is not None:
        (tmp_path / "java").write_text(f"#!{shutil.which('bash')}\necho '{java}' >&2\n")
        (tmp_path / "java").chmod(0o755)
    command = Path(__file__).parents[1] / "bin" / "test"
    done = subprocess.run([command], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    wanted = "needs Java 17 or newer in JAVA_HOME or on the PATH, for the tests' Kafka"
    assert done.stderr == f"bin/test: {wanted}; found {found}\n"


def test_the_jars_are_those_pinned():
    assert len(list(fetch("kafka").glob("*.jar"))) > 40
    assert len(list(fetch("spark_kafka").glob("*.jar"))) == 4
