"""Rows and tiles of any bytes: every way to read them gives values or errors of this library, never other errors."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from feature_store.definitions import DefinitionSet, FeatureService
from feature_store.errors import DamagedPlanError, FeatureStoreError
from feature_store.online import OnlineClient, OnlineStore
from feature_store.online.inspection import inspect_row, inspect_tiles
from feature_store.online.keys import epoch_key, fences_key, plan_key
from feature_store.online.layout import RowLayout
from feature_store.online.tile_layout import TileValueLayout
from feature_store.registry.compile import compile_plan
from feature_store.registry.soundness import MOST_BYTES
from feature_store.streaming.fences import Fences
from tests.online.clients import CLIENTS
from tests.online.stream_worlds import activity, merge_events
from tests.online.worlds import NOW_US, every_type, numbers, write
from tests.raw_redis import raw_client

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = FeatureService("all", features=[every_type, numbers])
WINDOWS = FeatureService("windows", features=[activity])
ROW = {
    "movie_id": 1,
    "event_ts": NOW_US,
    "flag": True,
    "small": 1,
    "large": 2,
    "single": 1.5,
    "double": 2.5,
    "title": "é",
    "vector": [1.0, 2.0, 3.0],
    "ragged": [1, 2],
    "words": ["a", "bc"],
}
EVENT = {"user_id": 1, "shop_id": "s", "ts": NOW_US, "price": 2.0, "action": "buy"}
# Bytes with a meaning: the first and last times, NaN, infinities, invalid UTF-8, lengths beyond the value.
PIECES = [b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7, b"\x00\x00\x00\x00\x00\x00\xf0\x7f", b"\x00\x00\x00\x00\x00\x00\xf8\x7f", b"\x80", b"\xff\xff\xff\x7f"]  # fmt: skip
changes = st.lists(st.tuples(st.integers(0, 2_000), st.one_of(st.sampled_from(PIECES), st.binary(min_size=1, max_size=9))), min_size=1, max_size=6)  # fmt: skip


class World:
    def __init__(self, url: str) -> None:
        self.store = OnlineStore(url, "hostile")
        definitions = DefinitionSet([every_type, numbers, activity, ALL, WINDOWS])
        self.store.publish(compile_plan(definitions, project="hostile", version=1), over=self.store.published())
        write(self.store, every_type, [ROW | {"when": datetime(2020, 1, 1, tzinfo=UTC)}])
        write(self.store, numbers, [{"movie_id": 1, "event_ts": NOW_US, "a": 1.0, "c": 3}])
        with self.store.tile_writer("activity") as writer:
            merge_events(writer, [EVENT] * 3, {"clicks:0": (None, 3)})
        self.redis = raw_client(url)
        named = [key for key in self.redis.scan_iter(b"{hostile:0}*") if self.redis.type(key) == b"string"]
        self.values = {key: self.redis.get(key) for key in named}
        self.data = sorted(key for key in self.values if not key.endswith((b"plan", b"epoch", b"fences")))
        self.client = OnlineClient(url, "hostile")

    def close(self) -> None:
        self.client.close()
        self.store.close()
        self.redis.close()


@pytest.fixture
def world(redis_url: str) -> Iterator[World]:
    world = World(redis_url)
    assert len(world.data) >= 3, "a row, its variable value, tiles"
    yield world
    world.close()


def readings(world: World, key: bytes, value: bytes) -> Iterator[Any]:
    plan = world.store.require_published().plan
    yield lambda: inspect_row(RowLayout(plan.group_of("every_type")), "every_type", key, value)
    yield lambda: inspect_tiles(TileValueLayout(plan.tiles[0]), key, value, NOW_US)
    for service, request in (("all", {"movie_id": [1, 2]}), ("all", {"movie_id": 1}), ("windows", {"user_id": [1, 1]})):
        for how in ("to_dict", "to_arrow", "to_pandas", "to_polars", "to_numpy", "status_counts"):
            yield lambda service=service, request=request, how=how: getattr(
                world.client.get_online_features(service, request, now=NOW_US), how
            )()
        yield lambda service=service, request=request: dict(
            world.client.get_online_features(service, request, now=NOW_US).event_timestamps
        )
    for features in (["numbers:a", "numbers:b"], ["every_type:vector", "every_type:flag"]):
        yield lambda features=features: world.client.get_online_features(
            features, {"movie_id": 1}, now=NOW_US
        ).to_numpy()


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(0, 9), changes=changes, cut=st.one_of(st.none(), st.integers(0, 400)))
def test_bytes_of_any_kind_are_read_or_refused(world: World, place: int, changes: Any, cut: int | None) -> None:
    key = world.data[place % len(world.data)]
    value = bytearray(world.values[key])
    for at, piece in changes:
        start = 4 + at % max(1, len(value) - 4)  # the fingerprint stays, else a reader looks no further
        value[start : start + len(piece)] = piece[: len(value) - start]
    stored = bytes(value if cut is None else value[:cut])
    world.redis.set(key, stored)
    try:
        for read in readings(world, key, stored):
            try:
                read()
            except FeatureStoreError as error:
                assert len(str(error)) < 2_000
    finally:
        world.redis.set(key, world.values[key])


FIELDS = [b"clicks:0/0", b"clicks:0/15", b"clicks:0/99", b"a:b:c", b"\xff:\xff", b":", b"born", b"merges", b"late", b"layout", b"start", b"topic"]  # fmt: skip
NUMBERS = [
    b"",
    b"-1",
    b"+1",
    b" 1",
    b"1_0",
    b"1.5",
    b"nan",
    b"9" * 19,
    b"9" * 18,
    b"9" * 5_000,
    "٣".encode(),
    b"\x00",
    b"[" * 3_000,
]


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(FIELDS), st.one_of(st.sampled_from(NUMBERS), st.binary(max_size=9))), max_size=4)
)
def test_fences_of_any_fields_are_read_or_refused(world: World, fields: list[tuple[bytes, bytes]]) -> None:
    redis, store = world.redis, world.store
    (tiles,) = store.require_published().plan.tiles
    key = fences_key("hostile", 0, tiles)
    whole = redis.dump(key)
    for field, value in fields:
        redis.hset(key, field, value)
    try:
        with store.tile_writer("activity") as writer:
            for read in (
                lambda: Fences(writer.fences(), ["clicks:0", "a:b:c"]).start("clicks:0"),
                writer.late,
                lambda: store.lost_fences(tiles),
                lambda: merge_events(writer, [EVENT], {"clicks:0": (3, 4)}),
            ):
                try:
                    read()
                except FeatureStoreError as error:
                    assert len(str(error)) < 2_000
    finally:
        redis.restore(key, 0, whole, replace=True)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_plan_that_is_too_long_is_not_taken_in(world: World, redis_url: str, client: str) -> None:
    """The keys of a plan and an epoch hold 300 MB each. `apply` repairs them, and the client serves again."""
    redis = world.redis
    plan = world.store.require_published().plan
    asked = ["numbers:a"], {"movie_id": [1]}
    for key in (plan_key("hostile"), epoch_key("hostile", 0)):
        made = CLIENTS[client](redis_url, "hostile", timeout_s=60)
        try:
            redis.setrange(key, 300_000_000, b"x")
            tracemalloc.start()
            for read in (lambda made=made: made.get_online_features(*asked, now=NOW_US), world.store.published):
                with pytest.raises(DamagedPlanError):
                    read()
            found = world.store.find_published()
            assert tracemalloc.get_traced_memory()[1] < 4 * MOST_BYTES
            tracemalloc.stop()
            world.store.publish(plan, over=found)
            assert made.get_online_features(*asked, now=NOW_US).to_dict()["a"] == [1.0]
        finally:
            tracemalloc.stop()
            made.close()
