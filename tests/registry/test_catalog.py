from __future__ import annotations

import json
from typing import Any

import pytest

from feature_store.definitions import DefinitionSet, Entity, FeatureView, Field, Int64, ParquetSource
from feature_store.errors import NotFoundError
from feature_store.registry.catalog import KINDS, consumers, described, listed, names
from tests.registry.browsed import pruned_shop, shop


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_listed_and_every_listed_item_described(kind: str) -> None:
    definitions = pruned_shop()
    rows = listed(definitions, kind)
    assert rows
    assert [row["name"] for row in rows] == sorted(row["name"] for row in rows)
    for row in rows:
        assert described(definitions, row["name"])["name"] == row["name"]
    json.dumps(rows)


def test_every_name_is_described_as_json() -> None:
    definitions = pruned_shop()
    for name in names(definitions):
        json.dumps(described(definitions, name))


def _named(kind: str, name: str) -> dict[str, Any]:
    return next(row for row in listed(shop(), kind) if row["name"] == name)


def test_sources_are_called_by_their_name_or_path() -> None:
    assert [row["name"] for row in listed(shop(), "sources")] == [
        "context",
        "data/movies.parquet",
        "data/ratings.parquet",
        "ratings",
    ]
    assert _named("sources", "data/movies.parquet")["read_by"] == ["profile", "stars"]
    assert _named("sources", "data/ratings.parquet")["read_by"] == ["ratings"]
    topic = described(shop(), "ratings")
    assert (topic["kind"], topic["topic"], topic["history"]) == ("KafkaSource", "rated", "data/ratings.parquet")
    assert topic["columns"] == [{"name": "user_id", "dtype": "Int64"}, {"name": "rating", "dtype": "Float32"}]
    table = described(shop(), "data/movies.parquet")
    assert (table["event_timestamp"], table["created_timestamp"]) == ("at, seen", "made")


def test_a_source_shows_its_field_mapping() -> None:
    source = ParquetSource("rows.parquet", event_timestamp="at", field_mapping={"ts": "at"})
    view = FeatureView(
        "stats", entities=[Entity("user", join_key="user_id")], source=source, schema=[Field("n", Int64)]
    )
    assert described(DefinitionSet([view]), "rows.parquet")["field_mapping"] == {"ts": "at"}


def test_a_feature_has_an_owner_and_consumers() -> None:
    year, budget = described(shop(), "profile:year"), described(shop(), "profile:budget")
    assert (year["owner"], budget["owner"]) == ("ada", "content")
    assert budget["tags"] == {"team": "films", "unit": "dollar"}
    assert (budget["default"], budget["ttl"], budget["source"]) == (0.0, "1d", "data/movies.parquet")
    assert [(one["service"], one["name"], one["through"]) for one in year["consumers"]] == [
        ("listing", "year", None),
        ("ranking", "year", None),
        ("ranking", "years", "age"),
    ]


def test_a_streamed_feature_has_its_aggregation() -> None:
    found = described(shop(), "activity:rating_mean_1h")
    assert (found["window"], found["hop"], found["function"], found["source"]) == ("1h", "75s", "mean", "ratings")
    assert found["description"] == "mean of rating over 1h"
    assert "ttl" not in found


def test_an_on_demand_feature_has_its_inputs() -> None:
    found = described(shop(), "age:years")
    assert found["inputs"] == ["profile:year", "context:now_year"]
    assert found["consumers"] == [{"service": "ranking", "name": "years", "through": None, "pruned_by": None}]


def test_a_consumer_names_the_plan_that_prunes_the_feature() -> None:
    assert consumers(shop(), "activity:rating_mean_1h") == [
        {"service": "ranking", "name": "liked", "through": None, "pruned_by": None}
    ]
    assert consumers(pruned_shop(), "activity:rating_mean_1h")[0]["pruned_by"] == "p1"
    assert described(pruned_shop(), "ranking")["dropped"] == ["liked"]
    assert consumers(shop(), "pushed:mood") == []


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("profil", "profile"),
        ("rankign", "ranking"),
        ("profile:yaer", "profile:year"),
        ("budgte", "profile:budget"),
        ("data/movies.parqet", "data/movies.parquet"),
        ("q" * 10_000, "feature-store list"),
        ("[bold]\x00\u202e", "feature-store list"),
        (":", "feature-store list"),
        ("", "feature-store list"),
    ],
)
def test_an_unknown_name_is_an_error_with_similar_names(asked: str, hint: str) -> None:
    with pytest.raises(NotFoundError) as raised:
        described(shop(), asked)
    assert hint in raised.value.hint
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("asked", ["profile", "profile:", "nothing:year", "age:yeers", "ranking:year"])
def test_only_features_have_consumers(asked: str) -> None:
    with pytest.raises(NotFoundError, match="a feature, as view:feature"):
        consumers(shop(), asked)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(NotFoundError, match="did you mean services"):
        listed(shop(), "service")
