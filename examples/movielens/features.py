"""MovieLens-100K as features: who a user is, what a movie is, how both have been rated, day by day and just now.

`python fetch.py` makes the Parquet files that the sources name, with the types declared here.
"""

from datetime import timedelta

import numpy as np

from feature_store import (
    Aggregation,
    Array,
    Bool,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Int32,
    Int64,
    KafkaSource,
    ParquetSource,
    RequestSource,
    StreamFeatureView,
    String,
    on_demand_feature_view,
)

OWNER = "recommendations"
Columns = dict[str, np.ndarray]

user = Entity("user", join_key="user_id", dtype=Int64, description="Who rates.", owner=OWNER)
movie = Entity("movie", join_key="movie_id", dtype=Int64, description="What is rated.", owner=OWNER)

movie_profile = FeatureView(
    "movie_profile",
    entities=[movie],
    source=ParquetSource("data/movies.parquet", event_timestamp="event_timestamp"),
    ttl=timedelta(days=3650),  # what a movie is does not go stale
    schema=[
        Field("title", String, description="As in the catalogue; null where it has none."),
        Field("year", Int32, description="Of release; null where the catalogue has none."),
        Field("genre_count", Int32, description="How many genres it has; 0 where none is known."),
        Field("is_action", Bool),
        Field("is_adventure", Bool),
        Field("is_animation", Bool),
        Field("is_childrens", Bool),
        Field("is_comedy", Bool),
        Field("is_crime", Bool),
        Field("is_documentary", Bool),
        Field("is_drama", Bool),
        Field("is_fantasy", Bool),
        Field("is_film_noir", Bool),
        Field("is_horror", Bool),
        Field("is_musical", Bool),
        Field("is_mystery", Bool),
        Field("is_romance", Bool),
        Field("is_sci_fi", Bool),
        Field("is_thriller", Bool),
        Field("is_war", Bool),
        Field("is_western", Bool),
    ],
    description="The catalogue's entry of a movie.",
    owner=OWNER,
    tags={"domain": "catalogue", "cadence": "once"},
)

movie_stats = FeatureView(
    "movie_stats",
    entities=[movie],
    source=ParquetSource("data/movie_stats.parquet", event_timestamp="event_timestamp", created_timestamp="created"),
    ttl=timedelta(days=365),
    schema=[
        Field("movie_rating_count", Int32, default=0, description="Ratings so far."),
        Field("movie_rating_mean", Float32, description="Mean of them, 1 to 5."),
        Field("movie_rating_stddev", Float32, description="Population standard deviation of them."),
        Field("movie_liked_share", Float32, description="Share of them that are 4 or 5."),
        Field("movie_ratings_7d", Int32, default=0, description="Ratings in the 7 days up to the snapshot."),
        Field("movie_ratings_30d", Int32, default=0, description="Ratings in the 30 days up to the snapshot."),
    ],
    description="How a movie has been rated, at the end of each day on which somebody rated it.",
    owner=OWNER,
    tags={"domain": "ratings", "cadence": "daily"},
)

user_profile = FeatureView(
    "user_profile",
    entities=[user],
    source=ParquetSource("data/users.parquet", event_timestamp="event_timestamp"),
    ttl=timedelta(days=3650),
    schema=[
        Field("age", Int32, description="In years, when the user signed up."),
        Field("is_male", Bool),
        Field("occupation", String),
        Field("occupation_index", Int32, description="Place of the occupation in the alphabet of all occupations."),
        Field("is_student", Bool),
        Field("is_educator", Bool),
        Field("is_engineer", Bool),
        Field("is_programmer", Bool),
        Field("zip_code", String),
        Field("zip_region", Int32, description="First digit of a United States zip code; null for other codes."),
    ],
    description="What a user said of himself or herself, as of the first rating.",
    owner=OWNER,
    tags={"domain": "accounts", "cadence": "once", "pii": "yes"},
)

user_stats = FeatureView(
    "user_stats",
    entities=[user],
    source=ParquetSource("data/user_stats.parquet", event_timestamp="event_timestamp", created_timestamp="created"),
    ttl=timedelta(days=365),
    schema=[
        Field("user_rating_count", Int32, default=0, description="Ratings so far."),
        Field("user_rating_mean", Float32, description="Mean of them, 1 to 5."),
        Field("user_rating_stddev", Float32, description="Population standard deviation of them."),
        Field("user_liked_share", Float32, description="Share of them that are 4 or 5."),
        Field("user_ratings_7d", Int32, default=0, description="Ratings in the 7 days up to the snapshot."),
        Field("user_ratings_30d", Int32, default=0, description="Ratings in the 30 days up to the snapshot."),
        Field(
            "user_genre_means",
            Array(Float32, 5),
            description="Mean rating of drama, comedy, action, thriller, romance; of all movies where none was rated.",
        ),
    ],
    description="How a user has rated, at the end of each day on which he or she rated something.",
    owner=OWNER,
    tags={"domain": "ratings", "cadence": "daily"},
)

HOUR, DAY, WEEK, MONTH = timedelta(hours=1), timedelta(days=1), timedelta(days=7), timedelta(days=30)

ratings = KafkaSource(
    "ratings",
    topic="ratings",
    event_timestamp="ts",
    timestamp_unit="s",
    history=ParquetSource("data/ratings.parquet", event_timestamp="ts"),
    schema=[Field("user_id", Int64), Field("movie_id", Int64), Field("rating", Float32, description="1 to 5.")],
    description="Ratings as they are given.",
    owner=OWNER,
)

user_activity = StreamFeatureView(
    "user_activity",
    entities=[user],
    source=ratings,
    aggregations=[
        Aggregation("rating", "mean", windows=[HOUR, DAY, WEEK], name="user_mean"),
        Aggregation("rating", "count", windows=[HOUR, DAY, WEEK], name="user_count"),
        Aggregation("rating", "count", windows=[HOUR], name="user_likes", filter="rating >= 4"),
    ],
    description="What a user has rated in the last hour, day and week, within a second.",
    owner=OWNER,
    # The list must react to what the user just did: the product promises it, whatever the model's importances say.
    tags={"domain": "ratings", "cadence": "live", "prune": "never"},
)

movie_activity = StreamFeatureView(
    "movie_activity",
    entities=[movie],
    source=ratings,
    aggregations=[
        Aggregation("rating", "mean", windows=[DAY, MONTH], name="movie_mean"),
        Aggregation("rating", "count", windows=[DAY, MONTH], name="movie_count"),
    ],
    description="How a movie has been rated in the last day and month, within a second.",
    owner=OWNER,
    tags={"domain": "ratings", "cadence": "live"},
)

context = RequestSource("context", [Field("now_year", Int32, description="The year in which the user is looking.")])


@on_demand_feature_view(
    sources=[movie_profile[["year"]], context],
    schema=[Field("movie_age", Float32, description="Years since release.")],
    owner=OWNER,
    tags={"domain": "catalogue"},
)
def movie_age(inputs: Columns) -> Columns:
    """The age of a movie at the time of the request."""
    return {"movie_age": (inputs["now_year"] - inputs["year"]).astype("float32")}


@on_demand_feature_view(
    sources=[
        movie_stats[["movie_rating_count", "movie_rating_mean", "movie_ratings_30d"]],
        user_stats[["user_rating_mean"]],
    ],
    schema=[
        Field("mean_gap", Float32, description="The movie's mean rating less the user's."),
        Field("recent_share", Float32, description="Share of the movie's ratings that are of the last 30 days."),
    ],
    owner=OWNER,
    tags={"domain": "ratings"},
)
def rating_match(inputs: Columns) -> Columns:
    """How a movie's ratings compare with the user's, and whether they are recent."""
    count = np.maximum(inputs["movie_rating_count"], 1)
    return {
        "mean_gap": (inputs["movie_rating_mean"] - inputs["user_rating_mean"]).astype("float32"),
        "recent_share": (inputs["movie_ratings_30d"] / count).astype("float32"),
    }


_TEXT = {"title", "occupation", "zip_code"}  # a float matrix has no place for them


def _numbers(view: FeatureView) -> list[str]:
    return [field.name for field in view.fields if field.name not in _TEXT]


ranking = FeatureService(
    "ranking",
    features=[
        movie_profile[_numbers(movie_profile)],
        movie_stats,
        user_profile[_numbers(user_profile)],
        user_stats,
        user_activity,
        movie_activity,
        movie_age,
        rating_match,
    ],
    description="What the ranking model is given of one user and each candidate movie: numbers alone.",
    owner=OWNER,
    tags={"model": "ranker"},
)

cards = FeatureService(
    "cards",
    features=[
        movie_profile[["title", "year", "genre_count"]],
        movie_stats[["movie_rating_mean", "movie_rating_count", "movie_liked_share", "movie_ratings_30d"]],
        movie_age,
        rating_match[["mean_gap"]],
    ],
    description="What a person is shown of each candidate movie.",
    owner=OWNER,
    tags={"surface": "web"},
)
