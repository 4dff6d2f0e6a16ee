"""The conformance suite of topologies, on one server, and on one that refuses scripts over several buckets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from feature_store.online.redis.cluster import Cluster
from feature_store.online.redis.sentinel import Sentinels
from feature_store.online.redis.topology import Single
from feature_store.testing.topology import TopologySuite
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from feature_store.online.redis.topology import Topology
    from tests.redis_nodes import RedisCluster, RedisSentinels


class TestSingle(TopologySuite):
    @pytest.fixture
    def topology(self, one_server_url: str) -> Iterator[Topology]:
        topology = Single(one_server_url, 5.0)
        yield topology
        topology.close()


class Slots(Single):
    """One node of a Redis Cluster that holds every slot. As in any Cluster, a script may name keys of one tag only."""

    @property
    def is_one_node(self) -> bool:
        return False

    def together(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        by_tag: dict[bytes, list[bytes]] = {}
        for key in keys:
            by_tag.setdefault(key.partition(b"}")[0], []).append(key)
        return list(by_tag.values())


@pytest.fixture(scope="module")
def slots_url() -> Iterator[str]:
    with redis_server("--cluster-enabled", "yes") as server:
        topology = Single(server.url, 5.0)
        with topology.nodes()[0].commands() as redis:
            redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while b"cluster_state:ok" not in redis.execute_command("CLUSTER", "INFO"):
                time.sleep(0.01)
        topology.close()
        yield server.url


class TestSlots(TopologySuite):
    @pytest.fixture
    def topology(self, slots_url: str) -> Iterator[Topology]:
        topology = Slots(slots_url, 5.0)
        yield topology
        topology.close()


class TestCluster(TopologySuite):
    @pytest.fixture
    def topology(self, cluster: RedisCluster) -> Iterator[Topology]:
        topology = Cluster(cluster.url, 5.0)
        yield topology
        topology.close()


class TestSentinels(TopologySuite):
    @pytest.fixture
    def topology(self, sentinels: RedisSentinels) -> Iterator[Topology]:
        topology = Sentinels(sentinels.url, 5.0)
        yield topology
        topology.close()
