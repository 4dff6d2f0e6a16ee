"""The MovieLens example: its definitions, its data recomputed by hand, and the whole demo."""

from __future__ import annotations

import hashlib
import importlib
import os
import random
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.loading import load_definitions
from feature_store.project.config import load_config

EXAMPLE = Path(__file__).parents[2] / "examples" / "movielens"
GENRES = ("drama", "comedy", "action", "thriller", "romance")
DAY = timedelta(days=1)
CHECKED = 30
FILES = {
    "movie_profile": "movies.parquet",
    "movie_stats": "movie_stats.parquet",
    "user_profile": "users.parquet",
    "user_stats": "user_stats.parquet",
}
TIME = pa.timestamp("us", tz="UTC")
ARROW = {"Bool": pa.bool_(), "Int32": pa.int32(), "Float32": pa.float32(), "String": pa.string()}
ARROW["Array(Float32, 5)"] = pa.list_(pa.float32(), 5)


# The demo fits its model fifteen times: a minute on a quiet machine, several on a busy one.
RUN_S = 400


def run(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / script), *arguments], capture_output=True, text=True, timeout=RUN_S, check=False
    )


def copied(data: Path, into: Path) -> Path:
    """A copy of the example with only the raw files, as a fresh clone has after the download."""
    folder = into / "movielens"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("data", ".feature_store", "__pycache__"))
    shutil.copytree(data / "raw", folder / "data" / "raw")
    return folder


@pytest.fixture
def example(data: Path, tmp_path: Path) -> Path:
    """A copy of the example for one test."""
    return copied(data, tmp_path)


@pytest.fixture(scope="module")
def shown(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the example after its demo, and what the demo printed. The tests below share the run: it takes long."""
    folder = copied(data, tmp_path_factory.mktemp("shown"))
    done = run("demo.py", folder, "--requests", "50")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def definitions() -> DefinitionSet:
    return load_definitions(EXAMPLE, load_config(EXAMPLE).definitions)


@pytest.fixture(scope="module")
def ratings(data: Path) -> list[dict[str, Any]]:
    return pq.read_table(data / "ratings.parquet").to_pylist()


# -- definitions ----------------------------------------------------------------------------------------------------


def test_the_definitions_are_valid_and_described(definitions: DefinitionSet) -> None:
    assert sorted(definitions.feature_views) == sorted(FILES)
    assert sorted(definitions.stream_feature_views) == ["movie_activity", "user_activity"]
    assert sorted(definitions.on_demand_feature_views) == ["movie_age", "rating_match"]
    for definition in definitions:
        assert definition.description, definition.name
        assert definition.owner == "recommendations", definition.name
    assert DefinitionSet.from_document(definitions.to_document()).to_document() == definitions.to_document()


def test_the_ranking_service_is_wide_and_numeric(definitions: DefinitionSet) -> None:
    views = definitions.feature_views | definitions.stream_feature_views | definitions.on_demand_feature_views
    dtypes = [
        views[projection.view].field(feature).dtype
        for projection in definitions.service("ranking").features
        for feature, _ in projection.columns
    ]
    assert sum(dtype.size for dtype in dtypes) >= 40
    assert all(dtype.width is not None for dtype in dtypes)


def test_the_cards_service_has_the_title(definitions: DefinitionSet) -> None:
    names = [served for projection in definitions.service("cards").features for _, served in projection.columns]
    assert "title" in names


# -- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", FILES)
def test_a_file_has_exactly_the_declared_types(view: str, data: Path, definitions: DefinitionSet) -> None:
    definition = definitions.view(view)
    expected = {key: pa.int64() for key in definition.join_keys}
    expected |= {field.name: ARROW[str(field.dtype)] for field in definition.fields}
    expected["event_timestamp"] = TIME
    if view.endswith("_stats"):
        expected["created"] = TIME
    schema = pq.read_schema(data / FILES[view])
    assert dict(zip(schema.names, schema.types, strict=True)) == expected


def test_the_ratings_are_all_there(ratings: list[dict[str, Any]]) -> None:
    assert len(ratings) == 100_000
    assert ratings == sorted(ratings, key=lambda row: (row["ts"], row["user_id"], row["movie_id"]))
    assert {row["rating"] for row in ratings} == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_profiles_hold_each_entity_once_with_nulls_where_nothing_is_known(data: Path) -> None:
    movies = {row["movie_id"]: row for row in pq.read_table(data / "movies.parquet").to_pylist()}
    users = {row["user_id"]: row for row in pq.read_table(data / "users.parquet").to_pylist()}
    assert sorted(movies) == list(range(1, 1683))
    assert sorted(users) == list(range(1, 944))
    assert {key for key, row in movies.items() if row["year"] is None} == {267, 1412}
    assert {key for key, row in movies.items() if row["title"] is None} == {267}
    assert {key for key, row in movies.items() if row["genre_count"] == 0} == {267, 1373}
    star_wars = movies[50]
    assert (star_wars["title"], star_wars["year"], star_wars["genre_count"]) == ("Star Wars", 1977, 5)
    flags = {name for name, value in star_wars.items() if value is True}
    assert flags == {"is_action", "is_adventure", "is_romance", "is_sci_fi", "is_war"}
    for row in movies.values():
        assert sum(value is True for value in row.values()) == row["genre_count"]
    first = users[1]
    assert (first["age"], first["is_male"], first["occupation"], first["zip_code"]) == (24, True, "technician", "85711")
    assert (first["zip_region"], first["is_student"]) == (8, False)
    assert {row["zip_region"] for row in users.values()} == {None, *range(10)}
    assert {row["occupation_index"] for row in users.values()} == set(range(21))


def test_a_user_becomes_true_with_the_first_rating(data: Path, ratings: list[dict[str, Any]]) -> None:
    first: dict[int, datetime] = {}
    for row in ratings:
        first.setdefault(row["user_id"], row["ts"])
    users = pq.read_table(data / "users.parquet").to_pylist()
    assert {row["user_id"]: row["event_timestamp"] for row in users} == first


@pytest.mark.parametrize("entity", ["user", "movie"])
def test_there_is_a_snapshot_of_every_day_with_ratings(entity: str, data: Path, ratings: list[dict[str, Any]]) -> None:
    key = f"{entity}_id"
    days = {(row[key], row["ts"].replace(hour=0, minute=0, second=0) + DAY) for row in ratings}
    rows = pq.read_table(data / f"{entity}_stats.parquet").to_pylist()
    assert len(rows) == len(days)
    assert {(row[key], row["event_timestamp"]) for row in rows} == days
    assert all(row["created"] == row["event_timestamp"] + timedelta(hours=1) for row in rows)


@pytest.mark.parametrize("entity", ["user", "movie"])
def test_snapshots_are_what_a_naive_count_of_the_past_gives(
    entity: str, data: Path, ratings: list[dict[str, Any]]
) -> None:
    movies = {row["movie_id"]: row for row in pq.read_table(data / "movies.parquet").to_pylist()}
    of_entity = defaultdict(list)
    for row in ratings:
        of_entity[row[f"{entity}_id"]].append(row)
    snapshots = pq.read_table(data / f"{entity}_stats.parquet").to_pylist()
    chosen = random.Random(1).sample(snapshots, CHECKED)
    # For users who came back after a month, windows differ from totals.
    chosen += [row for row in snapshots if row[f"{entity}_rating_count"] > row[f"{entity}_ratings_30d"]][:CHECKED]
    for snapshot in chosen:
        at = snapshot["event_timestamp"]
        past = [row for row in of_entity[snapshot[f"{entity}_id"]] if row["ts"] < at]
        expected = naive(entity, past, at)
        if entity == "user":
            expected["user_genre_means"] = [naive_genre_mean(past, movies, f"is_{genre}") for genre in GENRES]
        for name, value in expected.items():
            assert snapshot[name] == pytest.approx(value, rel=1e-6, abs=1e-6), (name, snapshot)


def naive(entity: str, past: list[dict[str, Any]], at: datetime) -> dict[str, Any]:
    values = [row["rating"] for row in past]
    return {
        f"{entity}_rating_count": len(values),
        f"{entity}_rating_mean": statistics.fmean(values),
        f"{entity}_rating_stddev": statistics.pstdev(values),
        f"{entity}_liked_share": sum(value >= 4 for value in values) / len(values),
        f"{entity}_ratings_7d": sum(row["ts"] >= at - 7 * DAY for row in past),
        f"{entity}_ratings_30d": sum(row["ts"] >= at - 30 * DAY for row in past),
    }


def naive_genre_mean(past: list[dict[str, Any]], movies: dict[int, dict[str, Any]], flag: str) -> float:
    of_genre = [row["rating"] for row in past if movies[row["movie_id"]][flag]]
    return statistics.fmean(of_genre or [row["rating"] for row in past])


def test_fetching_again_gives_the_same_bytes_and_then_does_nothing(example: Path, data: Path) -> None:
    first, second = run("fetch.py", example), run("fetch.py", example)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert second.stdout == "nothing to do\n"
    made = sorted(path.name for path in (example / "data").glob("*.parquet"))
    assert made == sorted([*FILES.values(), "ratings.parquet"])
    for name in made:
        assert (example / "data" / name).read_bytes() == (data / name).read_bytes(), name
    assert sorted(path.name for path in (example / "data").iterdir()) == sorted([*made, "raw", ".made-by"])


def test_a_file_that_is_gone_is_made_again(example: Path) -> None:
    run("fetch.py", example)
    (example / "data" / "movies.parquet").unlink()
    assert run("fetch.py", example).returncode == 0
    assert (example / "data" / "movies.parquet").exists()


def test_without_a_network_it_says_so(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(example / "data")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    done = run("fetch.py", example)
    assert done.returncode == 1
    assert done.stderr.startswith("fetch.py: pip could not download recbole==1.2.1: ")
    assert "Traceback" not in done.stderr


# -- the demo -------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(RUN_S)
def test_the_demo_runs(shown: tuple[Path, str]) -> None:
    folder, printed = shown
    for part in (
        "data made",
        "create FeatureView movie_stats",
        "rows/s",
        "title",
        "188 more rows",
        "ratings up to",
        "until a client reads it, 88 ratings: p50",
        "AUC 0.7",
        "best of 200 for user 42",
        "p99",
        "row group",
        "passes",
        "keys a request",
        "importance–cost curve: output/curve.svg, output/curve.png",
        "55 features are served again, every value as before",
        "200 × 59 float32 matrix",
    ):
        assert part in printed, printed
    assert (folder / "output" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert not server_runs(folder)


@pytest.mark.timeout(RUN_S)
def test_what_is_served_is_the_last_snapshot_before_the_time_of_the_demo(shown: tuple[Path, str]) -> None:
    folder, _ = shown
    now = datetime(1998, 4, 22, 12, tzinfo=UTC)
    snapshots = pq.read_table(folder / "data" / "movie_stats.parquet").to_pylist()
    latest = {row["movie_id"]: row for row in snapshots if row["event_timestamp"] < now}  # they are sorted by time
    assert len(latest) > 1600
    names = ["movie_rating_count", "movie_rating_mean", "movie_ratings_30d"]
    with FeatureStore(folder) as store:
        served = store.get_online_features(
            [f"movie_stats:{name}" for name in names], {"movie_id": list(latest)}, now=now
        )
        for name in names:
            assert served.to_dict()[name] == [row[name] for row in latest.values()]
        assert served.event_timestamps[names[0]] == [row["event_timestamp"] for row in latest.values()]


@pytest.mark.long
@pytest.mark.timeout(2 * RUN_S)
def test_the_demo_that_runs_again_finds_its_work_done(shown: tuple[Path, str]) -> None:
    folder, printed = shown
    second = run("demo.py", folder, "--requests", "50")
    assert second.returncode == 0, second.stdout + second.stderr
    for part in ("data already there", "No changes", "Nothing to do"):
        assert part in second.stdout, second.stdout
    assert table_of_movies(second.stdout) == table_of_movies(printed)
    assert table_of_windows(second.stdout) == table_of_windows(printed)
    assert not server_runs(folder)


def table_of_movies(output: str) -> str:
    return output[output.index("title") : output.index("more rows")]


def table_of_windows(output: str) -> str:
    return output[output.index("ratings up to") : output.index("one by one")]


def server_runs(folder: Path) -> bool:
    from feature_store.online.redis.embedded import EmbeddedServer

    return EmbeddedServer(folder).status().running


def test_the_demo_tells_of_an_error_in_one_line(example: Path) -> None:
    (example / "feature_store.yaml").write_text("project: movielens\ndefinitions: missing.py\n")
    done = run("demo.py", example)
    assert done.returncode == 1
    assert done.stderr.startswith("demo: ")
    assert "Traceback" not in done.stderr


def test_the_error_of_a_worker_is_raised_rather_than_that_of_who_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    live = importlib.import_module("live")

    class Failing:
        def stream(self, stopped: Any) -> None:
            raise ValueError("the worker's own error")

    with pytest.raises(ValueError, match="own error"), live.streaming(Failing()):
        raise TimeoutError("the windows stay 0")


def test_the_command_runs_from_any_folder(clone: Path, tmp_path: Path) -> None:
    done = subprocess.run([clone / "bin/demo", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--requests" in done.stdout


def test_the_command_says_when_there_is_no_python(clone: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "basename", "cat", "dirname"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    done = subprocess.run([clone / "bin/demo"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "bin/demo: needs Python 3.11 or newer on the PATH; found none\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that bin/demo needs, with this environment in place of the one that it would install."""
    root, folder = EXAMPLE.parents[1], tmp_path / "clone"
    for name in ("bin", "requirements", "examples"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("data", ".feature_store"))
    shutil.copy(root / "pyproject.toml", folder)
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if not path.name.startswith(".installed-"):
            (folder / ".venv" / path.name).symlink_to(path)
    pins = (folder / "requirements/run.txt").read_bytes() + (folder / "pyproject.toml").read_bytes()
    (folder / ".venv/.installed-run").write_text(f"{hashlib.sha256(pins).hexdigest()}  -\n")
    return folder
