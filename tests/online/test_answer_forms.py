"""Answers as dict, Arrow, pandas and Polars: equal to those made value by value, for each type, status and kind."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from feature_store import FeatureStore
from feature_store.definitions.dtypes import DType
from feature_store.online import OnlineClient, Status
from feature_store.online.arrow import arrow_type, data_frame
from tests.online.slow_forms import slow_dict, slow_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feature_store.online import OnlineResponse

AT = datetime(2026, 1, 10, 12, tzinfo=UTC)
STORED = 12  # users that may have rows; each view has rows of some of them
# Per type: makes a random value, and the default as a definition gives it.
SCALARS: dict[str, tuple[Callable[[random.Random], Any], str]] = {
    "Bool": (lambda chance: chance.random() < 0.5, "True"),
    "Int8": (lambda chance: chance.randint(-(2**7), 2**7 - 1), "-8"),
    "Int16": (lambda chance: chance.randint(-(2**15), 2**15 - 1), "300"),
    "Int32": (lambda chance: chance.randint(-(2**31), 2**31 - 1), "-70000"),
    "Int64": (lambda chance: chance.choice([2**53 + 1, -(2**63), chance.randint(0, 9)]), "9007199254740993"),
    "Float16": (lambda chance: chance.choice([0.5, -65504.0, float("nan"), float("inf")]), "0.25"),
    "Float32": (lambda chance: chance.choice([1.5, -0.0, float("nan"), float(np.float32(chance.random()))]), "0.1"),
    "Float64": (lambda chance: chance.choice([chance.random(), float("nan"), -float("inf")]), "0.1"),
    "String": (lambda chance: chance.choice(["", "plain", "é", "\u4e2d\u6587", "a\x00b"]), "'none'"),
    "Bytes": (lambda chance: chance.choice([b"", b"\xff\x00", b"text"]), "b'none'"),
    "Decimal(10, 2)": (
        lambda chance: Decimal(chance.randint(-(10**10) + 1, 10**10 - 1)).scaleb(-2),
        "decimal.Decimal('12.30')",
    ),
    "Decimal(18, 0)": (lambda chance: Decimal(chance.randint(-(10**18) + 1, 10**18 - 1)), "decimal.Decimal(-1)"),
    "Date": (lambda chance: AT.date() - timedelta(days=chance.randint(-(10**6), 7 * 10**5)), "date(1, 1, 2)"),
    "Timestamp": (
        lambda chance: AT - timedelta(days=chance.randint(0, 7 * 10**5), microseconds=chance.randint(0, 10**6)),
        "datetime(9999, 1, 1, tzinfo=UTC)",
    ),
}
LENGTHS: dict[str, Callable[[random.Random], int]] = {"": lambda chance: chance.randint(0, 3), ", 2": lambda _: 2}


def _list_of(make: Callable[[random.Random], Any], length: Callable[[random.Random], int]) -> Any:
    return lambda chance: [make(chance) for _ in range(length(chance))]


MAKES: dict[str, Callable[[random.Random], Any]] = {text: make for text, (make, _) in SCALARS.items()}
MAKES |= {
    f"Array({text}{size})": _list_of(make, length)
    for text, (make, _) in SCALARS.items()
    for size, length in LENGTHS.items()
}
DEFAULTS = {text: default for text, (_, default) in SCALARS.items()}
DEFAULTS |= {f"Array({text}{size})": f"[{default}] * 2" for text, (_, default) in SCALARS.items() for size in LENGTHS}
# Each type twice without a default and twice with one, so that there are blocks of several columns.
FIELDS = {
    f"{view}_{kind}{i}_{copy}": (text, DEFAULTS[text] if kind == "d" else None)
    for view in ("fresh", "old")
    for kind in "nd"
    for i, text in enumerate(MAKES)
    for copy in range(2)
}
TYPES = {name: DType.parse(text) for name, (text, _) in FIELDS.items()}


def _schema(view: str) -> str:
    fields = [
        f'Field("{name}", {text}' + (f", default={default})" if default is not None else ")")
        for name, (text, default) in FIELDS.items()
        if name.startswith(view)
    ]
    return ", ".join(fields)


FEATURES = f"""
import decimal
from datetime import UTC, date, datetime, timedelta
from feature_store import *

user, item = Entity("user", join_key="user_id"), Entity("item", join_key="item_id", dtype=String)
fresh = FeatureView("fresh", entities=[user], schema=[{_schema("fresh")}])
old = FeatureView("old", entities=[item], ttl=timedelta(days=1), schema=[{_schema("old")}])
asked = RequestSource("asked", [Field("bonus", Float32, default=1.0)])

@on_demand_feature_view(sources=[fresh[["fresh_n6_0", "fresh_n8_0"]], asked],
                        schema=[Field("doubled", Float32, default=0.5), Field("label", String)])
def computed(inputs):
    return {{"doubled": inputs["fresh_n6_0"] * 2 + inputs["bonus"], "label": inputs["fresh_n8_0"]}}

everything = FeatureService("everything", features=[fresh, old, computed])
"""
NAMES = [*FIELDS, "doubled", "label"]
OF_VIEW = {name: name.partition("_")[0] for name in FIELDS} | {"doubled": "computed", "label": "computed"}
# The expected types of DataFrame columns.
PANDAS = {
    "Bool": "boolean", "Int8": "Int8", "Int16": "Int16", "Int32": "Int32", "Int64": "Int64",
    "Float16": "float16", "Float32": "float32", "Float64": "float64", "Timestamp": "datetime64[us, UTC]",
    "Bytes": "object", "Decimal(10, 2)": "object", "Decimal(18, 0)": "object", "Date": "object",
}  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, redis_process: Any) -> Iterator[OnlineClient]:
    folder, chance = tmp_path_factory.mktemp("forms"), random.Random(5)
    (folder / "feature_store.yaml").write_text(f"project: forms\nonline_store:\n  url: {redis_process.url}\n")
    (folder / "features.py").write_text(FEATURES)
    with FeatureStore(folder) as store:
        store.apply()
        for view, key in (("fresh", "user_id"), ("old", "item_id")):
            ids = [i for i in range(STORED) if chance.random() < 0.8]
            columns = {key: pa.array(ids if view == "fresh" else [f"item {i}" for i in ids])}
            at = [AT - timedelta(days=chance.choice([0, 3])) for _ in ids]
            columns["event_timestamp"] = pa.array(at, pa.timestamp("us", "UTC"))
            for name, dtype in TYPES.items():
                if name.startswith(view):
                    often = chance.choice([0.0, 0.0, 0.3, 1.0])
                    values = [None if chance.random() < often else MAKES[str(dtype)](chance) for _ in ids]
                    columns[name] = pa.array(values, arrow_type(dtype))
            store.push(view, pa.table(columns))
        with OnlineClient(store.online_url, "forms", definitions=folder, timeout_s=20.0) as opened:
            yield opened
        store.teardown()


def _is_same(found: Any, expected: Any) -> bool:
    """Whether two values are equal and of one type: True is not 1, and NaN equals NaN."""
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(_is_same, found, expected))
    return type(found) is type(expected) and (found == expected or (found != found and expected != expected))


def check(response: OnlineResponse) -> None:
    """Compare each form with the form that is made value by value."""
    expected, table = slow_dict(response), slow_table(response)
    found = response.to_dict()
    assert list(found) == response.names
    for name, values in expected.items():
        assert _is_same(found[name], values), (name, found[name], values)
    arrow = response.to_arrow()
    arrow.validate(full=True)
    assert arrow.schema == table.schema
    for name in table.column_names:
        # Compared as text, since NaN differs from NaN in Arrow.
        assert repr(arrow[name].to_pylist()) == repr(table[name].to_pylist()), name
        assert arrow[name].null_count == table[name].null_count, name
    frame = response.to_pandas()
    pd.testing.assert_frame_equal(frame, data_frame(table), check_exact=True)
    expected_polars: Any = pl.from_arrow(table)
    polars = response.to_polars()
    assert polars.schema == expected_polars.schema
    assert polars.equals(expected_polars)


users = st.one_of(st.integers(0, STORED), st.lists(st.integers(0, STORED), max_size=6))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=12, unique=True),
    users=users,
    items=st.one_of(st.none(), st.integers(0, STORED)),
    age=st.sampled_from([timedelta(0), timedelta(hours=12), timedelta(days=2), timedelta(days=9)]),
    late=st.booleans(),
)
@example(names=NAMES, users=list(range(STORED)), items=None, age=timedelta(0), late=False)
@example(names=NAMES, users=[3, 3, 1, 12, 3], items=2, age=timedelta(0), late=False)
@example(names=NAMES, users=[], items=None, age=timedelta(0), late=False)
@example(names=NAMES, users=4, items=None, age=timedelta(0), late=True)
def test_every_form_is_the_one_made_value_by_value(
    client: OnlineClient, names: list[str], users: Any, items: int | None, age: timedelta, late: bool
) -> None:
    each = [f"item {user}" for user in users] if isinstance(users, list) else f"item {users}"
    rows = {"user_id": users, "item_id": each if items is None else f"item {items}", "bonus": 1.5}
    features = [f"{OF_VIEW[name]}:{name}" for name in names]
    deadline = {"deadline_ms": 0.0} if late else {}
    check(client.get_online_features(features, rows, now=AT + age, **deadline))


def test_all_statuses_are_among_what_is_compared(client: OnlineClient) -> None:
    rows = {"user_id": list(range(STORED + 1)), "item_id": [f"item {i}" for i in range(STORED + 1)], "bonus": 1.0}
    response = client.get_online_features("everything", rows, now=AT)
    late = client.get_online_features("everything", rows, now=AT, deadline_ms=0.0)
    assert set(response.status_counts()) == {Status.PRESENT, Status.NULL, Status.MISSING, Status.EXPIRED}
    assert set(late.status_counts()) == {Status.SKIPPED}


def test_the_types_of_each_form_follow_from_the_declared_types(client: OnlineClient) -> None:
    text = str(pa.table({"s": ["a"]}).to_pandas()["s"].dtype)
    for users in (list(range(STORED)), STORED + 1, []):  # some values, none, no rows
        rows = {"user_id": users, "item_id": "item 1", "bonus": 1.0}
        response = client.get_online_features("everything", rows, now=AT)
        arrow, frame, polars = response.to_arrow(), response.to_pandas(), response.to_polars()
        for name, dtype in TYPES.items():
            assert arrow.schema.field(name).type == arrow_type(dtype)
            wanted = "object" if dtype.element is not None else PANDAS.get(str(dtype), text)
            assert str(frame[name].dtype) == wanted, (name, dtype)
        assert polars.schema == pl.from_arrow(arrow).schema
        assert frame.columns.dtype == data_frame(arrow).columns.dtype


def test_a_frame_of_floats_is_one_block_and_belongs_to_its_caller(client: OnlineClient) -> None:
    features = [
        f"fresh:{name}" for name, dtype in TYPES.items() if name.startswith("fresh") and str(dtype) == "Float32"
    ]
    rows = {"user_id": list(range(STORED))}
    first = client.get_online_features(features, rows, now=AT)
    frame = first.to_pandas()
    check(first)
    frame.iloc[0, 0] = 99.0
    frame.columns.name = "mine"
    second = client.get_online_features(features, rows, now=AT).to_pandas()
    assert second.columns.name is None
    assert second.iloc[0, 0] != 99.0
    check(first)


def test_what_a_caller_does_to_a_list_does_not_change_the_default(client: OnlineClient) -> None:
    name = next(name for name, (text, default) in FIELDS.items() if text == "Array(Int64)" and default)
    missing = {"user_id": [STORED, STORED + 1]}
    for rows in (missing, {"user_id": [0, STORED]}):
        answer = client.get_online_features([f"fresh:{name}"], rows, now=AT).to_dict()
        answer[name][-1].append(1)
    assert client.get_online_features([f"fresh:{name}"], missing, now=AT).to_dict()[name] == [[2**53 + 1] * 2] * 2
