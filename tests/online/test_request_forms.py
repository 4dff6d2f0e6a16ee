"""The forms in which callers have entity rows: each is taken, or refused with an error of this library."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from feature_store import FeatureStore
from feature_store.errors import FeatureStoreError, RequestError
from feature_store.online import AsyncOnlineClient, OnlineClient
from feature_store.online.matrix import bracketed_columns, matrix_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import RedisServer

DEFINITIONS = """
from feature_store import *
user = Entity("user", join_key="user_id")
view = FeatureView("view", entities=[user], schema=[Field("x", Float32), Field("mix", Array(Float32, 2))])
request = RequestSource("request", [Field("at", Timestamp), Field("n", Int32), Field("text", String), Field("yes", Bool)])
@on_demand_feature_view(sources=[request], schema=[Field("y", Float32)])
def on_demand(inputs):
    return {"y": inputs["n"].astype("float32")}
service = FeatureService("service", features=[view])
computed = FeatureService("computed", features=[on_demand])
"""
AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, redis_process: RedisServer) -> Iterator[FeatureStore]:
    folder = tmp_path_factory.mktemp("forms")
    (folder / "feature_store.yaml").write_text(f"project: forms\nonline_store: {{url: '{redis_process.url}'}}\n")
    (folder / "features.py").write_text(DEFINITIONS)
    with FeatureStore(folder) as opened:
        opened.apply()
        opened.push(
            "view",
            pa.table(
                {
                    "user_id": [1, 2],
                    "event_timestamp": pa.array([AT] * 2),
                    "x": pa.array([1.0, 2.0], pa.float32()),
                    "mix": pa.array([[1, 2], [3, 4]], pa.list_(pa.float32())),
                }
            ),
        )
        yield opened
        opened.teardown()


@pytest.fixture(params=["blocking", "async"])
def read(request: pytest.FixtureRequest, store: FeatureStore) -> Callable[..., dict[str, list[Any]]]:
    offered = {"transforms": store.definitions.on_demand_feature_views}
    if request.param == "blocking":
        client = OnlineClient(store.online_url, "forms", **offered)
        return lambda *args, **how: client.get_online_features(*args, **how).to_dict()

    async def ask(*args: Any, **how: Any) -> dict[str, list[Any]]:
        client = AsyncOnlineClient(store.online_url, "forms", **offered)
        try:
            return (await client.get_online_features(*args, **how)).to_dict()
        finally:
            await client.close()

    return lambda *args, **how: asyncio.run(ask(*args, **how))


ROWS: dict[str, Any] = {
    "a list of dicts": [{"user_id": 1}, {"user_id": 2}, {"user_id": 3}],
    "a dict of lists": {"user_id": [1, 2, 3]},
    "a tuple": {"user_id": (1, 2, 3)},
    "a numpy array": {"user_id": np.array([1, 2, 3], np.int32)},
    "numpy scalars": {"user_id": [np.int64(1), np.int32(2), np.uint8(3)]},
    "a pandas column": {"user_id": pd.Series([1, 2, 3])},
    "a nullable pandas column": {"user_id": pd.array([1, 2, 3], dtype="Int64")},
    "an Arrow column": {"user_id": pa.array([1, 2, 3])},
    "a Polars column": {"user_id": pl.Series([1, 2, 3])},
    "a pandas frame": pd.DataFrame({"user_id": [1, 2, 3]}),
    "an Arrow table": pa.table({"user_id": [1, 2, 3]}),
    "an Arrow batch": pa.RecordBatch.from_pydict({"user_id": [1, 2, 3]}),
    "a Polars frame": pl.DataFrame({"user_id": [1, 2, 3]}),
}


@pytest.mark.parametrize("form", ROWS)
def test_rows_are_taken_as_people_have_them(read: Any, form: str) -> None:
    assert read("service", ROWS[form]) == {"x": [1.0, 2.0, None], "mix": [[1.0, 2.0], [3.0, 4.0], None]}


def test_a_service_may_be_its_definition(read: Any, store: FeatureStore) -> None:
    assert read(store.definitions.feature_services["service"], {"user_id": 1})["x"] == [1.0]
    assert read(np.array(["view:x"]), {"user_id": 1}) == {"x": [1.0]}


@pytest.mark.parametrize(
    "at",
    [
        AT,
        [AT],
        pd.Timestamp(AT),
        np.datetime64("2026-01-01"),
        np.array(["2026-01-01"], "M8[ns]"),
        pd.Series([pd.Timestamp(AT)]),
        pa.array([AT], pa.timestamp("us", "UTC")),
    ],
)
def test_times_are_taken_as_people_have_them(read: Any, at: Any) -> None:
    assert read("computed", {"at": at, "n": 1, "text": "a", "yes": True}) == {"y": [1.0]}


ODD = (
    None, [None], pd.NaT, [pd.NaT], pd.NA, [pd.NA], float("nan"), [float("nan")], b"x", [b"x"], decimal.Decimal("1.5"),
    10**30, [10**30], -(2**63) - 1, True, [True], "1", ["1"], "\x1b[31m", object(), [object()], {}, [{}], [[1]], [[]],
    np.array(["NaT"], "M8[ns]"), np.array([[1, 2]]), np.array([1.5]), np.array([None]), pd.Series([None, 1]),
    pd.array([1, None], dtype="Int64"), pa.array([None], pa.int64()), Path("x"), AT, dt.timedelta(1), dt.date(2026, 1, 1),
    {1, 2}, range(2), (x for x in [1]), 1 + 2j, np.float16(1), np.datetime64("NaT"), print,
)  # fmt: skip


@pytest.mark.parametrize("service", ["service", "computed", "nowhere"])
@pytest.mark.parametrize("name", ["user_id", "at", "n", "text", "yes", "other"])
def test_odd_values_are_taken_or_refused_in_our_words(read: Any, service: str, name: str) -> None:
    good = {"user_id": 1, "at": AT, "n": 1, "text": "a", "yes": True}
    for odd in ODD:
        try:
            read(service, good | {name: odd})
        except FeatureStoreError as error:
            assert error.where, odd


@pytest.mark.parametrize("odd", [*ODD, "", [], "view", "view:", ["view:x", 1], ["view:x", "view:x"], ["view:z"], 0])
def test_odd_services_and_rows_are_refused_in_our_words(read: Any, odd: Any) -> None:
    for service, rows in ((odd, {"user_id": 1}), ("service", odd)):
        try:
            read(service, rows)
        except FeatureStoreError as error:
            assert error.where, (service, rows)


@pytest.mark.parametrize("rows", [[{"user_id": 1}, {"user": 2}], [{"user_id": 1}, 2], 7, "user_id=1", {1, 2}])
def test_rows_that_are_none_are_named(read: Any, rows: Any) -> None:
    with pytest.raises(RequestError, match=r"entity_rows"):
        read("service", rows)


def test_array_columns_have_names_that_model_libraries_take(store: FeatureStore) -> None:
    response = store.get_online_features("service", {"user_id": [1, 2]})
    assert response.columns == ["x", "mix_0", "mix_1"]
    types = {name: column.dtype for name, column in response.service.columns.items()}
    assert bracketed_columns(types) == ["x", "mix[0]", "mix[1]"]
    for names in (["x", "mix"], ["x", "mix_0", "mix_1"], ["x", "mix[0]", "mix[1]"]):
        assert len(store.client.get_online_features("service", {"user_id": 1}, model_features=names)) == 1
    # LightGBM refuses `[ ] { } " : ,` in names, XGBoost `[ ] <`.
    assert all(re.fullmatch(r"\w+", name) for name in response.columns)


def test_names_of_array_columns_differ_from_all_others() -> None:
    from feature_store import Array, Float32

    types = {"mix": Array(Float32, 2), "mix_1": Float32, "mix_": Array(Float32, 1), "a": Array(Float32, 1)}
    names = matrix_columns(types)
    assert len(set(names)) == len(names) == 5
    assert names[-1] == "a_0"


def test_what_is_returned_says_what_it_is(store: FeatureStore) -> None:
    response = store.get_online_features("service", {"user_id": [1, 2]})
    assert repr(response).startswith("<OnlineResponse of 'service': 2 rows × 2 features (x, mix), plan version ")
    assert repr(response.status) == "<2 columns by name: x, mix>"
    assert "project='forms'" in repr(store)
    assert "://" not in repr(store)
    assert "entity_rows" in inspect.signature(OnlineClient.get_online_features).parameters
