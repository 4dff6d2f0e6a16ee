"""Every kind of key that a project has in Redis, lost or damaged alone: healed, or refused with what to do; what is
served is right, or is not there, and no event counts twice."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from feature_store import FeatureStore
from feature_store.errors import ConflictError, FeatureStoreError, FencesLostError, OnlineStoreError
from feature_store.online import OnlineClient
from feature_store.streaming.formats.json_messages import JsonDecoder
from feature_store.streaming.merging import Origin, ViewMerger
from feature_store.testing.formats import messages_of
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOW = datetime.now(UTC).replace(microsecond=0)
USERS, BUCKETS, SOURCE = 12, 2, "clicks:0"
DEFINITIONS = """
from datetime import timedelta
from feature_store import *
user = Entity("user", join_key="user_id", dtype=Int64)
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="ts",
    schema=[Field("user_id", Int64), Field("price", Float64)])
activity = StreamFeatureView("activity", entities=[user], source=clicks, aggregations=[
    Aggregation("price", "count", windows=[timedelta(hours=1)]), Aggregation("price", "sum", windows=[timedelta(days=1)])])
profile = FeatureView("profile", entities=[user], schema=[Field("age", Int32), Field("name", String)],
    source=ParquetSource("profile.parquet", event_timestamp="at"))
account = FeatureView("account", entities=[user], schema=[Field("level", Int32)],
    source=ParquetSource("account.parquet", event_timestamp="at"))
service = FeatureService("service", features=[profile, account, activity])
"""
# The event log of the topic: user, in the order of offsets. The second half comes after the older snapshot.
EVENTS = [i % USERS for i in range(20 * USERS)]
HALF = len(EVENTS) // 2
COUNT = len(EVENTS) // USERS

KINDS = ("plan", "epoch 0", "epoch 1", "row", "variable", "tiles", "fences", "merges")
DAMAGES = ("deleted", "truncated", "lengthened", "another type", "older")


class World:
    """A project whose stream is merged by a worker's own merger, from the fences on."""

    def __init__(self, folder: Path, url: str) -> None:
        online = f"{{url: '{url}', buckets: {BUCKETS}}}"
        (folder / "feature_store.yaml").write_text(f"project: shop\nonline_store: {online}\n")
        (folder / "features.py").write_text(DEFINITIONS)
        self.folder, self.url = folder, url
        self.redis = redis.Redis.from_url(url)
        self._write_sources(NOW - timedelta(hours=2), 1)
        with FeatureStore(folder) as store:
            store.apply()
            store.materialize(end=NOW - timedelta(hours=1))
            self.stream(store, HALF)
            self.older = self.snapshot()
            # Another publication, and newer values of all keys.
            (folder / "features.py").write_text(
                DEFINITIONS.replace("features=[profile, ", "features=[account, profile, ").replace(
                    "account, activity]", "activity]"
                )
            )
        with FeatureStore(folder) as store:
            store.apply(allow_destructive=True)
            self._write_sources(NOW - timedelta(minutes=30), 2)
            store.materialize(end=NOW)
            self.stream(store, len(EVENTS))
        self.whole = self.snapshot()

    def _write_sources(self, at: datetime, level: int) -> None:
        times = pa.array([at] * USERS, pa.timestamp("us", "UTC"))
        users = pa.array(range(USERS), pa.int64())
        names = pa.array([f"user {i} of {level}" for i in range(USERS)])
        profile = {"user_id": users, "at": times, "age": pa.array([level] * USERS, pa.int32()), "name": names}
        pq.write_table(pa.table(profile), self.folder / "profile.parquet")
        account = {"user_id": users, "at": times, "level": pa.array([level] * USERS, pa.int32())}
        pq.write_table(pa.table(account), self.folder / "account.parquet")

    def snapshot(self) -> dict[bytes, bytes]:
        return {key: self.redis.dump(key) for key in self.redis.keys("*")}

    def restore(self) -> None:
        self.redis.flushall()
        for key, value in self.whole.items():
            self.redis.restore(key, 0, value)

    def key(self, kind: str) -> bytes:
        """A key of a kind. Of kinds with a key for each entity, the first key."""
        patterns = {"plan": "*plan", "epoch 0": "*:0}epoch", "epoch 1": "*:1}epoch", "row": "*}r:*"}
        patterns |= {"variable": "*}v:*", "tiles": "*}t:*", "fences": "*:1}f:*", "merges": "*:1}m:*"}
        return min(key for key in self.whole if key in set(self.redis.keys(patterns[kind])))

    def damage(self, kind: str, how: str) -> None:
        key = self.key(kind)
        value = None if kind == "fences" else self.redis.get(key)
        if how == "deleted":
            self.redis.delete(key)
        elif how == "older":
            self.redis.restore(key, 0, self.older[key], replace=True)
        elif how == "another type":
            self.redis.delete(key)
            self.redis.lpush(key, "x")
        elif value is None:
            fence = next(name for name in self.redis.hkeys(key) if b":" in name)
            self.redis.hset(key, fence, "x" if how == "lengthened" else "")
        else:
            self.redis.set(key, value + b"\0" if how == "lengthened" else value[: len(value) // 2])

    def stream(self, store: FeatureStore, end: int) -> None:
        """Merge as a worker does, from the fences up to an offset."""
        merger = ViewMerger(store.online.tile_writer("activity"), start_us=None)
        try:
            merger.load([SOURCE])
            start = merger.fences.start(SOURCE) or 0
            ts = int((NOW - timedelta(minutes=5)).timestamp() * 1000)
            messages = [orjson.dumps({"user_id": user, "price": 1.0, "ts": ts}) for user in EVENTS[start:end]]
            if messages:
                events = JsonDecoder(store.definitions.stream_feature_views["activity"].source).decode(
                    messages_of(messages)
                )
                offsets = np.arange(start, end)
                origin = Origin([SOURCE], [(start if start else -1, end)], np.zeros(end - start, np.intp), offsets)
                merger.send(merger.prepare(events, origin.at(events.places)))
                merger.settle()
            merger.send(merger.catch_up([SOURCE]))
            merger.settle()
        finally:
            merger.close()

    def read(self) -> dict[str, list[Any]]:
        client = OnlineClient(self.url, "shop")
        try:
            return client.get_online_features("service", {"user_id": list(range(USERS))}, now=NOW).to_dict()
        finally:
            client.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with redis_server() as server:
        world = World(tmp_path_factory.mktemp("half lost"), server.url)
        yield world
        world.redis.close()


@pytest.fixture
def world(made: World) -> World:
    made.restore()
    return made


RIGHT = {
    "age": 2, "level": 2, "price_count_1h": COUNT, "price_sum_1d": float(COUNT),
}  # fmt: skip


def refused_or_done(step: Callable[[], Any]) -> OnlineStoreError | None:
    """Run a step. An error must say what to do, and is returned."""
    try:
        step()
    except OnlineStoreError as error:
        assert error.hint, error
        return error
    return None


def assert_never_wrong(found: dict[str, list[Any]], allowed: dict[str, set[Any]]) -> None:
    """Assert that every value is right or missing."""
    for name, right in RIGHT.items():
        wrong = set(found[name]) - {right, None} - allowed.get(name, set())
        assert not wrong, (name, wrong)
    for i, name in enumerate(found["name"]):
        assert name in (f"user {i} of 2", None) or allowed.get("name"), name


# An evicted value looks like a value that was never there. A value from an older copy looks like a value without later
# events. Nothing tells them apart. They count too little, never too much.
CANNOT_BE_TOLD: dict[tuple[str, str], dict[str, set[Any]]] = {
    ("tiles", "deleted"): {"price_count_1h": {0, COUNT // 2}, "price_sum_1d": {0.0}},
    ("tiles", "older"): {"price_count_1h": {COUNT // 2}, "price_sum_1d": {COUNT / 2}},
    ("tiles", "another type"): {"price_count_1h": {0}, "price_sum_1d": {0.0}},
    ("row", "older"): {"age": {1}, "level": {1}},
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_key_lost_or_damaged_alone(world: World, kind: str, how: str) -> None:
    allowed = CANNOT_BE_TOLD.get((kind, how), {})

    def read() -> None:
        assert_never_wrong(world.read(), allowed)

    def stream(store: FeatureStore) -> None:
        world.stream(store, len(EVENTS))

    def apply(store: FeatureStore) -> None:
        store.apply()

    def materialize(store: FeatureStore) -> None:
        store.materialize(NOW - timedelta(days=1), NOW)

    def doctor(store: FeatureStore) -> None:
        findings = list(store.monitoring.diagnose())
        if kind in ("plan", "epoch 0", "epoch 1", "fences", "merges"):
            assert any(
                finding.check in ("serving plan", "rows", "fences") and finding.state == "failed" and finding.hint
                for finding in findings
            ), findings

    steps = {"write": materialize, "stream": stream, "apply": apply, "doctor": doctor}
    for step in steps.values():
        world.restore()
        world.damage(kind, how)
        refused_or_done(read)
        with FeatureStore(world.folder) as store:
            refused_or_done(lambda store=store, step=step: step(store))  # type: ignore[misc]
            refused_or_done(read)
            # An apply makes the plan whole, whatever came before. Then streams go on or are refused.
            assert refused_or_done(store.apply) is None
            refused_or_done(lambda store=store: stream(store))  # type: ignore[misc]
            refused_or_done(read)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", ["plan", "epoch 0", "epoch 1"])
def test_an_apply_publishes_again_over_what_is_left(world: World, kind: str, how: str) -> None:
    world.damage(kind, how)
    with FeatureStore(world.folder) as store:
        store.apply()
        world.stream(store, len(EVENTS))
    found = world.read()
    assert {name: set(found[name]) for name in RIGHT} == {name: {right} for name, right in RIGHT.items()}


@pytest.mark.parametrize("how", ["deleted", "another type", "older", "truncated"])
def test_lost_fences_are_refused(world: World, how: str) -> None:
    world.damage("fences", how)
    with FeatureStore(world.folder) as store, pytest.raises(FencesLostError, match="backfill activity"):
        if how == "older":
            world.stream(store, len(EVENTS))
        store.online.tile_writer("activity").fences()


def test_plan_and_fences_lost_together_begin_anew_and_count_once(world: World) -> None:
    """Nothing tells which events the remaining tiles hold. They are deleted, and the topic is read again."""
    for kind in ("plan", "fences"):
        world.damage(kind, "deleted")
    with FeatureStore(world.folder) as store:
        plan = store.apply().plan
        assert plan.tiles[0].generation > 1
        assert plan.groups[0].generation == 1
        world.stream(store, len(EVENTS))
    assert set(world.read()["price_count_1h"]) == {COUNT}
    assert not world.redis.keys("*}t:activity:1:*")


def test_a_materialization_replaces_rows_that_are_none(world: World) -> None:
    for how in ("truncated", "lengthened", "another type"):
        world.restore()
        world.damage("row", how)
        with FeatureStore(world.folder) as store:
            for view, table in (("profile", "profile.parquet"), ("account", "account.parquet")):
                store.push(view, pq.read_table(world.folder / table))
        found = world.read()
        assert (set(found["age"]), set(found["level"])) == ({2}, {2})


def test_one_of_two_applies_over_a_lost_plan_wins(world: World) -> None:
    world.damage("plan", "deleted")
    with FeatureStore(world.folder) as store:
        found = store.online.find_published()
        assert found.problem is not None
        plan = store.online.remaining(store.apply().plan)
        with pytest.raises(ConflictError):
            store.online.publish(plan, over=found)


def test_what_an_older_version_of_the_library_wrote_goes_on(world: World) -> None:
    """These are plans without an epoch, and fences without a mark."""
    document = orjson.loads(world.redis.get("{shop:0}plan"))
    del document["epoch"]
    for tiles in document["tiles"]:
        del tiles["mark"]
    world.redis.set("{shop:0}plan", orjson.dumps(document))
    for bucket in range(BUCKETS):
        world.redis.hdel(f"{{shop:{bucket}}}f:activity:1", "born", "merges", "layout", "start")
        world.redis.delete(f"{{shop:{bucket}}}m:activity:1")
    with FeatureStore(world.folder) as store:
        assert set(world.read()["price_count_1h"]) == {COUNT}
        world.stream(store, len(EVENTS))
        assert set(world.read()["price_count_1h"]) == {COUNT}
        plan = store.apply().plan
        assert plan.tiles[0].mark
        assert plan.tiles[0].generation == 1
        world.stream(store, len(EVENTS))
        assert set(world.read()["price_count_1h"]) == {COUNT}
        assert store.online.lost_fences(plan.tiles[0]) is None


def test_keys_that_redis_drops_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with redis_server("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-random") as server:
        online = f"{{url: '{server.url}'}}"
        (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store: {online}\n")
        (tmp_path / "features.py").write_text(DEFINITIONS)
        users, at = range(30_000), [NOW - timedelta(hours=2)] * 30_000
        profile = {"user_id": users, "at": at, "age": [1] * 30_000, "name": ["x" * 100] * 30_000}
        types = pa.schema(
            {"user_id": pa.int64(), "at": pa.timestamp("us", "UTC"), "age": pa.int32(), "name": pa.string()}
        )
        pq.write_table(
            pa.table({name: pa.array(profile[name], types.field(name).type) for name in types.names}),
            tmp_path / "profile.parquet",
        )
        with FeatureStore(tmp_path) as store:
            with contextlib.suppress(FeatureStoreError):
                store.apply()
                store.materialize(end=NOW, views=["profile"])
            assert store.online.evicted_keys() > 0
        assert any("for lack of memory" in record.getMessage() for record in caplog.records)
