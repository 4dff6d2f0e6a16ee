"""murr's side of its public harness. Runs in the environment of `setup_venv.py murr`; prints one JSON object.

`.venv-murr/bin/python murr_peer.py --workdir DIR --rows N --keys N --requests N`

murr runs inside of this process: its read crosses no socket, and its rows are in files of `workdir`, in the page cache.
"""

import argparse
import gc
import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from murr import ColumnSchema, DType, TableSchema
from murr.sync import Murr

FEATURES = 10
WRITTEN_ROWS = 100_000
"""Rows of one write."""
WARM_UP = 20


def main() -> None:
    parser = argparse.ArgumentParser(description="Time murr; print one JSON object.")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args()
    options.workdir.mkdir(parents=True, exist_ok=True)
    names = [f"f{i}" for i in range(FEATURES)]
    columns = {"id": ColumnSchema(dtype=DType.UTF8, nullable=False)}
    columns |= {name: ColumnSchema(dtype=DType.FLOAT32) for name in names}
    store = Murr.start_local(cache_dir=str(options.workdir))
    store.create_table(
        "docs", TableSchema(key="id", columns=columns | {n: ColumnSchema(dtype=DType.FLOAT32) for n in names})
    )
    values = np.random.default_rng(0)
    for start in range(0, options.rows, WRITTEN_ROWS):
        ids = [str(i) for i in range(start, min(start + WRITTEN_ROWS, options.rows))]
        written = {name: values.random(len(ids), np.float32) for name in names}
        store.write("docs", pa.table({"id": ids} | written))
    choose = random.Random(1)
    requests = [[str(i) for i in choose.sample(range(options.rows), options.keys)] for _ in range(options.requests)]

    def read(keys: list[str]) -> object:
        return store.read("docs", keys, names).to_pandas()

    first = read(requests[0])
    if first.shape != (options.keys, FEATURES) or first.isna().any().any():
        raise SystemExit(f"murr: expected {options.keys} rows without a null, got {first.shape}")
    for keys in requests[:WARM_UP]:
        read(keys)
    gc.collect()
    samples = []
    for keys in requests:
        start = time.perf_counter()
        read(keys)
        samples.append(time.perf_counter() - start)
    json.dump({"samples_s": samples}, sys.stdout)


if __name__ == "__main__":
    main()
