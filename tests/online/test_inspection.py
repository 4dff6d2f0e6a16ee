"""The stored values of one entity, decoded for inspection, are the written values."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from feature_store.errors import CorruptRowError, NotFoundError, RequestError
from feature_store.online import OnlineStore
from feature_store.online.redis.endpoint import Endpoint
from tests.online.stream_worlds import SECOND_US, Event, activity, expected, merge_events, plan_of as plan_of_streams
from tests.online.worlds import NOW_US, affinity, by_name, numbers, plan_of, profile, write
from tests.raw_redis import raw_client

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def store(redis_url: str) -> Iterator[OnlineStore]:
    store = OnlineStore(redis_url, "test")
    yield store
    store.close()


def test_a_row_tells_its_times_and_where_it_is(store: OnlineStore, redis_url: str) -> None:
    store.publish(plan_of(version=3, buckets=4), over=None)
    write(store, affinity, [{"user_id": 1, "movie_id": 2, "likes": 0.5, "event_ts": NOW_US, "created_ts": NOW_US + 7}])
    write(store, profile, [{"user_id": 1, "age": 3, "score": None, "event_ts": NOW_US - 5}])
    write(store, by_name, [{"shop_id": "a:b}", "user_id": 1, "visits": 3, "event_ts": -5, "created_ts": -4}])
    found = store.inspect(["affinity"], {"user_id": 1, "movie_id": 2}, NOW_US)["affinity"]
    assert (found.event_us, found.created_us, found.generation, found.windows) == (NOW_US, NOW_US + 7, 3, {})
    with raw_client(redis_url) as client:
        stored = {repr(key)[2:-1]: client.strlen(key) for key in client.keys("*r:*")}
    assert stored[found.key] == found.size
    assert store.inspect(["profile"], {"user_id": 1}, NOW_US)["profile"].event_us == NOW_US - 5
    assert store.inspect(["profile"], {"user_id": 1}, NOW_US)["profile"].created_us is None, "its source does not say"
    assert store.inspect(["by_name"], {"shop_id": "a:b}", "user_id": 1}, NOW_US)["by_name"].created_us == -4


def test_what_is_not_stored_is_told(store: OnlineStore) -> None:
    store.publish(plan_of(), over=None)
    missing = store.inspect(["numbers"], {"movie_id": 1}, NOW_US)["numbers"]
    assert (missing.size, missing.event_us, missing.created_us) == (0, None, None)
    assert missing.key not in {store.inspect(["numbers"], {"movie_id": 2}, NOW_US)["numbers"].key}
    with pytest.raises(NotFoundError):
        store.inspect(["nothing"], {"movie_id": 1}, NOW_US)
    for wrong in ({}, {"movie_id": None}, {"movie_id": "x"}, {"movie_id": 2**63}):
        with pytest.raises(RequestError):
            store.inspect(["numbers"], wrong, NOW_US)


def test_what_is_no_row_is_told(store: OnlineStore, redis_url: str) -> None:
    store.publish(plan_of(), over=None)
    write(store, numbers, [{"movie_id": 1, "a": 1.0, "b": None, "c": 1, "event_ts": NOW_US}])
    with raw_client(redis_url) as client:
        (key,) = client.keys("*r:*")
        client.set(key, b"something else")
    with pytest.raises(CorruptRowError):
        store.inspect(["numbers"], {"movie_id": 1}, NOW_US)["numbers"]


events = st.lists(
    st.builds(
        lambda user, ago, price, action: {
            "user_id": user,
            "shop_id": "s",
            "ts": NOW_US - ago * SECOND_US,
            "price": price,
            "action": action,
        },
        st.integers(1, 2),
        st.integers(0, 2 * 3600),
        st.one_of(st.none(), st.integers(-50, 50).map(float)),
        st.sampled_from(["buy", "view", None]),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events, st.integers(0, 3600))
def test_the_tiles_of_a_window_make_its_value(
    store: OnlineStore, redis_url: str, happened: list[Event], later: int
) -> None:
    with raw_client(redis_url) as client:
        client.flushall()
    store.publish(plan_of_streams(), over=None)
    merge_events(store.tile_writer("activity"), sorted(happened, key=lambda event: event["ts"]), {})
    now_us = NOW_US + later * SECOND_US
    found = store.inspect(["activity"], {"user_id": 1}, now_us)["activity"]
    own = [event for event in happened if event["user_id"] == 1 and event["price"] is not None]
    if not own:
        assert (found.size, found.event_us) == (0, None)
        return
    assert found.event_us == max(event["ts"] for event in own)
    wanted = expected(activity, happened, (1,), now_us)
    for aggregation in activity.aggregations:
        for window in aggregation.windows:
            name, hop_us = aggregation.feature_name(window), aggregation.hop_us(window)
            tiles = found.windows[name]
            first = (now_us - window // timedelta(microseconds=1)) // hop_us * hop_us
            assert [tile.start_us for tile in tiles] == sorted({tile.start_us for tile in tiles})
            assert all(first <= tile.start_us <= now_us and tile.end_us - tile.start_us == hop_us for tile in tiles)
            values = [tile.value for tile in tiles if tile.value is not None]
            combined = _combined(aggregation.function, values)
            if combined is not ...:
                assert combined == pytest.approx(wanted[name], abs=1e-9), name


def _combined(function: str, values: list[Any]) -> Any:
    """The value of a window from the values of its tiles; `...` where these do not determine it."""
    match function:
        case "count" | "sum":
            return sum(values)
        case "min" | "max":
            return {"min": min, "max": max}[function](values) if values else None
        case "first" | "last":
            return (values[0] if function == "first" else values[-1]) if values else None
        case "last_n":
            return [item for value in reversed(values) for item in value][:3]
        case _:
            return ...


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://me:hunter2@host", "redis://me:***@host"),
        ("redis://:hunter2@host/0?password=hunter2&db=1", "redis://:***@host/0?password=***&db=1"),
        ("unix:///a/b.sock?db=1&password=hunter2", "unix:///a/b.sock?db=1&password=***"),
        ("rediss://host?ssl_password=hunter2=", "rediss://host?ssl_password=***"),
    ],
)
def test_a_shown_url_holds_no_password(url: str, shown: str) -> None:
    assert Endpoint(url, 1.0).shown == shown
