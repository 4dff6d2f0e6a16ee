"""Reads: n entities × 50 features in 2 views, and 1 user + 200 items × 5 views × 20 features on each side."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.floor.floor import PythonFloor, c_floor
from benchmarks.measure import Samples, peer, take_turns, timed
from benchmarks.projects import MIXED, READ, STORED, fill, project
from benchmarks.report import Reach, Result
from feature_store.online import keys
from feature_store.online.layout import RowLayout

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.server import Server
    from feature_store import FeatureStore

ENTITIES = (1, 10, 200, 1000)
ITEMS = 200
_ROUNDS = 5
_REQUESTS = 200  # different ones, which all sides ask in turn


def iterations(rows: int) -> int:
    """The number of calls in a round, so that rounds of few and of many rows take about the same time."""
    return {1: 2000, 10: 1500, 200: 800}.get(rows, 200)


def read(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """One result per number of entities."""
    with project(folder / "read", "reading", READ, server.url) as store:
        fill(store)
        feast: dict[str, dict[str, Any]] = {}
        if with_peer:
            for side, work in (("feast", "read"), ("feast precomputed", "read-precomputed")):
                counts = ",".join(map(str, ENTITIES))
                asked = peer(server.address, folder, work, "--entities", counts, "--requests", "100")
                feast[side] = asked["entities"]
        return [_read(store, server, count, {side: of[str(count)] for side, of in feast.items()}) for count in ENTITIES]


def _read(store: FeatureStore, server: Server, count: int, feast: dict[str, Any]) -> Result:
    choose = random.Random(count)
    asked = [choose.sample(range(STORED), count) for _ in range(_REQUESTS)]
    requests = [{"user_id": ids} for ids in asked]
    client, layout = store.client, RowLayout(store.client.plan().groups[0])
    stored = [row_keys(layout, ids, "reading") for ids in asked]
    row, blocks = row_dtype(layout)
    floor = PythonFloor(server.address, row, blocks)

    def ours(number: int) -> list[float]:
        return timed(lambda i: client.get_online_features("both", requests[i % _REQUESTS]).to_numpy(), number)

    sides = {
        "ours": ours,
        "python floor": lambda number: timed(lambda i: floor.read(stored[i % _REQUESTS]), number),
        "c floor": lambda number: c_floor(server.address, stored, row, blocks, number),
    }
    assert np.array_equal(client.get_online_features("both", requests[0]).to_numpy(), floor.read(stored[0]))
    found = take_turns(sides, iterations(count), _ROUNDS)
    floor.close()
    for side, measured in feast.items():
        found[side] = Samples(measured["samples_s"])
    reaches = []
    if count == 1:
        reaches = [Reach.at_most("c floor", 2.5), Reach.at_least("feast", 15)]
    elif count == 200:
        reaches = [Reach.at_most("python floor", 1.5), Reach.at_most("c floor", 2), Reach.at_least("feast", 100)]
    if reaches:
        reaches.append(Reach.tail("python floor", 1.5))
    noun = "entity" if count == 1 else "entities"
    return Result.of_samples(f"read {count} {noun} × 50 features in 2 views", found, reaches)


def read_mixed(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """A user and candidates, as a ranking request asks for them."""
    with project(folder / "mixed", "mixed", MIXED, server.url) as store:
        fill(store)
        client = store.client
        choose = random.Random(1)
        asked = [(choose.randrange(STORED), choose.sample(range(STORED), ITEMS)) for _ in range(_REQUESTS)]
        requests = [{"user_id": user, "item_id": items} for user, items in asked]
        groups = {group.name: RowLayout(group) for group in client.plan().groups}
        user, item = groups["user"], groups["item"]
        stored = [row_keys(user, [one], "mixed") + row_keys(item, items, "mixed") for one, items in asked]
        row, blocks = row_dtype(item)
        floor = PythonFloor(server.address, row, blocks)
        assert np.array_equal(client.get_online_features("mixed", requests[0]).to_numpy(), floor.read_mixed(stored[0]))
        sides = {
            "ours": lambda number: timed(
                lambda i: client.get_online_features("mixed", requests[i % _REQUESTS]).to_numpy(), number
            ),
            "python floor": lambda number: timed(lambda i: floor.read_mixed(stored[i % _REQUESTS]), number),
            "c floor": lambda number: c_floor(server.address, stored, row, blocks, number),
        }
        found = take_turns(sides, iterations(ITEMS), _ROUNDS)
        floor.close()
        if with_peer:
            feast = peer(server.address, folder, "read-mixed", "--items", str(ITEMS), "--requests", "50")
            found["feast"] = Samples(feast["samples_s"])
        reaches = [Reach.at_most("python floor", 1.6), Reach.tail("python floor", 1.5)]
        return [Result.of_samples(f"read 1 user + {ITEMS} items, 5 views × 20 features each side", found, reaches)]


def row_dtype(layout: RowLayout) -> tuple[np.dtype[Any], list[str]]:
    """A row as the floors read it: one block of float32 per view."""
    names, formats, offsets = [], [], []
    for segment in layout.segments.values():
        names.append(segment.view)
        formats.append(("<f4", (len(segment.fields),)))
        offsets.append(segment.offset + min(field.offset for field in segment.fields.values()))
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": layout.size}), names


def row_keys(layout: RowLayout, ids: list[int], name: str) -> list[bytes]:
    prefix = keys.row_prefix(name, 0, layout.group)
    return [prefix + key for key in keys.encode([dtype for _, dtype in layout.join_keys], [np.array(ids)])]
