"""A whole day of a project on a Redis Cluster (3 primaries, 3 replicas) and on Sentinels (1 primary, 2 replicas, 3
Sentinels) has the outcome of the same day on one server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import redis_server
from tests.topologies.a_day import Day, make_project, remove_topics

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kafka_server import KafkaServer
    from tests.redis_nodes import RedisCluster, RedisSentinels


@pytest.fixture(scope="module")
def on_one_server(tmp_path_factory: pytest.TempPathFactory, kafka_process: KafkaServer) -> dict[str, Any]:
    """What the day has to say at each step."""
    with redis_server() as server:
        return _day(tmp_path_factory.mktemp("single"), server.url, kafka_process.bootstrap)


def _day(folder: Path, url: str, bootstrap: str, *settings: str) -> dict[str, Any]:
    online_store = "{" + ", ".join((f"url: '{url}'", "timeout_ms: 10000", *settings)) + "}"
    make_project(folder / "shop", online_store, bootstrap)
    try:
        return Day(folder / "shop", url, bootstrap).pass_by()
    finally:
        remove_topics(bootstrap)


def _assert_same(seen: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert list(seen) == list(wanted)
    for step, document in wanted.items():
        assert seen[step] == document, step


@pytest.mark.timeout(900)
def test_on_a_cluster(
    tmp_path: Path, cluster: RedisCluster, kafka_process: KafkaServer, on_one_server: dict[str, Any]
) -> None:
    _assert_same(_day(tmp_path, cluster.url, kafka_process.bootstrap), on_one_server)
    assert {node.place: node("KEYS", "*") for node in cluster.primaries if node("DBSIZE")} == {}


@pytest.mark.timeout(900)
def test_on_sentinels(
    tmp_path: Path, sentinels: RedisSentinels, kafka_process: KafkaServer, on_one_server: dict[str, Any]
) -> None:
    _assert_same(_day(tmp_path, sentinels.url, kafka_process.bootstrap), on_one_server)
    assert sentinels.primary("KEYS", "*") == []
