"""The usual request: 200 entities × 50 floats in 2 views unless said, beside a raw MGET of the same keys.

Recommenders have string ids, cold items and keys of two columns. Each row asks for one such thing alone. A floor makes
its keys from the ids as a caller has them, sends one MGET, lets hiredis take the reply apart, and ends with the same
matrix. It knows nothing of views, time to live or plans. CPU is what Redis itself says it used, for each request.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import redis

from benchmarks.floor.floor import PythonFloor
from benchmarks.measure import WARM_UP, Samples, timed
from benchmarks.projects import READ, STORED, project, table
from benchmarks.read import row_dtype
from benchmarks.report import Reach, Result
from feature_store.online import keys
from feature_store.online.layout import RowLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.server import Server
    from feature_store import FeatureStore
    from feature_store.online.layout import ValueLayout

    Ids = Sequence[Any]

ENTITIES = 200
BUCKETS = 16
_ROUNDS, _CALLS = 5, 200
_REQUESTS = 100  # different ones, which all sides ask in turn
STRINGS = READ.replace('join_key="user_id"', 'join_key="user_id", dtype=String')
COMPOSITE = READ.replace("views =", 'item = Entity("item", join_key="item_id", dtype=String)\nviews =', 1).replace(
    "entities=[user]", "entities=[user, item]"
)
TEXTS = """from datetime import timedelta
from feature_store import *
user = Entity("user", join_key="user_id")
profile = FeatureView("profile", entities=[user], ttl=timedelta(days=7), schema=[
    *[Field(f"profile_{i}", Float32) for i in range(25)], Field("title", String), Field("vector", Array(Float32, 64))])
both = FeatureService("both", features=[profile])
"""


@dataclass(frozen=True)
class Usual:
    """One kind of request.

    Attributes:
        work: what is asked.
        name: the project; those of one name are stored once.
        definitions: of the project.
        ids: the ids of one request, of so many rows as asked.
        rows: ids → entity rows.
        key: the entity key of one id, as a caller writes it by hand.
        count: how many ids a request has.
        buckets: of the project.
        most: how many times the floor's time is wanted at most; None: any.
        answer: the method of the response that is asked for.
    """

    work: str
    name: str
    definitions: str
    ids: Callable[[random.Random, int], Ids]
    rows: Callable[[Ids], Mapping[str, Any]]
    key: Callable[[Any], bytes]
    count: int = ENTITIES
    buckets: int = 1
    most: float | None = 1.4
    answer: str = "to_numpy"


def usual(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """One result per kind of request."""
    del with_peer
    results = []
    stores: dict[str, FeatureStore] = {}
    try:
        for case in CASES:
            if case.name not in stores:
                more = f"  buckets: {case.buckets}\n" if case.buckets > 1 else ""
                stores[case.name] = project(folder / case.name, case.name, case.definitions, server.url, more)
                _fill(stores[case.name])
            results.append(_measured(case, stores[case.name], server))
    finally:
        for store in stores.values():
            store.close()
    return results


def _measured(case: Usual, store: FeatureStore, server: Server) -> Result:
    client, layout = store.client, RowLayout(store.client.plan().groups[0])
    choose = random.Random(1)
    asked = [case.ids(choose, case.count) for _ in range(_REQUESTS)]
    requests = [case.rows(ids) for ids in asked]
    key_of = _key_of(layout, case.name, case.key, case.buckets)
    floor = SparseFloor(server.address, layout)

    def ours(i: int) -> Any:
        return getattr(client.get_online_features("both", requests[i % _REQUESTS]), case.answer)()

    def raw(i: int) -> Any:
        return floor.read([key_of(one) for one in asked[i % _REQUESTS]])

    if case.answer == "to_numpy":
        assert np.array_equal(ours(0), raw(0), equal_nan=True), case.work
    else:  # the variable values too, of which the floor makes nothing
        views = keys.variable_prefix(case.name, 0, layout.group, "profile")
        raw = _with_variables(floor, asked, key_of, views)
    result = _in_turns(case.work, {"ours": ours, "python floor": raw}, server, case.most)
    floor.close()
    return result


class SparseFloor(PythonFloor):
    """A floor for rows of which some are missing: those are NaN."""

    def __init__(self, address: str, layout: RowLayout) -> None:
        row, blocks = row_dtype(layout)
        super().__init__(address, row, blocks)
        blank = np.zeros(1, row)
        for name in blocks:
            blank[name] = np.nan
        self._blank = blank.tobytes()

    def _rows(self, keys: list[bytes]) -> Any:
        replies, blank = self.values(keys), self._blank
        return np.frombuffer(b"".join([blank if reply is None else reply for reply in replies]), self._row_dtype)


def _with_variables(
    floor: SparseFloor, asked: list[Ids], key_of: Callable[[Any], bytes], prefix: bytes
) -> Callable[[int], Any]:
    def raw(i: int) -> Any:
        ids = asked[i % _REQUESTS]
        stored = floor.values([key_of(one) for one in ids] + [prefix + _integer(one) for one in ids])
        return np.frombuffer(b"".join(stored[: len(ids)]), np.uint8)

    return raw


def _key_of(layout: ValueLayout, name: str, key: Callable[[Any], bytes], buckets: int) -> Callable[[Any], bytes]:
    prefixes = [layout.prefix(name, bucket) for bucket in range(buckets)]
    if buckets == 1:
        prefix = prefixes[0]
        return lambda one: prefix + key(one)

    def of_bucket(one: Any) -> bytes:
        entity = key(one)
        return prefixes[zlib.crc32(entity) % buckets] + entity

    return of_bucket


def _in_turns(work: str, sides: Mapping[str, Callable[[int], Any]], server: Server, most: float | None) -> Result:
    """Sides in turn; after each turn Redis says how much CPU it used."""
    found = {name: Samples() for name in sides}
    used_s = dict.fromkeys(sides, 0.0)
    with redis.Redis.from_url(server.url) as info:
        for _ in range(_ROUNDS):
            for name, side in sides.items():
                before = cpu_s(info)
                found[name].seconds += timed(side, _CALLS)
                used_s[name] += cpu_s(info) - before
    calls = _ROUNDS * (_CALLS + WARM_UP)
    reaches = [Reach.tail("python floor", 1.5)]
    if most is not None:
        reaches.insert(0, Reach.at_most("python floor", most))
    result = Result.of_samples(work, found, reaches)
    cpu = {f"CPU of Redis, {name}": seconds / calls for name, seconds in used_s.items()}
    return Result(work, result.unit, {**result.figures, **cpu}, result.p99s, result.reaches)


def cpu_s(client: redis.Redis) -> float:
    """Seconds of CPU that Redis has used since it began."""
    info = client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


# -- ids, keys and what is stored ---------------------------------------------------------------------------------


def _fill(store: FeatureStore) -> None:
    """`STORED` random rows of every view: entity i is user i, or `user-i`; of two columns user i and item `item-i`."""
    ids = np.arange(STORED)
    for view in store.definitions.feature_views.values():
        floats = [field.name for field in view.fields if str(field.dtype) == "Float32"]
        rows = table("user_id", ids, floats)
        for i, entity in enumerate(view.entities):
            if str(entity.dtype) == "String":
                texts = pa.array([f"{entity.name}-{one}" for one in ids.tolist()])
                rows = (
                    rows.set_column(0, entity.join_key, texts) if not i else rows.append_column(entity.join_key, texts)
                )
        for field in view.fields:
            if field.name == "title":
                rows = rows.append_column("title", pa.array([f"title of user {one}" for one in ids.tolist()]))
            elif field.name == "vector":
                numbers = np.random.default_rng(1).random(64 * STORED, np.float32)
                rows = rows.append_column("vector", pa.FixedSizeListArray.from_arrays(pa.array(numbers), 64))
        store.push(view.name, rows)


def _integer(one: int) -> bytes:
    return one.to_bytes(8, "big", signed=True)


def _pair(one: tuple[int, str]) -> bytes:
    text = one[1].encode()
    return one[0].to_bytes(8, "big", signed=True) + len(text).to_bytes(4, "big") + text


def _some(missing: int) -> Callable[[random.Random, int], Ids]:
    """Ids, of which so many are not stored; they stand anywhere."""

    def ids(choose: random.Random, count: int) -> list[int]:
        chosen = choose.sample(range(STORED), count - missing)
        chosen += choose.sample(range(STORED, 2 * STORED), missing)
        choose.shuffle(chosen)
        return chosen

    return ids


def _users(ids: Ids) -> Mapping[str, Any]:
    return {"user_id": list(ids)}


def _texts(choose: random.Random, count: int) -> Ids:
    return [f"user-{one}" for one in choose.sample(range(STORED), count)]


def _pairs(choose: random.Random, count: int) -> Ids:
    return [(one, f"item-{one}") for one in choose.sample(range(STORED), count)]


def _columns(ids: Ids) -> Mapping[str, Any]:
    return {"user_id": [one for one, _ in ids], "item_id": [text for _, text in ids]}


CASES = [
    Usual("1 integer key", "integers", READ, _some(0), _users, _integer, count=1, most=None),
    Usual("integer keys", "integers", READ, _some(0), _users, _integer),
    Usual("1 row missing", "integers", READ, _some(1), _users, _integer),
    Usual("20 rows missing", "integers", READ, _some(20), _users, _integer),
    Usual("all rows missing", "integers", READ, _some(200), _users, _integer),
    Usual("string keys", "strings", STRINGS, _texts, _users, str.encode),
    Usual("keys of an integer and a string", "composite", COMPOSITE, _pairs, _columns, _pair),
    Usual("16 buckets on one node", "buckets", READ, _some(0), _users, _integer, buckets=BUCKETS),
    Usual(
        "25 floats, String, Array(Float32, 64), to_dict",
        "texts",
        TEXTS,
        _some(0),
        _users,
        _integer,
        most=3,
        answer="to_dict",
    ),
]
