"""Trouble around a client: plans that change, threads, forks, and servers that die, stall or send wrong bytes."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import redis

from feature_store.definitions import FeatureService, FeatureView, Field, Int32
from feature_store.errors import (
    ConfigError,
    CorruptRowError,
    NotFoundError,
    NotPublishedError,
    OnlineStoreError,
    StoreConnectionError,
    StoreTimeoutError,
)
from feature_store.online import OnlineClient, OnlineStore
from tests.online.clients import CLIENTS
from tests.online.worlds import NOW_US, batch, numbers, plan_of, profile, write
from tests.raw_redis import raw_client, with_user
from tests.servers import redis_server

service = FeatureService("service", features=[numbers, profile[["age"]]])
ROWS = {"movie_id": [1, 2, 3], "user_id": 1}


@pytest.fixture(params=list(CLIENTS))
def kind(request: pytest.FixtureRequest):
    return CLIENTS[request.param]


def fill(url: str) -> OnlineStore:
    store = OnlineStore(url, "test")
    store.publish(plan_of(service), over=store.published())
    write(
        store,
        numbers,
        [{"movie_id": i, "event_ts": NOW_US, "a": float(i), "b": float(i), "c": i} for i in range(1, 300)],
    )
    write(store, profile, [{"user_id": 1, "event_ts": NOW_US, "age": 30}])
    return store


def ask(client, rows=ROWS):
    return client.get_online_features("service", rows, now=NOW_US)


def test_a_new_plan_is_used_from_the_next_request_on(kind, redis_url) -> None:
    store, client = fill(redis_url), kind(redis_url, "test")
    assert ask(client).names == ["a", "b", "c", "age"]
    smaller = FeatureService("service", features=[numbers[["c"]]])
    other = FeatureService("other", features=[numbers[["a"]]])
    store.publish(plan_of(smaller, other, version=2, previous=store.published().plan), over=store.published())
    assert client.get_online_features("other", ROWS).names == ["a"], "a service of the new plan"
    assert ask(client).to_dict() == {"c": [1, 2, 3]} and ask(client).plan_version == 2
    store.publish(plan_of(other, version=3, previous=store.published().plan), over=store.published())
    with pytest.raises(NotFoundError):
        ask(client)
    store.teardown()
    with pytest.raises(NotPublishedError):
        ask(client)
    client.close()
    store.close()


def roll(store: OnlineStore, generation: int) -> None:
    """Publish a generation with a layout of its own. All its values are its number."""
    names = [f"g{generation}_{i}" for i in range(generation % 3 + 1)]
    view = FeatureView("v", entities=numbers.entities, schema=[Field(name, Int32) for name in names])
    before = store.published()
    previous = before.plan if before else None
    plan = plan_of(FeatureService("service", features=[view]), views=[view], version=generation, previous=previous)
    rows = batch(view, [{"movie_id": i, "event_ts": NOW_US} | dict.fromkeys(names, generation) for i in range(200)])
    before = store.publish(replace(previous or plan, filling=plan.groups), over=before)
    with store.filler("v", plan.groups[0]) as writer:
        writer.write(rows)
    store.publish(plan, over=before)
    if previous is not None:
        store.drop_rows(previous.groups[0])


def test_no_reader_sees_half_of_a_new_plan(kind, redis_url) -> None:
    """A response that mixes two generations, or lacks rows, was read half-way."""
    store = OnlineStore(redis_url, "test")
    roll(store, 1)
    stop = threading.Event()
    failures: list[str] = []
    seen: set[int] = set()

    def look() -> None:
        client = kind(redis_url, "test")
        while not stop.is_set():
            response = client.get_online_features("service", {"movie_id": list(range(200))}, now=NOW_US)
            values = set(np.unique(response.to_numpy()).tolist())
            if values != {float(response.plan_version)} or len(response.names) != response.plan_version % 3 + 1:
                failures.append(f"{response.names} {values} version {response.plan_version}")
            seen.add(response.plan_version)
        client.close()

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for generation in range(2, 40):
        roll(store, generation)
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures and len(seen) > 5
    store.close()


def test_threads_share_a_client(redis_url) -> None:
    store = fill(redis_url)
    wrong: list[object] = []

    def work(seed: int, client: OnlineClient) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(300):
            movies = rng.integers(1, 300, rng.integers(1, 50))
            got = ask(client, {"movie_id": movies, "user_id": 1}).to_numpy()
            if got[:, 2].tolist() != movies.tolist():
                wrong.append(movies)

    with OnlineClient(redis_url, "test") as client:
        threads = [threading.Thread(target=work, args=(seed, client)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    store.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_client_works_in_forked_children(redis_url) -> None:
    store = fill(redis_url)
    with OnlineClient(redis_url, "test") as client:
        ask(client)
        children = []
        for child in range(4):
            pid = os.fork()
            if pid == 0:
                ok = all(
                    ask(client, {"movie_id": [child + 1 + i % 50], "user_id": 1}).to_numpy()[0, 2] == child + 1 + i % 50
                    for i in range(200)
                )
                os._exit(0 if ok else 1)
            children.append(pid)
        for i in range(200):
            assert ask(client, {"movie_id": [i + 1], "user_id": 1}).to_numpy()[0, 2] == i + 1
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    store.close()


def test_a_server_that_restarts_is_found_again(kind) -> None:
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:
        store, client = fill(server.url), kind(server.url, "test", timeout_s=5.0)
        assert ask(client).to_dict()["c"] == [1, 2, 3]
        server.stop()
        with pytest.raises(StoreConnectionError, match="is the server running"):
            ask(client)
        server.start()
        assert ask(client).to_dict()["c"] == [1, 2, 3]
        server.stop()
        server.start()
        assert ask(client).to_dict()["c"] == [1, 2, 3], "no error when it was down between requests only"
        client.close()
        store.close()


def test_a_server_that_stalls_is_an_error_in_time(kind) -> None:
    with redis_server() as server:
        store, client = fill(server.url), kind(server.url, "test", timeout_s=0.2)
        ask(client)
        with redis.Redis.from_url(server.url) as admin:
            admin.client_pause(1500)
            start = time.monotonic()
            with pytest.raises(StoreTimeoutError, match="within 200 ms"):
                ask(client)
            assert time.monotonic() - start < 1
            admin.client_unpause()
        assert ask(client).to_dict()["c"] == [1, 2, 3], "the late answer is not taken for the next one's"
        client.close()
        store.close()


def test_nobody_there(kind) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"redis://:secret@127.0.0.1:{reserved.getsockname()[1]}"
        client = kind(url, "test")
        with pytest.raises(StoreConnectionError) as caught:
            ask(client)
        assert "secret" not in str(caught.value)
        client.close()
    with pytest.raises(ConfigError, match="expected redis://"):
        kind("http://localhost", "test")


def test_what_is_not_a_row_is_named(kind, redis_url) -> None:
    store, client = fill(redis_url), kind(redis_url, "test")
    with raw_client(redis_url) as admin:
        (key,) = [key for key in admin.keys("*r:movie:*") if key.endswith((2).to_bytes(8, "big"))]
        for damaged in (b"", b"short", admin.get(key) + b"longer", b"x" * len(admin.get(key))):
            admin.set(key, damaged)
            with pytest.raises(CorruptRowError, match=r"project test, row of movie\(movie_id=2\)"):
                ask(client)
        admin.delete(key)
        admin.lpush(key, "a list")
        assert ask(client).status["c"][1].name == "MISSING", "MGET takes what is no string for nothing"
    client.close()
    store.close()


def test_an_error_of_the_server_is_ours(kind, redis_url) -> None:
    fill(redis_url).close()
    with raw_client(redis_url) as admin:
        admin.acl_setuser("reader", enabled=True, nopass=True, commands=["+@connection", "+ping"])
    client = kind(with_user(redis_url, "reader:x"), "test")
    with pytest.raises(OnlineStoreError, match="NOPERM"):
        ask(client)
    client.close()
    with raw_client(redis_url) as admin:
        admin.acl_deluser("reader")
