"""Windows that are arrays: of fixed length in a matrix, of any length in columns."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from feature_store.definitions import Aggregation, DefinitionSet, FeatureService, StreamFeatureView
from feature_store.errors import RequestError
from feature_store.online import OnlineClient, OnlineStore
from feature_store.registry.compile import compile_plan
from tests.online.stream_worlds import NOW_US, SECOND_US, merge_events, source, user

HOUR = timedelta(hours=1)
ACTIONS = ["view", "buy"]
view = StreamFeatureView(
    "by_action",
    entities=[user],
    source=source,
    aggregations=[
        Aggregation("action", "count_per_category", windows=[HOUR], categories=ACTIONS, name="n"),
        Aggregation("price", "count", windows=[HOUR], name="all"),
        Aggregation("price", "sum_per_category", windows=[HOUR], by="action", categories=ACTIONS, name="sum"),
        Aggregation("action", "top_k", windows=[HOUR], n=2, categories=ACTIONS, name="top"),
    ],
)
numbers = FeatureService("numbers", features=[view[["n_1h", "all_1h", "sum_1h"]]])
everything = FeatureService("everything", features=[view])


@pytest.fixture
def client(redis_url: str):
    store = OnlineStore(redis_url, "test")
    store.publish(compile_plan(DefinitionSet([view, numbers, everything]), project="test", version=1), over=None)
    prices = [
        (1, "view", 2.0),
        (1, "buy", 4.0),
        (1, "view", 8.0),
        (1, "other", 16.0),
        (1, None, 32.0),
        (2, "buy", None),
    ]
    events = [
        {"user_id": key, "shop_id": "s", "price": price, "action": action, "ts": NOW_US - i * SECOND_US}
        for i, (key, action, price) in enumerate(prices)
    ]
    with store.tile_writer("by_action") as writer:
        merge_events(writer, events, {"clicks:0": (None, len(events))})
    with OnlineClient(redis_url, "test") as opened:
        yield opened
    store.close()


def test_arrays_of_fixed_length_have_a_column_for_each_element(client: OnlineClient) -> None:
    response = client.get_online_features("numbers", {"user_id": [1, 2, 3]}, now=NOW_US)
    assert response.columns == ["n_1h_0", "n_1h_1", "all_1h", "sum_1h_0", "sum_1h_1"]
    wanted = [[2, 1, 5, 10, 4], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(response.to_numpy(), np.array(wanted, np.float32))


def test_columns_hold_lists(client: OnlineClient) -> None:
    response = client.get_online_features("everything", {"user_id": [1, 2, 3]}, now=NOW_US)
    assert response.to_dict() == {
        "n_1h": [[2, 1], [0, 1], [0, 0]],
        "all_1h": [5, 0, 0],
        "sum_1h": [[10.0, 4.0], [0.0, 0.0], [0.0, 0.0]],
        "top_1h": [["view", "buy"], ["buy"], []],
    }
    assert response.to_arrow().column("top_1h").to_pylist() == [["view", "buy"], ["buy"], []]
    with pytest.raises(RequestError, match=r"column top_1h: expected numbers of fixed width"):
        response.to_numpy()
