"""A project whose rows are in memory: materialize, training sets and the end of a stream's history, in one process."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from feature_store import FeatureStore
from feature_store.definitions.dtypes import to_microseconds
from feature_store.streaming.backfill import history_end_us

NOW = datetime(2026, 1, 10, tzinfo=UTC)
FEATURES = """
from datetime import UTC, datetime, timedelta
from feature_store import *
user = Entity("user", join_key="user_id")
rows = {"user_id": [1, 2], "at": [datetime(2026, 1, day, tzinfo=UTC) for day in (2, 3)], "visits": [VISITS, 5]}
stats = FeatureView("stats", entities=[user], source=InMemorySource(rows, event_timestamp="at", name="visits"),
    schema=[Field("visits", Int64)])
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="at", schema=[Field("user_id", Int64), Field("price", Float64)],
    history=InMemorySource({"user_id": rows["user_id"], "at": rows["at"], "price": [1.0, 2.0]}, event_timestamp="at", name="clicks"))
activity = StreamFeatureView("activity", entities=[user], source=clicks,
    aggregations=[Aggregation("price", "count", windows=[timedelta(days=7)])])
"""


def _project(folder: Path, url: str, visits: int) -> FeatureStore:
    (folder / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {url}\n")
    (folder / "features.py").write_text(FEATURES.replace("VISITS", str(visits)))
    return FeatureStore(folder)


def test_the_rows_of_the_newest_object_are_materialized_and_joined(tmp_path: Path, redis_url: str) -> None:
    with _project(tmp_path, redis_url, 3) as store:
        store.apply()
        assert store.materialize(end=NOW)[0].written == 2
        found = store.get_online_features(["stats:visits"], {"user_id": [1, 2]}, now=NOW).to_dict()
        assert found == {"visits": [3, 5]}
    with _project(tmp_path, redis_url, 4) as store:
        assert store.plan().is_empty, "the definition is the same when the rows change"
        assert store.materialize(end=NOW)[0].written >= 1
        assert store.get_online_features(["stats:visits"], {"user_id": [1]}, now=NOW).to_dict() == {"visits": [4]}
        labels = pa.table({"user_id": [1, 2, 1], "event_timestamp": [NOW, NOW, datetime(2026, 1, 1, tzinfo=UTC)]})
        joined = store.get_historical_features(labels, ["stats:visits"]).to_arrow()
        assert joined["visits"].to_pylist() == [4, 5, None]
        activity = store.definitions.stream_feature_views["activity"]
        assert history_end_us(activity, tmp_path) == to_microseconds(datetime(2026, 1, 3, tzinfo=UTC)) + 1


def test_a_process_that_only_reads_the_registry_serves_and_does_not_materialize(tmp_path: Path, redis_url: str) -> None:
    with _project(tmp_path, redis_url, 3) as store:
        store.apply()
        store.materialize(end=NOW)
    (tmp_path / "features.py").write_text(
        "from feature_store import Entity\nuser = Entity('user', join_key='user_id')\n"
    )
    code = f"""
from feature_store import FeatureStore
from feature_store.errors import DataError
with FeatureStore({str(tmp_path)!r}) as store:
    print(store.get_online_features(["stats:visits"], {{"user_id": [1, 2]}}).to_dict())
    try:
        store.materialize()
    except DataError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    values, _, error = done.stdout.partition("\n")
    assert values == "{'visits': [3, 5]}"
    assert error.startswith("source visits: its rows are in the memory of the process that made it")


@pytest.mark.parametrize("engine", ["local", "spark"])
def test_a_training_set_of_either_engine(
    tmp_path: Path, redis_url: str, engine: str, request: pytest.FixtureRequest
) -> None:
    if engine == "spark":
        request.getfixturevalue("spark_engine")
    with _project(tmp_path, redis_url, 3) as store:
        store.apply()
        labels = pa.table({"user_id": [1, 2], "event_timestamp": [NOW, NOW]})
        joined = store.get_historical_features(labels, ["stats:visits"], engine=engine).to_arrow()
        assert joined["visits"].to_pylist() == [3, 5]
