"""Serving on a real Redis, against the oracle. Every test runs on the blocking and on the asyncio client."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from feature_store.definitions import (
    DefinitionSet,
    FeatureService,
    Field,
    Float32,
    Int32,
    Int64,
    RequestSource,
    on_demand_feature_view,
)
from feature_store.definitions.dtypes import from_microseconds
from feature_store.errors import DefinitionError, NotFoundError, NotPublishedError, RequestError, TransformError
from feature_store.online import OnlineStore, Status
from feature_store.registry.compile import compile_plan
from tests.online.clients import CLIENTS, NEAR, counted
from tests.online.worlds import (
    HOUR_US,
    NOW_US,
    VIEWS,
    Oracle,
    affinity,
    by_name,
    every_type,
    numbers,
    plan_of,
    profile,
    write,
)

mixed = FeatureService("mixed", features=[profile, numbers[["c", "a", "b"]], affinity])
typed = FeatureService("typed", features=[every_type, profile[["age"]].rename({"age": "user_age"})])
named = FeatureService("named", features=[by_name])
SERVICES = {service.name: service for service in (mixed, typed, named)}


@pytest.fixture(params=[*CLIENTS, *NEAR])
def make_client(request: pytest.FixtureRequest, redis_url: str):
    opened = []

    def make(project: str = "test", **options: Any) -> Any:
        opened.append((CLIENTS | NEAR)[request.param](redis_url, project, **options))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def store(redis_url: str):
    store = OnlineStore(redis_url, "test")
    yield store
    store.close()


def expected(
    oracle: Oracle, service: FeatureService, key_of: dict[str, Any], now_us: int
) -> dict[str, tuple[Any, str, Any]]:
    row = {}
    for projection in service.features:
        view = VIEWS[projection.view]
        key = tuple(key_of[name] for name in view.join_keys)
        for feature, served in projection.columns:
            row[served] = oracle.read(view, feature, key, now_us)
    return row


IDS = st.sampled_from([0, 1, 2, 3, -1, 2**53 + 1, -(2**63)])
AGES = st.integers(0, 20).map(lambda hours: NOW_US - hours * HOUR_US // 2)


def rows_of(**values: Any) -> Any:
    return st.lists(st.fixed_dictionaries({"event_ts": AGES, **values}), max_size=8)


floats = st.none() | st.floats(width=32)
small = st.none() | st.integers(-(2**31), 2**31 - 1)
WRITES = st.fixed_dictionaries(
    {
        "numbers": rows_of(movie_id=IDS, a=floats, b=floats, c=small),
        "profile": rows_of(user_id=IDS, age=small, score=floats),
        "affinity": rows_of(user_id=IDS, movie_id=IDS, likes=floats),
        "by_name": rows_of(shop_id=st.sampled_from(["", "a", "ab", "ü"]), user_id=IDS, visits=small),
        "every_type": rows_of(
            movie_id=IDS,
            flag=st.none() | st.booleans(),
            small=small,
            large=st.none() | st.integers(-(2**63), 2**63 - 1),
            single=floats,
            double=st.none() | st.floats(),
            when=st.none() | st.datetimes(timezones=st.just(UTC)),
            title=st.none() | st.text(max_size=4),
            vector=st.none() | st.lists(st.floats(width=32), min_size=3, max_size=3),
            ragged=st.none() | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
            words=st.none() | st.lists(st.text(max_size=3), max_size=3),
        ),
    }
)


@pytest.mark.parametrize("buckets", [1, 3])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(writes=WRITES, movies=st.lists(IDS, min_size=1, max_size=7), user=IDS, shops=st.data())
def test_served_is_what_the_oracle_serves(make_client, store, buckets, writes, movies, user, shops) -> None:
    store.teardown()
    store.publish(plan_of(*SERVICES.values(), buckets=buckets), over=store.published())
    oracle = Oracle()
    for view, rows in writes.items():
        for row in rows:  # one row at a time: the keys of one batch are distinct
            write(store, VIEWS[view], [row])
        oracle.write(VIEWS[view], rows)
    client = make_client()
    names = [shops.draw(st.sampled_from(["", "a", "ab", "ü", "b"])) for _ in movies]
    requests = {
        "mixed": [{"user_id": user, "movie_id": movie} for movie in movies],
        "typed": [{"user_id": user, "movie_id": movie} for movie in movies],
        "named": [{"user_id": user, "shop_id": name} for name in names],
    }
    for service, keys in requests.items():
        other = "shop_id" if service == "named" else "movie_id"
        response = client.get_online_features(
            service, {"user_id": user, other: [key[other] for key in keys]}, now=NOW_US
        )
        rows = [expected(oracle, SERVICES[service], key, NOW_US) for key in keys]
        values = response.to_dict()
        assert list(values) == response.names == list(rows[0])
        for name in response.names:
            assert repr(values[name]) == repr([row[name][0] for row in rows])
            assert [status.name for status in response.status[name]] == [row[name][1] for row in rows]
            assert response.event_timestamps[name] == [row[name][2] for row in rows]
        assert response.status_counts() == counted(response)
        if service != "typed":
            wanted = [[np.nan if row[name][0] is None else row[name][0] for name in response.names] for row in rows]
            matrix = response.to_numpy()
            assert (
                matrix.dtype == np.float32
                and matrix.flags.c_contiguous
                and matrix.shape == (len(keys), len(response.columns))
            )
            np.testing.assert_array_equal(matrix, np.array(wanted, np.float64).astype(np.float32))
    store.close()


def publish(store: OnlineStore, *services: FeatureService, **options: Any) -> None:
    store.publish(plan_of(*services, **options), over=store.published())


def test_the_boundary_of_the_ttl(make_client, store) -> None:
    publish(store, mixed)
    write(store, profile, [{"user_id": 1, "event_ts": NOW_US, "age": 3}])
    client = make_client()
    for late, status in ((0, "PRESENT"), (1, "EXPIRED")):
        now = NOW_US + HOUR_US + late
        response = client.get_online_features("mixed", {"user_id": 1, "movie_id": 1}, now=now)
        assert response.status["age"][0].name == status
        assert response.to_dict()["age"] == [3 if status == "PRESENT" else None]
        as_datetime = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=now)
        assert (
            client.get_online_features("mixed", {"user_id": 1, "movie_id": 1}, now=as_datetime).status["age"][0].name
            == status
        )
    assert client.get_online_features("mixed", {"user_id": 1, "movie_id": 1}).status["age"] == [Status.EXPIRED], (
        "now is the clock's"
    )


def test_the_shapes_of_requests(make_client, store) -> None:
    publish(store, mixed)
    write(store, numbers, [{"movie_id": i, "event_ts": NOW_US, "a": float(i), "b": 0.0, "c": i} for i in range(300)])
    write(store, profile, [{"user_id": 1, "event_ts": NOW_US, "age": 30, "score": 0.5}])
    client = make_client()
    asked = [5, 3, 5, 299, 1000, 3]
    for movies in (asked, tuple(asked), np.array(asked), np.array(asked, np.int32), np.array(asked, np.uint64)):
        values = client.get_online_features("mixed", {"user_id": 1, "movie_id": movies}, now=NOW_US).to_dict()
        assert values["c"] == [5, 3, 5, 299, None, 3]
        assert values["age"] == [30] * 6
    import pandas as pd

    assert client.get_online_features("mixed", {"user_id": [1], "movie_id": pd.Series([7])}, now=NOW_US).to_dict()[
        "c"
    ] == [7]
    assert client.get_online_features("mixed", {"user_id": np.int64(1), "movie_id": 7}, now=NOW_US).to_dict()[
        "age"
    ] == [30]
    empty = client.get_online_features("mixed", {"user_id": 1, "movie_id": []})
    assert empty.to_numpy().shape == (0, 6) and empty.to_dict()["age"] == [] and empty.status["a"] == []
    by_reference = client.get_online_features(
        ["numbers:c", "profile:age"], {"user_id": 1, "movie_id": [4, 2]}, now=NOW_US
    )
    assert by_reference.to_dict() == {"c": [4, 2], "age": [30, 30]}
    for size in (1, 2, 299, 300):
        matrix = client.get_online_features(["numbers:a"], {"movie_id": list(range(size))}, now=NOW_US).to_numpy()
        assert matrix[:, 0].tolist() == list(range(size))


@pytest.mark.parametrize("buckets", [1, 3])
@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_request_of_no_rows_has_no_values(make_client, store, service, buckets) -> None:
    publish(store, service, buckets=buckets)
    keys = {"mixed": ["movie_id"], "typed": ["movie_id"], "named": ["shop_id", "user_id"]}[service.name]
    response = make_client().get_online_features(service.name, {"user_id": 1} | {key: [] for key in keys})
    assert response.to_dict() == {name: [] for name in response.names}
    assert all(list(found) == [] for found in (*response.status.values(), *response.event_timestamps.values()))


BAD_REQUESTS = [
    ({"user_id": 1}, "movie_id: expected the join key"),
    ({"user_id": None, "movie_id": 1}, "user_id: expected a join key of Int64, got null"),
    ({"user_id": 1, "movie_id": [1, None]}, r"movie_id\[1\].*null"),
    ({"user_id": 1, "movie_id": [1, "2"]}, r"movie_id\[1\].*'2' \(str\)"),
    ({"user_id": 1, "movie_id": [1, True]}, r"movie_id\[1\].*True"),
    ({"user_id": 1, "movie_id": [1, 1.5]}, r"movie_id\[1\].*1\.5 \(float\)"),
    ({"user_id": 1, "movie_id": [1, 2**63]}, r"movie_id\[1\].*9223372036854775808"),
    ({"user_id": 2**63, "movie_id": 1}, "user_id"),
    ({"user_id": True, "movie_id": 1}, "user_id"),
    ({"user_id": "1", "movie_id": 1}, "user_id"),
    ({"user_id": 1, "movie_id": np.array([1.5])}, r"movie_id\[0\]"),
    ({"user_id": 1, "movie_id": [[1], [2]]}, r"movie_id\[0\]"),
    ({"user_id": [1, 2], "movie_id": [1, 2, 3]}, "movie_id: expected 2 values, as user_id has, got 3"),
]


@pytest.mark.parametrize(("rows", "message"), BAD_REQUESTS)
def test_bad_requests_say_what_is_wrong(make_client, store, rows, message) -> None:
    publish(store, mixed)
    with pytest.raises(RequestError, match=message):
        make_client().get_online_features("mixed", rows)


def test_unknown_names(make_client, store) -> None:
    with pytest.raises(NotPublishedError, match="feature-store apply"):
        make_client().get_online_features("mixed", {})
    publish(store, mixed)
    client = make_client()
    with pytest.raises(NotFoundError, match="expected a feature service: mixed, got 'nope'"):
        client.get_online_features("nope", {})
    with pytest.raises(NotFoundError, match="expected a feature view"):
        client.get_online_features(["nope:a"], {})
    with pytest.raises(RequestError, match="numbers:nope: expected a feature of numbers: a, b, c"):
        client.get_online_features(["numbers:nope"], {})
    with pytest.raises(RequestError, match="view:feature"):
        client.get_online_features(["numbers"], {})
    with pytest.raises(RequestError, match="names that differ"):
        client.get_online_features(["numbers:a", "numbers:a"], {})


def test_integers_beyond_2_to_53_are_exact_or_refused(make_client, store) -> None:
    service = FeatureService("ids", features=[every_type[["large"]]])
    publish(store, service)
    large = 2**53 + 1
    write(store, every_type, [{"movie_id": large, "event_ts": NOW_US, "large": large}])
    write(store, every_type, [{"movie_id": 1, "event_ts": NOW_US, "large": 2**53}])
    client = make_client()
    response = client.get_online_features("ids", {"movie_id": [large, large - 1]}, now=NOW_US)
    assert response.to_dict()["large"] == [large, None], "the key 2**53 + 1 is not the key 2**53"
    assert response.to_arrow()["large"].to_pylist() == [large, None]
    with pytest.raises(RequestError, match=r"column large: .*magnitude 9007199254740993.*to_dict"):
        response.to_numpy()
    assert client.get_online_features("ids", {"movie_id": 1}, now=NOW_US).to_numpy().tolist() == [[float(2**53)]]


def test_columns_without_a_place_in_a_matrix_are_refused(make_client, store) -> None:
    services = [
        FeatureService(f"s_{name}", features=[every_type[[name]]])
        for name in ("title", "when", "ragged", "words", "vector")
    ]
    publish(store, *services)
    write(store, every_type, [{"movie_id": 1, "event_ts": NOW_US, "vector": [1, 2, 3]}])
    client = make_client()
    for name in ("title", "when", "ragged", "words"):
        with pytest.raises(RequestError, match=rf"column {name}: expected numbers"):
            client.get_online_features(f"s_{name}", {"movie_id": 1}, now=NOW_US).to_numpy()
    response = client.get_online_features("s_vector", {"movie_id": [1, 2]}, now=NOW_US)
    assert response.columns == ["vector_0", "vector_1", "vector_2"] and response.names == ["vector"]
    np.testing.assert_array_equal(response.to_numpy(), [[1, 2, 3], [np.nan] * 3])


def test_arrow_and_pandas_have_the_declared_types(make_client, store) -> None:
    publish(store, typed)
    write(
        store,
        every_type,
        [{"movie_id": 1, "event_ts": NOW_US, "flag": True, "title": "é", "vector": [1, 2, 3], "words": ["a"]}],
    )
    table = make_client().get_online_features("typed", {"user_id": 1, "movie_id": [1, 2]}, now=NOW_US).to_arrow()
    assert [str(type_) for type_ in table.schema.types] == [
        "bool", "int32", "int64", "float", "double", "timestamp[us, tz=UTC]", "string",
        "fixed_size_list<item: float>[3]", "list<item: int64>", "list<item: string>", "int32",
    ]  # fmt: skip
    assert table["title"].to_pylist() == ["é", None] and table["small"].to_pylist() == [-1, -1]
    assert table["words"].to_pylist() == [["a"], ["none"]]
    frame = make_client().get_online_features("typed", {"user_id": 1, "movie_id": [1, 2]}, now=NOW_US).to_pandas()
    assert frame.columns.tolist() == table.column_names and len(frame) == 2


@on_demand_feature_view(
    sources=[
        numbers[["c", "b"]].rename({"c": "year"}),
        profile[["age"]],
        RequestSource("context", [Field("now_year", Int32), Field("bonus", Float32, default=1.0)]),
    ],
    schema=[Field("movie_age", Float32), Field("sum", Int64, default=-1)],
)
def derived(inputs: dict[str, Any]) -> dict[str, Any]:
    age = (inputs["now_year"] - inputs["year"]).astype("float32")
    return {"movie_age": age + inputs["bonus"], "sum": inputs["year"].astype("int64") + inputs["age"]}


def gone(inputs: dict[str, Any]) -> dict[str, Any]:
    return {}


def publish_derived(store: OnlineStore, view: Any = derived) -> None:
    service = FeatureService("derived_only", features=[view])
    both = FeatureService("both", features=[numbers[["a"]], view])
    plan = compile_plan(DefinitionSet([*VIEWS.values(), view, service, both]), project="test", version=1)
    store.publish(plan, over=store.published())


def test_on_demand_features(make_client, store) -> None:
    publish_derived(store)
    write(
        store,
        numbers,
        [{"movie_id": 1, "event_ts": NOW_US, "c": 1990, "a": 5.0}, {"movie_id": 2, "event_ts": NOW_US, "c": None}],
    )
    write(store, profile, [{"user_id": 1, "event_ts": NOW_US, "age": 30}])
    client = make_client(transforms={"derived": derived})
    request = {"user_id": 1, "movie_id": [1, 2, 3, 1], "now_year": 2000, "bonus": [1, None, 3, 0.5]}
    response = client.get_online_features("both", request, now=NOW_US)
    assert response.to_dict() == {
        "a": [5.0, None, None, 5.0],
        "movie_age": [11.0, None, None, 10.5],
        "sum": [2020, -1, -1, 2020],
    }
    assert [status.name for status in response.status["movie_age"]] == ["PRESENT", "NULL", "MISSING", "PRESENT"]
    assert response.status_counts() == counted(response)
    np.testing.assert_array_equal(
        response.to_numpy(),
        np.array([[5, 11, 2020], [np.nan, np.nan, -1], [np.nan, np.nan, -1], [5, 10.5, 2020]], np.float32),
    )
    assert (
        client.get_online_features("derived_only", {**request, "bonus": 0}, now=NOW_US).to_dict()["movie_age"][0]
        == 10.0
    )
    for bad, message in (
        ({"now_year": None}, "now_year: expected a value of Int32, got null"),
        ({"now_year": "2000"}, "now_year"),
        ({"now_year": [1, 2, 3, 2**40]}, r"now_year\[3\]"),
    ):
        with pytest.raises(RequestError, match=message):
            client.get_online_features("both", request | bad, now=NOW_US).to_dict()
    del request["now_year"]
    with pytest.raises(RequestError, match="now_year: expected the request field"):
        client.get_online_features("both", request, now=NOW_US).to_numpy()


def test_on_demand_code_must_be_what_was_applied(make_client, store) -> None:
    publish_derived(store)
    with pytest.raises(TransformError, match=r"not one that was applied .*apply the changed definitions, then deploy"):
        make_client(transforms={"derived": gone}).get_online_features("both", {"user_id": 1, "movie_id": 1})
    with pytest.raises(DefinitionError, match="a lambda cannot be served"):
        make_client(transforms={"derived": lambda inputs: inputs})

    view = on_demand_feature_view(sources=[numbers[["c"]]], schema=[Field("x", Float32)])(gone)
    publish_derived(store, view)
    with pytest.raises(TransformError, match=r"offers no function for it.*pass definitions="):
        make_client().get_online_features("both", {"movie_id": 1})
    with pytest.raises(TransformError, match=r"expected a dict of \['x'\]"):
        make_client(transforms={"gone": view}).get_online_features("both", {"movie_id": 1}).to_dict()


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (1_700_000_000, "looks like seconds or milliseconds"),
        (1_700_000_000_000, "looks like seconds or milliseconds"),
        (np.int64(1_700_000_000_000), "looks like seconds or milliseconds"),
        (1_700_000_000_000_000_000, "looks like nanoseconds"),
        (0, "looks like seconds or milliseconds"),
        (1_700_000_000.5, "a datetime, or integer microseconds"),
        (True, "a datetime, or integer microseconds"),
        ("2024-01-01", "a datetime, or integer microseconds"),
        (np.datetime64("2024-01-01"), "a datetime, or integer microseconds"),
    ],
)
@pytest.mark.parametrize("deadline_ms", [None, 1000])
def test_a_time_in_another_unit_is_refused(
    store: OnlineStore, make_client: Any, now: Any, message: str, deadline_ms: int | None
) -> None:
    store.publish(plan_of(), over=None)
    with pytest.raises(RequestError, match=f"now: expected .*{message}"):
        make_client().get_online_features(["profile:age"], {"user_id": 1}, now=now, deadline_ms=deadline_ms)


@pytest.mark.parametrize("now", [NOW_US, np.int64(NOW_US), from_microseconds(NOW_US), datetime.min, None])
def test_a_time_is_a_datetime_or_microseconds(store: OnlineStore, make_client: Any, now: Any) -> None:
    store.publish(plan_of(), over=None)
    found = make_client().get_online_features(["profile:age"], {"user_id": 1}, now=now)
    assert found.status["age"] == [Status.MISSING]
