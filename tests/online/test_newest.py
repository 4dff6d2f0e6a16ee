"""The newest stored event times, against the written rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US
from feature_store.online import OnlineStore
from tests.online.stream_worlds import activity, merge_events as merge, plan_of as plan_of_streams
from tests.online.worlds import VIEWS, affinity, every_type, numbers, plan_of, profile, write

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMES = st.one_of(
    st.integers(MIN_TIMESTAMP_US, MAX_TIMESTAMP_US), st.integers(-(2**33), 2**33), st.just(0), st.just(-1)
)


@pytest.fixture
def store(redis_url: str) -> Iterator[OnlineStore]:
    store = OnlineStore(redis_url, "test")
    yield store
    store.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from(["numbers", "profile", "every_type"]), st.integers(0, 5), TIMES)),
    st.sampled_from([1, 3]),
)
def test_of_batch_views_it_is_the_greatest_of_the_rows_that_are_stored(
    store: OnlineStore, written: list[tuple[str, int, int]], buckets: int
) -> None:
    store.teardown()
    store.publish(plan_of(buckets=buckets), over=None)
    kept: dict[tuple[str, int], int] = {}
    for view, key, time in written:
        write(store, VIEWS[view], [{VIEWS[view].join_keys[0]: key, "event_ts": time}])
        kept[view, key] = max(kept.get((view, key), time), time)
    newest = store.newest_event_times()
    assert newest.keys() == VIEWS.keys()
    for view, found in newest.items():
        times = [time for (of, _), time in kept.items() if of == view]
        assert found.event_us == (max(times) if times else None)
        assert found.whole
    # A row of the group holds several views.
    assert newest["numbers"].rows == len({key for of, key in kept if of in ("numbers", "every_type")})
    assert newest["profile"].rows == len({key for of, key in kept if of == "profile"})


def test_of_stream_views_it_is_the_newest_event(store: OnlineStore) -> None:
    store.publish(plan_of_streams(buckets=2), over=None)
    assert store.newest_event_times()["activity"].event_us is None
    with store.tile_writer(activity.name) as writer:
        now_us = 1_700_000_000_123_457
        events = [
            {"user_id": i, "shop_id": "s", "ts": now_us - i * 1_000_000, "price": 1.0, "action": "buy"}
            for i in range(5)
        ]
        merge(writer, events, {"clicks:0": (None, 5)})
    found = store.newest_event_times()
    assert (found["activity"].event_us, found["activity"].rows) == (now_us, 5)
    assert found["by_shop"].event_us is None


def test_more_than_one_is_willing_to_look_at_is_a_sample(store: OnlineStore) -> None:
    store.publish(plan_of(buckets=2), over=None)
    write(store, profile, [{"user_id": i, "event_ts": i} for i in range(2500)])
    found = store.newest_event_times(limit=100)["profile"]
    assert (found.rows, found.whole) == (100, False)
    assert found.event_us is not None
    assert store.newest_event_times(limit=2500)["profile"] == (2499, 2500, True)


def test_composite_keys_and_neighbours_are_told_apart(store: OnlineStore) -> None:
    store.publish(plan_of(), over=None)
    write(store, affinity, [{"user_id": 1, "movie_id": 2, "event_ts": 7}])
    write(store, numbers, [{"movie_id": 2, "event_ts": 9}])
    found = store.newest_event_times()
    assert found["affinity"].event_us == 7
    assert found["numbers"].event_us == 9
    assert found[every_type.name].event_us is None
