"""A small store for tests of several Redis servers: rows and counts that are a plan's version, and their oracles."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.definitions import (
    Aggregation,
    DefinitionSet,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Int32,
    Int64,
    KafkaSource,
    StreamFeatureView,
)
from feature_store.errors import (
    ClusterDownError,
    FenceError,
    OnlineStoreError,
    StoreConnectionError,
    StoreTimeoutError,
)
from feature_store.online import OnlineClient, OnlineStore
from feature_store.online.batch import RowBatch, Values
from feature_store.registry.compile import compile_plan
from tests.online.stream_worlds import merge_events

if TYPE_CHECKING:
    from collections.abc import Callable

    from feature_store.registry.serving_plan import ServingPlan
BUCKETS = 8
NOW_US = 1_700_000_000_000_000
USERS = list(range(60))
MISSING = [1000, 1001, 1002]
_user = Entity("user", join_key="user_id")
_events = KafkaSource(
    "clicks", topic="clicks", event_timestamp="ts", schema=[Field("user_id", Int64), Field("n", Int32)]
)
_clicks = StreamFeatureView(
    "clicks", entities=[_user], source=_events, aggregations=[Aggregation("n", "count", windows=[timedelta(hours=1)])]
)


def plan(version: int, previous: ServingPlan | None = None) -> ServingPlan:
    """A plan whose service has a column named after the version."""
    profile = FeatureView("profile", entities=[_user], schema=[Field(f"age_{version}", Int32)])
    definitions = DefinitionSet([profile, _clicks, FeatureService("s", features=[profile])])
    return compile_plan(definitions, project="shop", version=version, previous=previous, buckets=BUCKETS)


def publish(store: OnlineStore, version: int) -> None:
    """Publish a plan whose values are all its version, and drop the rows of the plan before, as a rollout does."""
    before = store.published()
    previous = before.plan if before else None
    made = plan(version, previous)
    if previous is None:
        store.publish(made, over=None)
        write(store, version)
        return
    filled = store.publish(replace(previous, filling=made.groups), over=before)
    with store.filler("profile", made.groups[0]) as writer:
        writer.write(rows(version))
    store.publish(made, over=filled)
    for group in previous.groups:
        store.drop_rows(group)


def rows(version: int, users: list[int] = USERS) -> RowBatch:
    ids = np.array(users, np.int64)
    times = np.full(len(ids), NOW_US)
    ages = Values(np.full(len(ids), version, np.int32), np.zeros(len(ids), bool))
    return RowBatch({"user_id": ids}, times, times, {f"age_{version}": ages})


def write(store: OnlineStore, version: int, users: list[int] = USERS) -> None:
    with store.writer("profile") as writer:
        writer.write(rows(version, users))


def ages(client: Any) -> dict[str, list[Any]]:
    """The ages that a client reads, of all users and of some that do not exist."""
    response = client.get_online_features("s", {"user_id": USERS + MISSING}, now=NOW_US)
    return {name: values for name, values in response.to_dict().items() if name.startswith("age")}


def expected(version: int) -> dict[str, list[Any]]:
    return {f"age_{version}": [version] * len(USERS) + [None] * len(MISSING)}


EVENTS = [
    {"user_id": i % 23, "shop_id": "s", "ts": NOW_US - i * 1000, "price": 1.0, "action": "buy"} for i in range(120)
]
BATCH = 10


def stream(url: str, before_batch: Callable[[int], None]) -> None:
    """Merge all events as a worker does: batch after batch, and after an error again from the fences.

    Args:
        url: the URL of the store.
        before_batch: called with n before the n-th batch is sent.
    """
    store = OnlineStore(url, "test", timeout_s=2.0)
    batches = 0
    while True:
        try:
            with store.tile_writer("activity") as writer:
                while True:
                    fences = [found.get("clicks:0", 0) for found in writer.fences()]
                    if min(fences) == len(EVENTS):
                        return
                    before_batch(batches)
                    batches += 1
                    for bucket, start in enumerate(fences):
                        end = min(start + BATCH, len(EVENTS))
                        if start < end:
                            merge_events(writer, EVENTS[start:end], {"clicks:0": (start or None, end)}, only=bucket)
        except OnlineStoreError as error:
            assert isinstance(error, (FenceError, StoreConnectionError, StoreTimeoutError, ClusterDownError)), error
        finally:
            store.close()


def counts(url: str) -> list[int]:
    with OnlineClient(url, "test", timeout_s=10.0) as client:
        asked = client.get_online_features(["activity:price_count_1h"], {"user_id": list(range(23))}, now=NOW_US)
        found: list[int] = asked.to_dict()["price_count_1h"]
    return found


def oracle() -> list[int]:
    return [sum(event["user_id"] == user for event in EVENTS) for user in range(23)]
