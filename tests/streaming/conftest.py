from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kafka_server import KafkaServer, kafka_server


@pytest.fixture(scope="session")
def kafka_process() -> Iterator[KafkaServer]:
    # The tests stream messages of up to 10 MB.
    with kafka_server("message.max.bytes=12000000", "replica.fetch.max.bytes=12000000") as server:
        yield server


@pytest.fixture
def kafka(kafka_process: KafkaServer) -> Iterator[str]:
    """The address of a real broker that has no topics."""
    from confluent_kafka.admin import AdminClient

    yield kafka_process.bootstrap
    admin = AdminClient({"bootstrap.servers": kafka_process.bootstrap})
    topics = [name for name in admin.list_topics(timeout=10).topics if not name.startswith("__")]
    for deleted in admin.delete_topics(topics).values() if topics else ():
        deleted.result(10)
