"""The cost of the served log for a read of 1 user + 200 items × 55 features: off, at 10 % and at 100 %."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Samples, take_turns, timed
from benchmarks.projects import STORED, fill, project
from benchmarks.report import Reach, Result
from feature_store.monitoring import ParquetSink, ServedLog
from feature_store.online import OnlineClient

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.server import Server

# 3 views of 5 features of a user, and 2 of 20 of an item.
RANKING = """
from datetime import timedelta
from feature_store import *
user, item = Entity("user", join_key="user_id"), Entity("item", join_key="item_id")
def view(name, entity, features):
    return FeatureView(name, entities=[entity], ttl=timedelta(days=7),
                       schema=[Field(f"{name}_{j}", Float32) for j in range(features)])
views = [view(f"user{i}", user, 5) for i in range(3)] + [view(f"item{i}", item, 20) for i in range(2)]
globals().update({view.name: view for view in views})
ranking = FeatureService("ranking", features=views)
"""
ITEMS, FEATURES = 200, 55
_REQUESTS, _ITERATIONS, _ROUNDS = 200, 2_000, 7


def served_log(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """The sides take turns in one process; what a side has logged is written before the next begins."""
    choose = random.Random(1)
    requests = [
        {"user_id": choose.randrange(STORED), "item_id": choose.sample(range(STORED), ITEMS)} for _ in range(_REQUESTS)
    ]
    with project(folder / "logged", "logged", RANKING, server.url) as store:
        fill(store)
        logs = {
            "10 %": ServedLog(ParquetSink(folder / "tenth"), 0.1),
            "100 %": ServedLog(ParquetSink(folder / "all"), 1.0),
        }
        clients = {name: OnlineClient(server.url, "logged", observers=[log]) for name, log in logs.items()}
        clients = {"ours": OnlineClient(server.url, "logged"), **clients}
        fields = {"position": list(range(ITEMS))}

        def side(name: str) -> Any:
            def run(number: int) -> list[float]:
                def read(i: int) -> Any:
                    asked = requests[i % _REQUESTS]
                    found = clients[name].get_online_features("ranking", asked, request_id=str(i), log_fields=fields)
                    return found.to_numpy()

                seconds = timed(read, number)
                if name in logs:
                    logs[name].flush(60)
                return seconds

            return run

        found: dict[str, Samples] = take_turns({name: side(name) for name in clients}, _ITERATIONS, _ROUNDS)
        for log in logs.values():
            log.close()
            assert log.counts.failed == 0
        for client in clients.values():
            client.close()
        dropped = sum(log.counts.dropped for log in logs.values())
    work = f"read 1 user + {ITEMS} items × {FEATURES} features, and log it" + (
        f"; {dropped:,} dropped" if dropped else ""
    )
    return [Result.of_samples(work, found, [_at_most("10 %", 1.03), _at_most("100 %", 1.10)])]


def _at_most(side: str, times: float) -> Reach:
    return Reach(f"{side} logged: ≤ {times:g} × none", lambda r: r.ratio(side, "ours"), lambda ratio: ratio <= times)
