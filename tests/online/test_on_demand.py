"""On-demand functions in serving and training: which are called, what they get, and what they may return."""

from __future__ import annotations

import importlib
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from feature_store import FeatureStore
from feature_store.definitions import (
    Bool,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Int32,
    Int64,
    OnDemandFeatureView,
    String,
    Timestamp,
    on_demand_feature_view,
)
from feature_store.definitions.dtypes import DType
from feature_store.errors import ConfigError, RequestError, TransformError
from feature_store.online.keys import epoch_key, plan_key
from feature_store.online.outputs import fitted_output
from tests.online.clients import CLIENTS, counted
from tests.raw_redis import raw_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROJECT = """
from datetime import timedelta
import numpy as np
from feature_store import *

user = Entity("user")
stats = FeatureView("stats", entities=[user], ttl=timedelta(days=2),
    source=ParquetSource("stats.parquet", event_timestamp="at"),
    schema=[Field("x", Float32), Field("y", Float32, default=7.0), Field("n", Int64), Field("name", String),
            Field("tags", Array(String), default=["none"]), Field("pair", Array(Int32, 2)), Field("since", Timestamp)])
asked = RequestSource("asked", [Field("seen", Array(Int64)), Field("words", Array(String), default=["w"]),
    Field("emb", Array(Float32, 2), default=[5.0, 6.0]), Field("when", Timestamp, default=None or __import__("datetime").datetime(2020, 1, 1))])

@on_demand_feature_view(sources=[stats], schema=[Field("clipped", Float32)])
def in_place(inputs):
    for values in inputs.values():
        if values.dtype == object:
            for value in values:
                if isinstance(value, list):
                    value.append("changed")
        values[:] = values[:1]
    return {"clipped": np.clip(inputs["x"], 0, 1, out=inputs["x"])}

@on_demand_feature_view(sources=[stats], schema=[Field("doubled", Float32), Field("tag_count", Int64)])
def doubled(inputs):
    return {"doubled": inputs["x"] * 2, "tag_count": [len(tags) for tags in inputs["tags"]]}

@on_demand_feature_view(sources=[stats], schema=[Field("x_or_y", Float32), Field("is_new", Bool), Field("y_was_null", Bool)], nulls="shown")
def either(inputs, nulls):
    nulls["n"][:] = False
    return {"x_or_y": np.where(nulls["x"], inputs["y"], inputs["x"]), "is_new": nulls["x"], "y_was_null": nulls["y"]}

@on_demand_feature_view(sources=[asked], schema=[Field("shapes", String), Field("sum", Float32)])
def arrays(inputs):
    seen, words, emb, when = (inputs[name] for name in ("seen", "words", "emb", "when"))
    kinds = "/".join(str(values.dtype) for values in (seen, words, emb, when))
    sizes = [f"{kinds} {type(a).__name__}{len(a)} {type(b).__name__}{len(b)} {len(c)}" for a, b, c in zip(seen, words, emb)]
    assert emb.shape == (len(seen), 2) and seen.shape == words.shape == when.shape == (len(seen),)
    return {"shapes": sizes, "sum": emb.sum(axis=1) + np.array([sum(a) for a in seen], "float32")}

stored = FeatureService("stored", features=[stats, in_place, doubled, either])
requested = FeatureService("requested", features=[arrays])
"""
ROWS = {
    "user": [1, 2, 3, 4],
    "x": pa.array([10.0, 20.0, None, 40.0], pa.float32()),
    "y": pa.array([1.0, None, 3.0, 4.0], pa.float32()),
    "n": [1, 2, 3, 4],
    "name": ["a", "b", "c", "d"],
    "tags": [["p"], None, ["q", "r"], []],
    "pair": pa.array([[1, 2], [3, 4], [5, 6], None], pa.list_(pa.int32(), 2)),
    "since": pa.array([NOW] * 4, pa.timestamp("us", "UTC")),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "feature_store.yaml").write_text("project: shop\n")
    (folder / "features.py").write_text(PROJECT)
    times = [NOW, NOW, NOW, NOW - timedelta(days=3)]  # the row of user 4 has expired
    import pyarrow.parquet as pq

    pq.write_table(pa.table({**ROWS, "at": times}), folder / "stats.parquet")
    with FeatureStore(folder) as opened:
        opened.apply()
        opened.materialize(end=NOW + timedelta(days=1))
        yield opened


@pytest.fixture(params=CLIENTS)
def make_client(request, store) -> Iterator[Callable[..., Any]]:
    made = []

    def make(**options: Any) -> Any:
        made.append(CLIENTS[request.param](store.online_url, "shop", **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def trained(store: FeatureStore, service: str, columns: dict[str, Any]) -> dict[str, list[Any]]:
    count = len(next(iter(columns.values())))
    labels = pa.table({**columns, "event_timestamp": pa.array([NOW] * count, pa.timestamp("us", "UTC"))})
    table = store.get_historical_features(labels, service).to_arrow()
    return {name: table[name].to_pylist() for name in table.column_names if name not in labels.column_names}


# -- which functions are called ---------------------------------------------------------------------------------------


def test_functions_come_from_the_caller_alone(make_client, store, monkeypatch) -> None:
    folder = store.config.folder
    asked = {"user": [1, 2]}
    with pytest.raises(TransformError, match=r'offers no function for it. Hint: pass definitions="features.py"'):
        make_client().get_online_features("stored", asked, now=NOW)
    monkeypatch.syspath_prepend(str(folder))
    module = importlib.import_module("features")
    try:
        views = [value for value in vars(module).values() if isinstance(value, OnDemandFeatureView)]
        given: list[dict[str, Any]] = [
            {"definitions": folder / "features.py"},
            {"definitions": str(folder)},
            {"definitions": [module]},
            {"transforms": views},
            {"transforms": {view.name: view for view in views}},
            {"transforms": store.definitions.on_demand_feature_views},
        ]
        for options in given:
            found = make_client(**options).get_online_features("stored", asked, now=NOW).to_dict()
            assert found["doubled"] == [20.0, 40.0]
    finally:
        del sys.modules["features"]


@pytest.mark.parametrize("bad", [{"definitions": "nowhere.py"}, {"definitions": 5}, {"transforms": [len]}, {"transforms": {"a": 1}}])  # fmt: skip
def test_what_offers_nothing_is_refused(make_client, bad) -> None:
    with pytest.raises(ConfigError):
        make_client(**bad)


def test_nothing_that_redis_names_is_imported_or_called(make_client, store, tmp_path: Path, monkeypatch) -> None:
    """Anyone who can write to Redis chooses every text of the plan: view names, functions, digests, inputs."""
    import subprocess

    trap = tmp_path / "trap.py"
    trap.write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'imported')!r}).touch()\ndef f(inputs): return {{}}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(subprocess, "call", lambda *_, **__: pytest.fail("a function that Redis named was called"))
    redis = raw_client(store.online_url)
    good, epoch = (redis.get(key) for key in (plan_key("shop"), epoch_key("shop", 0)))
    offered = make_client(definitions=store.config.folder)
    offered.get_online_features("stored", {"user": 1}, now=NOW)
    try:
        for function in ("subprocess:call", "trap:f", "builtins:exec", "os:system"):
            for name in ("doubled", "renamed"):
                for digest in ("source:0", "v2:0", "bytecode:0", None):
                    plan = json.loads(good)
                    transform = next(one for one in plan["transforms"] if one["name"] == "doubled")
                    transform |= {"name": name, "function": function, "digest": digest or transform["digest"]}
                    for service in plan["services"]:
                        for column in service["columns"]:
                            column["view"] = name if column["view"] == "doubled" else column["view"]
                    plan["epoch"] = os.urandom(8).hex()
                    redis.mset({plan_key("shop"): json.dumps(plan), epoch_key("shop", 0): plan["epoch"]})
                    for client in (offered, make_client()):
                        if client is offered and name == "doubled" and digest is None:
                            assert client.get_online_features("stored", {"user": 1}, now=NOW).to_dict()["doubled"] == [
                                20
                            ]
                        else:
                            with pytest.raises(TransformError):
                                client.get_online_features("stored", {"user": 1}, now=NOW).to_dict()
        assert not (tmp_path / "imported").exists() and "trap" not in sys.modules
    finally:
        redis.mset({plan_key("shop"): good, epoch_key("shop", 0): epoch})


def test_the_module_of_a_client_may_be_anything(make_client) -> None:
    assert make_client(definitions=ModuleType("empty")).plan().project == "shop"


# -- what functions are shown -----------------------------------------------------------------------------------------

USERS = [[1, 2, 3, 4, 5], [1], [2], [3], [4], [1, 1, 1], []]


@pytest.mark.parametrize("users", USERS, ids=str)
def test_a_function_that_works_in_place_changes_nothing_else(make_client, store, users: list[int]) -> None:
    response = make_client(definitions=store.config.folder).get_online_features("stored", {"user": users}, now=NOW)
    known = {1: (10.0, 1), 2: (20.0, 1), 3: (None, 2), 4: (None, 1), 5: (None, 1)}
    for _ in range(2):
        found = response.to_dict()
        assert found["x"] == [known[user][0] for user in users]
        assert found["doubled"] == [None if known[user][0] is None else 2 * known[user][0] for user in users]
        assert found["tags"] == [{1: ["p"], 3: ["q", "r"]}.get(user, ["none"]) for user in users]
        assert found["tag_count"] == [known[user][1] if known[user][0] is not None else None for user in users]
    if users:
        expected = trained(store, "stored", {"user": users})
        assert expected == {name: found[name] for name in expected}


def test_a_function_may_be_shown_nulls(make_client, store) -> None:
    users = [1, 2, 3, 4, 5]
    response = make_client(definitions=store.config.folder).get_online_features("stored", {"user": users}, now=NOW)
    found = response.to_dict()
    assert found["x_or_y"] == [10.0, 20.0, 3.0, 7.0, 7.0]
    assert found["is_new"] == [False, False, True, True, True]
    assert found["y_was_null"] == [False, True, False, True, True]
    assert [status.name for status in response.status["is_new"]] == ["PRESENT"] * 5
    assert response.status_counts() == counted(response)
    expected = trained(store, "stored", {"user": users})
    assert {name: expected[name] for name in ("x_or_y", "is_new", "y_was_null")} == {
        name: found[name] for name in ("x_or_y", "is_new", "y_was_null")
    }


SEEN_KINDS = "object/object/float32/int64"


@pytest.mark.parametrize(
    ("rows", "lengths", "sums"),
    [
        ({"seen": [[1], [2]], "words": [["a"], ["b"]], "emb": [[1.0, 2.0]] * 2}, ["1 list1", "1 list1"], [4, 5]),
        ({"seen": [[1], [2, 3]], "words": [["a"], []], "emb": [[1.0, 2.0]] * 2}, ["1 list1", "2 list0"], [4, 8]),
        ({"seen": [[], []], "words": [None, ["a", "b"]], "emb": [None, [1.0, 1.0]]}, ["0 list1", "0 list2"], [11, 2]),
        ({"seen": [[1]]}, ["1 list1"], [12]),
        ({"seen": np.array([[1, 2], [3, 4]])}, ["2 list1", "2 list1"], [14, 18]),
        ({"seen": [np.array([1, 2]), (3,)]}, ["2 list1", "1 list1"], [14, 14]),
        ({"seen": []}, [], []),
        ({"seen": [], "words": [], "emb": []}, [], []),
    ],
    ids=str,
)
def test_request_fields_that_are_arrays(make_client, store, rows, lengths, sums) -> None:
    client = make_client(definitions=store.config.folder)
    found = client.get_online_features("requested", rows, now=NOW).to_dict()
    assert found == {"shapes": [f"{SEEN_KINDS} list{length} 2" for length in lengths], "sum": sums}
    if sums:
        columns = {name: [None if v is None else list(v) for v in values] for name, values in rows.items()}
        types = {"seen": pa.list_(pa.int64()), "words": pa.list_(pa.string()), "emb": pa.list_(pa.float32())}
        labels = {name: pa.array(values, types[name]) for name, values in columns.items()}
        assert trained(store, "requested", labels) == found


@pytest.mark.parametrize("rows", [{"seen": 5}, {"seen": [5]}, {"seen": None}, {"words": [["a"]]}, {"seen": [None]}, {"seen": [[1]], "emb": [[1.0]]}, {"seen": [[1.5]]}], ids=str)  # fmt: skip
def test_request_fields_that_do_not_fit(make_client, store, rows) -> None:
    with pytest.raises(RequestError):
        make_client(definitions=store.config.folder).get_online_features("requested", rows, now=NOW).to_dict()


# -- what functions may return ----------------------------------------------------------------------------------------

FITTING: list[tuple[DType, Any, list[Any]]] = [
    (Bool, [True, False], [True, False]),
    (Bool, np.array([True, False], object), [True, False]),
    (Int32, np.array([1, -2], np.int8), [1, -2]),
    (Int32, np.array([True, False]), [1, 0]),
    (Int64, np.array([2**63 - 1, 0], np.uint64), [2**63 - 1, 0]),
    (Int64, [2**53 + 1, 2], [2**53 + 1, 2]),
    (Float32, np.array([1, 2]), [1.0, 2.0]),
    (Float32, np.array([1e300, -1e300]), [np.inf, -np.inf]),
    (Float32, np.ma.array([1.5, 2.5]), [1.5, 2.5]),
    (Float32, [1.5, np.float64(2.5)], [1.5, 2.5]),
    (String, np.array(["a", "bc"]), ["a", "bc"]),
    (String, ["a", np.str_("b")], ["a", "b"]),
    (String, np.array(["a", "b"], np.dtypes.StringDType()), ["a", "b"]),
    (Timestamp, np.array(["1970-01-01", "1970-01-02"], "M8[D]"), [0, 86_400_000_000]),
    (Timestamp, np.array([1001, 2002], "M8[ns]"), [1, 2]),
    (Timestamp, [datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, 0, 0, 1)], [0, 1_000_000]),
    (Timestamp, np.array([5, 6]), [5, 6]),
]
UNFITTING: list[tuple[DType, Any, str]] = [
    (Bool, [1, 0], "values of Bool, got an array of int64"),
    (Bool, [None, True], r"out\[0\]: expected a bool, got None"),
    (Int32, [1.0, 2.0], "values of Int32, got an array of float64"),
    (Int32, [1.0, np.nan], "values of Int32, got an array of float64"),
    (Int32, np.array([1, 2**31]), r"out\[1\]: expected a value of Int32, got 2147483648, which is beyond it"),
    (Int64, np.array([1, 2**63], np.uint64), r"out\[1\]: expected a value of Int64, got 9223372036854775808"),
    (Int64, [1, 2**64], r"out\[1\]"),
    (Int64, [None, 1], r"out\[0\]: expected an int"),
    (Int64, np.ma.array([1, 2], mask=[False, True]), r"a value in each row, got 1 masked values \(first in row 1\)"),
    (Int64, np.array([1, 2], "m8[us]"), "values of Int64, got an array of timedelta64"),
    (Float32, [None, 1.0], r"out\[0\]: expected a number"),
    (Float32, ["1", "2"], "values of Float32, got an array of <U1"),
    (Float32, np.array([1 + 2j, 0]), "values of Float32, got an array of complex128"),
    (Float32, [[1.0], [2.0, 3.0]], "expected an array, got list"),
    (Float32, [[1.0], [2.0]], r"shape \(2,\), got shape \(2, 1\)"),
    (Float32, [1.0], r"shape \(2,\), got shape \(1,\)"),
    (Float32, 1.0, r"shape \(2,\), got shape \(\)"),
    (Float32, {1.0, 2.0}, r"shape \(2,\), got shape \(\)"),
    (Float32, np.array([(1, 2), (3, 4)], "i4,i4"), "values of Float32"),
    (String, [b"a", b"b"], "values of String, got an array of |S1"),
    (String, np.array([b"a", "b"], object), r"out\[0\]: expected a str, got b'a'"),
    (String, ["a", None], r"out\[1\]: expected a str, got None"),
    (String, [1, 2], "values of String, got an array of int64"),
    (String, np.array(["a", np.nan], object), r"out\[1\]: expected a str, got nan"),
    (String, ["a", "\ud800"], r"out\[1\]: expected text that UTF-8 can hold"),
    (Timestamp, np.array(["1970-01-01", "NaT"], "M8[us]"), r"out\[1\]: expected a time, got NaT"),
    (Timestamp, np.array([10**6, 10**15], "M8[Y]"), "a time beyond the years 1 to 9999"),
    (Timestamp, np.array([0, 9000], "M8[Y]"), r"out\[1\]: expected a value of Timestamp"),
    (Timestamp, np.array([0, 2**62]), r"out\[1\]: expected a value of Timestamp"),
    (Timestamp, [None, datetime(1970, 1, 1)], r"out\[0\]: expected a datetime, got None"),
    (Timestamp, [1.5, 2.5], "values of Timestamp, got an array of float64"),
    (Timestamp, [True, False], "values of Timestamp, got an array of bool"),
]


@pytest.mark.parametrize(("dtype", "output", "values"), FITTING, ids=repr)
def test_outputs_that_fit(dtype: DType, output: Any, values: list[Any]) -> None:
    fitted = fitted_output("out", dtype, output, 2)
    assert fitted.dtype == dtype.numpy and fitted.tolist() == values
    assert not np.shares_memory(fitted, np.asarray(output))


@pytest.mark.parametrize(("dtype", "output", "message"), UNFITTING, ids=repr)
def test_outputs_that_do_not_fit(dtype: DType, output: Any, message: str) -> None:
    with pytest.raises(TransformError, match=message):
        fitted_output("out", dtype, output, 2)


@pytest.mark.parametrize("dtype", [Bool, Int32, Int64, Float32, String, Timestamp], ids=str)
def test_outputs_of_no_rows(dtype: DType) -> None:
    for output in ([], np.array([], dtype.numpy)):
        assert fitted_output("out", dtype, output, 0).shape == (0,)


user = Entity("user")
numbers = FeatureView("numbers", entities=[user], schema=[Field("x", Float32)])


@on_demand_feature_view(sources=[numbers], schema=[Field("out", Int32)])
def exits(inputs):
    sys.exit(3)


def test_what_a_function_raises_is_our_error(store) -> None:
    from feature_store.definitions import DefinitionSet
    from feature_store.online import OnlineStore
    from feature_store.registry.compile import compile_plan

    online = OnlineStore(store.online_url, "exiting")
    service = FeatureService("s", features=[exits])
    plan = compile_plan(DefinitionSet([numbers, exits, service]), project="exiting", version=1)
    online.publish(plan, over=online.published())
    with type(store.client)(store.online_url, "exiting", transforms=[exits]) as client:
        response = client.get_online_features("s", {"user": 1})
        with pytest.raises(TransformError, match="its function raised SystemExit: 3"):
            response.to_numpy()
    online.close()
