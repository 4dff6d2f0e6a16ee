"""lua/merge.lua and the slow merges of tests/aggregates/tile_merges.py leave the same bytes after any batches."""

from __future__ import annotations

import itertools
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from feature_store.aggregates.at_times import Events
from feature_store.aggregates.deltas import deltas
from feature_store.definitions import (
    Aggregation,
    DefinitionSet,
    Entity,
    Field,
    Int64,
    KafkaSource,
    StreamFeatureView,
    Timestamp,
)
from feature_store.definitions.aggregation import LIFETIME
from feature_store.functions._contract import MOST_COUNTED
from feature_store.online import OnlineStore, keys
from feature_store.online.tile_writer import Merge
from feature_store.registry.compile import compile_plan
from feature_store.testing import tile_merges
from tests.aggregates.event_worlds import AGGREGATIONS, COLUMNS, columns_of, lists_of_events
from tests.raw_redis import raw_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store.online.tile_writer import TileWriter
    from tests.aggregates.naive import Event

user = Entity("user", join_key="user_id")
view = StreamFeatureView(
    "all_kinds",
    entities=[user],
    source=KafkaSource(
        "events",
        topic="events",
        event_timestamp="ts",
        schema=[Field("user_id", Int64), *(Field(name, dtype) for name, dtype in COLUMNS.items())],
    ),
    aggregations=AGGREGATIONS,
)
PLAN = compile_plan(DefinitionSet([view]), project="test", version=1)


@pytest.fixture
def store(redis_url: str) -> Iterator[OnlineStore]:
    store = OnlineStore(redis_url, "test")
    store.publish(PLAN, over=None)
    yield store
    store.close()


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[Any]:

    with raw_client(redis_url) as client:
        yield client


class Both:
    """A writer to Redis, and the same values merged by the slow merges."""

    def __init__(self, writer: TileWriter, redis_client: Any) -> None:
        self.writer, self.layout, self._redis = writer, writer.layout.tiles, redis_client
        self.values = [tile_merges.empty(self.layout) for _ in range(3)]
        self._offset: int | None = None

    def merge(self, entities: Any, records: Any) -> None:
        owners, counts = np.unique(entities, return_counts=True)
        next_offset = (self._offset or 0) + 1
        refused = self.writer.merge(
            Merge(
                0,
                [self._key(owner) for owner in owners.tolist()],
                counts,
                records,
                {"e:0": (self._offset, next_offset)},
            )
        )
        self._offset = next_offset
        late = [
            int(np.flatnonzero(entities == owner)[j])
            for owner in owners.tolist()
            for j in tile_merges.merge(self.layout, self.values[owner], records[entities == owner])
        ]
        assert refused == late

    def assert_equal(self) -> None:
        for owner, value in enumerate(self.values):
            stored = self._redis.get(self.writer.layout.prefix("test", 0) + self._key(owner))
            if stored is None:
                assert value["record"]["newest"] == 0
                continue
            assert stored[:4] == self.writer.layout.fingerprint
            self._assert_bytes_equal(np.frombuffer(stored[4:], self.layout.value), value)

    def _assert_bytes_equal(self, got: Any, wanted: Any) -> None:
        """Sums and moments are equal up to rounding, the rest byte for byte, also in stale slots."""
        assert got["record"]["newest"] == wanted["record"]["newest"]
        for r, ring in enumerate(self.layout.windows.rings):
            for mine, other in (
                (got["record"][f"ring{r}"], wanted["record"][f"ring{r}"]),
                (got[f"slots{r}"][0], wanted[f"slots{r}"][0]),
            ):
                for name in self.layout.tiles[r].names:
                    kind = "" if name == "number" else ring.parts[int(name.split()[0])].kind
                    if kind == "sum" or name.endswith(("mean", "m2")):
                        np.testing.assert_allclose(mine[name], other[name], rtol=1e-9, atol=1e-6)
                    else:
                        assert mine[name].tobytes() == other[name].tobytes(), (r, name)

    @staticmethod
    def _key(owner: int) -> bytes:
        return keys.encode([Int64], [np.array([owner])])[0]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(events=lists_of_events(max_size=80), cuts=st.lists(st.integers(0, 80), max_size=6))
def test_redis_holds_what_the_slow_merges_make(
    store: OnlineStore, redis_client: Any, events: list[Event], cuts: list[int]
) -> None:
    store.teardown()
    store.publish(PLAN, over=None)
    bounds = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    with store.tile_writer("all_kinds") as writer:
        both = Both(writer, redis_client)
        for start, end in itertools.pairwise(bounds):
            entities, event_us, columns, _ = columns_of(events[start:end])
            found = deltas(both.layout, entities, event_us, columns)
            both.merge(found.entities, found.records)
        both.assert_equal()


def one(layout: Any, tile: int, **fields: Any) -> Any:
    """A record with the same tile in each ring, and the given values in every field of that name."""
    record = np.zeros(1, layout.record)
    record["newest"] = tile
    for r, of_ring in enumerate(layout.tiles):
        record[f"ring{r}"]["number"] = tile
        for name in of_ring.names[1:]:
            kind = layout.windows.rings[r].parts[int(name.split()[0])].kind
            key = name.split()[1] if " " in name else kind
            if key in fields:
                record[f"ring{r}"][name] = fields[key]
    return record


@pytest.mark.parametrize("second", [7, 8, 6])
def test_what_no_event_makes_easily_is_merged_the_same(store: OnlineStore, redis_client: Any, second: int) -> None:
    """Full counts, infinite values and extremes of no events, merged into the head, a newer head and a slot."""
    inf = np.inf
    with store.tile_writer("all_kinds") as writer:
        both = Both(writer, redis_client)
        nothing = {"count": 0, "mean": 0.0, "m2": 0.0, "sum": 0.0, "min": inf, "max": -inf}
        states: list[dict[str, Any]] = [
            nothing,
            nothing,
            {"count": MOST_COUNTED - 1, "mean": 1.5, "m2": 2.0, "sum": inf, "min": inf, "max": -inf},
            {"count": 5, "mean": -1.5, "m2": 0.5, "sum": 1.0, "min": -inf, "max": inf},
            {"count": MOST_COUNTED, "mean": 0.0, "m2": 1.0, "sum": -inf, "min": 3.0, "max": 3.0},
            nothing,
        ]
        for tile in (7, second):
            for state in states:
                with np.errstate(invalid="ignore"):
                    both.merge(np.array([0]), one(both.layout, tile, **state))
                both.assert_equal()
        assert both.values[0]["record"]["ring0"]["number"] == max(7, second)


@pytest.mark.parametrize("window", [timedelta(hours=1), LIFETIME])
def test_keys_expire_after_the_longest_window_and_never_with_a_lifetime(
    store: OnlineStore, redis_client: Any, window: timedelta
) -> None:
    counts = [Aggregation("x", "count", windows=[window])]
    counted = StreamFeatureView("counted", entities=[user], source=view.source, aggregations=counts)
    store.teardown()
    store.publish(compile_plan(DefinitionSet([counted]), project="test", version=1, expire_keys=True), over=None)
    events = Events(np.zeros(1, np.intp), np.array([time.time_ns() // 1000]), {"x": (np.ones(1), np.zeros(1, bool))})
    with store.tile_writer("counted") as writer:
        found = deltas(writer.layout.tiles, *events[:3])
        [key] = keys.encode([Int64], [np.array([1])])
        writer.merge(Merge(0, [key], np.ones(1, int), found.records, {"e:0": (None, 1)}))
        left_ms = redis_client.pttl(writer.layout.prefix("test", 0) + key)
    assert left_ms == -1 if window == LIFETIME else 0 < left_ms <= 2 * 3_600_000


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("ring", [i for i, ring in enumerate(PLAN.tiles[0].windows.rings) if ring.slots])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_ring_reaches_as_far_back_as_it_has_slots(
    store: OnlineStore, redis_client: Any, ahead: bool, ring: int, beyond: int
) -> None:
    """Two tiles whose distance is the number of slots, one less or one more; in either order, twice each."""
    slots = PLAN.tiles[0].windows.rings[ring].slots
    tiles = [1000, 1000 + slots + beyond]
    with store.tile_writer("all_kinds") as writer:
        both = Both(writer, redis_client)
        for tile in [1000 - slots, *(tiles if ahead else tiles[::-1])] * 2:
            both.merge(np.array([0]), one(both.layout, tile, count=1, sum=1.0))
            both.assert_equal()
        held = both.values[0][f"slots{ring}"]["number"][0]
        assert (1000 in held) == (beyond <= 0)


def test_values_are_compared_by_all_their_bytes(redis_url: str, redis_client: Any) -> None:
    """Integers of eight bytes that no double holds, some with zero bytes. Of equal times the greater is later."""
    aggregations = [
        Aggregation("at", function, windows=AGGREGATIONS[0].windows, n=3 if function == "last_n" else None)
        for function in ("first", "last", "last_n")
    ]
    source = KafkaSource(
        "events", topic="events", event_timestamp="ts", schema=[Field("user_id", Int64), Field("at", Timestamp)]
    )
    times = StreamFeatureView("times", entities=[user], source=source, aggregations=aggregations)
    store = OnlineStore(redis_url, "test")
    store.publish(compile_plan(DefinitionSet([times]), project="test", version=1), over=None)
    values = [2**62 + 1, 2**62, 256, 0, -1, 2**32, 2**62 + 1, 255]
    with store.tile_writer("times") as writer:
        both = Both(writer, redis_client)
        for value in values:
            columns = {"at": (np.array([value]), np.array([False]))}
            both.merge(np.array([0]), deltas(both.layout, np.array([0]), np.array([10**15]), columns).records)
            both.assert_equal()
        head = both.values[0]["record"]["ring0"][0]
        assert [head[name]["value"].tolist() if name == "2" else head[f"{name} value"].item() for name in ("0", "1", "2")] == [
            0, -1, [-1, 2**62 + 1, 2**62 + 1]
        ]  # fmt: skip
    store.close()
