"""Answers as a model server takes them: 200 entities × 50 features as dict, Arrow, pandas and Polars; one as dict.

Each form is timed as the whole request, beside `to_numpy()` of the same request (of texts and lists, which a matrix
does not hold: the request alone) and beside a floor that makes the same form from the bytes of one MGET. The floors
know nothing of views, time to live, nulls, missing rows or plans.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from benchmarks.floor.forms import FormsFloor
from benchmarks.measure import take_turns, timed
from benchmarks.projects import ANSWERS, STORED, project
from benchmarks.report import Reach, Result

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.server import Server
    from feature_store import FeatureStore
    from feature_store.online.response import OnlineResponse

ENTITIES = 200
_ROUNDS = 5
_REQUESTS = 100  # different ones, which all sides ask in turn
# Milliseconds beyond to_numpy that 200 × 50 floats may take.
FORMS = {"to_dict": 0.5, "to_arrow": 0.3, "to_pandas": 0.4, "to_polars": 0.3}


def answers(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """One result per kind of values and form."""
    with project(folder / "answers", "answers", ANSWERS, server.url) as store:
        _fill(store)
        results = _forms(store, server, "numbers", "50 floats")
        results += _forms(store, server, "numbers", "50 floats, 1 row missing", missing=1)
        results += _forms(store, server, "numbers", "50 floats, 20 rows missing", missing=20)
        results += _forms(store, server, "holes", "50 floats, 5 % of them null")
        results += _forms(store, server, "whole", "50 ints")
        results += _forms(store, server, "texts", "50 strings", beside="request")
        results += [_dict(store, server, "numbers", 1, "50 floats in 2 views", Reach.at_most("to_numpy", 2))]
        what = "25 floats, a String and an Array(Float32, 64)"
        results += [_dict(store, server, "profile", ENTITIES, what, Reach.at_most("python floor", 3))]
    return results


def _fill(store: FeatureStore) -> None:
    random_values, ids = np.random.default_rng(0), np.arange(STORED)
    makes: dict[str, Callable[[], Any]] = {
        "Float32": lambda: random_values.random(STORED, np.float32),
        "Int64": lambda: random_values.integers(-(10**6), 10**6, STORED),
        "String": lambda: [f"text {number}" for number in random_values.integers(0, 10**6, STORED)],
        "Array(Float32, 64)": lambda: list(random_values.random((STORED, 64), np.float32)),
    }
    times = pa.array([datetime.now(UTC) - timedelta(minutes=1)] * STORED, pa.timestamp("us", "UTC"))
    for view in store.definitions.feature_views.values():
        nulls = 0.05 if view.name.startswith("holes") else 0.0
        columns = {
            field.name: pa.array(makes[str(field.dtype)](), mask=random_values.random(STORED) < nulls)
            for field in view.fields
        }
        store.push(view.name, pa.table({view.entities[0].join_key: ids, "event_timestamp": times} | columns))


def _forms(
    store: FeatureStore, server: Server, service: str, what: str, *, beside: str = "to_numpy", missing: int = 0
) -> list[Result]:
    asked = _asked(ENTITIES, missing)
    sides = {beside: _timed(store, service, asked, beside)}
    with FormsFloor(store.client.plan(), service, server.address) as floor:
        stored = [floor.keys(ids) for ids in asked]
        for form in FORMS:
            sides[form] = _timed(store, service, asked, form)
            sides[f"floor {form}"] = partial(_timed_floor, getattr(floor, form), stored)
        found = take_turns(sides, 100, _ROUNDS)
    results = []
    for form, most_ms in FORMS.items():
        samples = {"ours": found[form], "python floor": found[f"floor {form}"], beside: found[beside]}
        reaches = [] if what == "50 strings" else [Reach.beyond(beside, most_ms)]
        results.append(Result.of_samples(f"{form}() of {ENTITIES} × {what} in 2 views", samples, reaches))
    return results


def _dict(store: FeatureStore, server: Server, service: str, count: int, what: str, reach: Reach) -> Result:
    asked = _asked(count, 0)
    with FormsFloor(store.client.plan(), service, server.address) as floor:
        stored = [floor.keys(ids) for ids in asked]
        assert _get(store, service, asked[0]).to_dict() == floor.to_dict(stored[0])
        sides = {
            "ours": _timed(store, service, asked, "to_dict"),
            "python floor": partial(_timed_floor, floor.to_dict, stored),
        }
        for other in ("to_numpy", "request"):
            if service == "numbers" or other == "request":
                sides[other] = _timed(store, service, asked, other)
        found = take_turns(sides, 1000 if count == 1 else 100, _ROUNDS)
    return Result.of_samples(f"to_dict() of {count} × {what}", found, [reach])


def _asked(count: int, missing: int) -> list[list[int]]:
    """Requests of keys that are stored, but for the last `missing` ones of each."""
    choose = random.Random(count)
    return [
        choose.sample(range(STORED), count - missing) + list(range(STORED, STORED + missing)) for _ in range(_REQUESTS)
    ]


def _get(store: FeatureStore, service: str, ids: list[int]) -> OnlineResponse:
    return store.client.get_online_features(service, {f"{service}_id": ids})


def _timed(store: FeatureStore, service: str, asked: list[list[int]], form: str) -> Callable[[int], list[float]]:
    """Times requests in a form; as `request` without any."""
    client, requests = store.client, [{f"{service}_id": ids} for ids in asked]

    def read(i: int) -> object:
        response = client.get_online_features(service, requests[i % _REQUESTS])
        return response if form == "request" else getattr(response, form)()

    return lambda number: timed(read, number)


def _timed_floor(read: Callable[[list[bytes]], object], stored: list[list[bytes]], number: int) -> list[float]:
    return timed(lambda i: read(stored[i % _REQUESTS]), number)
