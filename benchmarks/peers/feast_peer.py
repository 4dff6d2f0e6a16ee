"""Feast's side of the benchmarks. Runs in the environment that `setup_venv.py` makes; prints one JSON object.

`.venv/bin/python feast_peer.py --redis HOST:PORT --workdir DIR WORK …`, WORK one of those that `--help` lists.

The store is filled and read through Feast's public API. Its defaults are kept, but for the offline store: DuckDB, which
is the faster one at joins (`--offline-store dask` is the default). What Feast offers to go faster can be asked for:
`--client glide`, `--skip-dedup`, `--pull-latest`. What it writes to Redis it removes at the end, but with `--keep`.
"""

import argparse
import gc
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float32
from feast.version import get_version
from redis import Redis

PROJECT = "feast_peer"
VIEWS = ("left", "right")
"""The two views that are read together."""
PRECOMPUTED = "precomputed"
"""The service with `precompute_online=True`, Feast's fast path: one blob for each entity."""
POPULATED = 10_000
"""Entities in the store when reads are timed."""
WARM_UP = 20
"""Requests before the timed ones, so that connections and caches are there."""
FILL_ROWS = 1_000
"""Rows of one call that fills the store."""
SOURCE_START = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE_END = datetime(2026, 2, 1, tzinfo=UTC)
"""What `make_source.py` lies within."""
KIB = 1024
SPARK = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.driver.memory": "2g",
    "spark.sql.session.timeZone": "UTC",
}
"""As ours has it."""


def entity(name: str) -> Entity:
    return Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.INT64)


def columns_of(view: str, features: int) -> list[str]:
    """Names that no other view has, since Feast refuses to serve two features of one name together."""
    return [f"{view}_{i}" for i in range(features)]


def feature_view(
    name: str,
    of: Entity,
    columns: list[str],
    source: Path = Path("none.parquet"),
    kind: Callable[..., Any] = FileSource,
) -> FeatureView:
    return FeatureView(
        name=name,
        entities=[of],
        ttl=timedelta(days=3650),
        schema=[Field(name=column, dtype=Float32) for column in columns],
        source=kind(name=name, path=str(source), timestamp_field="event_timestamp", created_timestamp_column="created"),
    )


@contextmanager
def opened(
    options: argparse.Namespace, *definitions: Entity | FeatureView | FeatureService, **more: Any
) -> Iterator[FeatureStore]:
    """A store with these definitions applied, its registry a file in the working directory; emptied on the way out.

    `more` goes to its configuration.
    """
    options.workdir.mkdir(parents=True, exist_ok=True)
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry=str(options.workdir / "registry.db"),
        repo_path=options.workdir,
        online_store={
            "type": "redis",
            "connection_string": f"{options.redis},db={options.db}",
            "client": options.client,
            "skip_dedup": options.skip_dedup,
        },
        materialization={"pull_latest_features": options.pull_latest},
        **{"offline_store": {"type": options.offline_store}, **more},
    )
    store = FeatureStore(config=config)
    store.apply(list(definitions))
    try:
        yield store
    finally:
        if not options.keep:
            store.teardown()


def frame(entity_name: str, ids: np.ndarray, columns: list[str], seed: int, at: datetime) -> pd.DataFrame:
    """Random values for these entities, all of one event time."""
    values = np.random.default_rng(seed).standard_normal((len(ids), len(columns)), dtype=np.float32)
    return pd.DataFrame(values, columns=columns).assign(
        **{f"{entity_name}_id": ids, "event_timestamp": pd.Timestamp(at), "created": pd.Timestamp(at)}
    )


def fill(store: FeatureStore, view: FeatureView) -> None:
    """Values of the view for all the entities that requests are about."""
    columns = [field.name for field in view.features]
    for start in range(0, POPULATED, FILL_ROWS):
        ids = np.arange(start, start + FILL_ROWS)
        store.write_to_online_store(view.name, frame(view.entities[0], ids, columns, start, datetime.now(UTC)))


def timed(call: Callable[[Any], object], inputs: Sequence[Any], warm_up: int = WARM_UP) -> list[float]:
    """Seconds of each call. The inputs are made beforehand, the garbage collector is left as it is by default."""
    for value in inputs[:warm_up]:
        call(value)
    gc.collect()
    samples: list[float] = []
    for value in inputs:
        start = time.perf_counter()
        call(value)
        samples.append(time.perf_counter() - start)
    return samples


def summary(samples: list[float]) -> dict[str, Any]:
    ordered = sorted(samples)
    return {
        "p50_s": statistics.median(ordered),
        "p99_s": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        "samples_s": samples,
    }


@contextmanager
def two_views(options: argparse.Namespace, *, precomputed: bool = False) -> Iterator[FeatureStore]:
    """50 features in 2 views of one entity, and the store filled with them. `precomputed`: and with their vectors, one
    for each entity, which the service PRECOMPUTED reads."""
    user = entity("user")
    views = [feature_view(name, user, columns_of(name, 25)) for name in VIEWS]
    services = [FeatureService(name=PRECOMPUTED, features=views, precompute_online=True)] if precomputed else []
    with opened(options, user, *views, *services) as store:
        for view in views:
            if not options.reuse:
                fill(store, view)
        if precomputed and not options.reuse:
            store.precompute_feature_service(PRECOMPUTED)
        yield store


def checked(response: dict[str, list[Any]], columns: int, length: int) -> None:
    """A benchmark of a store that answers with nulls would be fast and void."""
    if len(response) != columns or any(len(column) != length or None in column for column in response.values()):
        raise SystemExit(f"feast: expected {columns} columns of {length} values without a null")


def read(options: argparse.Namespace) -> dict[str, Any]:
    features = [f"{view}:{column}" for view in VIEWS for column in columns_of(view, 25)]
    choose = random.Random(1)
    results: dict[str, Any] = {}
    with two_views(options) as store:

        def request(entity_rows: list[dict[str, int]]) -> dict[str, list[Any]]:
            return store.get_online_features(features=features, entity_rows=entity_rows).to_dict()

        for count in options.entities:
            requests = [
                [{"user_id": key} for key in choose.sample(range(POPULATED), count)] for _ in range(options.requests)
            ]
            checked(request(requests[0]), 51, count)
            results[str(count)] = summary(timed(request, requests))
    return {"features": 50, "views": 2, "requests": options.requests, "entities": results}


def read_precomputed(options: argparse.Namespace) -> dict[str, Any]:
    """The reads of `read`, through the service whose vectors are precomputed, and what it answers for keys that are
    repeated, unsorted or missing, beside the usual reads."""
    features = [f"{view}:{column}" for view in VIEWS for column in columns_of(view, 25)]
    choose = random.Random(1)
    results: dict[str, Any] = {}
    with two_views(options, precomputed=True) as store:
        service = store.get_feature_service(PRECOMPUTED)

        def request(entity_rows: list[dict[str, int]]) -> dict[str, list[Any]]:
            # Vectors hold full names. Read by short ones, Feast 0.67 says that there are no vectors.
            return store.get_online_features(
                features=service, entity_rows=entity_rows, full_feature_names=True
            ).to_dict()

        for count in options.entities:
            requests = [
                [{"user_id": key} for key in choose.sample(range(POPULATED), count)] for _ in range(options.requests)
            ]
            checked(request(requests[0]), 51, count)
            results[str(count)] = summary(timed(request, requests))
        wrong = {}
        for what, ids in {
            "sorted": [1, 3, 5, 7],
            "unsorted": [7, 3, 5, 1],
            "repeated": [3, 3, 3, 3],
            "repeated and unsorted": [7, 3, 7, 1],
            "one missing": [1, POPULATED + 1, 5, 7],
        }.items():
            rows = [{"user_id": key} for key in ids]
            usual = store.get_online_features(features=features, entity_rows=rows, full_feature_names=True).to_dict()
            try:
                found = request(rows)
            except Exception as error:
                wrong[what] = f"{type(error).__name__}: {str(error)[:200]}"
                continue
            wrong[what] = sum(
                a != b for name, values in usual.items() for a, b in zip(found[name], values, strict=True)
            )
    return {"features": 50, "views": 2, "requests": options.requests, "entities": results, "wrong_values": wrong}


def read_mixed(options: argparse.Namespace) -> dict[str, Any]:
    sides = [entity("user"), entity("item")]
    views = [
        feature_view(f"{side.name}{i}", side, columns_of(f"{side.name}{i}", 20)) for side in sides for i in range(5)
    ]
    features = [f"{view.name}:{field.name}" for view in views for field in view.features]
    choose = random.Random(1)

    def candidates() -> list[dict[str, int]]:
        user = choose.randrange(POPULATED)
        return [{"user_id": user, "item_id": item} for item in choose.sample(range(POPULATED), options.items)]

    requests = [candidates() for _ in range(options.requests)]
    with opened(options, *sides, *views) as store:

        def request(entity_rows: list[dict[str, int]]) -> dict[str, list[Any]]:
            return store.get_online_features(features=features, entity_rows=entity_rows).to_dict()

        for view in views:
            if not options.reuse:
                fill(store, view)
        checked(request(requests[0]), 202, options.items)
        result = summary(timed(request, requests))
    return {"features": 200, "views": 10, "items": options.items, "requests": options.requests, **result}


def write(options: argparse.Namespace) -> dict[str, Any]:
    user, columns = entity("user"), columns_of("left", 25)
    start = datetime.now(UTC) - timedelta(days=1)
    # Each round is newer than the one before: Feast skips a row that is not.
    frames = [
        frame("user", np.arange(options.rows), columns, i, start + timedelta(minutes=i))
        for i in range(options.rounds + 1)
    ]
    with opened(options, user, feature_view("left", user, columns)) as store:
        store.write_to_online_store("left", frames[0])
        samples = timed(lambda rows: store.write_to_online_store("left", rows), frames[1:], warm_up=0)
    rate = options.rows / statistics.median(samples)
    return {"features": 25, "rows": options.rows, "rows_per_s": rate, **summary(samples)}


def materialize(options: argparse.Namespace) -> dict[str, Any]:
    key, columns = entity("entity"), [f"f{i}" for i in range(10)]
    redis = connect(options)
    with opened(options, key, feature_view("batch", key, columns, options.source.resolve())) as store:
        keys, before = redis.dbsize(), peak_rss()
        start = time.perf_counter()
        store.materialize(SOURCE_START, SOURCE_END)
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "samples_s": [seconds],
            "peak_rss_bytes": peak_rss(),
            "peak_rss_before_bytes": before,
            "entities": redis.dbsize() - keys,
            "wrong_rows": wrong_rows(store, options.source, columns),
        }


def materialize_spark(options: argparse.Namespace) -> dict[str, Any]:
    """Spark reads, and its executors write. It starts with a few rows, which are not timed."""
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

    os.environ["PYSPARK_PYTHON"] = sys.executable  # where executors find Feast
    key, columns = entity("entity"), [f"f{i}" for i in range(options.features)]
    view = feature_view("batch", key, columns, options.source.resolve(), partial(SparkSource, file_format="parquet"))
    configured = {"offline_store": {"type": "spark", "spark_conf": SPARK}, "batch_engine": {"type": "spark.engine"}}
    redis, samples = connect(options), []
    for _ in range(options.rounds):
        with opened(options, key, view, **configured) as store:
            keys = redis.dbsize()
            store.materialize(SOURCE_START, SOURCE_START + timedelta(minutes=10))
            start = time.perf_counter()
            store.materialize(SOURCE_START, SOURCE_END)
            samples.append(time.perf_counter() - start)
            entities = redis.dbsize() - keys
            wrong = wrong_rows(store, options.source, columns)
    return {"samples_s": samples, "entities": entities, "wrong_rows": wrong}


def training(options: argparse.Namespace) -> dict[str, Any]:
    key, columns = entity("entity"), [f"f{i}" for i in range(10)]
    out = options.workdir / "train.parquet"
    samples = []
    with opened(options, key, feature_view("batch", key, columns, options.source.resolve())) as store:
        for _ in range(options.rounds):
            start = time.perf_counter()
            labels = pd.read_parquet(options.labels)
            found = store.get_historical_features(labels, features=[f"batch:{column}" for column in columns])
            pq.write_table(found.to_arrow(), out)
            samples.append(time.perf_counter() - start)
    rows = pq.read_metadata(out).num_rows
    return {"labels": len(labels), "rows": rows, "samples_s": samples, "peak_rss_bytes": peak_rss()}


def wrong_rows(store: FeatureStore, source: Path, columns: list[str], sample: int = 200) -> int:
    """How many of the first entities are not served the source's newest row, by event time and then created time."""
    log = pd.read_parquet(source, filters=[("entity_id", "<", sample)])
    newest = log.sort_values(["event_timestamp", "created"]).groupby("entity_id").tail(1)
    served = store.get_online_features(
        features=[f"batch:{column}" for column in columns],
        entity_rows=[{"entity_id": key} for key in newest["entity_id"].tolist()],
    ).to_df()
    right = np.isclose(served[columns].to_numpy(dtype=np.float32), newest[columns].to_numpy()).all(axis=1)
    return int((~right).sum())


def memory(options: argparse.Namespace) -> dict[str, Any]:
    redis = connect(options)
    if redis.dbsize():
        raise SystemExit("feast: memory is measured on an empty Redis database")
    before = data_bytes(redis)
    with two_views(options):
        after = data_bytes(redis)
    per_entity = (after - before) / POPULATED
    return {"features": 50, "views": 2, "entities": POPULATED, "bytes_per_entity": per_entity}


def data_bytes(redis: Redis) -> int:
    """What Redis uses, but for its clients' buffers, which a burst of writes leaves large for a while."""
    info = redis.info("memory")
    return info["used_memory"] - info["mem_clients_normal"]


def import_time(options: argparse.Namespace) -> dict[str, Any]:
    def run(code: str) -> str:
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    rss = "; print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS')))"
    samples = timed(run, ["import feast"] * options.rounds, warm_up=1)
    bare = timed(run, ["pass"] * options.rounds, warm_up=1)
    return {
        **summary(samples),
        "rss_bytes": int(run("import feast" + rss)) * KIB,
        "python_p50_s": statistics.median(bare),
        "python_rss_bytes": int(run("pass" + rss)) * KIB,
    }


def peak_rss() -> int:
    """Of this process and of the largest child it has waited for."""
    return sum(resource.getrusage(who).ru_maxrss * KIB for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def connect(options: argparse.Namespace) -> Redis:
    host, port = options.redis.rsplit(":", 1)
    return Redis(host, int(port), options.db)


WORKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "read": read,
    "read-precomputed": read_precomputed,
    "read-mixed": read_mixed,
    "write": write,
    "materialize": materialize,
    "materialize-spark": materialize_spark,
    "training": training,
    "memory": memory,
    "import": import_time,
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time Feast; print one JSON object.")
    parser.add_argument("--redis", default="127.0.0.1:6379", metavar="HOST:PORT")
    parser.add_argument("--db", type=int, default=0, help="number of the Redis database")
    parser.add_argument("--workdir", type=Path, required=True, help="for the registry; made if it is not there")
    parser.add_argument("--client", choices=["redis", "glide"], default="redis", help="what Feast reads Redis with")
    parser.add_argument("--skip-dedup", action="store_true", help="let Feast write without looking for newer rows")
    parser.add_argument("--offline-store", choices=["duckdb", "dask"], default="duckdb")
    parser.add_argument("--pull-latest", action="store_true", help="let the offline store find the newest rows")
    parser.add_argument("--keep", action="store_true", help="leave the data in Redis")
    parser.add_argument("--reuse", action="store_true", help="read what an earlier call of the same work kept")
    works = parser.add_subparsers(dest="work", required=True)
    work = works.add_parser("read", help="50 features in 2 views of one entity")
    work.add_argument("--entities", type=lambda text: [int(n) for n in text.split(",")], default=[1, 10, 200, 1000])
    work.add_argument("--requests", type=int, default=200)
    work = works.add_parser("read-precomputed", help="the same, from precomputed vectors")
    work.add_argument("--entities", type=lambda text: [int(n) for n in text.split(",")], default=[1, 200])
    work.add_argument("--requests", type=int, default=200)
    work = works.add_parser("read-mixed", help="1 user and 200 items, 5 views of 20 features on each side")
    work.add_argument("--items", type=int, default=200)
    work.add_argument("--requests", type=int, default=50)
    work = works.add_parser("write", help="25 features a row with write_to_online_store")
    work.add_argument("--rows", type=int, default=10_000)
    work.add_argument("--rounds", type=int, default=5)
    work = works.add_parser("materialize", help="the file that make_source.py made")
    work.add_argument("--source", type=Path, required=True)
    work = works.add_parser("materialize-spark", help="that file, read and written by Spark")
    work.add_argument("--source", type=Path, required=True)
    work.add_argument("--features", type=int, default=20)
    work.add_argument("--rounds", type=int, default=1)
    work = works.add_parser("training", help="a training set from that file and a file of labels")
    work.add_argument("--source", type=Path, required=True)
    work.add_argument("--labels", type=Path, required=True)
    work.add_argument("--rounds", type=int, default=2)
    works.add_parser("memory", help="Redis memory of 10,000 entities of 50 features")
    work = works.add_parser("import", help="time and memory of `import feast`")
    work.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def main() -> None:
    options = parse()
    options.workdir = options.workdir.resolve()
    answer = os.dup(1)
    os.dup2(2, 1)  # Feast prints its progress on stdout, which is for the answer alone
    versions = {"feast": get_version(), "python": sys.version.split()[0]}
    settings = {"client": options.client, "skip_dedup": options.skip_dedup, "offline_store": options.offline_store}
    result = WORKS[options.work](options)
    with os.fdopen(answer, "w") as stdout:
        json.dump({"work": options.work, **versions, **settings, "pull_latest": options.pull_latest, **result}, stdout)
        stdout.write("\n")


if __name__ == "__main__":
    main()
