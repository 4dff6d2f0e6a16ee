"""Spark's executors write to the nodes of a Redis Cluster, and to the primary that Sentinels name, themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore

if TYPE_CHECKING:
    from pathlib import Path

    from feature_store.engines.spark.engine import SparkEngine
    from tests.redis_nodes import RedisCluster, RedisSentinels

USERS = 5_000
START = datetime(2026, 1, 1, tzinfo=UTC)
FEATURES = """
from feature_store import *
user = Entity("user", join_key="user_id", dtype=String)
stats = FeatureView("stats", entities=[user], source=ParquetSource("stats.parquet", event_timestamp="at"),
    schema=[Field("number", Int64), Field("name", String)])
ranking = FeatureService("ranking", features=[stats])
"""


def project(folder: Path, url: str) -> FeatureStore:
    """A project with two rows of each user, the newer one first, that Spark materializes."""
    folder.mkdir()
    config = f"project: shop\nonline_store: {{url: '{url}', timeout_ms: 10000}}\nengine: spark\n"
    (folder / "feature_store.yaml").write_text(config)
    (folder / "features.py").write_text(FEATURES)
    numbers = np.arange(2 * USERS)
    columns: dict[str, Any] = {
        "user_id": [f"user {number % USERS}" for number in numbers],
        "number": numbers,
        "name": [f"name {number}" for number in numbers],
        "at": pa.array([START + timedelta(seconds=2 * USERS - int(number)) for number in numbers]),
    }
    pq.write_table(pa.table(columns), folder / "stats.parquet", row_group_size=USERS // 2)
    return FeatureStore(folder)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("topology", ["cluster", "sentinels"])
def test_spark_materializes(
    request: pytest.FixtureRequest, spark_engine: SparkEngine, tmp_path: Path, topology: str
) -> None:
    servers: RedisCluster | RedisSentinels = request.getfixturevalue(topology)
    with project(tmp_path / "shop", servers.url) as store:
        store.apply()
        (summary,) = store.materialize()
        assert (summary.source_rows, summary.written) == (2 * USERS, USERS)
        users = {"user_id": [f"user {number}" for number in range(USERS)] + ["nobody"]}
        found = store.get_online_features("ranking", users).to_dict()
        assert found["number"] == [*range(USERS), None]
        assert found["name"] == [*(f"name {number}" for number in range(USERS)), None]
        assert store.materialize()[0].source_rows == 0, "the progress was recorded on the servers"
        if topology == "cluster":
            assert all(node("DBSIZE") > USERS // 10 for node in request.getfixturevalue("cluster").primaries)
