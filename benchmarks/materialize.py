"""Materialize 1,000,000 source rows → 100,000 entities × 10 features, each run in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Samples, peer
from benchmarks.projects import MATERIALIZE, project
from benchmarks.report import Reach, Result
from feature_store import FeatureStore

if TYPE_CHECKING:
    from benchmarks.server import Server

ROWS, ENTITIES = 1_000_000, 100_000
_ROUNDS, _PEER_ROUNDS = 5, 2
_HERE = Path(__file__).resolve().parent


def materialize(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """Seconds, and peak memory of the process."""
    source = folder / "batch" / "source.parquet"
    source.parent.mkdir(parents=True, exist_ok=True)
    make = [sys.executable, str(_HERE / "peers" / "make_source.py"), str(source)]
    subprocess.run([*make, "--rows", str(ROWS), "--entities", str(ENTITIES)], check=True, stdout=subprocess.DEVNULL)
    seconds: dict[str, Samples] = {"ours": Samples()}
    peak = {"ours": 0.0}
    for i in range(_ROUNDS):
        store = project(source.parent, f"batch{i}", MATERIALIZE, server.url)
        store.close()
        ran = subprocess.run(
            [sys.executable, "-m", "benchmarks.materialize", str(source.parent)], check=True, capture_output=True
        )
        answer = json.loads(ran.stdout)
        assert answer["written"] == ENTITIES, answer
        seconds["ours"].seconds.append(answer["seconds"])
        peak["ours"] = max(peak["ours"], answer["peak_rss_bytes"])
    if with_peer:
        seconds["feast"], peak["feast"] = Samples(), 0.0
        for _ in range(_PEER_ROUNDS):
            feast = peer(server.address, folder, "materialize", "--source", str(source))
            seconds["feast"].seconds.append(feast["seconds"])
            peak["feast"] = max(peak["feast"], feast["peak_rss_bytes"])
    work = f"materialize {ROWS:,} rows → {ENTITIES:,} entities × 10 features"
    return [
        Result.of_samples(work, seconds, [Reach.at_least("feast", 10)]),
        Result(f"{work}: peak RSS", "bytes", peak, {}, [Reach.figure(1e9)]),
    ]


def _once(folder: Path) -> None:
    with FeatureStore(folder) as store:
        start = time.perf_counter()
        (summary,) = store.materialize(end=datetime(2026, 12, 31, tzinfo=UTC))
        seconds = time.perf_counter() - start
    # ru_maxrss starts at the parent's memory at the fork.
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
    print(json.dumps({"seconds": seconds, "written": summary.written, "peak_rss_bytes": peak}))


if __name__ == "__main__":
    _once(Path(sys.argv[1]))
