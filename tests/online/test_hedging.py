"""Hedged reads: a server that is late is not waited for, within a budget, and an answer always fits the plan."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from feature_store.online import OnlineStore
from feature_store.online.observer import Observer, Observers
from feature_store.online.redis.endpoint import Endpoint
from feature_store.online.redis.hedging import SHARE, Hedges
from feature_store.online.redis.resp import Command, ReplyParser
from tests.online.clients import CLIENTS
from tests.online.node_worlds import MISSING, NOW_US, USERS, ages, expected, publish
from tests.redis_nodes import PASSWORD, wait_for_replicas, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.redis_nodes import RedisSentinels


class Outcomes(Observer):
    """Counts outcomes, and keeps the highest load."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.load = 0.0

    def hedged(self, outcome: str, load: float) -> None:
        self.counts[outcome] += 1
        self.load = max(self.load, load)

    @property
    def sent(self) -> int:
        return self.counts["won"] + self.counts["lost"]


@pytest.fixture
def store(sentinels: RedisSentinels) -> Iterator[OnlineStore]:
    made = OnlineStore(sentinels.url, "shop", timeout_s=10.0)
    publish(made, 1)
    sentinels.wait_for_replicas()
    yield made
    made.close()


@pytest.fixture
def outcomes() -> Outcomes:
    return Outcomes()


@pytest.fixture(params=["blocking", "asyncio"])
def make_client(
    request: pytest.FixtureRequest, sentinels: RedisSentinels, store: OnlineStore, outcomes: Outcomes
) -> Iterator[Callable[[str, float], Any]]:
    """Makes clients that know the p95 of both replicas and have credit for some hedges."""
    opened: list[Any] = []

    def make(read_from: str, timeout_s: float) -> Any:
        url = sentinels.url_with(f"read_from={read_from}", "hedge=true")
        client = CLIENTS[request.param](url, "shop", timeout_s=timeout_s, observers=[outcomes])
        opened.append(client)
        for _ in range(240):
            assert ages(client) == expected(1)
        return client

    yield make
    for client in opened:
        client.close()


def read(client: Any, draw: random.Random) -> None:
    """Check an answer about entities of which some exist. A reply to another request would have other gaps."""
    asked = draw.sample([*USERS, *MISSING * 10], draw.randint(1, 60))
    response = client.get_online_features("s", {"user_id": asked}, now=NOW_US)
    (found,) = [values for name, values in response.to_dict().items() if name.startswith("age")]
    assert found == [None if user in MISSING else 1 for user in asked]


@pytest.mark.parametrize("read_from", ["replica", "nearest"])
def test_another_server_answers_for_one_that_hangs(
    sentinels: RedisSentinels, make_client: Callable[[str, float], Any], outcomes: Outcomes, read_from: str
) -> None:
    """Without hedges, a request would wait for half of its 60 s. What the server sends later is taken for no reply."""
    client, draw = make_client(read_from, 60.0), random.Random(1)
    for server in sentinels.replicas:
        before = outcomes.counts["won"]
        server.pause()
        try:
            for _ in range(6):
                read(client, draw)
        finally:
            server.resume()
        for _ in range(60):  # earns credit, and uses the connections again
            read(client, draw)

        assert outcomes.counts["won"] > before or read_from == "nearest"
    assert outcomes.load <= SHARE


def test_a_server_that_is_behind_the_plan_wins_no_hedge(
    sentinels: RedisSentinels, store: OnlineStore, make_client: Callable[[str, float], Any], outcomes: Outcomes
) -> None:
    client = make_client("replica", 3.0)
    primary, (late, behind) = sentinels.primary, sentinels.replicas
    behind("CONFIG", "SET", "masterauth", "wrong")
    primary("CLIENT", "KILL", "TYPE", "replica")
    try:
        wait_until(lambda: behind.info("replication")["master_link_status"] == "down", "a replica without its primary")
        publish(store, 2)
        wait_for_replicas(primary, late)
        while ages(client) != expected(2):  # the replica that is behind answers by the old plan, as long as it is known
            pass
        late.pause()
        before = outcomes.counts["lost"]
        while outcomes.counts["lost"] == before:  # until a request chooses the late replica
            assert ages(client) == expected(2)
        late.resume()
        for _ in range(10):
            assert ages(client) == expected(2)
    finally:
        late.resume()
        behind("CONFIG", "SET", "masterauth", PASSWORD)
        wait_for_replicas(primary, late, behind)


@pytest.mark.parametrize("make_client", ["asyncio"], indirect=True)
def test_a_store_that_is_slow_as_a_whole_gets_no_more_load(
    sentinels: RedisSentinels, make_client: Callable[[str, float], Any], outcomes: Outcomes
) -> None:
    """Of requests that all servers are late to answer, one for each server is hedged."""
    client = make_client("replica", 60.0)
    before, requests = outcomes.sent, 12
    refused = outcomes.counts["slow_store"]
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(ages(client))) for _ in range(requests)]
    for server in sentinels.servers:
        server.pause()
    for thread in threads:
        thread.start()
    most = len(sentinels.servers)
    try:
        wait_until(lambda: outcomes.counts["slow_store"] - refused >= requests - most, "requests that are not hedged")
    finally:
        for server in sentinels.servers:
            server.resume()
    for thread in threads:
        thread.join()
    assert answers == [expected(1)] * requests
    assert outcomes.sent - before <= most


def test_no_request_is_hedged_unless_the_url_says_so(sentinels: RedisSentinels, store: OnlineStore) -> None:
    outcomes = Outcomes()
    client = CLIENTS["blocking"](sentinels.url_with("read_from=replica"), "shop", timeout_s=1.0, observers=[outcomes])
    for _ in range(200):
        assert ages(client) == expected(1)
    for replica in sentinels.replicas:
        replica.pause()
    assert ages(client) == expected(1)
    assert not outcomes.counts
    client.close()


# -- what a client knows, without servers -----------------------------------------------------------------------------


def servers(count: int) -> list[Endpoint]:
    return [Endpoint(f"redis://localhost:{6000 + i}", 1.0) for i in range(count)]


def commands(size: int) -> list[Command]:
    return [Command(b"", b"x" * size, ReplyParser(1))]


@given(
    st.lists(
        st.tuples(st.integers(1, 1000), st.booleans(), st.integers(0, 2), st.integers(0, 3)), min_size=20, max_size=400
    )
)
def test_hedges_keep_their_budget_and_leave_late_servers_alone(steps: list[tuple[int, bool, int, int]]) -> None:
    """Each step is a request of some bytes, whether it is late, for which server, and how many requests end then."""
    outcomes, known = Outcomes(), servers(3)
    hedges = Hedges(Observers([outcomes]))
    under_way: list[tuple[Endpoint, Endpoint | None]] = []
    asked = spent = 0
    for size, is_late, index, ending in steps * 5:
        asked += size
        hedges.asked(commands(size))
        if is_late:
            slow = known[index]
            busy = {one for pair in under_way for one in pair}
            target = hedges.begin(slow, [one for one in known if one is not slow], size)
            assert target not in busy - {None}
            spent += size if target is not None else 0
            under_way.append((slow, target))
        assert spent <= SHARE * asked
        assert hedges.load == pytest.approx(spent / asked)
        for _ in range(min(ending, len(under_way))):
            hedges.end(*under_way.pop(0), has_won=True)
    for pair in under_way:
        hedges.end(*pair)
    targets = hedges.begin(known[0], known[1:], 0)
    assert targets is known[1], "a server is still taken for late"


def test_credit_of_a_quiet_time_pays_for_no_burst() -> None:
    hedges, (slow, other) = Hedges(Observers(())), servers(2)
    for _ in range(10_000):
        hedges.asked(commands(100))
    paid = 0
    while (target := hedges.begin(slow, [other], 100)) is not None:
        hedges.end(slow, target)
        paid += 1
    assert paid <= 100


@given(st.lists(st.floats(0.002, 10.0), min_size=1, max_size=700))
def test_a_request_is_late_after_the_p95_of_recent_answers(times: list[float]) -> None:
    hedges, (server,) = Hedges(Observers(())), servers(1)
    for i, seconds in enumerate(times, 1):
        hedges.answered(server, seconds)
        if i < 64:
            assert hedges.after(server) is None
        elif i % 32 == 0:
            recent = times[max(0, i - 256) : i]
            after = hedges.after(server)
            assert after is not None
            late = sum(seconds > after for seconds in recent)
            assert late <= 0.05 * len(recent) < late + sum(seconds == after for seconds in recent)
