"""Timing: sides take turns in one process on chosen cores, so that a disturbance affects all of them."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers.setup_venv import peer_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Block = "Callable[[int], list[float]]"
PEERS = Path(__file__).resolve().parent / "peers"
PEER = PEERS / "feast_peer.py"
WARM_UP = 30


@dataclass
class Samples:
    """Seconds of many calls."""

    seconds: list[float] = field(default_factory=list)

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        """The 99th percentile."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]

    @property
    def tail(self) -> float:
        """How much longer the slow ones take: p99 ÷ p50."""
        return self.p99 / self.p50


def timed(call: Callable[[int], object], iterations: int) -> list[float]:
    """Seconds of each of `call(0)`, `call(1)`, …, after a few that are not counted."""
    clock = time.perf_counter
    for i in range(WARM_UP):
        call(i)
    gc.collect()
    seconds = []
    for i in range(iterations):
        start = clock()
        call(i)
        seconds.append(clock() - start)
    return seconds


def take_turns(
    sides: Mapping[str, Callable[[int], list[float] | None]], iterations: int, rounds: int
) -> dict[str, Samples]:
    """Each side in turn, `iterations` calls a round; a side that returns None cannot be measured here."""
    found = {name: Samples() for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].seconds += side(iterations) or []
    return {name: samples for name, samples in found.items() if samples.seconds}


@contextlib.contextmanager
def frozen() -> Iterator[None]:
    """No collection of garbage looks at the objects of this process that exist now, as docs/guides/serving.md advises.

    Here they are those of all sides and peers. A collection of them took 90 to 200 ms, during which 64 requests waited.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """This process, and those it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def peer(
    address: str, folder: Path, work: str, *options: str, database: int = 1, settings: Sequence[str] = ()
) -> dict[str, Any]:
    """What Feast's side measured of a work; `settings` are options of all works."""
    where = ["--redis", address, "--db", str(database), "--workdir", str(folder / "feast")]
    ran = subprocess.run(
        [str(peer_python()), str(PEER), *where, *settings, work, *options], capture_output=True, text=True
    )
    if ran.returncode:
        raise RuntimeError(f"the peer failed at {work}:\n{ran.stderr[-2000:]}")
    document: dict[str, Any] = json.loads(ran.stdout)
    return document
