"""Streams of messages in other formats than JSON: workers, Spark, the history, the doctor, and a registry that is down."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

from feature_store import FeatureStore
from feature_store.streaming.status import StreamStatus
from tests.schema_registry_server import SchemaRegistryServer, schema_registry_server
from tests.streaming.streaming_worlds import (
    DEFINITIONS,
    SECOND_US,
    Click,
    differences,
    has_read,
    make_topic,
    project,
    received,
    send,
    some_clicks,
    work,
)

NOW_US = time.time_ns() // 1_000
TIME = {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}}
OLD = {
    "type": "record",
    "name": "Click",
    "fields": [
        TIME,
        {"name": "user_id", "type": "int"},
        {"name": "shop", "type": "string"},
        {"name": "price", "type": "double"},
    ],
}
# A member is new, one may be null, one is wider, and their order is another.
NEW = {
    "type": "record",
    "name": "Click",
    "fields": [
        {"name": "labels", "type": {"type": "map", "values": "string"}, "default": {}},
        {"name": "shop", "type": ["null", "string"]},
        {"name": "user_id", "type": ["null", "long"]},
        {"name": "price", "type": ["null", "double"]},
        TIME,
    ],
}


@pytest.fixture
def registry() -> Iterator[SchemaRegistryServer]:
    with schema_registry_server() as server:
        yield server


def definitions(registry: SchemaRegistryServer) -> str:
    at = 'topic="clicks", '
    return DEFINITIONS.replace(at, f'{at}format=AvroFormat(registry="{registry.url}"), ')


def avro(registry: SchemaRegistryServer, schema: Any, click: Click) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), click)
    return b"\0" + registry.register("clicks-value", schema).to_bytes(4, "big") + stream.getvalue()


def mixed(registry: SchemaRegistryServer, clicks: list[Click]) -> list[bytes]:
    return [avro(registry, NEW if i % 3 else OLD, click) for i, click in enumerate(clicks)]


@pytest.mark.parametrize("engine", ["workers", "spark"])
def test_avro_of_a_registry_is_merged_by_every_reader(
    tmp_path: Path,
    redis_url: str,
    kafka: str,
    registry: SchemaRegistryServer,
    engine: str,
    request: pytest.FixtureRequest,
) -> None:
    if engine == "spark":
        request.getfixturevalue("spark_engine")
    make_topic(kafka, "clicks", 2)
    clicks = some_clicks(1_500, users=100, seed=1, start_us=NOW_US - 7200 * SECOND_US)
    bad = [b"{}", b"\0\0\0\0\x63\x02", avro(registry, OLD, clicks[0])[:-3]]
    send(kafka, "clicks", [*mixed(registry, clicks), *bad], 2)
    with project(tmp_path, redis_url, kafka, definitions=definitions(registry)) as store:
        if engine == "spark":
            store.stream(engine="spark", until_caught_up=True)
        else:
            work(store, has_read(len(clicks) + len(bad)))
        assert differences(store, clicks, NOW_US) == []
    reasons = sorted(
        dict(message.headers() or [])["reason"].decode() for message in received(kafka, "clicks.dead-letter")
    )
    assert reasons == [
        "expected a zero byte and the id of a schema in the registry, got 7b 7d",
        "it is not Avro of its schema: its bytes end within a number",
        "the Schema Registry has no schema 99",
    ]


def test_while_the_registry_is_down_nothing_is_merged_or_lost(
    tmp_path: Path, redis_url: str, kafka: str, registry: SchemaRegistryServer
) -> None:
    make_topic(kafka, "clicks", 2)
    clicks = some_clicks(400, users=50, seed=2, start_us=NOW_US - 7200 * SECOND_US)
    send(kafka, "clicks", mixed(registry, clicks), 2)
    troubles = []

    def done(status: StreamStatus) -> bool:
        if status.trouble and registry.fails:
            assert status.merged == 0
            troubles.append(status.trouble)
            registry.fails = 0  # it comes back
        return has_read(len(clicks))(status)

    with project(tmp_path, redis_url, kafka, definitions=definitions(registry)) as store:
        registry.fails = 503
        work(store, done)
        assert "Schema Registry" in troubles[0]
        assert differences(store, clicks, NOW_US) == []
    assert received(kafka, "clicks.dead-letter") == []


def test_a_backfill_reads_the_topic_in_its_format(
    tmp_path: Path, redis_url: str, kafka: str, registry: SchemaRegistryServer
) -> None:
    make_topic(kafka, "clicks", 2)
    clicks = some_clicks(600, users=50, seed=3, start_us=NOW_US - 7200 * SECOND_US)
    send(kafka, "clicks", mixed(registry, clicks), 2)
    with project(tmp_path, redis_url, kafka, definitions=definitions(registry)) as store:
        for view in ("by_user", "by_shop"):
            store.backfill(view)
        assert differences(store, clicks, NOW_US) == []


def test_the_doctor_asks_the_registry(tmp_path: Path, redis_url: str, registry: SchemaRegistryServer) -> None:
    def formats(store: FeatureStore) -> list[tuple[str, str]]:
        found = [one for one in store.monitoring.diagnose() if one.check == "formats"]
        return [(one.state, one.about) for one in found]

    registry.register("clicks-value", OLD)
    with project(tmp_path, redis_url, definitions=definitions(registry)) as store:
        about = f"clicks: messages are avro; the Schema Registry at {registry.url} answers, with 1 subject"
        assert formats(store) == [("ok", about)]
        registry.fails = 503
        ((state, told),) = formats(store)
        assert state == "failed"
        assert f"Schema Registry at {registry.url}: got HTTP 503" in told
    with project(tmp_path, redis_url) as store:
        assert formats(store) == []
