"""Stream views, their sources and aggregations: accepted and refused arguments, documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from feature_store.aggregates.windows import compile_windows
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
    Float64,
    Int32,
    Int64,
    KafkaSource,
    OnDemandFeatureView,
    ParquetSource,
    Sequence,
    StreamFeatureView,
    String,
    Timestamp,
)
from feature_store.definitions.aggregation import shown_window
from feature_store.definitions.graph import feature_description
from feature_store.errors import DefinitionError, NotFoundError

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
COLUMNS = {
    "user_id": Int64, "movie_id": Int64, "rating": Float32, "seen": Bool, "stars": Int32, "action": String, "at": Timestamp
}  # fmt: skip
user, movie = Entity("user", join_key="user_id"), Entity("movie", join_key="movie_id")


def source(**options: Any) -> KafkaSource:
    given: dict[str, Any] = {
        "topic": "ratings",
        "event_timestamp": "ts",
        "schema": [Field(name, dtype) for name, dtype in COLUMNS.items()],
    }
    return KafkaSource("ratings", **(given | options))


def view(*aggregations: Any, **options: Any) -> StreamFeatureView:
    chosen = aggregations or (Aggregation("rating", "mean", windows=[HOUR, 7 * DAY]),)
    return StreamFeatureView("activity", **({"entities": [user], "source": source(), "aggregations": chosen} | options))


# -- what is accepted ---------------------------------------------------------------------------------------------------


def test_a_lifetime_is_a_window_by_its_name() -> None:
    found = view(Aggregation("rating", "sum", windows=[HOUR, "lifetime"], hop=MINUTE))
    assert [field.name for field in found.fields] == ["rating_sum_1h", "rating_sum_lifetime"]
    [document] = json.loads(found.model_dump_json())["aggregations"]
    assert document["windows"] == [3_600_000_000, "lifetime"]
    assert Aggregation(**document) == found.aggregations[0]
    with pytest.raises(DefinitionError, match="or as 'lifetime'"):
        Aggregation("rating", "sum", windows=[timedelta(milliseconds=5)])
    with pytest.raises(DefinitionError):
        Aggregation("rating", "sum", windows=["forever"])


def test_a_sequence_makes_a_feature_of_each_column_and_needs_one_cell() -> None:
    columns = ["movie_id", "action", "event_timestamp"]
    texts = {"action": ["rate", "view"]}
    recent = Sequence("recent", columns=columns, n=50, categories=texts, filter="action != 'skip'")
    week = Sequence("week", columns=["movie_id", "rating"], n=9, window=7 * DAY, distinct="movie_id")
    found = view(recent, week, Aggregation("rating", "decayed_sum", half_life=HOUR))
    assert [(field.name, field.dtype, field.default) for field in found.fields] == [
        ("recent_movie_id", Array(Int64), []),
        ("recent_action", Array(Int32), []),
        ("recent_event_timestamp", Array(Timestamp), []),
        ("week_movie_id_7d", Array(Int64), []),
        ("week_rating_7d", Array(Float32), []),
        ("rating_decayed_sum_1h", Float64, 0.0),
    ]
    windows = compile_windows(found.aggregations, {name: COLUMNS[name] for name in COLUMNS})
    [ring] = windows.rings
    assert (ring.slots, [part.kind for part in ring.parts]) == (0, ["sequence", "sequence", "decayed_sum"])
    assert windows.columns == ("movie_id", "action", "rating")
    assert view(*found.aggregations) == found, "as a document lists them"
    described = feature_description(found, found.field("recent_action"))
    assert described == "sequence of action over all events where action != 'skip'"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: view(Sequence("a", columns=["nothing"], n=5)), "a column of the events"),
        (lambda: view(Sequence("a", columns=["action"], n=5)), r"list the texts: categories={'action': \[\.\.\.\]}"),
        (lambda: view(Sequence("a", columns=["action"], n=5, categories={"action": [1]})), "categories"),
        (lambda: view(Sequence("a", columns=["rating"], n=5, categories={"rating": [1.0]})), "categories"),
        (lambda: view(Sequence("a", columns=["rating"], n=501)), "an integer from 1 to 500"),
        (lambda: view(Sequence("a", columns=["rating"], n=5, window=timedelta(milliseconds=1))), "whole seconds"),
        (lambda: Sequence("a", columns="rating", n=5), "put it in brackets"),
        (lambda: Sequence("a", columns=["rating", "rating"], n=5), "a column occurs twice"),
        (lambda: Sequence("a", columns=["event_timestamp"], n=5), "a column beside event_timestamp"),
        (lambda: Sequence("a", columns=["rating"], n=5, distinct="movie_id"), "one of the columns: rating"),
        (lambda: Sequence("a", columns=["rating"], n=5, categories={"action": ["x"]}), "one of the columns: rating"),
        (lambda: Aggregation("rating", "decayed_sum", half_life=HOUR, windows=[HOUR]), "takes no windows"),
        (lambda: Aggregation("rating", "decayed_sum"), "half_life"),
        (lambda: Aggregation("rating", "decayed_sum", half_life=timedelta(milliseconds=1)), "whole seconds"),
        (lambda: Aggregation("rating", "decayed_sum", half_life=HOUR, hop=HOUR), "have no hops"),
    ],
)
def test_sequences_and_decays_that_make_no_sense_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        make()


def test_features_follow_from_the_aggregations() -> None:
    found = view(
        Aggregation("rating", "mean", windows=[HOUR, DAY, 7 * DAY]),
        Aggregation("rating", "count", windows=[90 * SECOND]),
        Aggregation("action", "distinct", windows=[2 * DAY]),
        Aggregation("stars", "sum", windows=[HOUR], filter="action == 'rate'", name="rated"),
        Aggregation("stars", "last", windows=[HOUR]),
        Aggregation("at", "first", windows=[HOUR]),
        Aggregation("seen", "last_n", windows=[HOUR], n=3),
        Aggregation("rating", "stddev", windows=[MINUTE]),
        description="what users do",
        owner="growth",
        tags={"pii": "no"},
    )
    assert [(field.name, field.dtype, field.default) for field in found.fields] == [
        ("rating_mean_1h", Float64, None),
        ("rating_mean_1d", Float64, None),
        ("rating_mean_7d", Float64, None),
        ("rating_count_90s", Int64, 0),
        ("action_distinct_2d", Int64, 0),
        ("rated_1h", Float64, 0.0),
        ("stars_last_1h", Int32, None),
        ("at_first_1h", Timestamp, None),
        ("seen_last3_1h", Array(Bool), []),
        ("rating_stddev_1m", Float64, None),
    ]
    assert found.join_keys == ["user_id"]
    assert found.event_columns == {name: COLUMNS[name] for name in ("rating", "seen", "stars", "action", "at")}
    assert (found.history, found.ttl_us, found.owner, found.tags) == (None, None, "growth", {"pii": "no"})
    assert found[["rated_1h"]].rename({"rated_1h": "stars"}).columns == (("rated_1h", "stars"),)
    with pytest.raises(Exception, match="frozen"):
        found.aggregations[0].n = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("window", "shown"),
    [(SECOND, "1s"), (90 * SECOND, "90s"), (60 * SECOND, "1m"), (HOUR, "1h"), (36 * HOUR, "36h"), (DAY, "1d"), (7 * DAY, "7d"), (61 * MINUTE, "61m")],
)  # fmt: skip
def test_windows_are_shown_in_the_largest_unit_that_divides_them(window: timedelta, shown: str) -> None:
    assert shown_window(window) == shown


@settings(max_examples=100)
@given(seconds=st.integers(48, 90 * 86_400))
def test_a_window_that_states_no_hop_has_at_least_48_of_whole_seconds(seconds: int) -> None:
    try:
        aggregation = Aggregation("rating", "sum", windows=[timedelta(seconds=seconds)])
    except DefinitionError as error:  # a large prime has no divisor that gives few enough hops
        assert "at most 1000" in str(error)
        assert all(seconds % hops for hops in range(48, 1001))
        return
    hop = aggregation.hop_us(aggregation.windows[0])
    assert hop % 1_000_000 == 0
    hops, rest = divmod(seconds * 1_000_000, hop)
    assert rest == 0 and 48 <= hops <= 1_000
    assert all(seconds % fewer for fewer in range(48, hops)), "the largest hop of these"


def test_a_stated_hop_is_kept() -> None:
    aggregation = Aggregation("rating", "sum", windows=[MINUTE, HOUR], hop=30 * SECOND)
    assert [aggregation.hop_us(window) for window in aggregation.windows] == [30_000_000] * 2


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        # Aggregations
        (lambda: Aggregation("rating", "median", windows=[HOUR]), r"Aggregation\.function: .*'count', .*'sum'.*got 'median'"),
        (lambda: Aggregation("a b", "sum", windows=[HOUR]), r"Aggregation\.column: expected a name of letters"),
        (lambda: Aggregation("rating", "sum", windows=[]), r"Aggregation\.windows"),
        (lambda: Aggregation("rating", "sum", windows=[HOUR, HOUR]), r"windows: a window occurs twice"),
        (lambda: Aggregation("rating", "sum", windows=[timedelta(0)]), r"windows\[0\]: expected whole seconds, at least one, got 0:00:00"),
        (lambda: Aggregation("rating", "sum", windows=[-HOUR]), r"windows\[0\]: expected whole seconds"),
        (lambda: Aggregation("rating", "sum", windows=[HOUR, timedelta(milliseconds=1500)]), r"windows\[1\]: expected whole seconds"),
        (lambda: Aggregation("rating", "sum", windows=[30 * SECOND]), r"windows\[0\]: expected 48 hops of at least one second.*Hint: state a hop"),
        (lambda: Aggregation("rating", "sum", windows=[HOUR], hop=timedelta(milliseconds=500)), r"hop: expected whole seconds, at least one, got 0:00:00\.5"),
        (lambda: Aggregation("rating", "sum", windows=[HOUR], hop=timedelta(seconds=1.5)), r"hop: expected whole seconds"),
        (lambda: Aggregation("rating", "sum", windows=[HOUR], hop=7 * SECOND), r"windows\[0\]: expected a whole number of hops.* in hops of 7 s"),
        (lambda: Aggregation("rating", "sum", windows=[HOUR], hop=2 * HOUR), r"windows\[0\]: expected a whole number of hops"),
        (lambda: Aggregation("rating", "sum", windows=[HOUR], hop=SECOND), r"at most 1000, got 1:00:00 in hops of 1 s"),
        (lambda: Aggregation("rating", "sum", windows=[HOUR], hop=-SECOND), r"hop: expected whole seconds"),
        (lambda: Aggregation("rating", "last_n", windows=[HOUR]), r"n: expected an integer from 1 to 100, got None"),
        (lambda: Aggregation("rating", "last", windows=[HOUR], n=3), r"n: there is no such argument"),
        (lambda: Aggregation("rating", "last_n", windows=[HOUR], n=0), r"Aggregation\.n"),
        (lambda: Aggregation("rating", "last_n", windows=[HOUR], n=101), r"Aggregation\.n"),
        (lambda: Aggregation("rating", "sum", windows=["1h"]), r"Aggregation\.windows\[0\]"),
        (lambda: Aggregation("rating", "sum", windows=[HOUR], filter="rating >"), r"Aggregation\.filter: expected comparisons of columns"),
        (lambda: Aggregation("rating", "sum", windows=[HOUR], filter=""), r"filter: expected comparisons"),
        (lambda: Aggregation("rating", "sum", windows=[HOUR], name="1a"), r"Aggregation\('1a'\)\.name"),
        # Sources
        (lambda: source(topic="a b"), r"KafkaSource\('ratings'\)\.topic"),
        (lambda: source(topic=""), r"KafkaSource\('ratings'\)\.topic"),
        (lambda: source(topic="a" * 250), r"KafkaSource\('ratings'\)\.topic"),
        (lambda: source(schema=[]), r"KafkaSource\('ratings'\)\.schema"),
        (lambda: source(schema=[Field("a", Int64)] * 2), r"schema\[1\]: 'a' occurs twice"),
        (lambda: source(event_timestamp="at"), "schema: 'at' is a timestamp of the source"),
        (lambda: source(schema=[Field("a", Array(Int64))]), r"schema\[0\]\.dtype: expected a scalar type, got Array\(Int64\)"),
        (lambda: source(timestamp_unit="ns"), r"timestamp_unit: .*'s', 'ms' or 'us', got 'ns'"),
        (lambda: source(history="ratings.parquet"), r"KafkaSource\('ratings'\)\.history"),
        (lambda: source(partitions=3), r"partitions: there is no such argument"),
        # Views
        (lambda: view(source=ParquetSource("a", event_timestamp="ts")), r"StreamFeatureView\('activity'\)\.source: expected a KafkaSource"),
        (lambda: view(source=None), r"source: expected a KafkaSource, got None"),
        (lambda: view(entities=[]), r"StreamFeatureView\('activity'\)\.entities"),
        (lambda: view(entities=[user, user]), r"entities\[1\]: 'user' occurs twice"),
        (lambda: view(entities=[user, Entity("member", join_key="user_id")]), r"entities\[1\]: 'user_id' occurs twice"),
        (lambda: view(entities=[Entity("shop")]), r"entities\[0\]: expected 'shop' \(Int64\) in the schema of ratings, got none"),
        (lambda: view(entities=[Entity("user", join_key="user_id", dtype=String)]), r"entities\[0\]: expected 'user_id' \(String\).*got Int64"),
        (lambda: view("mean"), r"aggregations\[0\]: expected an Aggregation, got 'mean'"),
        (lambda: view(aggregations=[]), r"StreamFeatureView\('activity'\)\.(aggregations|schema)"),
        (lambda: view(Aggregation("price", "sum", windows=[HOUR])), r"aggregations\[0\]: expected a column of ratings: user_id, .*got 'price'"),
        (lambda: view(Aggregation("rating", "sum", windows=[HOUR], filter="price > 3")), r"aggregations\[0\]: expected a column of ratings.*got 'price'"),
        (lambda: view(Aggregation("action", "mean", windows=[HOUR])), r"aggregations\[0\]\.column: expected numbers for mean, got String"),
        (lambda: view(Aggregation("at", "max", windows=[HOUR])), r"expected numbers for max, got Timestamp"),
        (lambda: view(Aggregation("action", "last_n", windows=[HOUR], n=2)), r"expected a fixed width for last_n, got String"),
        (lambda: view(Aggregation("rating", "sum", windows=[HOUR], filter="action > 3")), r"\.filter: expected action compared with a value of String, got 3"),
        (lambda: view(Aggregation("rating", "sum", windows=[HOUR], filter="rating in (1, 'x')")), r"\.filter: expected rating compared with a value of Float32, got 'x'"),
        (lambda: view(Aggregation("rating", "sum", windows=[HOUR], filter="at > 3")), r"\.filter: expected at compared with a value of Timestamp, got 3"),
        (lambda: view(*[Aggregation("rating", "sum", windows=[HOUR])] * 2), r"aggregations\[1\]: another aggregation makes rating_sum_1h, too\. Hint: give one"),
        (lambda: view(Aggregation("rating", "sum", windows=[HOUR], name="stars_sum"), Aggregation("stars", "sum", windows=[DAY, HOUR])), r"another aggregation makes stars_sum_1h"),
        (lambda: view(Aggregation("rating", "sum", windows=[HOUR], name="a" * 64)), r"name"),
        (lambda: view(ttl=HOUR), r"ttl: there is no such argument"),
        (lambda: view()[["rating_mean_2h"]], r"expected one of rating_mean_1h, rating_mean_7d"),
    ],
)  # fmt: skip
def test_an_error_names_the_refused_part(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((DefinitionError, NotFoundError), match=message):
        make()


def test_two_aggregations_of_one_column_may_differ_by_name_or_window() -> None:
    found = view(
        Aggregation("rating", "sum", windows=[HOUR]),
        Aggregation("rating", "sum", windows=[DAY]),
        Aggregation("rating", "sum", windows=[HOUR], filter="action == 'rate'", name="rated"),
    )
    assert [field.name for field in found.fields] == ["rating_sum_1h", "rating_sum_1d", "rated_1h"]


# -- all the definitions ------------------------------------------------------------------------------------------------


def test_a_set_has_the_entities_of_stream_views_and_refuses_misfits() -> None:
    of_movie = StreamFeatureView(
        "popularity", entities=[movie, user], source=source(), aggregations=view().aggregations
    )
    service = FeatureService("ranking", features=[view()[["rating_mean_1h"]], of_movie[["rating_mean_7d"]]])
    known = DefinitionSet([view(), of_movie, service])
    assert list(known.entities) == ["movie", "user"]
    assert [item.name for item in known.stored_views_of("ranking")] == ["activity", "popularity"]
    assert known.stored_view("activity") == view()
    for wrong, message in (
        ([view(), view(Aggregation("rating", "sum", windows=[HOUR]))], "another StreamFeatureView with this name is defined"),
        ([view(), FeatureView("activity", entities=[user], schema=[Field("a", Bool)])], "with this name is defined"),
        ([view(), Entity("user", join_key="user_id", description="other")], "with this name is defined"),
        ([FeatureService("s", features=[view()])], "no view .* is defined"),
        ([service, of_movie, view(Aggregation("rating", "sum", windows=[HOUR]))], "a feature of activity, got 'rating_mean_1h'"),
    ):  # fmt: skip
        with pytest.raises(DefinitionError, match=message):
            DefinitionSet(wrong)


functions = st.sampled_from(["count", "sum", "mean", "min", "max", "stddev", "first", "last", "last_n", "distinct"])
aggregations_of = st.builds(
    lambda column, function, windows, name, filter, hop, n: Aggregation(
        column, function, windows=windows, name=name, filter=filter, hop=hop, n=n if function == "last_n" else None
    ),
    st.sampled_from(["rating", "stars", "seen"]),
    functions,
    st.lists(st.sampled_from([HOUR, DAY, 7 * DAY]), min_size=1, max_size=3, unique=True),
    st.sampled_from([None, "named"]),
    st.sampled_from([None, "action == 'it''s'", "rating in (0.5, -1) and not seen == True"]),
    st.sampled_from([None, HOUR]),
    st.integers(1, 100),
)


def halved(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"half": next(iter(inputs.values())) / 2}


@settings(max_examples=60)
@given(
    aggregations=st.lists(aggregations_of, min_size=1, max_size=4, unique_by=lambda item: item.feature_name(HOUR)[:-3]),
    history=st.sampled_from([None, ParquetSource("r.parquet", event_timestamp="ts", created_timestamp="made")]),
    unit=st.sampled_from(["s", "ms", "us"]),
    entities=st.sampled_from([[user], [movie, user]]),
)
def test_definitions_survive_a_document(aggregations: Any, history: Any, unit: Any, entities: Any) -> None:
    topic = source(history=history, timestamp_unit=unit, description="d", owner="o", tags={"a": "b"})
    activity = view(
        entities=entities, source=topic, aggregations=aggregations, description="v", owner="p", tags={"c": "d"}
    )
    half = OnDemandFeatureView("half", sources=[activity], schema=[Field("half", Float32)], function=halved)
    known = DefinitionSet(
        [
            activity,
            *([] if any(a.function == "last_n" for a in aggregations) else [half]),
            FeatureService("all", features=[activity]),
        ]
    )
    document = json.loads(json.dumps(known.to_document()))
    again = DefinitionSet.from_document(document)
    assert again.to_document() == document == known.to_document()
    assert again.stored_view("activity") == activity
    assert again.service("all") == known.service("all")


def test_a_document_without_stream_views_is_read() -> None:
    document = DefinitionSet([user]).to_document()
    del document["stream_feature_views"]
    assert list(DefinitionSet.from_document(document).entities) == ["user"]


def test_the_size_of_a_view_is_bounded_by_the_merge_script() -> None:
    weeks = [timedelta(days=days) for days in range(1, 12)]
    with pytest.raises(DefinitionError, match=r"at most 1,000 values listed by functions such as last_n, got 1,100"):
        view(Aggregation("rating", "last_n", windows=weeks, n=100))
