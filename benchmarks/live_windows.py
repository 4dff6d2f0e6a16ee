"""Windows of 200 entities, 2 columns × 3 windows of 48 hops, all tiles there, beside a raw MGET of their state.

Each row computes other functions, so that their tiles have other parts. The floor makes keys from the ids, sends one
MGET, lets hiredis take the reply apart, and joins the values: nothing is computed from them.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.floor.forms import Connection
from benchmarks.measure import take_turns, timed
from benchmarks.projects import project
from benchmarks.report import Reach, Result
from feature_store.aggregates.deltas import deltas
from feature_store.online import keys
from feature_store.online.tile_layout import TileValueLayout
from feature_store.online.tile_writer import Merge

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.server import Server
    from feature_store import FeatureStore

ENTITIES = 200
_ROUNDS, _CALLS = 5, 200
# The functions of each stream view, which the service `<view>_served` serves.
FUNCTIONS = {
    "means": ("mean",),
    "sums": ("sum",),
    "counts": ("count",),
    "extremes": ("min", "max"),
    "deviations": ("stddev",),
    "latest": ("last",),
}
DEFINITIONS = f"""
from datetime import timedelta
from feature_store import *
windows = [timedelta(hours=1), timedelta(days=1), timedelta(days=7)]
user = Entity("user", join_key="user_id")
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="ts",
    schema=[Field("user_id", Int64), Field("price", Float64), Field("seconds", Float64)])
for name, functions in {FUNCTIONS!r}.items():
    view = StreamFeatureView(name, entities=[user], source=clicks, aggregations=[
        Aggregation(column, function, windows=windows) for column in ("price", "seconds") for function in functions])
    globals()[name] = view
    globals()[f"{{name}}_served"] = FeatureService(f"{{name}}_served", features=[view])
del view
"""


def live_windows(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """One result for each set of functions."""
    del with_peer
    with project(folder / "live", "live", DEFINITIONS, server.url) as store:
        return [_measured(store, server, name) for name in FUNCTIONS]


def _measured(store: FeatureStore, server: Server, name: str) -> Result:
    now_us = fill_tiles(store, name, ENTITIES)
    client = store.client
    (layout,) = (TileValueLayout(plan) for plan in client.plan().tiles if plan.view == name)
    prefix, ids = layout.prefix("live", 0), list(range(ENTITIES))
    connection = Connection(server.address)

    def ours(_: int) -> Any:
        return client.get_online_features(f"{name}_served", {"user_id": ids}, now=now_us).to_numpy()

    def floor(_: int) -> Any:
        values = connection.mget([prefix + one.to_bytes(8, "big", signed=True) for one in ids])
        return np.frombuffer(b"".join(values), np.uint8)

    assert len(floor(0)) == ENTITIES * layout.size
    assert not np.isnan(ours(0)).any()
    found = take_turns({"ours": partial(timed, ours), "python floor": partial(timed, floor)}, _CALLS, _ROUNDS)
    connection.close()
    functions = " and ".join(FUNCTIONS[name])
    work = (
        f"read windows of {ENTITIES} entities, 2 columns × 3 windows of 48 hops: {functions} ({layout.size:,} B each)"
    )
    return Result.of_samples(work, found, [Reach.at_most("python floor", 1.3)])


def fill_tiles(store: FeatureStore, view: str, entities: int) -> int:
    """An event in every tile of every ring of every entity; returns the time of the last."""
    now_us = time.time_ns() // 1000
    ids = np.arange(entities)
    with store.online.tile_writer(view) as writer:
        encoded = keys.encode(writer.dtypes, [ids])
        at: int | None = None
        for ring in reversed(writer.plan.windows.rings):
            for back in range(ring.slots, -1, -1):
                times = np.full(entities, now_us - back * ring.hop_us)
                ones = np.ones(entities), np.zeros(entities, bool)
                made = deltas(writer.layout.tiles, ids, times, {"price": ones, "seconds": ones})
                counts = np.ones(entities, np.intp)
                writer.merge(Merge(0, encoded, counts, made.records, {"filled:0": (at, (at or 0) + 1)}))
                at = (at or 0) + 1
    return now_us
