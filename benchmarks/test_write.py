"""Writes of ours: newest wins, rows of 25 floats."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from benchmarks.projects import WRITE, project
from benchmarks.write import ROWS, row_batch

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.server import Server


def test_write_rows(benchmark: Any, redis_server: Server, tmp_path: Path) -> None:
    benchmark.group = f"write {ROWS:,} rows of 25 floats"
    batches = map(row_batch, itertools.count())
    with project(tmp_path, "writing", WRITE, redis_server.url) as store, store.online.writer("left") as writer:
        benchmark.pedantic(writer.write, setup=lambda: ((next(batches),), {}), rounds=10)


def test_write_rows_that_are_older(benchmark: Any, redis_server: Server, tmp_path: Path) -> None:
    benchmark.group = f"write {ROWS:,} rows of 25 floats"
    with project(tmp_path, "older", WRITE, redis_server.url) as store, store.online.writer("left") as writer:
        writer.write(row_batch(1))
        benchmark.pedantic(writer.write, (row_batch(0),), rounds=10)
