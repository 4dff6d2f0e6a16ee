"""Materialize on Spark, local[2]: 2,000,000 source rows → 500,000 entities × 20 features; beside our local engine.

Each side runs in a process of its own, several times on a session that is there: starting Spark is no side's work. The
peer reads with Spark, too, and its executors write.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Samples, peer
from benchmarks.peers.make_source import make_source
from benchmarks.projects import BATCH, project
from benchmarks.report import Reach, Result

if TYPE_CHECKING:
    from benchmarks.server import Server

ROWS, ENTITIES, FEATURES = 2_000_000, 500_000, 20
_ROUNDS, _PEER_ROUNDS = 3, 1
_SPARK = 'spark: {spark.master: "local[2]", spark.ui.enabled: false, spark.driver.memory: 2g}\n'
END = datetime(2026, 12, 31, tzinfo=UTC)


def spark(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """Seconds of a materialization."""
    source = make_source(folder / "batch" / "source.parquet", ROWS, ENTITIES, features=FEATURES)
    found: dict[str, Samples] = {}
    for side, engine in (("ours", "spark"), ("ours, engine local", "local")):
        command = [sys.executable, "-m", "benchmarks.spark", engine, str(source.parent), server.url]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        found[side] = Samples(json.loads(ran.stdout)["seconds"])
    if with_peer:
        options = ["--source", str(source), "--features", str(FEATURES), "--rounds", str(_PEER_ROUNDS)]
        answer = peer(server.address, folder, "materialize-spark", *options)
        assert answer["entities"] == ENTITIES and not answer["wrong_rows"], answer
        found["feast"] = Samples(answer["samples_s"])
    work = f"materialize {ROWS:,} rows → {ENTITIES:,} entities × {FEATURES} features on Spark, local[2]"
    reaches = [Reach.at_most("ours, engine local", 3), Reach.at_least("feast", 5)]
    return [Result.of_samples(work, found, reaches)]


def _once(engine: str, folder: Path, url: str) -> None:
    seconds = []
    stores = []
    for i in range(_ROUNDS + 1):
        store = project(folder, f"{engine}{i}", BATCH.format(features=FEATURES), url, more=_SPARK)
        start = time.perf_counter()
        (summary,) = store.materialize(end=END, engine=engine)
        seconds.append(time.perf_counter() - start)
        assert summary.written == ENTITIES, summary
        store.online.teardown()
        stores.append(store)  # with the first one Spark would stop
    for store in stores:
        store.close()
    print(json.dumps({"seconds": seconds[1:]}))


if __name__ == "__main__":
    _once(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
