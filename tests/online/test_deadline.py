"""Requests with a deadline against a Redis that answers slowly: what is less important is skipped, the rest is right."""

from __future__ import annotations

import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.definitions.pruned import pruning_of
from feature_store.errors import ModelMismatchError, StoreTimeoutError
from feature_store.online import AsyncOnlineClient, OnlineClient, Status

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
ROWS = {"user_id": [1, 2], "shop_id": 3, "town_id": [4, 5]}


class SlowRedis:
    """A proxy that lets each request wait."""

    def __init__(self, url: str) -> None:
        self._path, self.delay_s, self.requests = urlsplit(url).path, 0.0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._path)
            threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pass_back, args=(server, client), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with server:
            while piece := _received(client):
                self.requests += 1
                time.sleep(self.delay_s)
                server.sendall(piece)
            server.shutdown(socket.SHUT_RDWR)

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        with client:
            while piece := _received(server):
                try:
                    client.sendall(piece)
                except OSError:
                    return

    def close(self) -> None:
        self._listener.close()


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(1 << 16)
    except OSError:
        return b""


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


@pytest.fixture
def slow(redis_url: str) -> Iterator[SlowRedis]:
    proxy = SlowRedis(redis_url)
    yield proxy
    proxy.close()


@pytest.fixture
def client(store: FeatureStore, slow: SlowRedis) -> Iterator[OnlineClient]:
    with OnlineClient(slow.url, "shop", transforms=store.definitions.on_demand_feature_views) as made:
        yield made


FULL = {"a_x": [10.0, 20.0], "b_x": [30.0, 30.0], "c_x": [40.0, 50.0], "both": [50.0, 70.0]}


def test_in_time_all_is_as_without_a_deadline(client: OnlineClient) -> None:
    found = client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=5000)
    whole = client.get_online_features("ranking", ROWS, now=NOW)
    assert found.to_dict() == whole.to_dict() == FULL
    assert found.to_numpy().tolist() == whole.to_numpy().tolist()
    assert client.skipped == {}


def test_what_does_not_come_in_time_is_its_default_and_said_to_be_skipped(
    client: OnlineClient, slow: SlowRedis
) -> None:
    client.get_online_features("ranking", ROWS, now=NOW)  # the plan is read
    slow.delay_s = 0.2
    started = time.monotonic()
    found = client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=500)
    assert time.monotonic() - started < 0.6
    assert found.to_dict() == FULL | {"c_x": [-1.0, -1.0], "both": [None, None]}
    assert found.status["a_x"] == found.status["b_x"] == [Status.PRESENT] * 2
    assert found.status["c_x"] == found.status["both"] == [Status.SKIPPED] * 2
    assert found.status_counts() == {Status.PRESENT: 4, Status.SKIPPED: 4}
    assert found.skipped == ["town"]
    assert found.traffic.keys == 3
    assert found.to_numpy()[:, :3].tolist() == [[10, 30, -1], [20, 30, -1]]
    assert client.skipped == {"town": 1}
    slow.delay_s = 0.0
    assert client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=5000).to_dict() == FULL


def test_when_nothing_comes_in_time_all_is_skipped(client: OnlineClient, slow: SlowRedis) -> None:
    client.get_online_features("ranking", ROWS, now=NOW)
    slow.delay_s = 0.3
    found = client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=100)
    assert {status for name in found.names for status in found.status[name]} == {Status.SKIPPED}
    assert client.skipped == {"user": 1, "shop": 1, "town": 1}


def test_without_a_plan_there_is_nothing_to_answer(client: OnlineClient, slow: SlowRedis) -> None:
    slow.delay_s = 0.3
    with pytest.raises(StoreTimeoutError):
        client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=100)


def test_a_prune_plan_says_what_is_read_first(store: FeatureStore, client: OnlineClient, slow: SlowRedis) -> None:
    pruning = pruning_of(store.applied(), "ranking", ["both"], plan="p", stage="mask", read_order=["c", "a", "b"])
    store.prune("ranking", pruning)
    client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=5000)
    slow.delay_s = 0.2
    found = client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=300)
    assert found.to_dict() == {"a_x": [-1.0, -1.0], "b_x": [-1.0, -1.0], "c_x": [40.0, 50.0]}
    with pytest.raises(ModelMismatchError):
        client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=5000, plan="q")


def test_another_plan_that_was_published_is_read(store: FeatureStore, client: OnlineClient) -> None:
    client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=5000)
    store.prune("ranking", pruning_of(store.applied(), "ranking", ["b_x"], plan="p", stage="drop"))
    found = client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=5000)
    assert found.to_dict() == {name: values for name, values in FULL.items() if name != "b_x"}


def test_a_model_is_served_again_when_what_it_was_not_made_for_is_rolled_back(
    store: FeatureStore, client: OnlineClient
) -> None:
    asked: Any = {"now": NOW, "deadline_ms": 5000, "model_features": list(FULL)}
    store.prune("ranking", pruning_of(store.applied(), "ranking", ["b_x"], plan="p", stage="mask"))
    with pytest.raises(ModelMismatchError):
        client.get_online_features("ranking", ROWS, **asked)
    store.prune("ranking", None)
    assert client.get_online_features("ranking", ROWS, **asked).to_dict() == FULL


async def test_the_async_client_keeps_deadlines_too(store: FeatureStore, slow: SlowRedis) -> None:
    functions: Any = store.definitions.on_demand_feature_views
    async with AsyncOnlineClient(slow.url, "shop", transforms=functions) as client:
        await client.get_online_features("ranking", ROWS, now=NOW)
        slow.delay_s = 0.2
        found = await client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=500)
        assert found.to_dict() == FULL | {"c_x": [-1.0, -1.0], "both": [None, None]}
        assert client.skipped == {"town": 1}
        slow.delay_s = 0.0
        found = await client.get_online_features("ranking", ROWS, now=NOW, deadline_ms=5000)
        assert found.to_dict() == FULL
