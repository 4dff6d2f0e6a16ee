"""Two checkouts, each with a registry of its own, and one Redis: each leaves alone what the other publishes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.errors import ConflictError
from feature_store.online import OnlineClient

if TYPE_CHECKING:
    from pathlib import Path

DEFINITIONS = """
from datetime import timedelta
from feature_store import *
user = Entity("user", join_key="user_id")
stats = FeatureView("stats", entities=[user], schema=[Field("visits", Int64){more}],
    source=ParquetSource("rows.parquet", event_timestamp="at"))
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="at", schema=[Field("user_id", Int64)])
activity = StreamFeatureView("activity", entities=[user], source=clicks,
    aggregations=[Aggregation("user_id", "count", windows=[timedelta(hours=1)])])
ranking = FeatureService("ranking", features=[stats])
"""


def checkout(folder: Path, url: str, more: str = "") -> Path:
    folder.mkdir()
    kafka = "kafka: {bootstrap.servers: 'localhost:1'}\n"
    (folder / "feature_store.yaml").write_text(f"project: shop\nonline_store: {{url: '{url}'}}\n{kafka}")
    (folder / "features.py").write_text(DEFINITIONS.format(more=more))
    at = datetime.now(UTC) - timedelta(hours=1)
    pq.write_table(pa.table({"user_id": [1], "visits": [7], "height": [1.0], "at": [at]}), folder / "rows.parquet")
    return folder


def visits(url: str) -> Any:
    client = OnlineClient(url, "shop")
    try:
        return client.get_online_features("ranking", {"user_id": 1}).to_dict()["visits"]
    finally:
        client.close()


@pytest.mark.parametrize("more", ["", ', Field("height", Float32)'], ids=["the same", "another layout"])
def test_a_registry_leaves_alone_what_another_has_published(tmp_path: Path, redis_url: str, more: str) -> None:
    with FeatureStore(checkout(tmp_path / "a", redis_url)) as a:
        a.apply()
        a.materialize()
        with FeatureStore(checkout(tmp_path / "b", redis_url, more)) as b:
            with pytest.raises(ConflictError, match="another registry") as raised:
                b.apply()
            assert "`registry` in feature_store.yaml" in raised.value.hint
            assert b.registry.latest() is None, "nothing was committed"
            b.registry.commit(b.definitions, base=None, author="before anything was published")
            for step in (
                b.apply,
                b.materialize,
                lambda: b.push("stats", tmp_path / "a" / "rows.parquet"),
                lambda: b.stream(until_caught_up=True),
                lambda: b.backfill("activity", datetime.now(UTC)),
            ):
                with pytest.raises(ConflictError, match="another registry"):
                    step()
            (finding,) = [one for one in b.monitoring.diagnose() if one.check == "serving plan"]
            assert finding.state == "failed"
            assert "another registry" in finding.about
        assert visits(redis_url) == [7]
        a.apply()
        assert visits(redis_url) == [7]


def test_checkouts_that_share_a_registry_share_what_is_published(tmp_path: Path, redis_url: str) -> None:
    one, other = (checkout(tmp_path / name, redis_url) for name in "ab")
    for folder in (one, other):
        with (folder / "feature_store.yaml").open("a") as config:
            config.write(f"registry: sqlite:///{tmp_path}/registry.db\n")
    with FeatureStore(one) as store:
        store.apply()
    with FeatureStore(other) as store:
        assert store.apply().changes.is_empty
        assert store.materialize()[0].written == 1


def test_a_copy_of_a_registry_leaves_alone_what_the_other_has_published(tmp_path: Path, redis_url: str) -> None:
    folder = checkout(tmp_path / "a", redis_url)
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize()
    shutil.copytree(folder, tmp_path / "copy")
    for name, days in (("copy", 1), ("a", 2)):
        file = tmp_path / name / "features.py"
        file.write_text(
            file.read_text().replace("entities=[user], schema", f"entities=[user], ttl=timedelta(days={days}), schema")
        )
    with FeatureStore(tmp_path / "copy") as copy:
        assert copy.apply().version.version == 2
    with FeatureStore(folder) as store:
        for step in (store.apply, store.materialize, lambda: store.push("stats", folder / "rows.parquet")):
            with pytest.raises(ConflictError, match="another copy of the registry"):
                step()
        assert store.registry.head() is not None
        (finding,) = [one for one in store.monitoring.diagnose() if one.check == "serving plan"]
        assert "another copy" in finding.about
    with FeatureStore(tmp_path / "copy") as copy:
        assert copy.apply().changes.is_empty, "what is published is the copy's own"
        copy.materialize()


def test_after_a_teardown_another_registry_can_publish(tmp_path: Path, redis_url: str) -> None:
    with FeatureStore(checkout(tmp_path / "a", redis_url)) as store:
        store.apply()
    with FeatureStore(checkout(tmp_path / "b", redis_url)) as store:
        store.teardown()
        store.apply()
        store.materialize()
    assert visits(redis_url) == [7]


def without_id(store: FeatureStore) -> None:
    """Publish the plan as releases without registry ids did."""
    published = store.online.require_published()
    store.online.publish(replace(published.plan, registry=""), over=published)


def test_a_plan_of_before_ids_is_taken_over_by_the_registry_that_knows_its_layouts(
    tmp_path: Path, redis_url: str
) -> None:
    with FeatureStore(checkout(tmp_path / "a", redis_url)) as a:
        a.apply()
        a.materialize()
        without_id(a)
        with FeatureStore(checkout(tmp_path / "b", redis_url, ', Field("height", Float32)')) as b:
            b.registry.commit(b.definitions, base=None, author="b")
            with pytest.raises(ConflictError, match="another registry"):
                b.apply()
        with FeatureStore(checkout(tmp_path / "c", redis_url)) as c, pytest.raises(ConflictError):
            c.apply()
        a.push("stats", tmp_path / "a" / "rows.parquet")
        assert a.apply().changes.is_empty
        assert a.online.require_published().plan.registry == a.registry.id()
        assert visits(redis_url) == [7]


def test_a_copied_registry_is_the_same_one(tmp_path: Path, redis_url: str) -> None:
    with FeatureStore(checkout(tmp_path / "a", redis_url)) as store:
        store.apply()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with FeatureStore(tmp_path / "b") as store:
        assert store.materialize()[0].written == 1
