"""All measurements, as tables and in docs/benchmarks.md: `python -m benchmarks [--no-peer] [--only read,…]`.

With `--only`, the page's other rows stay as they are.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from rich.console import Console

from benchmarks.answers import answers
from benchmarks.concurrency import concurrency
from benchmarks.imports import imports
from benchmarks.live_windows import live_windows
from benchmarks.materialize import materialize
from benchmarks.measure import on_core
from benchmarks.murr import murr
from benchmarks.near_cache import near_cache
from benchmarks.page import updated
from benchmarks.peers.setup_venv import peer_python
from benchmarks.read import read, read_mixed
from benchmarks.report import machine, table
from benchmarks.served_log import served_log
from benchmarks.server import server
from benchmarks.sources import sources
from benchmarks.spark import spark
from benchmarks.streaming import streaming
from benchmarks.training import join, join_large, join_wide, windows
from benchmarks.usual import usual
from benchmarks.workers import workers
from benchmarks.write import memory, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.report import Result

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
# On one core, a round trip contains no wake-up of another core, which costs more than the read itself on a virtual
# machine and hides the client's work. So one core is the strictest comparison. A model server sees two cores.
TOGETHER, APART = "Reads, client and server on one core", "Reads, client and server on two cores"
REST = "Writes, jobs, memory, import"
READS = {
    "read": read,
    "usual": usual,
    "mixed": read_mixed,
    "answers": answers,
    "murr": murr,
    "near-cache": near_cache,
    "live": live_windows,
    "served-log": served_log,
}
CONCURRENT = "Many requests at once, client and server on the same two cores"
CONCURRENCY = {"concurrency": concurrency}
OTHERS = {"memory": memory, "write": write, "materialize": materialize, "spark": spark, "import": imports}
SOURCE = "Sources, the same rows from each kind"
SOURCES = {"sources": sources}
STREAMING = "Streams, with Apache Kafka on the same two cores"
STREAMS = {"stream": streaming, "workers": workers}
TRAINING = "Training sets, Parquet to Parquet"
TRAININGS = {"join": join, "join-large": join_large, "join-wide": join_wide, "windows": windows}
ALL = [*READS, *CONCURRENCY, *OTHERS, *SOURCES, *STREAMS, *TRAININGS]


def main() -> None:
    """Measure, print, write."""
    arguments = _arguments()
    wanted = arguments.only.split(",") if arguments.only else ALL
    if arguments.peer:
        peer_python()  # made before anything is timed
    console = Console(width=180, highlight=False)
    sections: dict[str, list[Result]] = {}
    for title, core in ((TOGETHER, 0), (APART, 1)):
        with on_core(core):
            _measure(sections, title, {name: READS[name] for name in wanted if name in READS}, 0, arguments.peer)
    _measure(
        sections, CONCURRENT, {name: CONCURRENCY[name] for name in wanted if name in CONCURRENCY}, None, arguments.peer
    )
    _measure(sections, REST, {name: OTHERS[name] for name in wanted if name in OTHERS}, None, arguments.peer)
    _measure(sections, SOURCE, {name: SOURCES[name] for name in wanted if name in SOURCES}, None, arguments.peer)
    _measure(sections, STREAMING, {name: STREAMS[name] for name in wanted if name in STREAMS}, None, arguments.peer)
    _measure(sections, TRAINING, {name: TRAININGS[name] for name in wanted if name in TRAININGS}, None, arguments.peer)
    for title, results in sections.items():
        console.print(table(title, results))
    if arguments.page:
        run, is_whole = f"{datetime.now(UTC):%Y-%m-%d}", set(wanted) == set(ALL) and arguments.peer
        ran_on = [*machine(_server_version()), *([arguments.note] if arguments.note else [])]
        PAGE.write_text(updated(PAGE.read_text(), sections, run, ran_on, is_whole=is_whole))
        console.print(f"written: {PAGE.relative_to(PAGE.parent.parent)}")


def _measure(
    sections: dict[str, list[Result]],
    title: str,
    works: dict[str, Callable[..., list[Result]]],
    core: int | None,
    peer: bool,
) -> None:
    console = Console(stderr=True)
    for name, work in works.items():
        with (
            console.status(f"{title}: {name} …"),
            server(core) as running,
            tempfile.TemporaryDirectory(prefix="fs-bench-") as folder,
        ):
            sections.setdefault(title, []).extend(work(running, Path(folder), with_peer=peer))


def _server_version() -> str:
    with server() as running, redis.Redis.from_url(running.url) as client:
        info = client.info("server")
    return f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info['redis_version']}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure ours, the floors and the peer.")
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="without Feast, whose setup takes minutes")
    parser.add_argument("--only", default="", help=f"some of {','.join(ALL)}; the page's other rows stay")
    parser.add_argument("--no-page", dest="page", action="store_false", help="leave docs/benchmarks.md as it is")
    parser.add_argument("--note", default="", help="what the page says of this run, such as what else ran meanwhile")
    return parser.parse_args()


if __name__ == "__main__":
    main()
