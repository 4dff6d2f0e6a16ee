"""Requests with a deadline, on a Redis that stops: groups whose replies do not come are skipped."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.definitions.pruned import pruning_of
from feature_store.errors import ModelMismatchError, StoreTimeoutError
from feature_store.online import Status
from tests.online.clients import CLIENTS
from tests.online.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 1, 10, tzinfo=UTC)
FEATURES = """
from feature_store import *
import numpy as np
def view(name, entity):
    return FeatureView(name, entities=[entity], source=ParquetSource(f"{name}.parquet", event_timestamp="at"), schema=[Field(name + "_x", Float32, default=-1.0)])
user, shop, town = [Entity(name, join_key=name + "_id") for name in ("user", "shop", "town")]
a, b, c = view("a", user), view("b", shop), view("c", town)
@on_demand_feature_view(sources=[a, c], schema=[Field("both", Float32)])
def both(inputs):
    return {"both": (inputs["a_x"] + inputs["c_x"]).astype("float32")}
ranking = FeatureService("ranking", features=[a, b, c, both])
"""
GROUPS = {"user_id": "a", "shop_id": "b", "town_id": "c"}
ROWS: dict[str, Any] = {"user_id": [1, 2], "shop_id": 3, "town_id": [4, 5]}


@pytest.fixture
def store(tmp_path: Path, redis_url: str) -> Iterator[FeatureStore]:
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    (tmp_path / "features.py").write_text(FEATURES)
    at = pa.array([NOW - timedelta(days=1)] * 10, pa.timestamp("us", "UTC"))
    for name, key in (("a", "user_id"), ("b", "shop_id"), ("c", "town_id")):
        values = pa.array([10.0 * i for i in range(10)], pa.float32())
        pq.write_table(pa.table({key: list(range(10)), "at": at, f"{name}_x": values}), tmp_path / f"{name}.parquet")
    with FeatureStore(tmp_path) as made:
        made.apply()
        made.materialize(end=NOW)
        yield made


class Held(Proxy):
    """A proxy that can hold commands.

    Attributes:
        passing: how many more commands are passed on; None: all.
    """

    def __init__(self, url: str) -> None:
        self.passing: int | None = None
        self._released = threading.Event()
        super().__init__(url)
        self.before = self._hold

    def _hold(self, _command: list[bytes]) -> None:
        if self.passing == 0:
            self._released.wait(60)
        elif self.passing is not None:
            self.passing -= 1

    def release(self) -> None:
        """Pass on the held commands, and all later ones."""
        self.passing = None
        self._released.set()

    def close(self) -> None:
        self.release()
        super().close()


@pytest.fixture
def held(redis_url: str) -> Iterator[Held]:
    proxy = Held(redis_url)
    yield proxy
    proxy.close()


@pytest.fixture(params=list(CLIENTS))
def client(request: pytest.FixtureRequest, store: FeatureStore, held: Held) -> Iterator[Any]:
    functions = store.definitions.on_demand_feature_views
    # One connection: the first reply of another would count among the bytes that `held` delivers.
    made = CLIENTS[request.param](held.url(), "shop", transforms=functions, timeout_s=20.0, max_connections=1)
    yield made
    made.close()


FULL = {"a_x": [10.0, 20.0], "b_x": [30.0, 30.0], "c_x": [40.0, 50.0], "both": [50.0, 70.0]}


def skipped(client: Any) -> dict[str, int]:
    counts: dict[str, int] = getattr(client, "client", client).skipped
    return counts


def test_in_time_all_is_as_without_a_deadline(client: Any) -> None:
    found = client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=5000)
    whole = client.get_online_features("ranking", ROWS, now=NOW)
    assert found.to_dict() == whole.to_dict() == FULL
    assert found.to_numpy().tolist() == whole.to_numpy().tolist()
    assert skipped(client) == {}


def test_groups_that_do_not_come_in_time_are_skipped(client: Any, held: Held) -> None:
    client.get_online_features("ranking", ROWS, now=NOW)  # reads the plan
    held.passing = 2
    found = client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=500)
    assert found.to_dict() == FULL | {"c_x": [-1.0, -1.0], "both": [None, None]}
    assert found.status["a_x"] == found.status["b_x"] == [Status.PRESENT] * 2
    assert found.status["c_x"] == found.status["both"] == [Status.SKIPPED] * 2
    assert found.status_counts() == {Status.PRESENT: 4, Status.SKIPPED: 4}
    assert found.skipped == ["town"]
    assert found.traffic.keys == 3
    assert found.to_numpy()[:, :3].tolist() == [[10, 30, -1], [20, 30, -1]]
    assert skipped(client) == {"town": 1}
    held.release()
    assert client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=5000).to_dict() == FULL
    assert found.to_dict() == FULL | {"c_x": [-1.0, -1.0], "both": [None, None]}, "a late reply changes nothing"


def test_when_nothing_comes_in_time_all_is_skipped(client: Any, held: Held) -> None:
    client.get_online_features("ranking", ROWS, now=NOW)
    held.passing = 0
    found = client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=100)
    assert {status for name in found.names for status in found.status[name]} == {Status.SKIPPED}
    assert skipped(client) == {"user": 1, "shop": 1, "town": 1}


def test_without_a_plan_there_is_nothing_to_answer(client: Any, held: Held) -> None:
    held.passing = 0
    with pytest.raises(StoreTimeoutError):
        client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=100)


@pytest.mark.parametrize("missing", [False, True], ids=["all present", "first row missing"])
def test_a_server_that_stops_in_a_reply(client: Any, held: Held, missing: bool) -> None:
    """Groups with whole replies are served, also when bytes of the next reply came with them."""
    rows = ROWS | {"user_id": [999, 2]} if missing else ROWS
    full = client.get_online_features("ranking", rows, now=NOW).to_dict()
    parts = []
    for group in ("user_id", "shop_id", "town_id"):
        held.delivered = 0
        client.get_online_features([f"{GROUPS[group]}:{GROUPS[group]}_x"], {group: rows[group]}, now=NOW)
        parts.append(held.delivered)
    ends = [sum(parts[: i + 1]) for i in range(3)]
    for at in (0, ends[0] - 1, ends[0], ends[0] + 7, ends[1], ends[2] - 20):
        held.stop_after(at)
        found = client.get_online_features("ranking", rows, now=NOW, deadline_ms=1500)
        came = [end <= at for end in ends]
        late = {name for name, there in zip(("user", "shop", "town"), came, strict=True) if not there}
        assert set(found.skipped) == late, at
        for name, there in zip(("a_x", "b_x", "c_x"), came, strict=True):
            assert found.to_dict()[name] == (full[name] if there else [-1.0, -1.0]), at
        held.go_on()
        assert client.get_online_features("ranking", rows, now=NOW).to_dict() == full


def test_a_prune_plan_says_what_is_read_first(store: FeatureStore, client: Any, held: Held) -> None:
    pruning = pruning_of(store.applied(), "ranking", ["both"], plan="p", stage="mask", read_order=["c", "a", "b"])
    store.prune("ranking", pruning)
    client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=5000)
    held.passing = 1
    found = client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=300)
    assert found.to_dict() == {"a_x": [-1.0, -1.0], "b_x": [-1.0, -1.0], "c_x": [40.0, 50.0]}
    held.release()
    with pytest.raises(ModelMismatchError):
        client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=5000, plan="q")


def test_another_plan_that_was_published_is_read(store: FeatureStore, client: Any) -> None:
    client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=5000)
    store.prune("ranking", pruning_of(store.applied(), "ranking", ["b_x"], plan="p", stage="drop"))
    found = client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=5000)
    assert found.to_dict() == {name: values for name, values in FULL.items() if name != "b_x"}


def test_a_model_is_served_again_when_what_it_was_not_made_for_is_rolled_back(store: FeatureStore, client: Any) -> None:
    asked: Any = {"now": NOW, "deadline_ms": 5000, "model_features": list(FULL)}
    store.prune("ranking", pruning_of(store.applied(), "ranking", ["b_x"], plan="p", stage="mask"))
    with pytest.raises(ModelMismatchError):
        client.get_online_features("ranking", ROWS, **asked)
    store.prune("ranking", None)
    assert client.get_online_features("ranking", ROWS, **asked).to_dict() == FULL
