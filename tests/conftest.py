from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# Machines of CI are slow and shared: only the outcome of a test counts, not how fast an example was made.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

from tests.limits import lengthen
from tests.raw_redis import raw_client
from tests.redis_nodes import RedisCluster, RedisSentinels, redis_cluster, redis_sentinels
from tests.servers import RedisServer, redis_server
from tests.spark_settings import with_kafka
from tests.topology import TOPOLOGIES, Servers, keep_those_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis

    from feature_store.engines.spark.engine import SparkEngine


ROOT = Path(__file__).resolve().parents[1]
# Files that take more than 40 s, the longest first. bin/test begins with them, so that its processes end together.
LONG_FILES = (
    "streaming/test_spark.py",
    "streaming/test_exactly_once.py",
    "examples/test_movielens.py",
    "engines/test_spark.py",
    "engines/test_join.py",
    "test_extras.py",
    "docs/test_guides.py",
    "materialize/test_kill.py",
    "materialize/test_loss.py",
    "project/test_store.py",
    "topologies/test_a_day.py",
    "streaming/test_backfill.py",
    "online/test_sentinels.py",
    "arrow/sources/test_sql_rows.py",
    "materialize/test_failover.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--topology",
        choices=sorted(TOPOLOGIES),
        default="single",
        help="run the tests that ask for the URL of a Redis on one server, on 3 Sentinels with a primary and 2 replicas, or"
        " on a Cluster of 3 primaries and 3 replicas; except on one server, the other tests are left out",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose the tests of a topology. Order the files for the processes of bin/test: the long ones first, then by their
    number of tests."""
    topology = config.getoption("--topology")
    if topology != "single":
        left_out = keep_those_of(topology, items)
        config.hook.pytest_deselected(items=left_out)
    if hasattr(config, "workerinput"):
        items[:] = in_order_of_length(items)


def in_order_of_length(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Tests by file, those of LONG_FILES first, then those of the files with the most tests."""
    counts = Counter(item.path for item in items)
    ranks = {ROOT / "tests" / name: rank for rank, name in enumerate(LONG_FILES)}
    return sorted(items, key=lambda item: (ranks.get(item.path, len(ranks)), -counts[item.path], str(item.path)))


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
def redis_process(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """Real servers of the topology that `--topology` names, one server by default."""
    with TOPOLOGIES[request.config.getoption("--topology")]() as servers:
        yield servers


@pytest.fixture(scope="session")
def _raw(redis_process: Servers) -> Iterator[redis.Redis]:
    with raw_client(redis_process.url) as client:
        yield client


@pytest.fixture
def redis_url(redis_process: Servers, _raw: redis.Redis) -> str:
    """The URL of real servers that have no keys, of the topology that `--topology` names."""
    _raw.flushall()
    return redis_process.url


@pytest.fixture(scope="session")
def one_server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def one_server_url(one_server: RedisServer) -> str:
    """The URL of one real server that has no keys, whatever topology the other tests run on."""
    with raw_client(one_server.url) as client:
        client.flushall()
    return one_server.url


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
    with redis_sentinels(quick=True) as sentinels:
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
