"""A project to browse with one of everything, and a large project."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from feature_store.definitions import (
    Aggregation,
    DefinitionSet,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Int32,
    Int64,
    KafkaSource,
    OnDemandFeatureView,
    ParquetSource,
    RequestSource,
    StreamFeatureView,
)
from feature_store.definitions.pruned import pruning_of

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def years(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"years": inputs["now_year"] - inputs["year"]}


def shop() -> DefinitionSet:
    """Two tables, a topic with a history, request fields, all kinds of views, and two services."""
    user, movie = Entity("user", join_key="user_id"), Entity("movie", join_key="movie_id", owner="content")
    profile = FeatureView(
        "profile",
        entities=[movie],
        ttl=DAY,
        owner="content",
        tags={"team": "films"},
        source=ParquetSource("data/movies.parquet", event_timestamp="at", created_timestamp="made"),
        schema=[
            Field("year", Int32, description="of the first showing", owner="ada"),
            Field("budget", Float32, default=0.0, tags={"unit": "dollar"}),
        ],
    )
    stars = FeatureView(
        "stars",
        entities=[movie],
        source=ParquetSource("data/movies.parquet", event_timestamp="seen"),
        schema=[Field("star_count", Int32)],
    )
    pushed = FeatureView("pushed", entities=[user], schema=[Field("mood", Float32)])
    ratings = KafkaSource(
        "ratings",
        topic="rated",
        event_timestamp="ts",
        history=ParquetSource("data/ratings.parquet", event_timestamp="ts"),
        schema=[Field("user_id", Int64), Field("rating", Float32)],
        owner="events",
        description="what users say",
    )
    activity = StreamFeatureView(
        "activity", entities=[user], source=ratings, aggregations=[Aggregation("rating", "mean", windows=[HOUR, DAY])]
    )
    age = OnDemandFeatureView(
        "age",
        sources=[profile[["year"]], RequestSource("context", [Field("now_year", Int32)])],
        schema=[Field("years", Float32)],
        function=years,
    )
    ranking = FeatureService(
        "ranking", features=[profile, activity[["rating_mean_1h"]].rename({"rating_mean_1h": "liked"}), age]
    )
    listing = FeatureService("listing", features=[profile[["year"]]], tags={"model": "lister, second"})
    return DefinitionSet([profile, stars, pushed, activity, age, ranking, listing])


def pruned_shop() -> DefinitionSet:
    """The project of `shop`, with `liked` pruned from ranking."""
    definitions = shop()
    return definitions.with_prunings([pruning_of(definitions, "ranking", ["liked"], plan="p1", stage="mask")])


_SYLLABLES = [consonant + vowel for consonant in "bcdfghjklmnprstvwz" for vowel in "aeiou"]
_COMMON = ["user", "item", "count", "mean", "rate", "total", "last", "price", "clicks", "days"]


def large(views: int = 300, features: int = 5_000) -> DefinitionSet:
    """Many views. Names of features have common words and one rare word, descriptions two rare words."""
    rng = random.Random(7)

    def word() -> str:
        return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(3, 4)))

    user = Entity("user")
    made = []
    for number in range(views):
        count = features // views + (number < features % views)
        names = [f"{rng.choice(_COMMON)}_{word()}_{rng.choice(_COMMON)}" for _ in range(count)]
        schema = [
            Field(
                name, Float32, description=f"the {rng.choice(_COMMON)} of {word()} per {rng.choice(_COMMON)}, {word()}"
            )
            for name in dict.fromkeys(names)
        ]
        made.append(FeatureView(f"{word()}_{number}", entities=[user], schema=schema, owner=word()))
    return DefinitionSet([*made, FeatureService("ranking", features=[made[0]])])
