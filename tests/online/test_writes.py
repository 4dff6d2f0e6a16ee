"""What is in Redis after writes: the newest row wins; isolation of projects, deletion, new generations."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from feature_store.definitions import (
    DefinitionSet,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Float64,
    Int32,
    ParquetSource,
    String,
)
from feature_store.errors import ConflictError, NotFoundError, RequestError, StaleWriteError
from feature_store.online import OnlineClient, OnlineStore
from feature_store.online.destination import Destination
from feature_store.online.keyspace import Keyspace
from feature_store.online.row_store import RowStore
from feature_store.registry.compile import compile_plan
from tests.online.worlds import (
    NOW_US,
    VIEWS,
    Oracle,
    affinity,
    batch,
    by_name,
    every_type,
    numbers,
    plan_of,
    profile,
    write,
)
from tests.raw_redis import raw_client

if TYPE_CHECKING:
    from feature_store.registry.serving_plan import RowGroupPlan, ServingPlan

everything = FeatureService("everything", features=[numbers, profile])


@pytest.fixture
def store(redis_url: str):
    store = OnlineStore(redis_url, "test")
    store.publish(plan_of(everything), over=None)
    yield store
    store.close()


def read(redis_url: str, references: list[str], rows, project: str = "test") -> dict:
    with OnlineClient(redis_url, project) as client:
        return client.get_online_features(references, rows, now=NOW_US).to_dict()


def test_counts_of_a_write(store) -> None:
    rows = [{"user_id": i, "event_ts": NOW_US, "age": i} for i in range(1000)]
    assert write(store, profile, rows) == (1000, 0)
    assert write(store, profile, rows) == (1000, 0), "the same again is not older"
    older = [row | {"event_ts": NOW_US - (row["user_id"] % 2)} for row in rows]
    assert write(store, profile, older) == (500, 500)


ORDER = st.tuples(st.integers(-3, 3), st.integers(-3, 3))
FAR = st.sampled_from([-62135596800000000, -(2**53) - 1, -1, 0, 2**53, 2**53 + 1, 253402300799999999])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 2), FAR | st.integers(-3, 3), FAR | st.integers(-3, 3)), max_size=12),
    st.integers(1, 3),
)
def test_newest_wins_whatever_the_order(redis_url, store, writes, buckets) -> None:
    store.teardown()
    store.publish(plan_of(everything, buckets=buckets), over=None)
    oracle = Oracle()
    for i, (movie, event_ts, created_ts) in enumerate(writes):
        row = {"movie_id": movie, "event_ts": event_ts, "created_ts": created_ts, "c": i, "title": f"title {i}"}
        for view in (numbers, every_type):
            write(store, view, [row])
            oracle.write(view, [row])
        row = {"user_id": movie, "event_ts": event_ts, "created_ts": created_ts, "age": i}
        write(store, profile, [row])
        oracle.write(profile, [row])
    for movie in range(3):
        wanted = [oracle.read(numbers, "c", (movie,), NOW_US)[0]]
        assert read(redis_url, ["numbers:c"], {"movie_id": movie})["c"] == wanted
        with OnlineClient(redis_url, "test") as client:
            titles = client.get_online_features(["every_type:title"], {"movie_id": movie}, now=datetime.min).to_dict()[
                "title"
            ]
            ages = client.get_online_features(["profile:age"], {"user_id": movie}, now=datetime.min).to_dict()["age"]
        assert titles == [oracle.read(every_type, "title", (movie,), -(10**18))[0]], (
            "row and variable value are of one write"
        )
        assert ages == [oracle.read(profile, "age", (movie,), -(10**18))[0]]


WRITER = """
import random, sys
import numpy as np
sys.path.insert(0, sys.argv[4])
from tests.online.worlds import batch, numbers
from feature_store.online import OnlineStore
url, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
store = OnlineStore(url, "test")
with store.writer("numbers") as writer:
    for _ in range(count // 500):
        rows = {rng.randrange(300): rng.randrange(1, 10**6) for _ in range(500)}
        rows = [
            {"movie_id": k, "event_ts": v // 7, "created_ts": v, "c": v, "a": float(v), "b": float(-v)}
            for k, v in rows.items()
        ]
        writer.write(batch(numbers, rows))
store.close()
"""


def test_no_older_row_overwrites_a_newer_one_under_concurrent_writers(redis_url, store) -> None:
    count = 50_000
    root = str(Path(__file__).parents[2])
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, redis_url, str(seed), str(count), root]) for seed in (1, 2)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    newest: dict[int, int] = {}
    for seed in (1, 2):
        rng = random.Random(seed)
        for _ in range(count // 500):
            rows = {rng.randrange(300): rng.randrange(1, 10**6) for _ in range(500)}
            for movie, value in rows.items():
                newest[movie] = max(newest.get(movie, 0), value)
    got = read(redis_url, ["numbers:a", "numbers:b", "numbers:c"], {"movie_id": list(range(300))})
    assert got["c"] == [newest[i] for i in range(300)]
    assert got["a"] == [float(np.float32(newest[i])) for i in range(300)] and got["b"] == [-a for a in got["a"]], (
        "no half rows"
    )


def test_views_of_one_row_do_not_touch_each_other(redis_url, store) -> None:
    write(store, numbers, [{"movie_id": 1, "event_ts": NOW_US, "a": 1.0, "b": 2.0, "c": 3}])
    write(store, every_type, [{"movie_id": 1, "event_ts": NOW_US, "flag": True, "title": "x", "large": 2**60}])
    write(store, numbers, [{"movie_id": 1, "event_ts": NOW_US + 1, "a": 4.0}])
    got = read(
        redis_url,
        ["numbers:a", "numbers:c", "every_type:flag", "every_type:title", "every_type:large"],
        {"movie_id": 1},
    )
    assert got == {"a": [4.0], "c": [None], "flag": [True], "title": ["x"], "large": [2**60]}


def test_projects_do_not_see_or_touch_each_other(redis_url) -> None:
    names = ["foo", "xfoo", "foox", "foo_", "foo_bar"]
    stores = {name: OnlineStore(redis_url, name) for name in names}
    for i, (name, store) in enumerate(stores.items()):
        store.publish(plan_of(everything, project=name), over=None)
        write(store, numbers, [{"movie_id": 1, "event_ts": NOW_US, "c": i}])
        write(store, every_type, [{"movie_id": 1, "event_ts": NOW_US, "title": name}])
    for i, name in enumerate(names):
        got = read(redis_url, ["numbers:c", "every_type:title"], {"movie_id": 1}, project=name)
        assert got == {"c": [i], "title": [name]}
    stores["foo"].delete("movie", {"movie_id": 1})
    assert stores["xfoo"].teardown() == 4
    with raw_client(redis_url) as client:
        client.set("somebody else's", 1)
    assert stores["foo"].teardown() == 2
    for i, name in enumerate(names[2:], 2):
        assert read(redis_url, ["numbers:c", "every_type:title"], {"movie_id": 1}, project=name) == {
            "c": [i],
            "title": [name],
        }
        stores[name].teardown()
    with raw_client(redis_url) as client:
        assert client.keys() == [b"somebody else's"]
    for store in stores.values():
        store.close()


@pytest.mark.parametrize("buckets", [1, 4])
def test_delete_takes_all_of_one_entity_and_nothing_else(redis_url, store, buckets) -> None:
    store.teardown()
    store.publish(plan_of(everything, buckets=buckets), over=None)
    users = [1, 2, 42, 42 << 32]
    for user in users:
        write(store, profile, [{"user_id": user, "event_ts": NOW_US, "age": 1}])
        write(
            store,
            affinity,
            [{"user_id": user, "movie_id": movie, "event_ts": NOW_US, "likes": 1.0} for movie in (1, 42)],
        )
        write(
            store,
            by_name,
            [{"shop_id": shop, "user_id": user, "event_ts": NOW_US, "visits": 1} for shop in ("", "a", "42")],
        )
    write(store, every_type, [{"movie_id": 42, "event_ts": NOW_US, "title": "x"}])
    assert store.delete("user", {"user_id": 42}) == 1 + 2 + 3
    assert store.delete("user", {"user_id": 42}) == 0
    for user in users:
        there = user != 42
        assert read(redis_url, ["profile:age"], {"user_id": user})["age"] == [1 if there else None]
        assert (
            read(redis_url, ["affinity:likes"], {"user_id": user, "movie_id": [1, 42]})["likes"]
            == [1.0 if there else None] * 2
        )
        shops = {"user_id": user, "shop_id": ["", "a", "42"]}
        assert read(redis_url, ["by_name:visits"], shops)["visits"] == [1 if there else None] * 3
    assert read(redis_url, ["every_type:title"], {"movie_id": 42})["title"] == ["x"]
    assert store.delete("movie", {"movie_id": 42}) == 2 + 3, "row and variable value, and the rows of three users"
    with pytest.raises(NotFoundError, match="an entity with features"):
        store.delete("nobody", {"user_id": 1})
    with pytest.raises(RequestError, match="user_id: expected the join key"):
        store.delete("user", {"movie_id": 1})
    with pytest.raises(RequestError, match="null"):
        store.delete("user", {"user_id": None})


def test_delete_takes_what_an_unfinished_apply_has_left_too(redis_url, store) -> None:
    write(store, profile, [{"user_id": user, "event_ts": NOW_US, "age": 1} for user in (1, 2)])
    old = store.published()
    more = FeatureView("profile", entities=profile.entities, source=profile.source, schema=[Field("height", Int32)])
    new = plan_of(views=[more], version=2, previous=old.plan)
    store.publish(replace(new, retired=old.plan.groups), over=old)
    write(store, more, [{"user_id": user, "event_ts": NOW_US, "height": 1} for user in (1, 2)])
    assert store.delete("user", {"user_id": 1}) == 2
    with raw_client(redis_url) as client:
        assert len(client.keys("*r:user:*")) == 2


def test_a_writer_of_an_old_plan_is_refused(store) -> None:
    with store.writer("numbers") as writer:
        assert writer.write(batch(numbers, [{"movie_id": 1, "event_ts": 1, "c": 1}])) == (1, 0)
        store.publish(plan_of(everything, version=2), over=store.published())
        with pytest.raises(StaleWriteError):
            writer.write(batch(numbers, [{"movie_id": 2, "event_ts": 1, "c": 1}]))
    assert store.statistics()["movie"]["rows"] == 0, "the row written before is of the old generation"


def test_a_following_writer_goes_on_as_long_as_its_layout_stays(store) -> None:
    with store.destination("numbers").open() as writer:
        same = plan_of(everything, version=2, previous=store.published().plan)
        store.publish(same, over=store.published())
        assert writer.write(batch(numbers, [{"movie_id": 1, "event_ts": 1, "c": 1}])) == (1, 0)
        changed = FeatureView("numbers", entities=numbers.entities, schema=[Field("a", Float32)])
        others = [view for view in VIEWS.values() if view is not numbers]
        store.publish(plan_of(views=[*others, changed], version=3), over=store.published())
        with pytest.raises(StaleWriteError):
            writer.write(batch(numbers, [{"movie_id": 2, "event_ts": 1, "c": 1}]))


def test_a_destination_is_plain_data_that_any_process_can_open(store) -> None:
    destination = pickle.loads(pickle.dumps(store.destination("numbers")))
    with destination.open() as writer:
        assert writer.write(batch(numbers, [{"movie_id": 1, "event_ts": 1, "c": 1}])) == (1, 0)
    assert store.statistics()["movie"]["rows"] == 1


def test_a_destination_shows_no_password() -> None:
    store = OnlineStore("redis://:secret@localhost:1/0", "test")
    segment = plan_of(everything).group_of("numbers").segment("numbers")
    assert "secret" not in repr(Destination(store._url, "test", segment))


def test_a_destination_of_a_layout_that_is_no_more_is_refused_when_it_is_opened(store) -> None:
    destination = store.destination("numbers")
    changed = FeatureView("numbers", entities=numbers.entities, schema=[Field("a", Float32)])
    others = [view for view in VIEWS.values() if view is not numbers]
    store.publish(plan_of(views=[*others, changed], version=3), over=store.published())
    with pytest.raises(StaleWriteError, match="the layout that the job began with"), destination.open():
        pass


def test_a_destination_that_fills_is_refused_under_another_plan(store) -> None:
    plan = store.published().plan
    destination = store.filling("numbers", plan.group_of("numbers"))
    with destination.open() as writer:
        assert writer.write(batch(numbers, [{"movie_id": 1, "event_ts": 1, "c": 1}])) == (1, 0)
    store.publish(replace(plan, version=2), over=store.published())
    with pytest.raises(StaleWriteError), destination.open():
        pass


def test_only_one_of_two_publishes_wins(store) -> None:
    seen = store.published()
    store.publish(plan_of(everything, version=2), over=seen)
    with pytest.raises(ConflictError):
        store.publish(plan_of(everything, version=3), over=seen)
    with pytest.raises(ConflictError):
        store.publish(plan_of(everything, version=3), over=None)
    assert store.published().plan.version == 2


def test_rows_are_copied_to_a_new_layout(redis_url, store) -> None:
    write(
        store,
        every_type,
        [
            {"movie_id": i, "event_ts": NOW_US, "flag": True, "title": f"t{i}", "words": ["a"], "small": i}
            for i in range(50)
        ],
    )
    write(
        store,
        numbers,
        [{"movie_id": i, "event_ts": NOW_US - i, "created_ts": NOW_US, "c": i, "a": 1.5} for i in range(0, 50, 2)],
    )
    fields = {field.name: field for field in every_type.fields}
    new_type = FeatureView(
        "every_type",
        entities=every_type.entities,
        ttl=timedelta(hours=10),
        schema=[
            Field("added", Float32),
            fields["words"],
            Field("small", Float64),
            fields["title"],
            Field("note", String),
            fields["flag"],
        ],
    )
    added = FeatureView("added_view", entities=every_type.entities, schema=[Field("x", Int32)])
    new = compile_plan(
        DefinitionSet([new_type, numbers, added, profile, affinity, by_name]),
        project="test",
        version=2,
        previous=store.published().plan,
    )
    old_group, new_group = (next(g for g in plan.groups if g.name == "movie") for plan in (store.published().plan, new))
    assert (old_group.generation, new_group.generation) == (1, 2)
    store.publish(replace(store.published().plan, filling=(new_group,)), over=store.published())
    write(store, numbers, [{"movie_id": 0, "event_ts": NOW_US + 5, "c": 77}])  # goes to both generations
    assert store.copy_rows(old_group, new_group) == 75
    assert read(redis_url, ["numbers:c"], {"movie_id": 0})["c"] == [77]
    store.publish(new, over=store.published())
    references = [
        "every_type:title",
        "every_type:words",
        "every_type:flag",
        "every_type:added",
        "every_type:small",
        "every_type:note",
        "numbers:c",
        "added_view:x",
    ]
    got = read(redis_url, references, {"movie_id": [0, 1, 2, 50]})
    assert got == {
        "title": ["t0", "t1", "t2", None],
        "words": [["a"]] * 3 + [["none"]],
        "flag": [True] * 3 + [None],
        "added": [None] * 4,
        "small": [None] * 4,  # of another type: to be filled from the source, not converted
        "note": [None] * 4,
        "c": [77, None, 2, None],
        "x": [None] * 4,
    }
    assert store.drop_rows(old_group) == 100
    assert read(redis_url, references, {"movie_id": [0, 1, 2, 50]}) == got


def to_a_new_layout(store: OnlineStore) -> tuple[ServingPlan, RowGroupPlan, RowGroupPlan]:
    """A plan that fills movies' rows of a new layout, and the groups of the old and the new layout."""
    published = store.published()
    fields = [*every_type.fields, Field("added", Float32)]
    changed = FeatureView("every_type", entities=every_type.entities, schema=fields)
    new = plan_of(views=[changed, numbers, affinity], version=2, previous=published.plan)
    old_group, new_group = (next(g for g in plan.groups if g.name == "movie") for plan in (published.plan, new))
    return replace(published.plan, filling=(new_group,)), old_group, new_group


def test_what_is_deleted_while_it_is_copied_stays_deleted(redis_url, store, monkeypatch) -> None:
    rows = [{"movie_id": i, "event_ts": NOW_US, "title": f"t{i}", "flag": True} for i in range(5)]
    write(store, every_type, rows)
    write(store, numbers, [{"movie_id": i, "event_ts": NOW_US, "c": i} for i in range(5)])
    filling, old, new = to_a_new_layout(store)
    store.publish(filling, over=store.published())
    read_all = RowStore._batches

    def read_then_delete(rows: RowStore, bucket: int, group: RowGroupPlan, names: list[bytes]) -> Any:
        batches = read_all(rows, bucket, group, names)
        assert store.delete("movie", {"movie_id": 1}) == 2
        store.delete("movie", {"movie_id": 2})
        write(store, numbers, [{"movie_id": 2, "event_ts": NOW_US + 1, "c": 22}])  # it comes back later
        return batches

    monkeypatch.setattr(RowStore, "_batches", read_then_delete)
    store.copy_rows(old, new)
    store.publish(replace(filling, groups=(new,), filling=()), over=store.published())
    got = read(redis_url, ["numbers:c", "every_type:title"], {"movie_id": list(range(5))})
    assert got["c"] == [0, None, 22, 3, 4]
    assert got["title"] == ["t0", None, None, "t3", "t4"]


def test_a_delete_finds_the_copies_in_a_layout_that_is_begun_meanwhile(redis_url, store, monkeypatch) -> None:
    write(store, numbers, [{"movie_id": i, "event_ts": NOW_US, "c": i} for i in range(5)])
    filling, old, new = to_a_new_layout(store)
    unlink = Keyspace.unlink

    def copy_then_unlink(*arguments: Any) -> int:
        if store.published().plan != filling:
            store.publish(filling, over=store.published())
            assert store.copy_rows(old, new) == 5
        return unlink(*arguments)

    monkeypatch.setattr(Keyspace, "unlink", copy_then_unlink)
    assert store.delete("movie", {"movie_id": 1}) == 2
    store.publish(replace(filling, groups=(new,), filling=()), over=store.published())
    assert read(redis_url, ["numbers:c"], {"movie_id": [0, 1, 2]})["c"] == [0, None, 2]


@pytest.mark.parametrize("learns", [True, False])
def test_rows_are_copied_when_creation_times_begin_or_cease_to_count(redis_url, store, learns: bool) -> None:
    made = ParquetSource("profile.parquet", event_timestamp="at", created_timestamp="made")
    knowing = FeatureView("profile", entities=profile.entities, ttl=profile.ttl, source=made, schema=profile.fields)
    before, after = (profile, knowing) if learns else (knowing, profile)
    store.teardown()
    old = store.publish(plan_of(views=[before]), over=None)
    rows = [{"user_id": i, "event_ts": NOW_US, "created_ts": NOW_US - 5, "age": i} for i in range(3)]
    write(store, before, rows)
    new = plan_of(views=[after], version=2, previous=old.plan)
    assert new.groups[0].generation == 2
    filling = store.publish(replace(old.plan, filling=new.groups), over=old)
    assert store.copy_rows(old.plan.groups[0], new.groups[0]) == 3
    store.publish(new, over=filling)
    assert read(redis_url, ["profile:age"], {"user_id": [0, 1, 2]})["age"] == [0, 1, 2]
    correction = [{"user_id": 1, "event_ts": NOW_US, "created_ts": NOW_US - 4, "age": 11}]
    assert write(store, after, correction) == (1, 0)
    assert write(store, after, [correction[0] | {"created_ts": NOW_US - 6}]) == ((0, 1) if learns else (1, 0))


def test_redis_expires_rows_only_when_asked_and_only_after_the_ttl(redis_url, store) -> None:
    import time

    now = time.time_ns() // 1000
    for expire in (False, True):
        store.teardown()
        store.publish(plan_of(everything, expire_keys=expire), over=None)
        write(store, profile, [{"user_id": 1, "event_ts": now, "age": 1}])
        write(store, numbers, [{"movie_id": 1, "event_ts": now, "c": 1}])
        with raw_client(redis_url) as client:
            of_user = [client.pttl(key) for key in client.scan_iter(match=b"*r:user:*")]
            of_movie = [client.pttl(key) for key in client.scan_iter(match=b"*r:movie:*")]
        assert of_movie == [-1], "numbers has no ttl, so its row stays"
        assert (of_user == [-1]) if not expire else (3_600_000 < of_user[0] <= 7_200_000)
