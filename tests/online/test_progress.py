"""Progress of views, stored beside the rows, on real servers that lose data."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import redis

from feature_store._intervals import BEGINNING
from feature_store.definitions import DefinitionSet, Entity, FeatureView, Field, Int32
from feature_store.errors import CorruptRowError, LostWriteError, NotFoundError, StaleWriteError
from feature_store.online import OnlineStore
from feature_store.registry.compile import compile_plan
from tests.raw_redis import raw_client
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store.registry.serving_plan import ServingPlan

user = Entity("user")


def plan(version: int, *fields: str, previous: ServingPlan | None = None, buckets: int = 1) -> ServingPlan:
    view = FeatureView("profile", entities=[user], schema=[Field(name, Int32) for name in fields])
    other = FeatureView("other", entities=[user], schema=[Field("x", Int32)])
    definitions = DefinitionSet([view, other])
    return compile_plan(definitions, project="shop", version=version, previous=previous, buckets=buckets)


@pytest.fixture(params=[1, 3], ids=["one bucket", "three buckets"])
def store(request: Any, redis_url: str) -> Iterator[OnlineStore]:
    with contextlib.closing(OnlineStore(redis_url, "shop")) as store:
        store.publish(plan(1, "age", buckets=request.param), over=None)
        yield store


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with raw_client(redis_url) as client:
        yield client


def done(store: OnlineStore, *intervals: tuple[int, int]) -> None:
    progress = store.progress("profile")
    for interval in intervals:
        progress.record_interval("job", 0, interval)


def test_intervals_are_a_sorted_union_of_any_times(store: OnlineStore) -> None:
    done(store, (50, 60), (BEGINNING, 10), (10, 20), (15, 17), (58, 70), (30, 31))
    expected = [(BEGINNING, 20), (30, 31), (50, 70)]
    assert store.progress("profile").finished_intervals() == expected
    assert store.finished_intervals() == {"profile": expected, "other": []}


def test_chunks_are_noted_one_after_the_other(store: OnlineStore) -> None:
    progress = store.progress("profile")
    assert progress.chunks_done("job") == 0
    for chunk in (1, 2, 3):
        progress.record_chunk("job", chunk)
    assert store.progress("profile").chunks_done("job") == 3
    assert store.progress("profile").chunks_done("another") == store.progress("other").chunks_done("job") == 0
    progress.record_interval("job", 3, (0, 10))
    assert (progress.finished_intervals(), progress.chunks_done("job")) == ([(0, 10)], 0)


def test_a_job_that_is_given_up_is_forgotten(store: OnlineStore) -> None:
    progress = store.progress("profile")
    progress.record_chunk("job", 1)
    progress.forget_job("job")
    assert progress.chunks_done("job") == 0


def test_jobs_at_once_lose_no_interval_of_each_other(store: OnlineStore) -> None:
    one, other = store.progress("profile"), store.progress("profile")
    one.record_chunk("one", 1)
    other.record_chunk("other", 1)
    other.record_interval("other", 1, (0, 10))
    one.record_interval("one", 1, (20, 30))
    assert one.finished_intervals() == [(0, 10), (20, 30)]


def test_an_interval_counts_where_all_buckets_have_it(store: OnlineStore, client: redis.Redis) -> None:
    done(store, (0, 10), (20, 30))
    buckets = store.require_published().plan.buckets
    client.hset(f"{{shop:{buckets - 1}}}p:user:1:profile", "intervals", "5,25")
    expected = [(5, 25)] if buckets == 1 else [(5, 10), (20, 25)]
    assert store.progress("profile").finished_intervals() == expected
    client.delete(f"{{shop:{buckets - 1}}}p:user:1:profile")
    assert store.progress("profile").finished_intervals() == []
    assert store.finished_intervals()["profile"] == []


def test_what_a_clock_that_was_ahead_recorded_is_not_believed(store: OnlineStore, client: redis.Redis) -> None:
    now_us = store.now_us()
    buckets = store.require_published().plan.buckets
    for bucket in range(buckets):
        client.hset(f"{{shop:{bucket}}}p:user:1:profile", "intervals", f"0,10 20,{now_us + 3600 * 1_000_000}")
    progress = store.progress("profile")
    assert progress.finished_intervals() == [(0, 10)]
    progress.record_interval("job", 0, (20, now_us))
    assert progress.finished_intervals() == [(0, 10), (20, now_us)], "nor does it come back"


def test_records_follow_a_plan_that_leaves_the_rows_alone(store: OnlineStore) -> None:
    progress, published = store.progress("profile"), store.require_published()
    progress.record_chunk("job", 1)
    store.publish(plan(2, "age", previous=published.plan, buckets=published.plan.buckets), over=published)
    progress.record_chunk("job", 2)
    progress.record_interval("job", 2, (0, 10))
    assert store.finished_intervals()["profile"] == [(0, 10)]


def test_nothing_is_recorded_of_a_generation_that_is_served_no_more(store: OnlineStore, client: redis.Redis) -> None:
    progress, published = store.progress("profile"), store.require_published()
    progress.record_chunk("job", 1)
    changed = plan(2, "age", "height", previous=published.plan, buckets=published.plan.buckets)
    store.publish(changed, over=published)
    store.drop_rows(published.plan.groups[0])
    with pytest.raises(LostWriteError):
        progress.record_chunk("job", 2)
    assert progress.chunks_done("job") == 0, "in the generation that is served"
    progress.record_interval("new", 0, (0, 10))
    assert {key.decode().rpartition("}")[2] for key in client.scan_iter("*}p:*")} == {"p:user:2:profile"}


def test_nothing_is_recorded_of_a_row_group_that_is_not_filled_any_more(store: OnlineStore) -> None:
    published = store.require_published()
    group = plan(2, "age", "height", buckets=published.plan.buckets).groups[0]
    progress = store.progress("profile", group)
    progress.record_interval("job", 0, (0, 10))
    assert progress.finished_intervals() == [(0, 10)]
    assert store.finished_intervals()["profile"] == [], "it is not served"
    store.publish(published.plan, over=published)
    with pytest.raises(StaleWriteError):
        progress.record_interval("job", 0, (10, 20))


def test_progress_goes_with_the_rows(store: OnlineStore, client: redis.Redis) -> None:
    done(store, (0, 10))
    store.drop_rows(store.require_published().plan.groups[0])
    assert store.finished_intervals()["profile"] == []
    done(store, (0, 10))
    store.teardown()
    assert client.dbsize() == 0


@pytest.mark.parametrize("value", ["", "1", "1,2,3", "a,b", "1,2 \xff"])
def test_progress_that_is_not_ours_is_an_error_that_names_the_key(
    store: OnlineStore, client: redis.Redis, value: str
) -> None:
    client.hset("{shop:0}p:user:1:profile", mapping={"intervals": value or "x", "job:j": value or "-1"})
    with pytest.raises(CorruptRowError, match=r"\{shop:0\}p:user:1:profile"):
        store.finished_intervals()
    if value != "1":
        with pytest.raises(CorruptRowError, match="job:j"):
            store.progress("profile").chunks_done("j")


def test_a_view_that_is_not_served_has_no_progress(store: OnlineStore) -> None:
    with pytest.raises(NotFoundError):
        store.progress("nothing")


def test_emptied_between_two_records_redis_is_not_believed(store: OnlineStore, client: redis.Redis) -> None:
    progress, published = store.progress("profile"), store.require_published()
    progress.record_chunk("job", 1)
    client.flushall()
    store.publish(published.plan, over=None)
    with pytest.raises(LostWriteError):
        progress.record_chunk("job", 2)
    with pytest.raises(LostWriteError):
        progress.record_interval("job", 1, (0, 10))
    assert (progress.chunks_done("job"), store.finished_intervals()["profile"]) == (0, [])


def test_another_process_records_nothing_of_rows_that_were_written_to_the_one_before() -> None:
    """The new process may lack the last acknowledged rows, though it has all the progress of before."""
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with redis_server(*options) as server, contextlib.closing(OnlineStore(server.url, "shop")) as store:
        published = store.publish(plan(1, "age"), over=None)
        progress, server_id = store.progress("profile"), store.server_id()
        progress.record_chunk("job", 1)
        server.stop()
        server.start()
        with pytest.raises(LostWriteError):
            progress.record_chunk("job", 2)
        with pytest.raises(LostWriteError):
            progress.record_interval("job", 1, (0, 10))
        with pytest.raises(LostWriteError):
            store.publish(published.plan, over=published, written_to=server_id)
        assert progress.chunks_done("job") == 1, "which was noted before"
        progress.record_chunk("job", 2)
        progress.record_interval("job", 2, (0, 10))
        assert store.finished_intervals()["profile"] == [(0, 10)]
        store.publish(published.plan, over=published, written_to=store.server_id())
