"""Stream views online: merges and fences in Redis, and windows read by both clients, against the events."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from feature_store.errors import CorruptRowError, FenceError, NotFoundError, StaleWriteError
from feature_store.materialize.rollout import begin_tiles, serve_tiles
from feature_store.online import OnlineStore, Status
from feature_store.online.buffers import LARGE_BYTES
from feature_store.online.keys import fences_key, tiles_prefix
from feature_store.online.tile_writer import Merge
from tests.online.clients import CLIENTS, NEAR, counted
from tests.online.stream_worlds import (
    NOW_US,
    SECOND_US,
    Event,
    activity,
    by_shop,
    everything,
    expected,
    merge_events,
    plan_of,
)
from tests.raw_redis import raw_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store.online import OnlineResponse

HOUR_US = 3600 * SECOND_US


@pytest.fixture
def store(redis_url: str) -> Iterator[OnlineStore]:
    store = OnlineStore(redis_url, "test")
    store.publish(plan_of(), over=None)
    yield store
    store.close()


@pytest.fixture(params=[*CLIENTS, *NEAR])
def client(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Any]:
    client = (CLIENTS | NEAR)[request.param](redis_url, "test")
    yield client
    client.close()


def click(user_id: int = 1, ago_s: float = 0, price: float | None = 1.0, action: str | None = "buy") -> Event:
    ts = NOW_US - int(ago_s * SECOND_US)
    return {"user_id": user_id, "shop_id": f"s{user_id % 2}", "ts": ts, "price": price, "action": action}


def write(store: OnlineStore, events: list[Event], at: int | None = None) -> None:
    with store.tile_writer("activity") as writer:
        merge_events(writer, events, {"clicks:0": (at, (at or 0) + len(events))})


def assert_serves(response: OnlineResponse, events: list[Event], users: list[int], now_us: int) -> None:
    found = response.to_dict()
    for i, user_id in enumerate(users):
        for name, value in expected(activity, events, (user_id,), now_us).items():
            got = found[name][i]
            if isinstance(value, float):
                assert got == pytest.approx(value, rel=1e-9, abs=1e-9), (name, user_id)
            elif "distinct" in name:
                assert abs(got - value) <= 1 + 0.3 * value, name
            else:
                assert got == value, (name, user_id)


prices = st.one_of(st.none(), st.just(math.nan), st.floats(-100, 100).map(lambda x: round(x, 3)))
events_of = st.lists(
    st.builds(
        click,
        st.integers(1, 3),
        st.floats(0, 2 * 3600).map(lambda x: round(x, 1)),
        prices,
        st.sampled_from(["buy", "view", None]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(events=events_of, cuts=st.lists(st.integers(0, 40), max_size=3), ahead_s=st.integers(0, 4000))
def test_windows_are_those_of_the_events(
    store: OnlineStore, client: Any, redis_url: str, events: list[Event], cuts: list[int], ahead_s: int
) -> None:
    """Events in any order and any batches, with late events; at the time of the newest event and later."""
    store.teardown()
    store.publish(plan_of(), over=None)
    bounds = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    for start, end in itertools.pairwise(bounds):
        write(store, events[start:end], start or None)
    for now_us in (NOW_US, NOW_US + ahead_s * SECOND_US):
        response = client.get_online_features("everything", {"user_id": [3, 1, 2, 1, 9]}, now=now_us)
        assert_serves(response, events, [3, 1, 2, 1, 9], now_us)
        assert response.status_counts() == counted(response)


def test_an_entity_without_events_is_missing(store: OnlineStore, client: Any) -> None:
    write(store, [click(1), click(2, ago_s=3600 * 3)])
    response = client.get_online_features("everything", {"user_id": [1, 2, 3]}, now=NOW_US)
    assert response.status["price_mean_1h"] == [Status.PRESENT, Status.NULL, Status.MISSING]
    assert response.status["price_count_1h"] == [Status.PRESENT, Status.PRESENT, Status.MISSING]
    assert response.to_dict()["price_count_1h"] == [1, 0, 0]
    times = response.event_timestamps["price_mean_1h"]
    assert times[2] is None
    assert times[0].timestamp() * 1e6 == NOW_US


def test_a_matrix_holds_windows_beside_defaults(store: OnlineStore, client: Any) -> None:
    write(store, [click(1, price=2.5), click(1, price=0.5)])
    asked = ["activity:price_count_1h", "activity:price_mean_1h", "activity:bought_1h"]
    matrix = client.get_online_features(asked, {"user_id": [2, 1]}, now=NOW_US).to_numpy()
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.array([[0, np.nan, 0], [2, 1.5, 3]], np.float32))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(events=events_of, users=st.lists(st.integers(1, 5), min_size=1, max_size=5), data=st.data())
def test_a_matrix_holds_the_numbers_of_a_dict(
    store: OnlineStore, client: Any, events: list[Event], users: list[int], data: st.DataObject
) -> None:
    """Windows of one function fill the matrix together, but in any order, and with any of them left out."""
    names = [field.name for field in activity.fields if field.dtype.length is None and field.dtype.width is not None]
    asked = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    store.teardown()
    store.publish(plan_of(), over=None)
    write(store, events)
    response = client.get_online_features([f"activity:{name}" for name in asked], {"user_id": users}, now=NOW_US)
    values = response.to_dict()
    numbers = [[np.nan if value is None else value for value in values[name]] for name in asked]
    np.testing.assert_array_equal(response.to_numpy(), np.array(numbers, np.float32).T)


def test_large_replies_that_wait_to_be_decoded_stay_as_they_came(store: OnlineStore, client: Any) -> None:
    """Each reply is so large that its buffer is used again. Half of the replies are dropped undecoded."""
    events = [click(user_id, ago_s=user_id / 2, price=float(user_id)) for user_id in range(1, 61)]
    write(store, events)
    size = store.statistics()["activity"]["row_bytes"]
    chance = random.Random(0)
    waiting = []
    for i in range(12):
        users = chance.sample(range(1, 61), 40)
        assert len(users) * size > LARGE_BYTES
        response = client.get_online_features("everything", {"user_id": users}, now=NOW_US)
        if i % 2:
            waiting.append((response, users))
        if i % 4 == 3:
            assert_serves(waiting[0][0], events, waiting[0][1], NOW_US)
    for response, users in reversed(waiting):
        assert_serves(response, events, users, NOW_US)


def test_many_buckets_serve_the_same(redis_url: str, client: Any) -> None:
    store = OnlineStore(redis_url, "test")
    store.publish(plan_of(buckets=4), over=None)
    events = [click(user_id, ago_s=user_id, price=float(user_id)) for user_id in range(1, 30)]
    write(store, events)
    users = list(range(1, 31))
    assert_serves(client.get_online_features("everything", {"user_id": users}, now=NOW_US), events, users, NOW_US)
    with store.tile_writer("activity") as writer:
        assert writer.fences() == [{"clicks:0": 29}] * 4
    assert store.delete("user", {"user_id": 7}) == 1
    store.close()


def test_composite_keys_of_text_are_merged_read_and_deleted(store: OnlineStore, client: Any) -> None:
    events = [click(1, price=1.0), click(2, price=3.0), click(1, price=2.0)]
    with store.tile_writer("by_shop") as writer:
        merge_events(writer, events, {"clicks:0": (None, 3)})
    rows = {"shop_id": ["s1", "s0", "s0"], "user_id": [1, 2, 1]}
    assert client.get_online_features("shops", rows, now=NOW_US).to_dict() == {"price_mean_1h": [1.5, 3.0, None]}
    assert expected(by_shop, events, ("s1", 1), NOW_US) == {"price_mean_1h": 1.5}
    assert store.delete("user", {"user_id": 1}) == 1
    assert client.get_online_features("shops", rows, now=NOW_US).to_dict() == {"price_mean_1h": [None, 3.0, None]}


# -- fences -----------------------------------------------------------------------------------------------------------


def test_a_batch_that_is_sent_twice_counts_once(store: OnlineStore, client: Any) -> None:
    write(store, [click(), click()])
    with pytest.raises(FenceError, match="clicks:0 -"):
        write(store, [click(), click()])
    with pytest.raises(FenceError, match="clicks:0 5"):
        write(store, [click()], at=5)
    write(store, [click()], at=2)
    found = client.get_online_features(["activity:price_count_1h"], {"user_id": 1}, now=NOW_US)
    assert found.to_dict() == {"price_count_1h": [3]}


def test_after_a_refusal_what_was_sent_behind_is_refused_too(store: OnlineStore) -> None:
    with store.tile_writer("activity") as writer:
        empty = np.zeros(0, writer.layout.tiles.record)
        for start in (5, 10):
            writer.send(Merge(0, [], np.zeros(0, int), empty, {"clicks:0": (start, start + 5)}))
        for _ in range(2):
            with pytest.raises(FenceError):
                writer.answer()
        assert writer.fences() == [{}]


def test_a_batch_without_entities_moves_the_fence(store: OnlineStore) -> None:
    with store.tile_writer("activity") as writer:
        empty = np.zeros(0, writer.layout.tiles.record)
        writer.merge(Merge(0, [], np.zeros(0, int), empty, {"clicks:0": (None, 7), "clicks:1": (None, 3)}))
        assert writer.fences() == [{"clicks:0": 7, "clicks:1": 3}]


def test_another_plan_stops_a_writer(store: OnlineStore) -> None:
    with store.tile_writer("activity") as writer:
        store.publish(replace(plan_of(), version=2), over=store.published())
        with pytest.raises(StaleWriteError):
            merge_events(writer, [click()], {"clicks:0": (None, 1)})
        assert writer.fences() == [{}]


def test_what_is_no_value_of_the_view_is_named_and_nothing_is_merged(
    store: OnlineStore, redis_url: str, client: Any
) -> None:

    prefix = tiles_prefix("test", 0, plan_of().tiles[0])
    key = prefix + (2).to_bytes(8, "big")
    with raw_client(redis_url) as other:
        for wrong in (b"x", bytes(100_000)):
            other.set(key, wrong)
            with store.tile_writer("activity") as writer, pytest.raises(CorruptRowError, match=r"activity\(\(2,\)\)"):
                merge_events(writer, [click(1), click(2), click(3)], {"clicks:0": (None, 3)})
            assert other.keys(prefix + b"*") == [key]
            with pytest.raises(CorruptRowError, match=r"activity\(user_id=2\)"):
                client.get_online_features("everything", {"user_id": [1, 2]}, now=NOW_US).to_dict()


def test_late_events_are_told_and_counted(store: OnlineStore) -> None:
    with store.tile_writer("activity") as writer:
        merge_events(writer, [click(1)], {"clicks:0": (None, 1)})
        # Two hours are beyond the ring of the 1-hour window, ten minutes only beyond the ring of the 1-minute window.
        events = [click(1, ago_s=7200), click(1, ago_s=600), click(2, ago_s=7200)]
        assert sum(map(len, merge_events(writer, events, {"clicks:0": (1, 4)}))) == 1
        assert writer.late() == 1
        assert writer.fences() == [{"clicks:0": 4}]


def test_an_event_from_a_fast_clock_pushes_nothing_out(store: OnlineStore, client: Any) -> None:
    events = [click(1, ago_s=60), click(1, ago_s=-9)]
    for i, event in enumerate(events):
        write(store, [event], i or None)
    found = client.get_online_features(["activity:price_count_1m"], {"user_id": 1}, now=NOW_US).to_dict()
    assert found == {"price_count_1m": [1]}


# -- generations ------------------------------------------------------------------------------------------------------


def test_a_new_generation_is_served_at_once_and_the_old_one_deleted(
    store: OnlineStore, client: Any, redis_url: str
) -> None:

    count = ["activity:price_count_1h"]
    write(store, [click()])
    tiles = begin_tiles(store, "activity", NOW_US)
    assert begin_tiles(store, "activity", NOW_US) == tiles
    assert (tiles.generation, tiles.start_us) == (2, NOW_US)
    with store.tile_filler(tiles) as filler:
        merge_events(filler, [click(), click(), click()], {"history": (None, 3)})
    assert client.get_online_features(count, {"user_id": 1}, now=NOW_US).to_dict() == {"price_count_1h": [1]}
    write(store, [click()], at=1)
    assert client.get_online_features(count, {"user_id": 1}, now=NOW_US).to_dict() == {"price_count_1h": [2]}
    with store.tile_writer("activity") as writer:
        serve_tiles(store, tiles)
        with pytest.raises(StaleWriteError):
            merge_events(writer, [click()], {"clicks:0": (2, 3)})
    assert client.get_online_features(count, {"user_id": 1}, now=NOW_US).to_dict() == {"price_count_1h": [3]}
    with raw_client(redis_url) as other:
        assert all(b":activity:2" in key for key in other.keys("*activity*"))
    with pytest.raises(NotFoundError, match="already served"):
        serve_tiles(store, tiles)


def test_beginning_anew_gives_up_what_was_begun(store: OnlineStore, redis_url: str) -> None:

    first = begin_tiles(store, "activity", NOW_US)
    with store.tile_filler(first) as filler:
        merge_events(filler, [click()], {"history": (None, 1)})
    second = begin_tiles(store, "activity", NOW_US + 1)
    assert second.generation == first.generation + 1
    assert store.require_published().plan.filling_tiles == (second,)
    with raw_client(redis_url) as other:
        assert not other.keys(tiles_prefix("test", 0, first) + b"*")
        assert not other.exists(fences_key("test", 0, first))
    with pytest.raises(NotFoundError, match="no longer being filled"):
        serve_tiles(store, first)


def test_what_a_project_holds_goes_with_it(store: OnlineStore, redis_url: str) -> None:

    write(store, [click()])
    assert store.statistics()["activity"]["rows"] == 1
    store.teardown()
    with raw_client(redis_url) as other:
        assert other.dbsize() == 0


def test_every_feature_has_a_place(store: OnlineStore) -> None:
    plan = store.require_published().plan
    assert plan == plan_of()
    assert [column.name for column in plan.service("everything").columns] == [
        name for name, _ in everything.features[0].columns
    ]
