"""No answer mixes two plans, though a plan is published and old rows are dropped between any two commands."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from feature_store.definitions import FeatureService, FeatureView, Field, Int32
from feature_store.online import OnlineStore, Status
from feature_store.online.redis.topology import Single
from feature_store.registry.serving_plan import PrunedColumnPlan, PruningPlan
from tests.online.clients import CLIENTS
from tests.online.proxy import Proxy
from tests.online.worlds import NOW_US, batch, numbers, plan_of, user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUCKETS = 4
ROWS: dict[str, Any] = {"movie_id": list(range(40)), "user_id": list(range(40))}
# The commands of a request: an MGET for each bucket where buckets are on several nodes, else one MGET. With a deadline,
# each of the two row groups has so many.
COMMANDS = {"several nodes": BUCKETS, "one node": 1}


def publish(store: OnlineStore, version: int, *, shadowed: bool = False) -> None:
    """Publish a plan of two row groups whose values are all its version, and drop the rows of the plan before."""
    views = [
        FeatureView(name, entities=entities, schema=[Field(f"{name}_{version}", Int32)])
        for name, entities in (("v", numbers.entities), ("w", [user]))
    ]
    before = store.published()
    previous = before.plan if before else None
    service = FeatureService("service", features=views)
    plan = plan_of(service, views=views, version=version, previous=previous, buckets=BUCKETS)
    if shadowed:
        names = tuple(column.name for column in plan.services[0].columns)
        pruning = PruningPlan("p", "shadow", "error", names, (PrunedColumnPlan(names[1], "w", names[1], "Int32"),))
        plan = replace(plan, services=(replace(plan.services[0], pruning=pruning),))
    filled = store.publish(replace(previous or plan, filling=plan.groups), over=before)
    for view, group in zip(views, plan.groups, strict=True):
        key = view.entities[0].join_key
        rows = [{key: i, "event_ts": NOW_US, f"{view.name}_{version}": version} for i in range(40)]
        with store.filler(view.name, group) as writer:
            writer.write(batch(view, rows))
    store.publish(plan, over=filled)
    for group in previous.groups if previous else ():
        store.drop_rows(group)


class Step:
    """Calls `act` before a proxy passes on the command of a place, counted from 0."""

    def __init__(self, place: int, act: Callable[[], None]) -> None:
        self._place, self._act, self.commands = place, act, 0

    def __call__(self, command: list[bytes]) -> None:
        if self.commands == self._place:
            self._act()
        self.commands += 1


@pytest.fixture(params=list(COMMANDS))
def commands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many commands a request sends without a deadline."""
    monkeypatch.setattr(Single, "is_one_node", request.param == "one node")
    return COMMANDS[request.param]


@pytest.fixture(params=list(CLIENTS))
def client(request: pytest.FixtureRequest, proxy: Proxy, commands: int) -> Iterator[Any]:
    made = CLIENTS[request.param](proxy.url(), "test", timeout_s=20.0)
    yield made
    made.close()


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    made = Proxy(redis_url)
    yield made
    made.close()


@pytest.fixture
def store(redis_url: str) -> Iterator[OnlineStore]:
    made = OnlineStore(redis_url, "test")
    publish(made, 1)
    yield made
    made.close()


@pytest.mark.parametrize("deadline_ms", [None, 20_000], ids=["whole", "deadline"])
def test_a_plan_published_between_two_commands_of_a_request(
    client: Any, proxy: Proxy, store: OnlineStore, deadline_ms: float | None, commands: int
) -> None:
    commands *= 1 if deadline_ms is None else 2
    version = 1
    client.get_online_features("service", ROWS, now=NOW_US)
    for place in range(commands):
        seen = proxy.before = Step(place, partial(publish, store, version + 1))
        answer = client.get_online_features("service", ROWS, now=NOW_US, deadline_ms=deadline_ms)
        version += 1
        assert seen.commands > commands, "the request was sent, found another plan, and was sent again"
        assert answer.plan_version == version and answer.names == [f"v_{version}", f"w_{version}"]
        assert answer.to_dict() == {name: [version] * 40 for name in answer.names}
        assert {status for name in answer.names for status in answer.status[name]} == {Status.PRESENT}
        proxy.before = lambda command: None


def test_a_read_in_shadow_never_compares_two_plans(
    client: Any, proxy: Proxy, store: OnlineStore, commands: int
) -> None:
    """A request, its read in shadow and the read after that: a plan is published before each command in turn."""
    publish(store, 2, shadowed=True)
    version, reads = 2, 0
    for place in range(3 * commands):
        client.get_online_features("service", ROWS, now=NOW_US)  # so that the client has read the newest plan
        proxy.before = Step(place, partial(publish, store, version + 1, shadowed=True))
        answer = client.get_online_features("service", ROWS, now=NOW_US)
        proxy.before = lambda command: None
        assert answer.plan_version == (version if place >= commands else version + 1)
        assert answer.to_dict() == {name: [answer.plan_version] * 40 for name in answer.names}
        version += 1
        reads += client.shadow("service").reads
        assert (client.shadow("service").differing, client.shadow("service").failed) == (0, 0)
    assert reads
