"""Training sets, Parquet to Parquet, beside raw as-of joins that ignore creation times, types and defaults.

Ours runs through the public call, and writes the manifest too. The raw joins read the source as it is, sorted by event
time, and need not return the labels in order.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Samples, peer
from benchmarks.peers.make_source import DAY_US, DAYS, START_US, make_source
from benchmarks.projects import JOIN, JOIN_WIDE, WINDOWS, project
from benchmarks.report import Reach, Result
from feature_store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.server import Server

_ROUNDS, _PEER_ROUNDS, _PROCESSES = 7, 3, 3
_LARGE = ((5_000_000, 250_000), (10_000_000, 500_000), (20_000_000, 1_000_000))  # rows, labels
LABELS, OUT = "labels.parquet", "train.parquet"
WINDOW_HOURS = (1, 6, 24, 72, 168, 720)


def join(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """1,000,000 feature rows × 100,000 labels × 10 features; again and again, and once in a process of its own."""
    rows, labels = 1_000_000, 100_000
    _make(folder, rows, labels)
    store = project(folder, "join", JOIN, server.url)
    names = [f"f{i}" for i in range(10)]
    source = folder / "source.parquet"
    sides = {
        "ours": lambda: _ours(store, folder),
        "polars": lambda: _polars(folder, source, names),
        "duckdb": lambda: _duckdb(folder, source, names),
    }
    found = _taking_turns(sides, _ROUNDS)
    store.close()
    once, _ = _in_processes(folder)
    if with_peer:
        for side, offline in (("feast", "duckdb"), ("feast on dask", "dask")):
            where = ["--source", str(source), "--labels", str(folder / LABELS), "--rounds", str(_PEER_ROUNDS)]
            answer = peer(server.address, folder, "training", *where, settings=["--offline-store", offline])
            first, *others = answer["samples_s"]
            once[side], found[side] = Samples([first]), Samples(others)
    work = f"join {rows:,} rows × {labels:,} labels × 10 features"
    return [
        Result.of_samples(name, samples, [Reach.at_most(_fastest(samples), 1.5), *_beside_feast()])
        for name, samples in ((work, found), (f"{work}, the first of a process", once))
    ]


def _beside_feast() -> list[Reach]:
    return [Reach.at_least("feast", 6), Reach.at_least("feast on dask", 30)]


def join_large(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """Up to 20,000,000 feature rows × 1,000,000 labels × 10 features, each side in a process of its own."""
    results: list[Result] = []
    first = 0.0
    for rows, labels in _LARGE:
        at = folder / str(rows)
        _make(at, rows, labels)
        project(at, f"join{rows}", JOIN, server.url).close()
        seconds, peak = _in_processes(at)
        first = first or seconds["ours"].p50
        reaches = [Reach.at_most(_fastest(seconds), 1.5)]
        if rows > _LARGE[0][0]:
            reaches.append(_no_faster_than_sorting(first, rows))
        work = f"join {rows:,} rows × {labels:,} labels × 10 features"
        results += [
            Result.of_samples(work, seconds, reaches),
            Result(f"{work}: peak RSS", "bytes", peak, {}, [Reach.figure(4e9)]),
        ]
        shutil.rmtree(at)
    return results


def _in_processes(folder: Path) -> tuple[dict[str, Samples], dict[str, float]]:
    """Seconds of each side, and its peak memory."""
    seconds = {side: Samples() for side in ("ours", "polars", "duckdb")}
    peak: dict[str, float] = dict.fromkeys(seconds, 0.0)
    for _ in range(_PROCESSES):
        for side, samples in seconds.items():
            command = [sys.executable, "-m", "benchmarks.training", side, str(folder)]
            ran = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            samples.seconds.append(ran["seconds"])
            peak[side] = max(peak[side], ran["peak_rss_bytes"])
    return seconds, peak


def _no_faster_than_sorting(first: float, rows: int) -> Reach:
    """From the smallest size on, time grows no faster than n log n."""
    smallest, _ = _LARGE[0]
    growth = rows * math.log(rows) / (smallest * math.log(smallest))
    return Reach(
        f"time grows from {smallest:,} rows on by ≤ {growth:.2f} ×, as n log n does",
        lambda result: result.figures["ours"] / first,
        lambda found: found <= growth,
    )


def join_wide(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """4 views × 25 features on 1,000,000 labels, beside four raw joins."""
    rows, labels, views = 1_000_000, 1_000_000, 4
    sources = [make_source(folder / f"view{i}.parquet", rows, 100_000, i, 25) for i in range(views)]
    _make_labels(folder / LABELS, labels, 100_000)
    store = project(folder, "wide", JOIN_WIDE, server.url)
    names = [f"f{i}" for i in range(25)]
    sides = {
        "ours": lambda: _ours(store, folder),
        "polars": lambda: [_polars(folder, source, names) for source in sources],
        "duckdb": lambda: [_duckdb(folder, source, names) for source in sources],
    }
    found = _taking_turns(sides, 3)
    store.close()
    work = f"join {views} views × 25 features, {rows:,} rows each, × {labels:,} labels"
    return [Result.of_samples(work, found, [Reach.at_most(_fastest(found), 1.5)])]


def windows(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """1,000,000 events × 100,000 labels × 6 windows, beside a range join that computes the same.

    The range join looks at every pair of a label and an event of its entity, so it matters how many events those have.
    """
    return [_windows(server, folder / str(entities), entities) for entities in (1_000, 10_000)]


def _windows(server: Server, folder: Path, entities: int) -> Result:
    events, labels = 1_000_000, 100_000
    folder.mkdir()
    chance = np.random.default_rng(2)
    at = np.sort(START_US + chance.integers(0, DAYS * DAY_US, events))
    columns = {"entity_id": pa.array(chance.integers(0, entities, events)), "at": _times(at)}
    pq.write_table(pa.table(columns | {"amount": pa.array(chance.random(events))}), folder / "events.parquet")
    _make_labels(folder / LABELS, labels, entities)
    store = project(folder, f"windows{entities}", WINDOWS, server.url)
    found = _taking_turns({"ours": lambda: _ours(store, folder), "duckdb": lambda: _range_join(folder)}, 3)
    store.close()
    ours, theirs = (pq.read_table(folder / name).sort_by("label") for name in (OUT, f"duckdb-{OUT}"))
    for hours in WINDOW_HOURS:
        same = np.allclose(ours[f"amount_sum_{_shown(hours)}"].to_numpy(), theirs[f"w{hours}"].to_numpy())
        assert same, f"the two sides differ in the window of {hours} hours"
    work = f"windows of {events:,} events of {entities:,} entities × {labels:,} labels × {len(WINDOW_HOURS)} windows"
    return Result.of_samples(work, found, [Reach.at_least("duckdb", 5)])


def _ours(store: FeatureStore, folder: Path) -> None:
    store.get_historical_features(folder / LABELS, "training").write_parquet(folder / OUT)


def _polars(folder: Path, source: Path, names: Sequence[str]) -> None:
    features = pl.scan_parquet(source).select("entity_id", "event_timestamp", *names)
    labels = pl.scan_parquet(folder / LABELS).sort("event_timestamp")
    joined = labels.join_asof(features, on="event_timestamp", by="entity_id", check_sortedness=False)
    joined.collect().write_parquet(folder / f"polars-{OUT}")


def _duckdb(folder: Path, source: Path, names: Sequence[str]) -> None:
    listed = ", ".join(f"f.{name}" for name in names)
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT l.*, {listed} FROM '{folder / LABELS}' l ASOF LEFT JOIN '{source}' f "
            "ON l.entity_id = f.entity_id AND l.event_timestamp >= f.event_timestamp) "
            f"TO '{folder / f'duckdb-{OUT}'}'"
        )


def _range_join(folder: Path) -> None:
    def start(hours: int) -> str:
        hop = hours * 3600 // 48 * 1_000_000
        return f"(epoch_us(l.event_timestamp) - {hours * 3_600_000_000}) // {hop} * {hop}"

    sums = ", ".join(
        f"coalesce(sum(e.amount) FILTER (epoch_us(e.at) >= {start(hours)}), 0) AS w{hours}" for hours in WINDOW_HOURS
    )
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT any_value(l.entity_id) AS entity_id, l.label, {sums} "
            f"FROM '{folder / LABELS}' l LEFT JOIN '{folder / 'events.parquet'}' e ON l.entity_id = e.entity_id "
            f"AND e.at <= l.event_timestamp AND epoch_us(e.at) >= {start(max(WINDOW_HOURS))} GROUP BY l.label) "
            f"TO '{folder / f'duckdb-{OUT}'}'"
        )


def _taking_turns(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, Samples]:
    found = {name: Samples() for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if turn:  # the first is not counted
                found[name].seconds.append(time.perf_counter() - start)
    return found


def _fastest(found: dict[str, Samples]) -> str:
    """The faster one of the raw joins."""
    return min(("polars", "duckdb"), key=lambda side: found[side].p50)


def _make(folder: Path, rows: int, labels: int) -> None:
    # As make_source.py does it: ten rows an entity at the small size.
    entities = max(100_000, rows // 20)
    make_source(folder / "source.parquet", rows, entities)
    _make_labels(folder / LABELS, labels, entities)


def _make_labels(path: Path, count: int, entities: int) -> None:
    chance = np.random.default_rng(1)
    columns = {
        "entity_id": pa.array(chance.integers(0, entities, count)),
        "event_timestamp": _times(START_US + chance.integers(0, DAYS * DAY_US, count)),
        "label": pa.array(np.arange(count)),
    }
    pq.write_table(pa.table(columns), path)


def _times(us: np.ndarray) -> pa.Array:
    return pa.array(us).cast(pa.timestamp("us", tz="UTC"))


def _shown(hours: int) -> str:
    return f"{hours}h" if hours % 24 else f"{hours // 24}d"


def _once(side: str, folder: Path) -> None:
    names, source = [f"f{i}" for i in range(10)], folder / "source.parquet"
    start = time.perf_counter()
    if side == "ours":
        with FeatureStore(folder) as store:
            _ours(store, folder)
    else:
        {"polars": _polars, "duckdb": _duckdb}[side](folder, source, names)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_rss_bytes": _peak_rss()}))


def _peak_rss() -> int:
    """Of this program: getrusage counts what the process was before it became it, the large one that started it."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    _once(sys.argv[1], Path(sys.argv[2]))
