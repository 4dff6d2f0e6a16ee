"""The public harness of murr: 1,000 random keys × 10 float32 of 1,000,000 rows, ids as strings, to a DataFrame.

Beside ours: the floor, which makes the same frame from the bytes of our rows (it writes keys, sends one MGET, and
copies); Valkey as murr's harness reads it, with redis-py, one blob of 40 bytes per row (MGET, numpy) and one hash per
row (a pipeline of HMGET); and murr itself, embedded in a process of its own (`peers/murr_peer.py`).
"""

from __future__ import annotations

import json
import random
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import redis

from benchmarks.floor.forms import Connection
from benchmarks.measure import PEERS, Samples, take_turns, timed
from benchmarks.peers.setup_venv import peer_python
from benchmarks.projects import DOCS, project
from benchmarks.read import row_dtype
from benchmarks.report import Reach, Result
from feature_store.online import keys
from feature_store.online.layout import RowLayout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.server import Server
    from feature_store import FeatureStore

ROWS, KEYS, FEATURES = 1_000_000, 1_000, 10
NAMES = [f"f{i}" for i in range(FEATURES)]
_REQUESTS = 200
_ROUNDS, _CALLS = 5, 100
_WRITTEN = 100_000  # rows of one write


def murr(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """One result."""
    choose = random.Random(1)
    asked = [[str(i) for i in choose.sample(range(ROWS), KEYS)] for _ in range(_REQUESTS)]
    with (
        project(folder / "docs", "docs", DOCS, server.url) as store,
        redis.Redis.from_url(server.url, db=1, protocol=2) as client,
    ):
        _fill(store, client)
        floor = _Floor(store, server)
        sides = {
            "ours": lambda ids: store.client.get_online_features("harness", {"doc_id": ids}).to_pandas(),
            "python floor": floor.read,
            "valkey, blobs": lambda ids: _blobs(client, ids),
            "valkey, hashes": lambda ids: _hashes(client, ids),
        }
        for side in ("python floor", "valkey, blobs", "valkey, hashes"):
            pd.testing.assert_frame_equal(sides["ours"](asked[0]), sides[side](asked[0]))
        found = take_turns({name: _timer(read, asked) for name, read in sides.items()}, _CALLS, _ROUNDS)
        floor.close()
    if with_peer:
        found["murr"] = Samples(_peer(folder)["samples_s"])
    what = f"murr's harness: {KEYS:,} string keys × {FEATURES} float32 of {ROWS:,} rows, to_pandas()"
    return [Result.of_samples(what, found, [Reach.at_most("python floor", 1.3)])]


def _timer(read: Callable[[list[str]], object], asked: list[list[str]]) -> Callable[[int], list[float]]:
    return lambda number: timed(lambda i: read(asked[i % _REQUESTS]), number)


def _fill(store: FeatureStore, client: redis.Redis) -> None:
    random_values, at = np.random.default_rng(0), datetime.now(UTC) - timedelta(minutes=1)
    for start in range(0, ROWS, _WRITTEN):
        ids = [str(i) for i in range(start, min(start + _WRITTEN, ROWS))]
        values = random_values.random((len(ids), FEATURES), np.float32)
        columns = {name: pa.array(column) for name, column in zip(NAMES, values.T, strict=True)}
        times = pa.array([at] * len(ids), pa.timestamp("us", "UTC"))
        store.push("docs", pa.table({"doc_id": ids, "event_timestamp": times} | columns))
        client.mset({f"blob:{key}": row.tobytes() for key, row in zip(ids, values, strict=True)})
        with client.pipeline(transaction=False) as pipe:
            for key, row in zip(ids, values, strict=True):
                pipe.hset(
                    f"hash:{key}", mapping={name: value.tobytes() for name, value in zip(NAMES, row, strict=True)}
                )
            pipe.execute()


def _blobs(client: redis.Redis, ids: list[str]) -> pd.DataFrame:
    values: Any = client.mget([f"blob:{key}" for key in ids])
    return pd.DataFrame(np.frombuffer(b"".join(values), np.float32).reshape(len(ids), FEATURES), columns=NAMES)


def _hashes(client: redis.Redis, ids: list[str]) -> pd.DataFrame:
    with client.pipeline(transaction=False) as pipe:
        for key in ids:
            pipe.hmget(f"hash:{key}", NAMES)
        rows = pipe.execute()
    joined = b"".join([value for row in rows for value in row])
    return pd.DataFrame(np.frombuffer(joined, np.float32).reshape(len(ids), FEATURES), columns=NAMES)


class _Floor:
    """The same frame from the bytes of our rows."""

    def __init__(self, store: FeatureStore, server: Server) -> None:
        layout = RowLayout(store.client.plan().groups[0])
        self._row, [self._block] = row_dtype(layout)
        self._prefix = keys.row_prefix("docs", 0, layout.group)
        self._connection = Connection(server.address)
        self.close = self._connection.close

    def read(self, ids: list[str]) -> pd.DataFrame:
        """A row for each id."""
        prefix = self._prefix
        rows = self._connection.mget([prefix + key.encode() for key in ids])
        return pd.DataFrame(np.frombuffer(b"".join(rows), self._row)[self._block], columns=NAMES)


def _peer(folder: Path) -> dict[str, Any]:
    command = [str(peer_python("murr")), str(PEERS / "murr_peer.py"), "--workdir", str(folder / "murr")]
    command += ["--rows", str(ROWS), "--keys", str(KEYS), "--requests", str(_REQUESTS)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder)  # it makes a folder of its own there
    if ran.returncode:
        raise RuntimeError(f"the peer failed:\n{ran.stderr[-2000:]}")
    document: dict[str, Any] = json.loads(ran.stdout)
    return document
