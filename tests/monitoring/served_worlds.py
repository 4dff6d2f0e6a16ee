"""A project that serves every kind of column, for the tests of the served log."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import FeatureStore
from feature_store.online import Status

if TYPE_CHECKING:
    from pathlib import Path

    from feature_store.online import OnlineResponse

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
FEATURES = """
from datetime import timedelta
import numpy as np
from feature_store import *

user = Entity("user", join_key="user_id")
movie = Entity("movie", join_key="movie_id", dtype=String)
of_user = FeatureView("of_user", entities=[user], ttl=timedelta(hours=5),
    source=ParquetSource("of_user.parquet", event_timestamp="at"),
    schema=[Field("visits", Int32, default=-1), Field("spent", Float32), Field("is_new", Bool), Field("seen", Timestamp),
            Field("score", Float64), Field("vector", Array(Float32, 3), default=[0.0, 0.0, 1.0])])
of_movie = FeatureView("of_movie", entities=[movie], source=ParquetSource("of_movie.parquet", event_timestamp="at"),
    schema=[Field("year", Int64), Field("title", String, default="none")])
of_both = FeatureView("of_both", entities=[user, movie], source=ParquetSource("of_both.parquet", event_timestamp="at"),
    schema=[Field("likes", Int64)])
request = RequestSource("request", [Field("now_year", Int32), Field("device", String, default="phone")])

@on_demand_feature_view(sources=[of_movie[["year"]], of_user[["visits"]], request],
                        schema=[Field("age", Float32), Field("shown", String)])
def computed(inputs):
    return {"age": (inputs["now_year"] - inputs["year"]).astype("float32"),
            "shown": np.array([f"{d} {v}" for d, v in zip(inputs["device"], inputs["visits"])], object)}

ranking = FeatureService("ranking", features=[of_user, of_movie, of_both, computed])
numbers = FeatureService("numbers", features=[of_user[["visits", "spent"]]])
"""
USERS, MOVIES = 8, 6


def _maybe(chance: random.Random, values: list[Any]) -> list[Any]:
    return [None if chance.random() < 0.2 else value for value in values]


def make_project(folder: Path, redis_url: str) -> FeatureStore:
    """A project, applied and materialized at NOW. Some rows have expired or are missing, and some values are null."""
    (folder / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    (folder / "features.py").write_text(FEATURES)
    chance = random.Random(3)
    users = list(range(USERS - 2))
    hours = [chance.choice([1, 2, 9]) for _ in users]
    table = {
        "user_id": users,
        "at": pa.array([NOW - timedelta(hours=ago) for ago in hours], pa.timestamp("us", "UTC")),
        "visits": pa.array(_maybe(chance, [3 * i for i in users]), pa.int32()),
        "spent": pa.array(_maybe(chance, [float("nan"), *[i / 3 for i in users[1:]]]), pa.float32()),
        "is_new": _maybe(chance, [i % 2 == 0 for i in users]),
        "seen": pa.array(_maybe(chance, [NOW] * len(users)), pa.timestamp("us", "UTC")),
        "score": pa.array(_maybe(chance, [1 / (i + 3) for i in users]), pa.float64()),
        "vector": pa.array(_maybe(chance, [[i, 0.5, -1.0] for i in users]), pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(table), folder / "of_user.parquet")
    movies = [f"m{i}" for i in range(MOVIES - 1)]
    at = pa.array([NOW - timedelta(days=1)] * len(movies), pa.timestamp("us", "UTC"))
    years = pa.array(_maybe(chance, [1990 + i for i in range(len(movies))]), pa.int64())
    titles = _maybe(chance, [f"ü{i}" for i in range(len(movies))])
    pq.write_table(
        pa.table({"movie_id": movies, "at": at, "year": years, "title": titles}), folder / "of_movie.parquet"
    )
    pairs = [(user, movie) for user in users for movie in movies if chance.random() < 0.6]
    both = {
        "user_id": [user for user, _ in pairs],
        "movie_id": [movie for _, movie in pairs],
        "at": pa.array([NOW - timedelta(hours=1)] * len(pairs), pa.timestamp("us", "UTC")),
        "likes": list(range(len(pairs))),
    }
    pq.write_table(pa.table(both), folder / "of_both.parquet")
    store = FeatureStore(folder)
    store.apply()
    store.materialize(end=NOW)
    return store


def some_request(chance: random.Random) -> dict[str, Any]:
    """Entity rows for `ranking`, some of them twice, in all the forms that a request may have."""
    count = chance.choice([1, 1, 2, 5])
    movies = [f"m{chance.randrange(MOVIES)}" for _ in range(count)]
    users: Any = chance.randrange(USERS) if chance.random() < 0.7 else [chance.randrange(USERS) for _ in range(count)]
    return {
        "user_id": users,
        "movie_id": movies if count > 1 or chance.random() < 0.5 else movies[0],
        "now_year": 2000 + chance.randrange(20),
        "device": [chance.choice(["tv", None]) for _ in range(count)],
    }


def expected_rows(response: OnlineResponse, rows: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that the log must hold for a response."""
    values, status = response.to_dict(), {name: list(codes) for name, codes in response.status.items()}
    of = {name: given if isinstance(given, list) else [given] * len(response) for name, given in rows.items()}
    return [
        {name: column[i] for name, column in values.items()}
        | {name: given[i] if given[i] is not None else "phone" for name, given in of.items()}
        | {"request_row": i, "served_status": bytes(int(Status(status[name][i])) for name in values)}
        for i in range(len(response))
    ]
