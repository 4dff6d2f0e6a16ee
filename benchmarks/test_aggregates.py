"""The algebra of windows without Redis: events to deltas, stored tiles to values, events to values at labels' times.

Run with `python -m pytest benchmarks/test_aggregates.py --benchmark-enable`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from feature_store.aggregates.at_times import Events, windows_at
from feature_store.aggregates.deltas import deltas
from feature_store.aggregates.read import WindowReader
from feature_store.aggregates.tiles import TilesLayout
from feature_store.aggregates.windows import Windows, compile_windows
from feature_store.definitions import Aggregation, Float64

HOUR = timedelta(hours=1)
LENGTHS = [HOUR, timedelta(days=1), timedelta(days=7)]
COLUMNS = {"x": Float64, "y": Float64}
NOW_US = 1_700_000_000_000_000
BATCH = 20_000
ENTITIES = 200
FUNCTIONS = ("count", "sum", "mean", "min", "max", "stddev", "first", "last", "last_n", "distinct")


def _means() -> Windows:
    """2 columns × 3 windows: a count and a sum of each."""
    return compile_windows([Aggregation(column, "mean", windows=LENGTHS) for column in COLUMNS], COLUMNS)


def _one(function: str) -> Windows:
    n = 3 if function == "last_n" else None
    return compile_windows([Aggregation("x", function, windows=[HOUR], n=n)], COLUMNS)


def _batch() -> tuple[Any, Any, dict[str, tuple[Any, Any]]]:
    """Events of two seconds, of users by Zipf's law: half as many distinct ones as events."""
    chance = np.random.default_rng(0)
    weights = np.arange(1, 100_001) ** -1.1
    users = chance.choice(len(weights), BATCH, p=weights / weights.sum())
    entities = np.unique(users, return_inverse=True)[1].astype(np.intp)
    at = np.sort(NOW_US - chance.integers(0, 2_000_000, BATCH))
    return entities, at, {name: (chance.normal(size=BATCH), np.zeros(BATCH, bool)) for name in COLUMNS}


def _stored(layout: TilesLayout) -> Any:
    """Values whose every tile is of the window at NOW_US, of two events, as they lie in a reply."""
    chance = np.random.default_rng(0)
    values = np.zeros(ENTITIES, layout.value)
    values["record"]["newest"] = NOW_US
    for r, ring in enumerate(layout.windows.rings):
        head = NOW_US // ring.hop_us
        before = np.arange(head - ring.slots, head)
        numbers = np.append(before[np.argsort(before % ring.slots)], head)
        at = np.tile(np.repeat(numbers * ring.hop_us, 2), ENTITIES)
        columns = {name: (chance.normal(size=len(at)), np.zeros(len(at), bool)) for name in COLUMNS}
        of_ring = TilesLayout(Windows((ring,), layout.windows.features[:1]))
        tiles = deltas(of_ring, np.arange(len(at)) // 2, at, columns).records["ring0"].reshape(ENTITIES, -1)
        values["record"][f"ring{r}"], values[f"slots{r}"] = tiles[:, -1], tiles[:, :-1]
    reply = b"".join(b"$4212\r\nFPRT" + value.tobytes() + b"\r\n" for value in values)
    return np.frombuffer(reply, np.uint8).reshape(ENTITIES, -1)[:, 11:-2]


@pytest.mark.parametrize("function", ["2 columns × 3 windows", *FUNCTIONS])
def test_deltas(benchmark: Any, function: str) -> None:
    benchmark.group = f"deltas of {BATCH:,} events"
    layout = TilesLayout(_means() if function not in FUNCTIONS else _one(function))
    entities, at, columns = _batch()
    found = benchmark(deltas, layout, entities, at, columns)
    assert len(found.entities) >= entities.max() + 1


@pytest.mark.parametrize("function", ["2 columns × 3 windows", *FUNCTIONS])
def test_read(benchmark: Any, function: str) -> None:
    benchmark.group = f"windows of {ENTITIES} entities from 50 tiles each"
    layout = TilesLayout(_means() if function not in FUNCTIONS else _one(function))
    reader = WindowReader(layout, [window.name for window in layout.windows.features])
    scratch = np.empty(reader.scratch_bytes(ENTITIES), np.uint8)
    found = benchmark(reader.read, _stored(layout), NOW_US, scratch)
    assert not any(nulls.any() for _, nulls in found.values())


EVENTS, LABELS = 1_000_000, 100_000
DAYS_US = 30 * 86_400_000_000


def _events(keys: int) -> tuple[Events, Any, Any]:
    chance = np.random.default_rng(0)
    at = np.sort(NOW_US + chance.integers(0, DAYS_US, EVENTS))
    columns = {name: (chance.normal(size=EVENTS), np.zeros(EVENTS, bool)) for name in COLUMNS}
    labels = chance.integers(0, keys, LABELS), NOW_US + chance.integers(0, DAYS_US, LABELS)
    return Events(chance.integers(0, keys, EVENTS), at, columns), *labels


def _range_join(connection: duckdb.DuckDBPyConnection, windows: Windows) -> dict[str, Any]:
    """The same windows in SQL: a join by key and the longest window, and one filtered mean per window."""
    starts = {}
    for window in windows.features:
        hop_us = windows.rings[window.ring].hop_us
        starts[window.name] = f"(l.at - {window.window_us}) // {hop_us} * {hop_us}"
    means = ", ".join(f"avg(e.{name[0]}) FILTER (e.at >= {start}) AS {name}" for name, start in starts.items())
    longest = max(windows.features, key=lambda window: window.window_us)
    found: dict[str, Any] = connection.sql(
        f"SELECT l.label, {means} FROM labels l LEFT JOIN events e "
        f"ON l.key = e.key AND e.at <= l.at AND e.at >= {starts[longest.name]} GROUP BY l.label ORDER BY l.label"
    ).fetchnumpy()
    return found


@pytest.mark.parametrize("keys", [10_000, 1_000])
@pytest.mark.parametrize("side", ["ours", "duckdb"])
def test_windows_at_labels(benchmark: Any, side: str, keys: int) -> None:
    windows = _means()
    benchmark.group = f"{EVENTS:,} events of {keys:,} entities × {LABELS:,} labels × {len(windows.features)} windows"
    names = [window.name for window in windows.features]
    events, label_keys, label_us = _events(keys)
    if side == "ours":
        assert set(benchmark(windows_at, windows, events, label_keys, label_us, names)) == set(names)
        return
    with duckdb.connect() as connection:
        columns = {name: values for name, (values, _) in events.columns.items()}
        connection.register("events", pa.table({"key": events.entities, "at": events.event_us, **columns}))
        connection.register("labels", pa.table({"key": label_keys, "at": label_us, "label": np.arange(LABELS)}))
        theirs = benchmark.pedantic(_range_join, (connection, windows), rounds=3)
    ours = windows_at(windows, events, label_keys, label_us, names)
    for name in names:
        values = np.ma.filled(theirs[name].astype(float), np.nan)
        np.testing.assert_allclose(np.where(ours[name][1], np.nan, ours[name][0]), values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_at_labels(benchmark: Any, function: str) -> None:
    benchmark.group = f"{EVENTS:,} events × {LABELS:,} labels × 1 window"
    windows = _one(function)
    benchmark(windows_at, windows, *_events(10_000), [windows.features[0].name])


@pytest.mark.parametrize("keys", [10_000, 1_000])
def test_late_events_at_labels(benchmark: Any, keys: int) -> None:
    """Every event was created up to a minute after it happened."""
    windows = _means()
    benchmark.group = f"{EVENTS:,} events of {keys:,} entities × {LABELS:,} labels × {len(windows.features)} windows"
    events, label_keys, label_us = _events(keys)
    late = events._replace(created_us=events.event_us + np.random.default_rng(1).integers(0, 60_000_000, EVENTS))
    benchmark(windows_at, windows, late, label_keys, label_us, [window.name for window in windows.features])
