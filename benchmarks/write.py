"""Writes: newest wins, rows of 25 floats, one process; and Redis's memory per entity."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.measure import Samples, peer
from benchmarks.projects import READ, STORED, WRITE, fill, project, table
from benchmarks.report import Reach, Result
from feature_store.online.batch import RowBatch, Values

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.server import Server
    from feature_store import FeatureStore

ROWS = 10_000
_ROUNDS = 15
_NAMES = [f"left_{i}" for i in range(25)]


def write(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """Every round's rows are newer than those before, so that every row is written."""
    with project(folder / "write", "writing", WRITE, server.url) as store:
        ours, push = Samples(), Samples()
        with store.online.writer("left") as writer:
            for i in range(_ROUNDS + 1):
                batch = row_batch(i)
                start = time.perf_counter()
                counts = writer.write(batch)
                ours.seconds.append(time.perf_counter() - start)
                assert counts.written == ROWS
        for i in range(_ROUNDS + 1):
            push.seconds.append(_pushed(store, i))
    found = {"ours": Samples(ours.seconds[1:]), "ours, push(table)": Samples(push.seconds[1:])}
    if with_peer:
        feast = peer(server.address, folder, "write", "--rows", str(ROWS), "--rounds", "5")
        found["feast"] = Samples(feast["samples_s"])
    reaches = [Reach.rate(ROWS, 120_000), Reach.at_least("feast", 15)]
    return [Result.of_samples(f"write {ROWS:,} rows of 25 floats, newest wins", found, reaches, rows=ROWS)]


def memory(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """Bytes per entity of 50 floats in 2 views; `server` must be empty."""
    import redis

    with redis.Redis.from_url(server.url) as client, project(folder / "memory", "memory", READ, server.url) as store:
        before = _data_bytes(client)
        fill(store)
        figures = {"ours": (_data_bytes(client) - before) / STORED}
        store.teardown()
    if with_peer:
        figures["feast"] = peer(server.address, folder, "memory")["bytes_per_entity"]
    return [
        Result("Redis memory per entity, 50 floats in 2 views", "bytes", figures, {}, [Reach.at_most("feast", 0.4)])
    ]


def row_batch(minutes: int) -> RowBatch:
    """Rows that are newer the more minutes."""
    at = int((datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)).timestamp() * 1e6)
    times = np.full(ROWS, at)
    values = np.random.default_rng(minutes).random((len(_NAMES), ROWS), np.float32)
    columns = {name: Values(column) for name, column in zip(_NAMES, values, strict=True)}
    return RowBatch({"user_id": np.arange(ROWS)}, times, times, columns)


def _pushed(store: FeatureStore, minutes: int) -> float:
    at = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    rows = table("user_id", np.arange(ROWS), _NAMES, at)
    start = time.perf_counter()
    summary = store.push("left", rows)
    assert summary.written == ROWS
    return time.perf_counter() - start


def _data_bytes(client: object) -> int:
    # Without the clients' buffers, which a burst of writes leaves large for a while.
    info = client.info("memory")  # type: ignore[attr-defined]
    return int(info["used_memory"] - info["mem_clients_normal"])
