"""Redis may hold any bytes in place of a plan: clients read a sound plan or raise an error of this library."""

from __future__ import annotations

import copy
import json
import tracemalloc
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from feature_store.definitions import (
    Aggregation,
    Array,
    Bool,
    DefinitionSet,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Int64,
    KafkaSource,
    OnDemandFeatureView,
    RequestSource,
    Sequence,
    StreamFeatureView,
    String,
    Timestamp,
)
from feature_store.definitions.pruning import PrunedFeature, Pruning
from feature_store.errors import FeatureStoreError, NotPublishedError
from feature_store.online.offered import Offered
from feature_store.online.published_plan import PublishedPlan
from feature_store.registry.compile import compile_plan
from feature_store.registry.plan_document import plan_from_json, plan_to_json
from feature_store.registry.serving_plan import ServingPlan
from feature_store.registry.soundness import MOST_BYTES, MOST_VALUE_BYTES

HOUR = timedelta(hours=1)
user, shop = Entity("user"), Entity("shop", dtype=String)
events = KafkaSource("e", topic="events", event_timestamp="ts", schema=[Field("user", Int64), Field("n", Int64)])
profile = FeatureView(
    "profile",
    entities=[user],
    ttl=HOUR,
    schema=[
        Field("a", Float32, default=float("nan")),
        Field("b", Array(Timestamp, 2)),
        Field("c", String, default="x"),
    ],
)
pair = FeatureView("pair", entities=[user, shop], schema=[Field("d", Int64, default=1)])
counts = StreamFeatureView(
    "counts",
    entities=[user],
    source=events,
    aggregations=[
        Aggregation("n", "count", windows=[HOUR], filter="n > 1"),
        Aggregation("n", "last_n", windows=[HOUR], n=3),
        Aggregation("n", "mean", windows=[HOUR, 2 * HOUR]),
    ],
)
acts = KafkaSource(
    "a",
    topic="acts",
    event_timestamp="ts",
    schema=[Field("user", Int64), Field("n", Int64), Field("act", String), Field("seen", Bool)],
)
# Functions with parameters: the plan holds them as texts of JSON.
latest = StreamFeatureView(
    "latest",
    entities=[user],
    source=acts,
    aggregations=[
        Aggregation("n", "sum", windows=["lifetime"]),
        Aggregation("n", "decayed_mean", half_life=HOUR),
        Aggregation("n", "quantile", q=0.5, windows=[HOUR]),
        Aggregation("n", "sum_per_category", by="act", categories=["x"], windows=[HOUR]),
        Aggregation("act", "top_k", n=1, categories=["x", "y"], windows=[HOUR]),
        Sequence("recent", columns=["n", "act", "event_timestamp"], n=3, categories={"act": ["x"]}, distinct="n"),
    ],
)


def computed(inputs):
    return {"e": inputs["a"]}


double = OnDemandFeatureView(
    "double",
    sources=[profile[["a"]], RequestSource("r", [Field("words", Array(String), default=["w"])])],
    schema=[Field("e", Float32)],
    function=computed,
)
SERVICE = FeatureService("ranking", features=[profile, pair, counts, latest, double])
PRUNING = Pruning(
    service="ranking",
    plan="p1",
    stage="mask",
    bound_to="x",
    columns=("a", "b", "c", "d"),
    dropped=(PrunedFeature(name="d", view="pair", feature="d", dtype="Int64"),),
    answer="default",
    read_order=("profile", "pair"),
)


def plan_of(*definitions: Any) -> ServingPlan:
    return compile_plan(DefinitionSet(definitions), project="shop", version=3)


PLAN = plan_of(profile, pair, counts, latest, double, SERVICE, FeatureService("small", features=[pair]))
DOCUMENT: dict[str, Any] = json.loads(plan_to_json(PLAN))
DOCUMENT["services"][0]["pruning"] = json.loads(PRUNING.model_dump_json(exclude={"service", "bound_to"}))
DOCUMENT["filling"], DOCUMENT["retired_tiles"] = DOCUMENT["groups"][:1], DOCUMENT["tiles"]
DEEP: Any = []
for _ in range(150):
    DEEP = [DEEP]
HOSTILE: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**62, 2**70, 10**40, 0.5, -1e308, "", "x", "../../etc/passwd", "a b", "a\n", "1a", "é", "\x1b[31m",
    "x" * 100_000, "Array(Int64, 99999999999)", "Array(Float32, 1073741824)", "Array(String)", "Array(Array(Int64))",
    "Int64", "String", "Timestamp", "last", "sum", "subprocess:call", [], {}, [None], DEEP, {"name": "x"}, [["user", "Int64"]] * 70,
]  # fmt: skip


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values of a document, also of those in texts of JSON."""
    found = [path] if path else []
    node = opened(node)
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        found += places(value, (*path, key))
    return found


def opened(node: Any) -> Any:
    """The object in a text of JSON; another value as it is."""
    return json.loads(node) if isinstance(node, str) and node.startswith("{") else node


PLACES = places(DOCUMENT)


def changed(path: tuple[Any, ...], how: str, value: Any, document: Any = DOCUMENT) -> bytes:
    document = copy.deepcopy(document)
    if "options" in path[:-1]:
        end = path.index("options") + 1
        text = json.dumps(_changed(opened(_at(document, path[:end])), path[end:], how, value))
        return json.dumps(_changed(document, path[:end], "set", text)).encode()
    return json.dumps(_changed(document, path, how, value)).encode()


def _at(node: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        node = node[part]
    return node


def _changed(document: Any, path: tuple[Any, ...], how: str, value: Any) -> Any:
    node = _at(document, path[:-1])
    if how == "drop":
        del node[path[-1]]
    elif how == "double" and isinstance(node, list):
        node.append(node[path[-1]])
    elif how == "swap":
        node[path[-1]] = json.loads(json.dumps(document))  # puts the whole document inside itself
    else:
        node[path[-1]] = value
    return document


def use(document: bytes) -> None:
    """Do all that a client does with a plan before its first request to Redis."""
    plan = plan_from_json(document)
    published = PublishedPlan(plan, b"e", Offered([double]))
    for service in [*(one.name for one in plan.services), ["profile:a", "counts:n_mean_1h", "latest:recent_act"]]:
        compiled = published.service(service)
        assert all(group.layout.size <= 2 * MOST_VALUE_BYTES for group in compiled.groups)
        keys = {name: "1" if str(dtype) == "String" else 1 for g in compiled.groups for name, dtype in g.join_keys}
        compiled.prepare(keys)
        compiled.prepare_by_group(keys)


def test_a_published_plan_is_read() -> None:
    use(json.dumps(DOCUMENT).encode())
    assert plan_from_json(plan_to_json(PLAN)) == PLAN


@settings(max_examples=400)
@given(path=st.sampled_from(PLACES), how=st.sampled_from(["set", "set", "set", "drop", "double", "swap"]), value=st.sampled_from(HOSTILE))  # fmt: skip
def test_a_changed_plan_is_read_or_refused(path: tuple[Any, ...], how: str, value: Any) -> None:
    try:
        use(changed(path, how, value))
    except FeatureStoreError as error:
        assert len(str(error)) < 5_000


def test_any_parameter_of_a_function_is_read_or_refused() -> None:
    """Each hostile value in each place, since parameters are few among the places of a whole plan."""
    document = json.loads(plan_to_json(plan_of(latest)))
    for path in places(document):
        if "options" in path[:-1]:
            for value in HOSTILE:
                with suppress(FeatureStoreError):
                    plan_from_json(changed(path, "set", value, document))


@settings(max_examples=200)
@given(cut=st.integers(0, 4_000), more=st.binary(max_size=8))
def test_a_torn_plan_is_refused(cut: int, more: bytes) -> None:
    document = json.dumps(DOCUMENT).encode()
    with pytest.raises(NotPublishedError):
        plan_from_json(document[:cut] + more + b"\x00")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("project",), "../x", "project: expected a name"),
        (("services", 0, "name"), "../../x", r"services\[0\]\.name: expected a name"),
        (("services", 0, "name"), "ranking\n", r"services\[0\]\.name: expected a name"),
        (("groups", 0, "segments", 0, "fields", 0, "dtype"), "Array(Int64, 99999999999)", "a length that memory can"),
        (("groups", 0, "segments", 0, "fields", 0, "dtype"), f"Array(Int64, {'9' * 5000})", "a type"),
        (("groups", 0, "segments", 0, "fields", 0, "default"), "ten", "a value of"),
        (("groups", 1, "name"), "other", "the names of its entities"),
        (("groups", 1, "generation"), -1, "a number from 0"),
        (("buckets",), 2**40, "buckets: expected a number from 1 to 16384"),
        (("tiles", 0, "windows", "rings", 0, "slots"), 10**9, "a number from 1 to 100000"),
        (("tiles", 0, "windows", "rings", 0, "hop_us"), 0, "hop_us: expected a number"),
        (("tiles", 0, "windows", "features", 0, "ring"), 7, "ring: expected a number from 0"),
        (("tiles", 0, "windows", "features", 0, "parts"), [9], "parts: expected a number from 0"),
        (("tiles", 0, "windows", "features", 0, "dtype"), "String", r"features\[0\]\.dtype: expected Int64"),
        (("transforms", 0, "digest"), "x" * 2_000, "at most 1,000 printable characters"),
        (("services", 0, "columns", 0, "view"), DEEP, "Input should be a valid string"),
        (("groups", 0, "segments", 0, "fields", 0, "default"), DEEP, "a value of"),
    ],
    ids=repr,
)
def test_an_error_names_the_refused_part(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(NotPublishedError, match=message):
        plan_from_json(changed(path, "set", value))


def test_a_plan_takes_bounded_memory() -> None:
    documents = [
        b" " * (MOST_BYTES + 1),
        b"[" * 1_000_000,
        b'{"project":' * 100_000,
        b"9" * 1_000_000,
        json.dumps(DOCUMENT | {"services": [{"name": "x"}] * 200_000}).encode(),
        changed(("groups", 0, "segments", 0, "fields", 0, "dtype"), "set", "Array(Int64, 8000000)"),
    ]
    for document in documents:
        tracemalloc.start()
        try:
            with pytest.raises(NotPublishedError) as raised:
                plan_from_json(document)
            assert len(str(raised.value)) < 2_000
            assert tracemalloc.get_traced_memory()[1] < 2 * MOST_BYTES
        finally:
            tracemalloc.stop()
