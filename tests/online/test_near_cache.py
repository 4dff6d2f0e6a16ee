"""The near-cache of both clients, on a real server: it saves reads, and gives no value that a read would not give."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import redis

from feature_store.definitions import FeatureService
from feature_store.errors import ConfigError
from feature_store.online import OnlineClient, OnlineStore
from tests.online.clients import CLIENTS
from tests.online.near.relay import Relay
from tests.online.test_one_plan import publish as publish_version
from tests.online.worlds import HOUR_US, NOW_US, by_name, every_type, numbers, plan_of, profile, write
from tests.raw_redis import raw_client, with_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOUND_MS = 100.0
MOVIES = list(range(60))
SERVICES = (
    FeatureService("small", features=[numbers, profile]),
    FeatureService("all", features=[numbers, profile, every_type]),
    FeatureService("names", features=[by_name]),
)


@pytest.fixture
def store(redis_url: str) -> Iterator[OnlineStore]:
    store = OnlineStore(redis_url, "test")
    yield store
    store.close()


@pytest.fixture(params=list(CLIENTS))
def make_client(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Callable[..., Any]]:
    made = []

    def make(url: str = redis_url, **options: Any) -> Any:
        options = {"cache": {"movie": "1MB"}, "cache_bound_ms": BOUND_MS, "timeout_s": 20.0} | options
        made.append(CLIENTS[request.param](url, "test", **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def fill(store: OnlineStore, buckets: int = 1) -> None:
    store.publish(plan_of(*SERVICES, buckets=buckets), over=store.published())
    write(store, numbers, [row(movie, movie) for movie in MOVIES[:40]])
    texts = [{"title": f"title {i}", "words": ["a", str(i)]} if i % 3 else {"title": None} for i in MOVIES]
    write(store, every_type, [{"movie_id": i, "event_ts": NOW_US, **texts[i]} for i in MOVIES[:50]])
    write(store, profile, [{"user_id": 1, "event_ts": NOW_US, "age": 30}])
    write(store, by_name, [{"shop_id": "x" * i, "user_id": 1, "event_ts": NOW_US, "visits": i} for i in range(1, 70)])


def row(movie: int, value: float, at: int = NOW_US) -> dict[str, Any]:
    return {"movie_id": movie, "event_ts": at, "a": value}


def a_of(client: Any, movies: list[int], service: str = "small", **options: Any) -> list[Any]:
    rows = {"user_id": 1, "movie_id": movies}
    return list(client.get_online_features(service, rows, now=NOW_US, **options).to_dict()["a"])


def hears(client: Any) -> None:
    """Wait until the client has heard of all earlier writes, and has kept the values that it read."""
    state = state_of(client)
    until(lambda: state_of(client).renewals >= state.renewals + 2)


def state_of(client: Any) -> Any:
    return client.cache if isinstance(client, OnlineClient) else client.client.cache


def until(is_so: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.002)


def test_keys_that_were_read_are_not_read_again(make_client, store) -> None:
    fill(store)
    client = make_client()
    client.plan()
    hears(client)
    a_of(client, MOVIES)
    hears(client)
    assert a_of(client, MOVIES) == [float(i) if i < 40 else None for i in MOVIES]  # absent rows are kept, too
    movie = state_of(client).groups["movie"]
    assert (movie.hits, movie.misses, movie.entries) == (60, 60, 60)
    assert state_of(client).is_active
    assert state_of(client).lag_ms < BOUND_MS


@pytest.mark.parametrize("buckets", [1, 3])
@pytest.mark.parametrize("deadline_ms", [None, 20_000])
def test_answers_are_those_of_a_client_without_it(make_client, store, redis_url, buckets, deadline_ms) -> None:
    fill(store, buckets)
    client = make_client(cache={"movie": "1MB", "shop+user": 200_000, "user": "0.2 MB"})
    requests = [
        ("small", {"user_id": 1, "movie_id": MOVIES[:7]}),
        ("all", {"user_id": 2, "movie_id": [3, 3, 45, 59, 3, 12]}),
        ("all", {"user_id": 1, "movie_id": MOVIES}),
        ("small", {"user_id": 1, "movie_id": MOVIES[5:50]}),
        ("names", {"user_id": 1, "shop_id": ["x", "xx", "none", "", "x" * 36, "x" * 37, "x" * 60]}),
        ("all", {"user_id": 1, "movie_id": 7}),
    ]
    with OnlineClient(redis_url, "test") as plain:
        client.plan()
        for _ in range(3):
            hears(client)
            for service, rows in requests:
                expected = plain.get_online_features(service, rows, now=NOW_US)
                answer = client.get_online_features(service, rows, now=NOW_US, deadline_ms=deadline_ms)
                assert answer.to_dict() == expected.to_dict()
                assert dict(answer.status) == dict(expected.status)
                assert dict(answer.event_timestamps) == dict(expected.event_timestamps)
                assert answer.to_arrow().equals(expected.to_arrow())
    groups = state_of(client).groups
    assert groups["movie"].hits > groups["movie"].misses
    assert groups["shop+user"].entries == 5  # two keys are longer than 48 bytes
    assert groups["user"].entries == 2


def test_expiry_follows_the_rows_own_times(make_client, store) -> None:
    fill(store)
    client = make_client(cache={"user": "1MB"})
    client.plan()
    ages = []
    for now in (NOW_US, NOW_US + HOUR_US, NOW_US + HOUR_US + 1):
        hears(client)
        response = client.get_online_features("small", {"user_id": 1, "movie_id": 1}, now=now)
        ages.append((response.to_dict()["age"][0], response.status["age"][0].name))
    assert ages == [(30, "PRESENT"), (30, "PRESENT"), (None, "EXPIRED")]
    assert state_of(client).groups["user"].hits == 2


def test_a_write_is_seen_once_it_is_heard_of(make_client, store) -> None:
    fill(store)
    client = make_client()
    client.plan()
    for version in range(1, 6):
        hears(client)
        a_of(client, MOVIES)
        write(store, numbers, [row(movie, movie + 1000 * version, NOW_US + version) for movie in (3, 50)])
        hears(client)
        values = a_of(client, MOVIES)
        assert (values[3], values[50], values[4]) == (3 + 1000 * version, 50 + 1000 * version, 4)
    store.delete("movie", {"movie_id": 3})
    hears(client)
    assert a_of(client, [3, 4]) == [None, 4]


def test_a_write_is_seen_after_the_bound_though_nothing_is_heard(make_client, store, redis_url) -> None:
    fill(store)
    relay = Relay(redis_url)
    client = make_client(relay.url())
    client.plan()
    hears(client)
    a_of(client, MOVIES)
    hears(client)
    relay.invalidations.clear()
    write(store, numbers, [row(3, 99.0, NOW_US + 1)])
    until(lambda: not state_of(client).is_active)
    assert a_of(client, MOVIES)[3] == 99.0
    relay.invalidations.set()
    until(lambda: state_of(client).is_active)
    assert a_of(client, MOVIES)[3] == 99.0
    relay.close()


def test_a_reply_that_an_invalidation_overtakes_is_not_kept(make_client, store, redis_url) -> None:
    fill(store)
    relay = Relay(redis_url)
    client = make_client(relay.url())
    a_of(client, [1])
    hears(client)
    relay.replies.clear()
    answers: list[Any] = []
    sent = commands_of(redis_url, "mget")
    reader = threading.Thread(target=lambda: answers.append(a_of(client, MOVIES)))
    reader.start()
    until(lambda: commands_of(redis_url, "mget") > sent)  # Redis has read the old value
    write(store, numbers, [row(3, 99.0, NOW_US + 1)])
    hears(client)
    relay.replies.set()
    reader.join()
    assert answers[0][3] == 3
    hears(client)
    assert a_of(client, MOVIES)[3] == 99.0
    assert state_of(client).groups["movie"].hits > 40  # the other values were kept
    relay.close()


def test_a_lost_connection_empties_it_until_there_is_another(make_client, store, redis_url) -> None:
    fill(store)
    relay = Relay(redis_url)
    client = make_client(relay.url())
    client.plan()
    hears(client)
    a_of(client, MOVIES)
    hears(client)
    assert state_of(client).groups["movie"].entries == 60
    losses = state_of(client).losses
    relay.break_hearing()
    until(lambda: state_of(client).losses > losses)
    write(store, numbers, [row(3, 99.0, NOW_US + 1)])
    assert a_of(client, MOVIES)[3] == 99.0
    until(lambda: state_of(client).is_active)
    hears(client)
    assert a_of(client, MOVIES)[3] == 99.0
    assert state_of(client).error is None
    relay.close()


def test_a_server_that_refuses_to_track_leaves_the_client_without_it(make_client, store, redis_url) -> None:
    fill(store)
    with raw_client(redis_url) as admin:
        admin.execute_command("ACL", "SETUSER", "reader", "on", ">p", "~*", "+@read", "+ping", "+hello", "+auth")
        client = make_client(with_user(redis_url, "reader:p"))
        client.plan()
        until(lambda: state_of(client).error is not None)
        assert "TRACKING" in str(state_of(client).error)
        assert a_of(client, [3, 4]) == [3, 4]
        assert not state_of(client).is_active
        admin.execute_command("ACL", "SETUSER", "reader", "+client|tracking")
        until(lambda: state_of(client).is_active)
        assert a_of(client, [3, 4]) == [3, 4]
        admin.execute_command("ACL", "DELUSER", "reader")


def test_flushing_all_empties_it(make_client, store, redis_url) -> None:
    fill(store)
    client = make_client()
    client.plan()
    hears(client)
    a_of(client, MOVIES)
    hears(client)
    with raw_client(redis_url) as admin:
        admin.flushall()
    store.publish(plan_of(*SERVICES), over=store.published())
    hears(client)
    assert a_of(client, MOVIES) == [None] * 60


def test_no_answer_mixes_two_plans(make_client, store) -> None:
    publish_version(store, 1)
    client = make_client(cache={"movie": "1MB", "user": "1MB"})
    rows = {"movie_id": list(range(40)), "user_id": list(range(40))}
    for version in range(1, 6):
        if version > 1:
            publish_version(store, version)
        for _ in range(3):
            answer = client.get_online_features("service", rows, now=NOW_US).to_dict()
            assert {name: set(values) for name, values in answer.items() if "_id" not in name} == {
                f"v_{version}": {version},
                f"w_{version}": {version},
            }
            hears(client)
    assert state_of(client).groups["movie"].hits >= 40


def test_a_forked_child_begins_with_none(store, redis_url) -> None:
    fill(store)
    with OnlineClient(redis_url, "test", cache={"movie": "1MB"}, cache_bound_ms=BOUND_MS) as client:
        client.plan()
        hears(client)
        a_of(client, MOVIES)
        hears(client)
        read, written = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            entries = client.cache.groups["movie"].entries
            a_of(client, MOVIES)
            until(lambda: client.cache.is_active)
            a_of(client, MOVIES)
            hears(client)
            values, hits = a_of(client, MOVIES), client.cache.groups["movie"].hits
            os.write(written, repr((entries, values[3], hits >= 60)).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 100) == b"(0, 3.0, True)"
        assert client.cache.groups["movie"].entries == 60
        os.close(read)
        os.close(written)


def test_threads_share_it_and_no_value_goes_back(store, redis_url) -> None:
    """The values of a key only grow. No thread may see a smaller value than before, or a value older than the bound."""
    fill(store)
    acknowledged = [0.0] * 60
    wrong: list[Any] = []
    over = threading.Event()

    def reads(client: OnlineClient) -> None:
        seen = [0.0] * 60
        while not over.is_set():
            least = list(acknowledged)
            time.sleep(BOUND_MS / 1000)  # the bound of every value that was acknowledged before is over
            for _ in range(20):
                values = [value or 0.0 for value in a_of(client, MOVIES)]
                for movie, value in enumerate(values):
                    if value < max(seen[movie], least[movie]):
                        wrong.append((movie, value, seen[movie], least[movie]))
                seen = values

    with OnlineClient(redis_url, "test", cache={"movie": 20_000}, cache_bound_ms=BOUND_MS) as client:
        threads = [threading.Thread(target=reads, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for version in range(100, 700):
            chosen = MOVIES[version % 7 :: 7]
            write(store, numbers, [row(movie, float(version), NOW_US + version) for movie in chosen])
            for movie in chosen:
                acknowledged[movie] = float(version)
        over.set()
        for thread in threads:
            thread.join()
        assert client.cache.groups["movie"].hits > 0
        assert client.cache.groups["movie"].invalidated > 0
    assert wrong == []


def test_an_answer_for_which_no_epoch_was_read_is_skipped(make_client, store, redis_url) -> None:
    fill(store)
    relay = Relay(redis_url)
    client = make_client(relay.url(), cache={"movie": "1MB", "user": "1MB"})
    client.plan()
    for _ in range(2):
        hears(client)
        a_of(client, [1, 2])
    hears(client)
    relay.replies.clear()
    rows = {"user_id": 1, "movie_id": [1, 2]}
    answer = client.get_online_features("small", rows, now=NOW_US, deadline_ms=30)
    relay.replies.set()
    assert {status.name for column in answer.status.values() for status in column} == {"SKIPPED"}
    defaults = {"a": None, "b": 7.0, "c": None, "score": None, "age": None}
    assert answer.to_dict() == {name: [default] * 2 for name, default in defaults.items()}
    of_row = np.array([defaults[name] for name in answer.columns], np.float32)
    assert np.array_equal(answer.to_numpy(), [of_row, of_row], equal_nan=True)
    assert {time for column in answer.event_timestamps.values() for time in column} == {None}
    assert a_of(client, [1, 2], deadline_ms=20_000) == [1, 2]
    relay.close()


class Provider(redis.CredentialProvider):
    """Gives credentials once, then fails a few times, as a token service does that is down for a moment."""

    calls, fails = 0, False

    def get_credentials(self) -> tuple[str, str]:
        self.calls += 1
        if self.fails and threading.current_thread().name == "feature-store near-cache":
            raise RuntimeError("no token")
        return ("default", "")

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()


def test_a_credential_provider_that_fails_for_a_moment_does_not_end_it(store, redis_process) -> None:
    fill(store)
    provider = Provider()
    pool = redis.ConnectionPool(
        connection_class=redis.UnixDomainSocketConnection, path=str(redis_process.socket), credential_provider=provider
    )
    with raw_client(redis_process.url) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "nopass")
        with OnlineClient(pool, "test", cache={"movie": "1MB"}, cache_bound_ms=BOUND_MS) as client:
            client.plan()
            hears(client)
            provider.fails = True
            for one in admin.client_list():
                if "t" in one["flags"]:
                    admin.client_kill_filter(_id=one["id"])
            until(lambda: "RuntimeError" in str(client.cache.error))
            provider.fails = False
            until(lambda: client.cache.is_active and client.cache.error is None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": {"movies": "1MB"}}, "cache['movies']: expected a row group or stream view of project test: movie"),
        ({"cache": {"movie": "lots"}}, "cache['movie']: expected bytes, or a text such as 64MB, got 'lots'"),
        ({"cache": {"movie": 0}}, "cache['movie']: expected bytes"),
        ({"cache": {"movie": True}}, "cache['movie']: expected bytes"),
        ({"cache_bound_ms": 0}, "cache_bound_ms: expected milliseconds, at least 1, got 0"),
        ({"url": "redis+cluster://127.0.0.1:1?read_from=replica"}, "cache: read_from=replica reads from replicas"),
        ({"url": "redis+sentinel://127.0.0.1:1/x?read_from=nearest"}, "cache: read_from=nearest reads from replicas"),
    ],
)
def test_bad_options_say_what_is_wrong(make_client, store, options, message) -> None:
    fill(store)
    with pytest.raises(ConfigError) as raised:
        make_client(**options).plan()
    assert message in str(raised.value)


def test_a_client_that_is_dropped_ends_its_thread(store, redis_url) -> None:
    fill(store)
    client = OnlineClient(redis_url, "test", cache={"movie": "1MB"}, cache_bound_ms=BOUND_MS)
    client.plan()
    hears(client)
    assert "near-cache" in " ".join(thread.name for thread in threading.enumerate())
    del client
    until(lambda: "near-cache" not in " ".join(thread.name for thread in threading.enumerate()))


def commands_of(redis_url: str, name: str) -> int:
    with raw_client(redis_url) as admin:
        return int(admin.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0))
