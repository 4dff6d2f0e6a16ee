from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# Machines of CI are slow and shared: only the outcome of a test counts, not how fast an example was made.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

from tests.limits import lengthen
from tests.redis_nodes import RedisCluster, RedisSentinels, redis_cluster, redis_sentinels
from tests.servers import RedisServer, redis_server
from tests.spark_settings import with_kafka

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store.engines.spark.engine import SparkEngine


@pytest.fixture(scope="module", autouse=True)
def nothing_hidden() -> Iterator[None]:
    """What the files of one module's tests hide in messages, such as the password `value`, others can read."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("feature_store._redaction._hidden", {})
        yield


@pytest.fixture(scope="session", autouse=True)
def long_limits() -> Iterator[None]:
    """Clients that a test gives no limit have a long one; see tests/limits.py."""
    with pytest.MonkeyPatch.context() as patched:
        lengthen(patched)
        yield


@pytest.fixture(scope="session")
def redis_process() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis_url(redis_process: RedisServer) -> Iterator[str]:
    """The URL of a real server that has no keys."""
    import redis

    with redis.Redis.from_url(redis_process.url) as client:
        client.flushall()
    yield redis_process.url


@pytest.fixture(scope="session")
def cluster_processes() -> Iterator[RedisCluster]:
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(cluster_processes: RedisCluster) -> RedisCluster:
    """A real Cluster of 3 primaries and 3 replicas that has no keys. A test may kill its nodes and move its slots."""
    cluster_processes.heal()
    return cluster_processes


@pytest.fixture(scope="session")
def sentinel_processes() -> Iterator[RedisSentinels]:
    with redis_sentinels() as sentinels:
        yield sentinels


@pytest.fixture
def sentinels(sentinel_processes: RedisSentinels) -> RedisSentinels:
    """A real primary that has no keys, 2 replicas and 3 Sentinels. A test may kill any of them."""
    sentinel_processes.heal()
    return sentinel_processes


@pytest.fixture(scope="session")
def spark_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkEngine]:
    """An engine on a Spark that all tests share, because it takes seconds to start."""
    from feature_store.engines.spark.engine import SparkEngine

    engine = SparkEngine(with_kafka(), tmp_path_factory.mktemp("spark"))
    assert engine.session.spark is not None  # starts it, so that a project's own engine finds it
    yield engine
    engine.close()
