"""A primary dies while a job writes, and the server that takes over lacks what it wrote: the job writes it again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.engines.local import latest as local_latest
from feature_store.engines.report import Silent
from feature_store.materialize.rollout import refill
from feature_store.online import OnlineStore
from feature_store.project.filling import GenerationFiller
from tests.online.node_worlds import EVENTS, counts, oracle
from tests.online.stream_worlds import merge_events, plan_of as stream_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from feature_store.registry.serving_plan import TilesPlan
    from tests.redis_nodes import RedisCluster, RedisNode, RedisSentinels

USERS, CHUNK, KILLED_AFTER = 9000, 2000, 3
END = datetime.now(UTC) - timedelta(days=1)
DEFINITIONS = """
from feature_store import *
user = Entity("user", join_key="user_id")
stats = FeatureView("stats", entities=[user], schema=[Field("visits", Int64)],
    source=ParquetSource("rows.parquet", event_timestamp="at"))
service = FeatureService("service", features=[stats])
"""


ADDED = 'Field("visits", Int64), Field("other", Int64)'


class AtChunk(Silent):
    """Acts when a job has written its first chunks.

    Attributes:
        written: the rows that the job has written, those of attempts that failed included.
    """

    def __init__(self, act: Callable[[], None]) -> None:
        self._act, self._is_writing, self._chunks, self.written = act, False, 0, 0

    def started(self, view: str, total_rows: int | None) -> None:
        """See Report."""
        self._is_writing = view.endswith(": write")

    def advanced(self, rows: int) -> None:
        """See Report."""
        if self._is_writing:
            self.written += rows
            self._chunks += 1
            if self._chunks == KILLED_AFTER:
                self._act()


def stop_following(primary: RedisNode, replicas: list[RedisNode]) -> None:
    """Have replicas miss what is written from now on, until they are resumed."""
    for replica in replicas:
        replica.pause()
    primary("CLIENT", "KILL", "TYPE", "replica")  # what is sent to a paused process waits for it


def write_project(folder: Path, url: str) -> dict[str, Any]:
    """Write a project and the rows of its source. Returns the rows."""
    folder.joinpath("feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {url}\n")
    folder.joinpath("features.py").write_text(DEFINITIONS)
    at = pa.array([END - timedelta(days=1)] * USERS, pa.timestamp("us", "UTC"))
    rows: dict[str, Any] = {"user_id": list(range(USERS)), "at": at, "visits": [7 * i for i in range(USERS)]}
    rows["other"] = list(range(USERS))
    pq.write_table(pa.table(rows), folder / "rows.parquet")
    return rows


def check(folder: Path, url: str, prepare: Callable[[], None], kill: Callable[[], None]) -> None:
    """Check that one `materialize`, during which `kill` is called, leaves all rows."""
    rows = write_project(folder, url)
    with FeatureStore(folder) as store:
        store.apply()
        prepare()
        report = AtChunk(kill)
        [summary] = store.materialize(end=END, report=report)
        found = store.get_online_features("service", {"user_id": list(range(USERS))}, now=END).to_dict()
        assert found == {"visits": rows["visits"]}
        assert summary.latest_rows == USERS
        assert report.written > USERS, "the rows that were lost are written again"
        [again] = store.materialize(end=END)
        assert again.source_rows == 0, "the interval is recorded"


def test_sentinels_name_a_replica_that_lacks_rows(
    sentinels: RedisSentinels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_latest, "CHUNK_ROWS", CHUNK)
    primary, replicas = sentinels.primary, sentinels.replicas

    def prepare() -> None:
        sentinels.wait_for_replicas()
        stop_following(primary, replicas)

    def kill() -> None:
        primary.kill()
        for replica in replicas:
            replica.resume()
        sentinels.fail_over()

    check(tmp_path, sentinels.url, prepare, kill)


def test_a_replica_of_a_cluster_that_lacks_rows_takes_over(
    cluster: RedisCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_latest, "CHUNK_ROWS", CHUNK)
    primary = cluster.primaries[0]
    replica = cluster.replica_of(primary)

    def prepare() -> None:
        cluster.wait_for_replicas()
        stop_following(primary, [replica])

    def kill() -> None:
        primary.kill()
        replica.resume()
        cluster.take_over(primary)

    check(tmp_path, cluster.url, prepare, kill)


def test_an_apply_fills_again_what_was_lost_before_it_is_served(
    sentinels: RedisSentinels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The primary dies when the new rows are written and not served yet. The replicas that are left lack these rows."""
    write_project(tmp_path, sentinels.url)
    fill_rows, filled = GenerationFiller.fill_rows, []

    def fill_and_kill(filler: GenerationFiller, *arguments: Any) -> None:
        filled.append(arguments[0])
        if len(filled) > 1:
            fill_rows(filler, *arguments)
            return
        primary, replicas = sentinels.primary, sentinels.replicas
        sentinels.wait_for_replicas()
        stop_following(primary, replicas)
        fill_rows(filler, *arguments)
        primary.kill()
        for replica in replicas:
            replica.resume()
        sentinels.fail_over()

    with FeatureStore(tmp_path) as store:
        store.apply()
        store.materialize(end=END)
        (tmp_path / "features.py").write_text(DEFINITIONS.replace('Field("visits", Int64)', ADDED))
        monkeypatch.setattr(GenerationFiller, "fill_rows", fill_and_kill)
        applied = store.apply()
        found = store.get_online_features("service", {"user_id": list(range(USERS))}, now=END).to_dict()
    assert applied.version.version == 2
    assert filled == ["stats", "stats"]
    assert found == {"visits": [7 * i for i in range(USERS)], "other": list(range(USERS))}


def test_a_backfill_fills_again_what_was_lost_before_it_is_served(sentinels: RedisSentinels) -> None:
    """The fences that the replicas have tell which tiles the second fill must merge."""
    store = OnlineStore(sentinels.url, "test", timeout_s=5.0)
    store.publish(stream_plan(buckets=1), over=None)
    half = len(EVENTS) // 2
    starts = []

    def fill(tiles: TilesPlan) -> int:
        with store.tile_filler(tiles) as filler:
            start = min(found.get("clicks:0", 0) for found in filler.fences())
            starts.append(start)
            if start == 0:
                merge_events(filler, EVENTS[:half], {"clicks:0": (None, half)})
            if len(starts) > 1:
                merge_events(filler, EVENTS[half:], {"clicks:0": (half, len(EVENTS))})
                return start
            primary, replicas = sentinels.primary, sentinels.replicas
            sentinels.wait_for_replicas()
            stop_following(primary, replicas)
            merge_events(filler, EVENTS[half:], {"clicks:0": (half, len(EVENTS))})
        primary.kill()
        for replica in replicas:
            replica.resume()
        sentinels.fail_over()
        return start

    assert refill(store, "activity", None, fill) == half
    assert starts == [0, half]
    assert counts(sentinels.url) == oracle()
    store.close()
