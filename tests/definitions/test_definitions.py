"""Definitions as users write them: accepted and refused arguments, and the places that errors name."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from feature_store.definitions import (
    Aggregation,
    Array,
    Bool,
    DefinitionSet,
    DType,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Float64,
    Int32,
    Int64,
    KafkaSource,
    OnDemandFeatureView,
    ParquetSource,
    RequestSource,
    StreamFeatureView,
    String,
    Timestamp,
    on_demand_feature_view,
)
from feature_store.definitions.definition import on_change
from feature_store.definitions.dtypes import SCALARS, from_microseconds, to_microseconds
from feature_store.errors import DataError, DefinitionError, NotFoundError

user = Entity("user", join_key="user_id", description="who asks", owner="growth", tags={"pii": "yes"})
movie = Entity("movie", join_key="movie_id", dtype=Int64)
view = FeatureView(
    "movie_profile",
    entities=[movie],
    ttl=timedelta(days=365),
    source=ParquetSource("data/movies.parquet", event_timestamp="event_timestamp", created_timestamp="created"),
    schema=[
        Field("year", Int32, description="of release"),
        Field("is_drama", Bool),
        Field("budget", Float32, default=0.0),
        Field("unknown", Float64, default=float("nan")),
        Field("seen", Timestamp, default=datetime(2000, 1, 1)),
        Field("vector", Array(Float32, 2), default=[1, 2.5]),
        Field("words", Array(String)),
    ],
)
pair = FeatureView("pair", entities=[user, movie], schema=[Field("likes", Float32)])
context = RequestSource("context", [Field("now_year", Int32)])


@on_demand_feature_view(sources=[view[["year"]], context], schema=[Field("age", Float32)], owner="ranking")
def movie_age(inputs: dict[str, Any]) -> dict[str, Any]:
    """Years since release."""
    return {"age": (inputs["now_year"] - inputs["year"]).astype("float32")}


def as_they_are(inputs: dict[str, Any]) -> dict[str, Any]:
    return inputs


service = FeatureService(
    "ranking", features=[view[["year", "is_drama"]].rename({"year": "release_year"}), pair, movie_age]
)


def test_definitions_have_the_attributes_that_were_given() -> None:
    assert (user.join_key, user.dtype, user.owner, user.tags) == ("user_id", Int64, "growth", {"pii": "yes"})
    assert Entity("driver").join_key == "driver"
    assert pair.join_keys == ["user_id", "movie_id"]
    assert view.ttl_us == 365 * 86_400 * 1_000_000 and pair.ttl_us is None
    assert FeatureView("v", entities=[movie], schema=[Field("a", Bool)], ttl=timedelta(0)).ttl_us is None
    assert view.field("budget").default == 0.0 and view.field("vector").default == [1.0, 2.5]
    assert service.features[0].columns == (("year", "release_year"), ("is_drama", "is_drama"))
    assert view["year"].columns == (("year", "year"),)
    assert movie_age.description == "Years since release." and movie_age.owner == "ranking"
    assert movie_age({"now_year": np.array([2000]), "year": np.array([1990])})["age"].tolist() == [10.0]
    with pytest.raises(Exception, match="frozen"):
        user.name = "x"  # type: ignore[misc]


def test_definitions_survive_a_document() -> None:
    definitions = DefinitionSet([service, view, pair, movie_age])
    document = json.loads(json.dumps(definitions.to_document()))
    back = DefinitionSet.from_document(document)
    assert back.to_document() == definitions.to_document() == document
    assert sorted(back.entities) == ["movie", "user"], "entities come with the views"
    assert back.view("movie_profile").field("seen").default == datetime(2000, 1, 1, tzinfo=UTC)
    assert np.isnan(back.view("movie_profile").field("unknown").default)
    with pytest.raises(DefinitionError, match="has no function"):
        back.on_demand_feature_views["movie_age"]({})


REFUSED = [
    (lambda: Field("1a", Int32), r"Field\('1a'\)\.name: expected a name of letters"),
    (lambda: Field("a b", Int32), r"\.name"),
    (lambda: Field("a" * 65, Int32), r"\.name"),
    (lambda: Field("", Int32), r"\.name"),
    (lambda: Field("a", "Int31"), r"Field\('a'\)\.dtype: expected one of Bool, .*got 'Int31'"),
    (lambda: Field("a", int), r"Field\('a'\)\.dtype"),
    (lambda: Field("a", Int32, default=2**31), r"Field\('a'\)\.default: expected a value of Int32, got 2147483648"),
    (lambda: Field("a", Int32, default=True), r"\.default"),
    (lambda: Field("a", Float32, default=1e39), r"\.default"),
    (lambda: Field("a", Array(Float32, 2), default=[1]), r"\.default"),
    (lambda: Field("a", Int32, colour="red"), r"Field\('a'\)\.colour: there is no such argument"),
    (lambda: Entity("e", dtype=Float32), r"Entity\('e'\)\.dtype: expected Int64, Int32 or String, got Float32"),
    (lambda: Array(Array(Int32)), "a scalar element type"),
    (lambda: Array(Int32, 0), "a length of at least 1"),
    (lambda: FeatureView("v", entities=[], schema=[Field("a", Bool)]), r"FeatureView\('v'\)\.entities"),
    (lambda: FeatureView("v", entities=[movie], schema=[]), r"FeatureView\('v'\)\.schema"),
    (lambda: FeatureView("v", entities=[movie], schema=[Field("a", Bool), 3]), r"FeatureView\('v'\)\.schema\[1\]: expected a Field, got 3"),
    (lambda: FeatureView("v", entities=[movie], schema=[Field("a", Bool)] * 2), r"schema\[1\]: 'a' occurs twice"),
    (lambda: FeatureView("v", entities=[movie, movie], schema=[Field("a", Bool)]), r"entities\[1\]"),
    (lambda: FeatureView("v", entities=[movie], schema=[Field("movie_id", Int64)]), r"schema\[0\]\.name: 'movie_id' is a join key"),
    (lambda: FeatureView("v", entities=[movie], schema=[Field("a", Bool)], ttl=3600), r"FeatureView\('v'\)\.ttl: expected a timedelta"),
    (lambda: FeatureView("v", entities=[movie], schema=[Field("a", Bool)], ttl=timedelta(-1)), r"\.ttl: expected a timedelta of zero or more"),
    (lambda: ParquetSource("", event_timestamp="ts"), r"ParquetSource\.path"),
    (lambda: RequestSource("r", [Field("a", Bool), Field("a", Bool)]), r"schema\[1\]"),
    (lambda: view[["nope"]], r"movie_profile\['nope'\]: expected one of year"),
    (lambda: view[[]], "at least one feature"),
    (lambda: view[["year"]].rename({"budget": "b"}), "budget"),
    (lambda: FeatureService("s", features=[view, view[["year"]]]), r"FeatureService\('s'\)\.features: .*served as 'year'.*rename one"),
    (lambda: FeatureService("s", features=[]), r"FeatureService\('s'\)\.features"),
    (lambda: on_demand_feature_view(sources=[view, view[["year"]]], schema=[Field("a", Float32)], name="no-name")(as_they_are), "letters"),
    (lambda: on_demand_feature_view(sources=[view, view[["year"]]], schema=[Field("a", Float32)], name="o")(as_they_are), "'year' occurs twice"),
    (lambda: on_demand_feature_view(sources=["year"], schema=[Field("a", Float32)], name="o")(as_they_are), r"sources\[0\]"),
    (lambda: on_demand_feature_view(sources=[view], schema=[Field("a", Array(Int32, 2))], name="o")(as_they_are), r"schema\[0\]\.dtype"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_an_error_names_the_refused_part(make, message) -> None:
    with pytest.raises((DefinitionError, NotFoundError), match=message):
        make()


CLASHES = [
    ([Entity("a"), FeatureView("a", entities=[movie], schema=[Field("x", Bool)])], "with this name is defined"),
    ([Entity("movie", join_key="other"), view], "with this name is defined"),
    ([Entity("a", join_key="k"), Entity("b", join_key="k", dtype=String)], "as join key 'k' has in"),
    ([FeatureService("s", features=[view])], r"FeatureService\('s'\)\.features\[0\]: no view .* is defined"),
    ([movie_age], r"OnDemandFeatureView\('movie_age'\)\.sources\[0\]"),
    ([view, pair, on_demand_feature_view(sources=[RequestSource("r", [Field("user_id", Int64)])], schema=[Field("a", Float32)], name="o")(as_they_are)], "'user_id' is a join key"),
    ([view, movie_age, on_demand_feature_view(sources=[RequestSource("r", [Field("now_year", Int64)])], schema=[Field("a", Float32)], name="o")(as_they_are)], "expected Int32, as in"),
]  # fmt: skip


@pytest.mark.parametrize(("definitions", "message"), CLASHES)
def test_definitions_must_fit_each_other(definitions, message) -> None:
    with pytest.raises(DefinitionError, match=message):
        DefinitionSet(definitions)


@given(
    st.sampled_from(
        [*SCALARS.values(), *(Array(s) for s in SCALARS.values()), *(Array(s, 3) for s in SCALARS.values())]
    )
)
def test_parse_is_the_inverse_of_str(dtype: DType) -> None:
    assert DType.parse(str(dtype)) == dtype


@given(st.datetimes() | st.datetimes(timezones=st.just(timezone(timedelta(hours=-7)))))
def test_times_survive_as_microseconds(time: datetime) -> None:
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    try:
        utc = aware.astimezone(UTC)
    except OverflowError:
        return
    assert from_microseconds(to_microseconds(time)) == utc
    assert Timestamp.fit(time, "t") == utc


def test_values_that_do_not_fit_are_refused() -> None:
    for dtype, value in (
        (Int32, 1.0),
        (Int64, 2**63),
        (Float32, "1"),
        (Float64, 2**53 + 1),
        (String, b"x"),
        (Timestamp, 5),
        (Bool, 1),
    ):
        with pytest.raises(DataError, match=r"here: expected .*, got "):
            dtype.fit(value, "here")
    with pytest.raises(DataError, match=r"here\[1\]"):
        Array(Int32).fit([1, None], "here")
    assert Int64.fit(np.int32(5), "") == 5 and Float32.fit(0.1, "") == float(np.float32(0.1))


def test_freshness_is_in_the_document_only_if_declared() -> None:
    user = Entity("user", join_key="user_id")
    events = KafkaSource("e", topic="e", event_timestamp="ts", schema=[Field("user_id", Int64), Field("n", Float64)])
    for freshness in (None, timedelta(minutes=5)):
        views = [
            FeatureView("batch", entities=[user], schema=[Field("a", Int32)], freshness=freshness),
            StreamFeatureView(
                "stream",
                entities=[user],
                source=events,
                aggregations=[Aggregation("n", "sum", windows=[timedelta(hours=1)])],
                freshness=freshness,
            ),
        ]
        document = DefinitionSet(views).to_document()
        for kind, name in (("feature_views", "batch"), ("stream_feature_views", "stream")):
            assert document[kind][name].get("freshness", "none") == ("none" if freshness is None else 300_000_000)
        assert [view.freshness for view in DefinitionSet.from_document(document).stored_views] == [freshness] * 2


@pytest.mark.parametrize("freshness", [timedelta(0), timedelta(days=-1), 3600, "1h"])
def test_freshness_is_a_time_above_zero(freshness: Any) -> None:
    with pytest.raises(DefinitionError, match="freshness"):
        FeatureView("v", entities=[Entity("user")], schema=[Field("a", Int32)], freshness=freshness)


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [
        (Int32, "-7", -7),
        (Int64, str(2**63 - 1), 2**63 - 1),
        (Float32, "0.5", 0.5),
        (Float64, "1e3", 1000.0),
        (Bool, "TRUE", True),
        (Bool, "0", False),
        (String, " as it is ", " as it is "),
        (Timestamp, "2026-01-02T03:04:05+01:00", datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)),
        (Timestamp, "2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        (Array(Float32, 2), "[1, 2.5]", [1.0, 2.5]),
        (Array(String), '["a,b"]', ["a,b"]),
    ],
)
def test_read_parses_a_typed_value(dtype: DType, text: str, value: Any) -> None:
    assert dtype.read(text, "x") == value


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        (Int32, str(2**31)),
        (Int64, "1_000"),
        (Int64, "٣"),
        (Int64, "9" * 5000),
        (Int64, ""),
        (Float32, "1e300"),
        (Bool, "yes"),
        (Timestamp, "soon"),
        (Array(Float32, 2), "[1]"),
        (Array(Float32), "[" * 100_000),
        (Array(Int64), '{"a": 1}'),
    ],
)
def test_read_refuses_a_text_that_is_no_value(dtype: DType, text: str) -> None:
    with pytest.raises(DataError, match="x: expected a value of"):
        dtype.read(text, "x")


def test_expectations_are_in_the_document_only_if_declared() -> None:
    fields = [
        Field("a", Float32, min=0, max=0.1, max_null_rate=0.5),
        Field("b", String, allowed=["x", "y"]),
        Field("c", Int32),
    ]
    view = FeatureView("v", entities=[Entity("user")], schema=fields, on_breach="warn")
    document = json.loads(json.dumps(DefinitionSet([view]).to_document()))
    found = DefinitionSet.from_document(document).view("v")
    assert found == view
    assert document["feature_views"]["v"]["schema"][2].keys() == {
        "name",
        "description",
        "owner",
        "tags",
        "dtype",
        "default",
    }
    assert [field.expectation for field in found.fields] == [
        "at least 0; at most 0.1; null in at most 0.5 of rows",
        "one of x, y",
        "",
    ]
    plain = FeatureView("v", entities=[Entity("user")], schema=[Field("c", Int32)])
    assert "on_breach" not in DefinitionSet([plain]).to_document()["feature_views"]["v"]


@pytest.mark.parametrize(
    ("dtype", "about", "where"),
    [
        (String, {"min": 1}, "min"),
        (Array(Float32), {"max": 1}, "max"),
        (Bool, {"min": 0}, "min"),
        (Int32, {"min": 0.5}, "min"),
        (Int32, {"max": 2**31}, "max"),
        (Float64, {"min": float("nan")}, "min"),
        (Float64, {"max": float("inf")}, "max"),
        (Int32, {"min": 2, "max": 1}, "min"),
        (Int32, {"allowed": []}, "allowed"),
        (Int32, {"allowed": 3}, "allowed"),
        (Int32, {"allowed": ["x"]}, "allowed"),
        (Int32, {"allowed": [1, None]}, "allowed"),
        (Timestamp, {"allowed": [1]}, "allowed"),
        (Int32, {"max_null_rate": 1.5}, "max_null_rate"),
        (Int32, {"max_null_rate": "x"}, "max_null_rate"),
    ],
)
def test_expectations_fit_their_field(dtype: DType, about: dict[str, Any], where: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        Field("a", dtype, **about)
    assert where in raised.value.where


def test_expectations_are_refused_where_they_are_not_checked() -> None:
    expecting = Field("n", Float64, min=0)
    for make in (
        lambda: RequestSource("r", [expecting]),
        lambda: OnDemandFeatureView("o", sources=[], schema=[expecting], function=as_they_are),
    ):
        with pytest.raises(DefinitionError, match="nothing checks"):
            make()


def test_events_have_expectations_of_values_but_no_null_rate() -> None:
    user = Entity("user", join_key="user_id")
    columns = [Field("user_id", Int64), Field("n", Float64, min=0), Field("m", Float64, max=1), Field("k", Int32)]
    sums = [Aggregation("k", "sum", windows=[timedelta(hours=1)])]
    streamed = StreamFeatureView(
        "s",
        entities=[user],
        source=KafkaSource("e", topic="e", event_timestamp="ts", schema=columns),
        aggregations=sums,
    )
    batch = FeatureView(
        "b",
        entities=[user],
        source=ParquetSource("e", event_timestamp="ts", schema=columns),
        aggregations=sums,
    )
    for view in (streamed, batch):
        assert list(view.event_columns) == ["n", "m", "k"], "what an event is told by, too"
    with pytest.raises(DefinitionError, match="events take no null rate"):
        KafkaSource("e", topic="e", event_timestamp="ts", schema=[Field("n", Float64, max_null_rate=0.5)])


def test_every_attribute_declares_what_its_change_means() -> None:
    """A new attribute of a batch view or field declares a change's effect with OnChange, or is part of the layout."""
    in_layout = {"name", "entities", "fields", "dtype"}
    declared = {name for name, _ in on_change(FeatureView, Field)}
    assert declared | in_layout == {*FeatureView.model_fields, *Field.model_fields}
    assert declared.isdisjoint(in_layout)
