"""The tests of serving on a Cluster and on servers that Sentinels name, for the blocking and the asyncio client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from feature_store.online.keyspace import Keyspace
from feature_store.online.redis.topology import connect
from tests.online.clients import CLIENTS
from tests.online.test_client import (  # noqa: F401 - its tests and a fixture, with other servers
    store,
    test_a_request_of_no_rows_has_no_values,
    test_arrow_and_pandas_have_the_declared_types,
    test_bad_requests_say_what_is_wrong,
    test_on_demand_code_must_be_what_was_applied,
    test_on_demand_features,
    test_the_boundary_of_the_ttl,
    test_the_shapes_of_requests,
    test_unknown_names,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.redis_nodes import RedisCluster, RedisSentinels


@pytest.fixture(scope="module", params=["cluster", "replicas"])
def topology_url(request: pytest.FixtureRequest) -> str:
    """The URL of a Cluster, or of Sentinels, with reads from replicas."""
    if request.param == "cluster":
        cluster: RedisCluster = request.getfixturevalue("cluster_processes")
        cluster.heal()
        return cluster.url
    sentinels: RedisSentinels = request.getfixturevalue("sentinel_processes")
    sentinels.heal()
    return sentinels.url_with("read_from=replica")


@pytest.fixture(params=["blocking", "asyncio"])
def make_client(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Callable[..., Any]]:
    opened = []

    def make(project: str = "test", **options: Any) -> Any:
        opened.append(CLIENTS[request.param](redis_url, project, **{"timeout_s": 10.0, **options}))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def redis_url(topology_url: str) -> Iterator[str]:
    """The URL of the servers, which have no keys."""
    topology = connect(topology_url, 5.0)
    for project in ("test", "other"):
        Keyspace(topology, project).unlink_all()
    topology.close()
    yield topology_url
