"""Many requests at once: asyncio with 1, 8 and 64 in flight, threads of one client, and requests with a deadline.

Beside them a program in C (`floor/pipelined.c`) and valkey-glide with asyncio (`peers/glide_peer.py`) send the same
MGETs on one connection, as many in flight, and copy the values into the same matrix. A figure is the time of a turn
divided by its requests; in brackets stands the 99th percentile of the time that a request waited.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from benchmarks.floor.floor import pipelined, pipelined_program
from benchmarks.measure import Samples, frozen, take_turns, timed
from benchmarks.peers.setup_venv import peer_python
from benchmarks.projects import MIXED, READ, STORED, fill, project
from benchmarks.read import row_dtype, row_keys
from benchmarks.report import Reach, Result
from feature_store.online import AsyncOnlineClient, OnlineClient
from feature_store.online.layout import RowLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.server import Server

    Requests = Sequence[Mapping[str, Any]]

PEERS = Path(__file__).parent / "peers"
IN_FLIGHT = (1, 8, 64)
THREADS = 8
_ENTITIES = {1: 4000, 200: 800}  # of a request, and how many requests a turn has
_TURNS = 5
_REQUESTS = 200  # different ones, which all sides ask in turn
# What a side measured: seconds of the whole turn for each request, and seconds of each request.
Turn = tuple[float, list[float]]


def concurrency(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """One result per number of requests in flight, of threads, and for a deadline."""
    programs = {"c floor": pipelined_program()}
    if with_peer:
        programs["valkey-glide"] = [str(peer_python("glide")), str(PEERS / "glide_peer.py")]
    results = []
    with project(folder / "read", "reading", READ, server.url) as store:
        fill(store)
        layout = RowLayout(store.client.plan().groups[0])
        row, blocks = row_dtype(layout)
        for entities, count in _ENTITIES.items():
            choose = random.Random(entities)
            asked = [choose.sample(range(STORED), entities) for _ in range(_REQUESTS)]
            stored = [row_keys(layout, ids, "reading") for ids in asked]
            same = (server.address, stored, row, blocks, count)
            others = {name: partial(pipelined, program, *same) for name, program in programs.items() if program}
            noun = "1 entity" if entities == 1 else f"{entities} entities"
            results += _of_entities(server, f"{noun} × 50 features", [{"user_id": ids} for ids in asked], count, others)
    results.append(_deadline(server, folder))
    return results


def _of_entities(
    server: Server, noun: str, requests: Requests, count: int, others: Mapping[str, Callable[[int], Turn]]
) -> list[Result]:
    results = []
    for flight in IN_FLIGHT:
        sides: dict[str, Callable[[], Turn]] = {
            "ours": lambda flight=flight: asyncio.run(_in_flight(server, requests, flight, count)),
            **{name: partial(other, flight) for name, other in others.items()},
        }
        results.append(_result(f"asyncio, {flight} in flight, {noun}", sides, server, count, flight))
    threads = {
        "ours": lambda: _in_threads(server, requests, THREADS, count),
        "one thread": lambda: _in_threads(server, requests, 1, count),
    }
    results.append(_result(f"{THREADS} threads, one client, {noun}", threads, server, count, 0))
    return results


async def _in_flight(server: Server, requests: Requests, flight: int, count: int) -> Turn:
    seconds: list[float] = []
    numbers = iter(range(count))

    async def ask(i: int) -> None:
        (await client.get_online_features("both", requests[i % _REQUESTS])).to_numpy()

    async def worker() -> None:
        for i in numbers:
            start = time.perf_counter()
            await ask(i)
            seconds.append(time.perf_counter() - start)

    async with AsyncOnlineClient(server.url, "reading", timeout_s=20.0) as client:
        await ask(0)
        await asyncio.gather(*[ask(i) for i in range(flight)])
        start = time.perf_counter()
        await asyncio.gather(*[worker() for _ in range(flight)])
        return (time.perf_counter() - start) / count, seconds


def _in_threads(server: Server, requests: Requests, threads: int, count: int) -> Turn:
    seconds: list[float] = []

    def worker(first: int) -> None:
        for i in range(first, first + count // threads):
            start = time.perf_counter()
            client.get_online_features("both", requests[i % _REQUESTS]).to_numpy()
            seconds.append(time.perf_counter() - start)

    with OnlineClient(server.url, "reading", timeout_s=20.0) as client:
        client.get_online_features("both", requests[0]).to_numpy()
        running = [threading.Thread(target=worker, args=(i * count // threads,)) for i in range(threads)]
        start = time.perf_counter()
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return (time.perf_counter() - start) / len(seconds), seconds


def _result(work: str, sides: Mapping[str, Callable[[], Turn]], server: Server, count: int, flight: int) -> Result:
    """The best turn of each side, the waits of all turns, and the CPU that Redis used for each request."""
    best: dict[str, float] = {}
    waits: dict[str, Samples] = {}
    cpu_s = dict.fromkeys(sides, 0.0)
    with redis.Redis.from_url(server.url) as info:
        for _ in range(_TURNS):
            for name, side in sides.items():
                before = _cpu_s(info)
                with frozen():
                    turn = side()
                cpu_s[name] += _cpu_s(info) - before
                best[name] = min(best.get(name, turn[0]), turn[0])
                waits.setdefault(name, Samples()).seconds.extend(turn[1])
    cpu = {f"CPU of Redis, {name}": cpu_s[name] / (_TURNS * count) for name in best}
    p99s = {name: samples.p99 for name, samples in waits.items()}
    if not flight:
        reaches = [Reach("≥ 1.5 × one thread", lambda result: result.ratio("one thread", "ours"), lambda r: r >= 1.5)]
    else:
        fair = Reach(
            "p99 ≤ 3 × the mean of a fair queue",
            lambda result: result.p99s["ours"] / (flight * result.figures["ours"]),
            lambda ratio: ratio <= 3,
        )
        rates = [_rate("c floor"), _rate("valkey-glide")]
        reaches = [*rates, fair] if flight == max(IN_FLIGHT) else [fair]
    return Result(work, "seconds", {**best, **cpu}, p99s, reaches)


def _rate(side: str) -> Reach:
    return Reach(f"≥ 0.8 × the requests/s of {side}", lambda result: result.ratio(side, "ours"), lambda r: r >= 0.8)


def _deadline(server: Server, folder: Path) -> Result:
    """A user and 200 items, which are two row groups: with a deadline each has a command of its own."""
    with project(folder / "mixed", "mixed", MIXED, server.url) as store:
        fill(store)
        choose = random.Random(1)
        requests = [
            {"user_id": choose.randrange(STORED), "item_id": choose.sample(range(STORED), 200)}
            for _ in range(_REQUESTS)
        ]

        def side(**options: Any) -> Callable[[int], list[float]]:
            def ask(i: int) -> Any:
                return store.client.get_online_features("mixed", requests[i % _REQUESTS], **options).to_numpy()

            return lambda number: timed(ask, number)

        found = take_turns({"ours": side(deadline_ms=10_000), "without": side()}, 300, _TURNS)
    work = "with deadline_ms, 1 user + 200 items, 5 views × 20 features each side"
    return Result.of_samples(work, found, [Reach.at_most("without", 1.25)])


def _cpu_s(client: redis.Redis) -> float:
    info = client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
