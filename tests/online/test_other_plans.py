"""A client and successive plans: changed functions are rolled out, and errors of a plan end with it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from feature_store.definitions import DefinitionSet, FeatureService, Field, Float32, Int64, OnDemandFeatureView
from feature_store.definitions.on_demand import legacy_digest
from feature_store.errors import (
    FeatureStoreError,
    ModelMismatchError,
    NotFoundError,
    NotPublishedError,
    RequestError,
    TransformError,
)
from feature_store.online import OnlineStore, conversation
from feature_store.online.keys import epoch_key, plan_key
from feature_store.registry.compile import EARLIER_FUNCTIONS, compile_plan
from feature_store.registry.plan_document import plan_from_json, plan_to_json
from feature_store.registry.serving_plan import ServingPlan
from tests.online.clients import CLIENTS
from tests.online.worlds import NOW_US, VIEWS, affinity, numbers, profile, write
from tests.raw_redis import raw_client

if TYPE_CHECKING:
    from collections.abc import Iterator

ASKED = {"movie_id": [1], "user_id": [1]}


def first(inputs):
    return {"made": inputs["a"] + 1}


def second(inputs):
    return {"made": inputs["a"] + 2}


def third(inputs):
    return {"made": inputs["a"] + 3}


def fourth(inputs):
    return {"made": inputs["a"] + 4}


def fifth(inputs):
    return {"made": inputs["a"] + 5}


def sixth(inputs):
    return {"made": inputs["a"] + 6}


FUNCTIONS = (first, second, third, fourth, fifth, sixth)


def view(function: Any, dtype: Any = Float32) -> OnDemandFeatureView:
    return OnDemandFeatureView("made_of_a", sources=[numbers[["a"]]], schema=[Field("made", dtype)], function=function)


def plan_of(made: OnDemandFeatureView, version: int, previous: ServingPlan | None = None, features: Any = None) -> Any:
    service = FeatureService("s", features=features or [numbers[["a"]], made])
    definitions = DefinitionSet([*VIEWS.values(), made, service])
    return compile_plan(definitions, project="test", version=version, previous=previous)


@pytest.fixture
def store(redis_url: str) -> Iterator[OnlineStore]:
    store = OnlineStore(redis_url, "test")
    store.publish(plan_of(view(first), 1), over=None)
    write(store, numbers, [{"movie_id": 1, "event_ts": NOW_US, "a": 10.0}])
    yield store
    store.close()


@pytest.fixture(params=CLIENTS)
def make_client(request, redis_url: str) -> Iterator[Any]:
    made = []

    def make(*functions: Any) -> Any:
        made.append(
            CLIENTS[request.param](redis_url, "test", timeout_s=10, transforms=[view(one) for one in functions])
        )
        return made[-1]

    yield make
    for client in made:
        client.close()


def publish(store: OnlineStore, plan: ServingPlan) -> ServingPlan:
    store.publish(plan, over=store.published())
    return plan


def put(redis: Any, plan: ServingPlan) -> None:
    """Publish a plan over any publication, as `apply` does to repair it."""
    epoch = os.urandom(8).hex()
    redis.mset({plan_key("test"): plan_to_json(replace(plan, epoch=epoch)), epoch_key("test", 0): epoch})


def made_by(client: Any) -> float:
    response = client.get_online_features("s", ASKED, now=NOW_US)
    return response.to_dict()["made"][0] - 10


def test_old_and_new_code_answer_during_a_roll_out(make_client, store) -> None:
    old, new = make_client(first), make_client(second)
    assert made_by(old) == 1
    with pytest.raises(TransformError, match="apply the changed definitions, then deploy"):
        made_by(new)
    plan = publish(store, plan_of(view(second), 2, store.require_published().plan))
    assert (made_by(old), made_by(new)) == (1, 2)
    for client, function in ((old, first), (new, second)):
        assert client.get_online_features("s", ASKED).transforms == {"made_of_a": view(function).digest}
    publish(store, plan_of(view(first), 3, plan))  # and back again
    assert (made_by(old), made_by(new)) == (1, 2)


def test_a_server_that_has_both_runs_the_newest_that_is_applied(make_client, store) -> None:
    both = make_client(second, first)
    assert made_by(both) == 1
    publish(store, plan_of(view(second), 2, store.require_published().plan))
    assert made_by(both) == 2


def test_a_plan_lists_a_few_earlier_functions(store) -> None:
    plan = store.require_published().plan
    for version, function in enumerate(FUNCTIONS[1:], start=2):
        plan = plan_of(view(function), version, plan)
    (transform,) = plan.transforms
    newest_first = [view(function).digest for function in reversed(FUNCTIONS)]
    assert [transform.digest, *transform.earlier] == newest_first[: 1 + EARLIER_FUNCTIONS]
    again = plan_of(view(FUNCTIONS[-1]), 7, plan)
    assert again.transforms == plan.transforms, "an apply that changes something else keeps them"


@pytest.mark.parametrize("dtype", [Int64])
def test_another_schema_is_no_roll_out(make_client, store, dtype: Any) -> None:
    old = make_client(first)
    plan = publish(store, plan_of(view(second, dtype), 2, store.require_published().plan))
    assert plan.transforms[0].earlier == ()
    with pytest.raises(TransformError, match="changed inputs or outputs need a new view name"):
        made_by(old)


def test_plans_with_digests_of_before_are_served(make_client, store) -> None:
    plan = store.require_published().plan
    old = replace(plan.transforms[0], digest=legacy_digest(first), function="nowhere:first")
    plan = publish(store, replace(plan, transforms=(old,)))
    client = make_client(first)
    assert made_by(client) == 1
    with pytest.raises(TransformError):
        made_by(make_client(second))
    publish(store, plan_of(view(second), 2, plan))  # the first apply of this release, which changes the code, too
    assert (made_by(client), made_by(make_client(second))) == (1, 2)


# -- errors that a plan causes ----------------------------------------------------------------------------------------


def without_service(plan: ServingPlan) -> ServingPlan:
    return replace(plan, services=())


def without_features(plan: ServingPlan) -> ServingPlan:
    return plan_of(view(first), 2, features=[numbers[["b"]]])


def with_other_code(plan: ServingPlan) -> ServingPlan:
    return plan_of(view(second), 2)


def with_other_keys(plan: ServingPlan) -> ServingPlan:
    return plan_of(view(first), 2, features=[numbers[["a"]], view(first), affinity, profile])


BAD = [
    (without_service, NotFoundError, {}),
    (without_features, ModelMismatchError, {"model_features": ["a", "made"]}),
    (with_other_code, TransformError, {}),
    (with_other_keys, RequestError, {"entity_rows": {"movie_id": [1]}}),
    (None, NotPublishedError, {}),
    (b"{}", NotPublishedError, {}),
    (b'{"project": "../x", "version": 1}', NotPublishedError, {}),
]


@pytest.mark.parametrize(("bad", "error", "options"), BAD, ids=lambda value: getattr(value, "__name__", repr(value)))
@pytest.mark.parametrize("deadline_ms", [None, 10_000])
def test_an_error_of_a_plan_ends_with_the_plan(make_client, store, redis_url, bad, error, options, deadline_ms) -> None:
    client, newcomer = make_client(first), make_client(first)
    good = store.require_published().plan
    redis = raw_client(redis_url)

    def ask(client: Any) -> list[Any]:
        about = {"entity_rows": ASKED, "now": NOW_US, "deadline_ms": deadline_ms} | options
        return client.get_online_features("s", **about).to_dict()["made"]

    assert ask(client) == [11.0]
    for _ in range(2):
        if callable(bad):
            publish(store, bad(good))
        elif bad is None:
            redis.delete(plan_key("test"), epoch_key("test", 0))
        else:
            redis.mset({plan_key("test"): bad, epoch_key("test", 0): os.urandom(8).hex()})
        for one in (client, newcomer):
            for _ in range(3):
                with pytest.raises(error):
                    ask(one)
        put(redis, good)
        assert ask(client) == ask(newcomer) == [11.0]


def test_a_plan_that_cannot_be_read_is_parsed_once(make_client, store, redis_url, monkeypatch) -> None:
    client = make_client(first)
    made_by(client)
    raw_client(redis_url).mset({plan_key("test"): b"{}", epoch_key("test", 0): os.urandom(8).hex()})
    parsed = []
    monkeypatch.setattr(
        conversation, "plan_from_json", lambda document: parsed.append(document) or plan_from_json(document)
    )
    for _ in range(5):
        with pytest.raises(FeatureStoreError):
            made_by(client)
    assert len(parsed) == 1
